"""Whether what is derived from the rows has kept up with them, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mirai_memory import Knowledge, MemoryManager, Message
from mirai_memory.health import Check

Look = Callable[..., dict[str, Check]]


@pytest.fixture
def filled(url: str) -> str:
    with MemoryManager(url) as memory:
        session = memory.create_session("alice")
        memory.add_messages([Message(session_id=session.id, role="user", content=f"text {n}") for n in range(5)])
        memory.add_knowledge(Knowledge(key="city", value="Kazan"))
        memory.add_knowledge(Knowledge(key="city", value="Perm"))  # the first value is no longer found by words
        memory.delete_message(session_message(memory, session.id))
    return url


def session_message(memory: MemoryManager, session_id: str) -> int:
    id = memory.get_messages(session_id)[2].id
    assert id is not None
    return id


def _execute(url: str, *statements: str) -> None:
    def run(uow: Any) -> None:
        place = "mirai_memory." if uow.db.dialect.name == "postgresql" else ""
        for statement in statements:
            uow.db.exec_driver_sql(statement.replace("~", place))

    with MemoryManager(url) as memory:
        memory.run(run)


def test_an_index_in_step(look: Look, filled: str) -> None:
    index = look(filled)["word_index"]
    assert (index.status, index.detail) == ("ok", "5 texts in it")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM ~word_messages WHERE rowid <= 2", "2 messages not in it"),
        ("DELETE FROM ~word_knowledge", "1 fact not in it"),
        ("DELETE FROM ~messages WHERE id = 1", "1 message gone but still in it"),
        ("UPDATE ~knowledge SET superseded_at = updated_at WHERE superseded_at IS NULL", "1 fact gone but still in it"),
    ],
)
def test_an_index_out_of_step(look: Look, filled: str, statement: str, words: str) -> None:
    _execute(filled, statement)
    index = look(filled)["word_index"]
    assert (index.status, index.detail) == ("error", words)
    # What it advises does help.
    assert "repair --yes" in str(index.advice)
    with MemoryManager(filled) as memory:
        memory.repair()
    assert look(filled)["word_index"].status == "ok"


def test_equal_numbers_are_not_taken_for_equal_texts(look: Look, filled: str) -> None:
    _execute(filled, "UPDATE ~messages SET kind = 'item' WHERE id = 1", "DELETE FROM ~word_messages WHERE rowid = 2")
    _execute(filled, "DELETE FROM ~messages WHERE id = 5")
    assert look(filled)["word_index"].detail == "1 message not in it, 2 messages gone but still in it"


def test_an_index_of_another_analyser_is_made_anew_by_the_next_opening(look: Look, filled: str) -> None:
    _execute(filled, "UPDATE ~memory_state SET value = 'older' WHERE name = 'analyzer_version'")
    assert look(filled)["word_index"].status == "warning"
    MemoryManager(filled).close()
    assert look(filled)["word_index"].status == "ok"


VECTOR = (
    "INSERT INTO ~embeddings (kind, item_id, user_id, model, dim, content_hash, status)"
    " VALUES ('message', {item}, 'alice', 'm', 0, 'h', '{status}')"
)


def test_vectors_that_failed_are_told(look: Look, filled: str) -> None:
    assert look(filled)["vectors"].detail == "0 pending, none failed"
    _execute(filled, VECTOR.format(item=1, status="failed"), VECTOR.format(item=2, status="pending"))
    vectors = look(filled)["vectors"]
    assert (vectors.status, vectors.detail) == ("warning", "1 pending, 1 failed")


@pytest.mark.parametrize(("embedder", "status"), [("none", "warning"), ("openai", "ok")])
def test_vectors_that_wait_for_an_embedder_need_one(look: Look, filled: str, embedder: str, status: str) -> None:
    _execute(filled, VECTOR.format(item=1, status="pending"))
    assert look(filled, memory={"rag": {"embedder": embedder}})["vectors"].status == status
