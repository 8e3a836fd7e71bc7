"""One message by one statement, on PostgreSQL: the same rows as by several, and no fewer refusals."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from mirai_memory import InvalidInput, MemoryManager, Message, NotFound, load_settings
from mirai_memory.search.postgres import PostgresIndex
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "The walrus likes tea, tea and tea!"},
    {"role": "user", "content": "Моржи любят чай ёлку", "name": "Анна", "metadata": {"канал": "чат", "n": [1, None]}},
    {"role": "assistant", "content": "", "tool_calls": [CALL], "model": "m", "tokens": 3},
    {"role": "tool", "content": "done", "tool_call_id": "c1"},
    {"role": "system", "content": "' OR 1=1; -- \\ % %s :x {} \x01 \t 日本語"},
    {"role": "user", "content": "a|b & c:* !d <-> 'e' \\'f"},
    {"role": "user", "content": "again", "client_id": "once"},
    {"role": "user", "content": "again", "client_id": "once"},
    {"role": "user", "content": "parts", "parts": [{"type": "text", "text": "parts"}]},
    {"kind": "item", "payload": {"type": "reasoning", "x": 1e22}},
    {"role": "developer", "content": " ".join(f"word{n}" for n in range(9_000))},
    {"role": "user", "content": ""},
]
TABLES = {
    "messages": "SELECT * FROM mirai_memory.messages WHERE user_id = :owner ORDER BY id",
    "sessions": "SELECT * FROM mirai_memory.sessions WHERE user_id = :owner",
    "word_scopes": "SELECT * FROM mirai_memory.word_scopes WHERE user_id = :owner",
    "word_messages": "SELECT w.* FROM mirai_memory.word_messages w JOIN mirai_memory.messages m ON m.id = w.rowid "
    "WHERE m.user_id = :owner ORDER BY m.id",
    "word_places": "SELECT p.* FROM mirai_memory.word_places p JOIN mirai_memory.messages m ON m.id = p.id "
    "WHERE m.user_id = :owner ORDER BY m.id",
    "embeddings": "SELECT * FROM mirai_memory.embeddings WHERE user_id = :owner ORDER BY id",
}
GIVEN = {"id", "rowid", "item_id", "session_id", "session", "user_id", "scope"}  # differ from owner to owner


def _open(url: str) -> MemoryManager:
    settings = load_settings(memory={"rag": {"background": False}})
    return MemoryManager(url, embedder=FakeEmbedder(), settings=settings, clock=FrozenClock())


def _stored(memory: MemoryManager, owner: str) -> dict[str, list[dict[str, Any]]]:
    with memory.unit_of_work() as uow:
        scope = uow.db.execute(text(TABLES["word_scopes"]), {"owner": owner}).one().id
        return {
            name: [
                {
                    column: value.replace(f"@{scope}", "@") if column in ("terms", "lexemes") else value
                    for column, value in row._mapping.items()
                    if column not in GIVEN
                }
                for row in uow.db.execute(text(statement), {"owner": owner})
            ]
            for name, statement in TABLES.items()
        }


def _append(memory: MemoryManager, owner: str) -> None:
    session = memory.create_session(owner).id
    for fields in MESSAGES:
        memory.add_message(Message(session_id=session, **fields))


def test_the_rows_are_those_of_several_statements(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _open(postgres_url) as memory:
        _append(memory, "alice")
        at_once = _stored(memory, "alice")
        assert [len(rows) for rows in at_once.values()] == [11, 1, 1, 10, 10, 10]
        assert memory.verify().ok
        monkeypatch.setattr(PostgresIndex, "append_values", lambda *_: None)
        _append(memory, "carol")
        assert _stored(memory, "carol") == at_once


def test_it_is_one_statement(postgres_url: str) -> None:
    from sqlalchemy import event

    with _open(postgres_url) as memory:
        session = memory.create_session("alice").id
        memory.add_message(Message(session_id=session, role="user", content="first"))
        asked: list[str] = []
        event.listen(memory._database.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
        memory.add_message(Message(session_id=session, role="user", content="second"))
    assert len(asked) == 1
    assert asked[0].startswith("WITH ")


def test_what_is_refused_leaves_nothing(postgres_url: str) -> None:
    with _open(postgres_url) as memory:
        session = memory.create_session("alice").id
        for said, refusal in (
            (Message(session_id="nowhere", role="user", content="x"), NotFound),
            (Message(session_id=session, role="user", content="x", user_id="bob"), InvalidInput),
        ):
            with pytest.raises(refusal):
                memory.add_message(said)
        with pytest.raises(NotFound):
            memory.for_user("bob").add_message(Message(session_id=session, role="user", content="x"))
        with pytest.raises(ZeroDivisionError):
            memory.run(lambda uow: uow.messages.add(Message(session_id=session, role="user", content="lost")) / 0)
        memory.for_user("alice").add_message(Message(session_id=session, role="user", content="kept", user_id="alice"))
        assert [(m.position, m.content) for m in memory.get_messages(session)] == [(1, "kept")]
        assert [m.content for m in memory.search_messages("kept lost x")] == ["kept"]
        assert memory.verify().ok
