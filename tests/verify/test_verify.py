"""Each thing is damaged in turn: ``verify`` names exactly it, ``repair`` mends it or says that it cannot."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, ReadOnly, StorageError
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.verification import FAULTS, Verification

Damage = Callable[..., None]


@dataclass(frozen=True)
class Case:
    """What is done to the database, and which fault that is, how many times."""

    name: str
    count: int
    statements: tuple[str, ...]


def case(name: str, count: int, *statements: str) -> Case:
    return Case(name, count, statements)


# The first owner's messages are 1 to 12, of which 6 and 12 are items, in two sessions; facts are 1 (Perm, replaced by
# 2), 2 (Ufa), 3 (tea), those of the second owner are 4 to 6, and 7 is shared.
MENDED = {
    "a session counts too many": case(
        "session_counts",
        1,
        "UPDATE sessions SET message_count = message_count + 5 WHERE id = (SELECT min(id) FROM sessions)",
    ),
    "every session counts nothing": case("session_counts", 4, "UPDATE sessions SET message_count = 0"),
    "the next place is taken": case("positions", 4, "UPDATE sessions SET next_position = 2"),
    "a group opens after its message": case("positions", 1, "UPDATE messages SET group_start = 99 WHERE id = 5"),
    "the source of a fact is gone": case("foreign_keys", 1, "UPDATE knowledge SET message_id = 999 WHERE id = 3"),
    "the successor of a value is gone": case(
        "foreign_keys", 1, "UPDATE knowledge SET superseded_by = 999 WHERE id = 1"
    ),
    "a value was replaced by another owner's": case(
        "supersession", 1, "UPDATE knowledge SET superseded_by = 4 WHERE id = 1"
    ),
    "a value was merged into one that came later": case(
        "supersession",
        1,
        "UPDATE knowledge SET superseded_by = 3, superseded_at = '2001-01-01 00:00:00.000000' WHERE id = 1",
    ),
    "a value was merged into one that knows nothing of it": case(
        "supersession",
        1,
        "UPDATE knowledge SET superseded_by = 3, superseded_at = '2101-01-01 00:00:00.000000' WHERE id = 1",
    ),
    "a value was replaced by an older one": case(
        "supersession",
        2,
        "UPDATE knowledge SET superseded_by = 1, superseded_at = created_at WHERE id = 2",
        "UPDATE knowledge SET superseded_by = NULL WHERE id = 1",
    ),
    "a value was replaced at no time": case(
        "supersession",
        1,
        "DROP INDEX uq_knowledge__open",
        "UPDATE knowledge SET superseded_at = NULL WHERE id = 1",
    ),
    "a value ended for no reason": case("supersession", 1, "UPDATE knowledge SET superseded_by = NULL WHERE id = 1"),
    "a message has no words": case("word_index", 1, "DELETE FROM word_messages WHERE rowid = 2"),
    "a message has another's words": case(
        "word_index", 1, "UPDATE word_messages SET terms = ' @1  pear@1 ' WHERE rowid = 2"
    ),
    "a fact has no words": case("word_index", 1, "DELETE FROM word_knowledge WHERE rowid = 3"),
    "an owner's words are counted wrongly": case(
        "word_counts",
        1,
        "UPDATE word_scopes SET item_count = 1, term_count = 0 WHERE kind = 'message' AND user_id = 'bob'",
    ),
    "a message has no place": case("word_places", 1, "DELETE FROM word_places WHERE id = 3"),
    "a place is another's": case(
        "word_places", 1, "UPDATE word_places SET position = 77, speaker = 'role:tool' WHERE id = 3"
    ),
    "a vector is cut off": case("vectors", 1, "UPDATE embeddings SET dim = 7 WHERE item_id = 2"),
    "a vector holds no numbers": case(
        "vectors",
        1,
        "sqlite: UPDATE embeddings SET vector = x'007e007e' WHERE item_id = 2",
        "postgres: UPDATE embeddings SET vector = '\\x007e007e' WHERE item_id = 2",
    ),
    "a vector is another's": case("vectors", 1, "UPDATE embeddings SET user_id = 'bob' WHERE item_id = 2"),
    "a vector is of another text": case(
        "vectors", 1, "UPDATE embeddings SET content_hash = 'given:0' WHERE item_id = 2"
    ),
    "vectors are not known of": case("vectors", 2, "UPDATE word_scopes SET vectors = 0 WHERE kind = 'knowledge'"),
    "words of a message that is gone": case(
        "orphans",
        1,
        "sqlite: INSERT INTO word_messages (rowid, terms) SELECT 500, terms FROM word_messages WHERE rowid = 1",
        "postgres: INSERT INTO word_messages SELECT 500, terms, lexemes FROM word_messages WHERE rowid = 1",
    ),
    "a place of a message that is gone": case(
        "orphans",
        1,
        "INSERT INTO word_places SELECT scope, 500, session, position, speaker, cues, length, time"
        " FROM word_places WHERE id = 1",
    ),
    "a vector of a fact that is gone": case(
        "orphans",
        1,
        "INSERT INTO embeddings (kind, item_id, user_id, model, dim, content_hash, status)"
        " VALUES ('knowledge', 500, 'alice', 'm', 0, 'x', 'pending')",
    ),
}
LEFT = {
    "a session is gone": case("foreign_keys", 6, "DELETE FROM sessions WHERE id = (SELECT min(id) FROM sessions)"),
    "a task is another owner's": case("owners", 1, "UPDATE tasks SET user_id = 'carol' WHERE id = 1"),
    "messages are not in order": case(
        "positions",
        1,
        "UPDATE messages SET position = 1000 WHERE id = 6",
        "UPDATE messages SET position = 6 WHERE id = 5",
        "UPDATE messages SET position = 5, group_start = 5 WHERE id = 6",
        "UPDATE word_places SET position = 6 WHERE id = 5",
    ),
}
LOST = {
    "sqlite": {
        "all words": "DELETE FROM word_messages_data WHERE id > 10",
        "a word": "UPDATE word_messages_content SET c0 = replace(c0, 'walnut', 'hazelnut') WHERE id = 1",
    },
    "postgres": {
        "a word": "UPDATE word_messages SET lexemes = array_to_tsvector(ARRAY['pear@1']) WHERE rowid = 2",
    },
}


def found(report: Verification) -> dict[str, int]:
    return {fault.name: fault.count for fault in report.faults}


def test_nothing_is_wrong_with_what_the_memory_itself_has_made(filled: MemoryManager) -> None:
    report = filled.verify()
    assert report.ok
    assert report.faults == report.unread == ()
    assert [check.name for check in report.checks] == list(FAULTS)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def test_nothing_is_wrong_after_deletions_and_changes(filled: MemoryManager) -> None:
    sessions = filled.list_sessions("alice")
    messages = filled.get_messages(sessions[0].id)
    filled.update_message(messages[0].id, "another text")
    filled.delete_message(messages[1].id)
    filled.delete_message(messages[3].id)  # the call, whose result stays
    filled.pop_message(sessions[0].id)
    filled.trim_old_messages(sessions[1].id, keep=2)
    filled.delete_knowledge(2)  # the one before it does not become current again
    filled.clear_session(filled.list_sessions("bob")[0].id)
    filled.delete_session(filled.list_sessions("bob")[1].id)
    assert found(filled.verify()) == {}


def test_a_value_that_is_true_until_a_later_one_is_keeps_its_words(filled: MemoryManager, clock: FrozenClock) -> None:
    later = clock().replace(year=2030)
    filled.add_knowledge(Knowledge(user_id="alice", key="tea", value="black", valid_from=later))
    assert found(filled.verify()) == {}
    assert filled.repair().ok
    assert [fact.value for fact in filled.search_knowledge("green tea", user_id="alice")] == ["green"]


@pytest.mark.parametrize("what", MENDED)
def test_what_is_damaged_is_named_and_mended(filled: MemoryManager, damage: Damage, what: str) -> None:
    name, count = MENDED[what].name, MENDED[what].count
    said, asked = everything(filled), answers(filled)
    damage(*MENDED[what].statements)
    assert found(filled.verify()) == {name: count}
    repaired = filled.repair()
    assert repaired.ok
    assert repaired.mended == {name: count}
    assert found(filled.verify()) == {}
    assert everything(filled) == said, "nothing that was said has changed"
    if name not in ("vectors", "foreign_keys", "supersession"):
        assert answers(filled) == asked
    session = filled.list_sessions("alice")[0].id
    filled.add_message(Message(session_id=session, role="user", content="one more"))
    assert found(filled.verify()) == {}, "and what is written afterwards is right"


@pytest.mark.parametrize("what", LEFT)
def test_what_cannot_be_mended_is_said(filled: MemoryManager, damage: Damage, what: str) -> None:
    name, count = LEFT[what].name, LEFT[what].count
    damage(*LEFT[what].statements)
    report = filled.verify()
    assert found(report) == {name: count}
    assert "restore a backup" in next(fault.advice for fault in report.faults)
    repaired = filled.repair()
    assert not repaired.ok
    assert repaired.mended == {}
    assert [(fault.name, fault.count) for fault in repaired.left] == [(name, count)]
    assert found(filled.verify()) == {name: count}


@pytest.mark.parametrize(
    ("url", "what"), [(engine, what) for engine in LOST for what in LOST[engine]], indirect=["url"]
)
def test_words_that_the_engine_itself_has_lost(
    filled: MemoryManager, damage: Damage, what: str, request: pytest.FixtureRequest
) -> None:
    asked = answers(filled)
    damage(LOST[request.node.callspec.params["url"]][what])
    assert found(filled.verify()).keys() == {"word_index"}
    assert filled.repair().ok
    assert found(filled.verify()) == {}
    assert answers(filled) == asked


def test_two_values_of_one_key_that_are_both_current(filled: MemoryManager, damage: Damage) -> None:
    damage(
        "DROP INDEX uq_knowledge__open", "UPDATE knowledge SET superseded_by = NULL, superseded_at = NULL WHERE id = 1"
    )
    assert found(filled.verify()) == {"supersession": 1, "word_index": 1, "word_counts": 1}
    assert filled.repair().ok
    assert [fact.value for fact in filled.get_knowledge(key="city", user_id="alice")] == ["Ufa"]


def test_several_faults_are_named_and_mended_at_once(filled: MemoryManager, damage: Damage) -> None:
    wanted: dict[str, int] = {}
    for what in (
        "every session counts nothing",
        "a message has no words",
        "a place is another's",
        "a vector is cut off",
    ):
        wanted[MENDED[what].name] = MENDED[what].count
        damage(*MENDED[what].statements)
    assert found(filled.verify()) == wanted
    assert filled.repair().mended == wanted


def test_an_owner_whose_scope_is_gone_is_found_again(filled: MemoryManager, damage: Damage) -> None:
    asked = answers(filled)
    damage("DELETE FROM word_scopes WHERE user_id = 'alice'")
    assert not filled.verify().ok
    assert filled.search_messages("walnuts", user_id="alice") == []
    assert filled.repair().ok
    assert answers(filled) == asked


def test_a_damaged_file_is_told_not_raised(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"words {n} " * 50) for n in range(200)])
        with closing(sqlite3.connect(sqlite_url)) as connection:
            [(root,)] = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'uq_messages__session_id_position'"
                " OR name = 'sqlite_autoindex_messages_1' ORDER BY name LIMIT 1"
            )
    file = Path(sqlite_url)
    content = bytearray(file.read_bytes())
    content[(root - 1) * 4096 + 200 : root * 4096] = b"\xa5" * (4096 - 200)
    file.write_bytes(bytes(content))
    with MemoryManager(sqlite_url) as memory:
        report = memory.verify()
        assert found(report)["integrity"]
        assert not report.ok
        left = memory.repair()
        assert not left.ok
        assert "integrity" in {fault.name for fault in left.left}


def test_a_memory_that_is_closed_or_read_only(url: str) -> None:
    with MemoryManager(url) as memory:
        memory.add_knowledge(Knowledge(value="words"))
    with MemoryManager(url, read_only=True) as memory:
        assert memory.verify().ok
        with pytest.raises(ReadOnly):
            memory.repair()
    with pytest.raises(StorageError, match="closed"):
        memory.verify()


def test_looking_changes_no_byte(filled: MemoryManager, damage: Damage) -> None:
    damage("DELETE FROM word_messages WHERE rowid = 2", "UPDATE sessions SET message_count = 0")
    before = found(filled.verify())
    assert found(filled.verify()) == before
    assert filled.get_stats()["total_messages"] == 0


def test_an_empty_memory_is_right(memory: MemoryManager) -> None:
    assert memory.verify().ok
    repaired = memory.repair()
    assert repaired.ok
    assert repaired.mended == {}


def everything(memory: MemoryManager) -> list[object]:
    """What was said, as it is read."""
    messages = [memory.get_messages(session.id) for session in memory.list_sessions()]
    facts = [memory.knowledge_history(key, user_id=owner) for owner in ("alice", "bob") for key in ("city", "tea")]
    values = [[(fact.id, fact.key, fact.value) for fact in known] for known in facts]
    return [messages, values, memory.get_tasks(), memory.get_user_preferences("alice")]


def answers(memory: MemoryManager) -> list[list[tuple[int | None, float]]]:
    """What searches find, with their scores."""
    found = [
        memory.search_messages(words, user_id=owner) for owner in ("alice", "bob") for words in ("walnuts", "answer")
    ]
    facts = [memory.search_knowledge("green tea in Ufa", user_id=owner) for owner in ("alice", "bob")]
    return [[(item.id, round(item.score or 0.0, 9)) for item in items] for items in [*found, *facts]]


def test_how_far_it_has_come_is_told(filled: MemoryManager) -> None:
    told: list[tuple[int, int]] = []
    assert filled.verify(progress=lambda done, total: told.append((done, total))).ok
    assert told == [(25, 25)]
