"""The first version's database: everything arrives with its owner, a second time nothing, what is broken is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import foreign_sources as foreign
import pytest

from mirai_memory import InvalidInput, Knowledge, MemoryManager
from mirai_memory.importers import ImportReport, import_file

BERLIN = ZoneInfo("Europe/Berlin")


def take(memory: Any, path: Path, **more: Any) -> ImportReport:
    return import_file(memory, path, **{"timezone": BERLIN, **more})


def faults(report: ImportReport) -> list[str]:
    return [f"{fault.place}: {fault.reason}" for fault in report.faults]


def test_everything_arrives_with_its_owner(memory: MemoryManager) -> None:
    report = take(memory, foreign.old())
    assert (report.conversations, report.sessions, report.messages_added, report.fault_count) == (2, 2, 4, 0)
    assert (report.tasks_added, report.facts_added, report.preferences_saved) == (2, 2, 1)
    (session,) = memory.list_sessions("alice")
    assert session.external_id == "first-version:s1"
    assert session.metadata == {
        "source": "first-version",
        "summary": "About walruses",
        "created_at": "2024-01-15T09:00:00.123456+00:00",
        "last_active": "2024-01-15T10:00:00+00:00",
    }
    first, second, third = memory.get_messages(session.id)
    assert (first.role, first.content, first.tokens, first.model) == ("user", "What does a walrus eat?", 6, None)
    assert first.timestamp == datetime(2024, 1, 15, 9, 0, 0, 123456, tzinfo=UTC)
    assert (second.model, second.timestamp) == ("gpt-4", datetime(2024, 1, 15, 9, 0, 5, tzinfo=UTC))
    assert third.timestamp == second.timestamp  # it had none of its own
    (bobs,) = memory.list_sessions("bob")
    (only,) = memory.get_messages(bobs.id)
    assert (only.content, only.timestamp) == ("Пью зелёный чай", datetime(2024, 2, 1, 8, tzinfo=UTC))
    assert memory.search_messages("зеленого чая", user_id="bob")[0].id == only.id


def test_preferences_tasks_and_facts_arrive_whole(memory: MemoryManager) -> None:
    take(memory, foreign.old())
    mine = memory.get_user_preferences("alice")
    assert mine is not None
    assert (mine.coding_style, mine.communication_tone, mine.project_context) == ("functional", "brief", "the zoo")
    assert mine.favorite_tools == ["uv", "ruff"]
    (bought,) = memory.get_tasks(user_id="alice")
    assert (bought.description, bought.status, bought.result) == ("Buy clams", "completed", "bought")
    assert bought.completed_at == datetime(2024, 1, 16, 9, tzinfo=UTC)
    assert bought.session_id == memory.list_sessions("alice")[0].id
    (boiled,) = memory.get_tasks(user_id="bob")
    assert (boiled.status, boiled.created_at) == ("pending", datetime(2024, 2, 1, 8, tzinfo=UTC))
    walrus, seal = memory.get_knowledge("animals", with_embedding=True)
    assert (walrus.key, walrus.value, walrus.source, walrus.confidence) == ("walrus", "eats clams", "a book", 0.8)
    assert (walrus.user_id, walrus.source_kind) == (None, "import")
    assert walrus.created_at == datetime(2024, 1, 10, 7, tzinfo=UTC)
    assert (walrus.embedding, walrus.embedding_model) == ([0.5, -1.5], "first-version")
    assert (seal.confidence, seal.embedding) == (1.0, None)


def test_a_second_run_adds_nothing_and_a_grown_source_only_what_is_new(memory: MemoryManager) -> None:
    path = foreign.old()
    first = take(memory, path)
    again = take(memory, path)
    assert (again.messages_added, again.messages_already_there) == (0, first.messages_added)
    assert (again.tasks_added, again.facts_added, again.preferences_saved) == (0, 0, 0)
    assert (again.tasks_already_there, again.facts_already_there, again.preferences_already_there) == (2, 2, 1)
    foreign.change(path, "INSERT INTO messages (session_id, role, content) VALUES ('s2', 'assistant', 'Enjoy')")
    foreign.change(path, "INSERT INTO tasks (session_id, description, status) VALUES ('s1', 'Feed it', 'done')")
    foreign.change(path, "UPDATE knowledge SET value = 'eats squid', updated_at = '2024-05-01' WHERE key = 'seal'")
    grown = take(memory, path)
    assert (grown.messages_added, grown.tasks_added, grown.facts_added, grown.fault_count) == (1, 1, 1, 0)
    assert [fact.value for fact in memory.knowledge_history("seal", category="animals")] == ["eats fish", "eats squid"]
    assert take(memory, path).facts_added == 0


def test_what_is_newer_in_the_memory_stays(memory: MemoryManager) -> None:
    memory.update_user_preferences("alice", communication_tone="chatty")
    memory.add_knowledge(Knowledge(category="animals", key="walrus", value="eats everything"))
    path = foreign.old()
    for _ in range(2):
        take(memory, path)
        preferences = memory.get_user_preferences("alice")
        assert preferences is not None
        assert preferences.communication_tone == "chatty"
        assert [fact.value for fact in memory.get_knowledge("animals", key="walrus")] == ["eats everything"]
        assert [fact.value for fact in memory.knowledge_history("walrus", category="animals")] == [
            "eats everything",
            "eats clams",
        ]
    foreign.change(path, "UPDATE user_preferences SET updated_at = '2030-01-01 00:00:00'")
    assert take(memory, path).preferences_saved == 1


def test_the_source_is_not_changed(memory: MemoryManager) -> None:
    path = foreign.old()
    before = path.read_bytes()
    take(memory, path)
    assert path.read_bytes() == before
    assert list(Path().glob("old.db-*")) == []


def test_a_wal_that_was_left_behind_is_read(memory: MemoryManager) -> None:
    path = foreign.old()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("INSERT INTO messages (session_id, role, content) VALUES ('s1', 'user', 'only in the WAL')")
        connection.commit()
        for ending in ("", "-wal"):
            shutil.copy(f"old.db{ending}", f"copy.db{ending}")
    assert take(memory, Path("copy.db")).messages_added == 5


def test_a_timezone_is_that_of_the_times_without_one(memory: MemoryManager) -> None:
    path = foreign.old()
    foreign.change(path, "UPDATE messages SET timestamp = '2024-07-01T12:00:00+05:00' WHERE id = 3")
    take(memory, path, timezone=ZoneInfo("Asia/Tokyo"))
    messages = memory.get_messages(memory.list_sessions("alice")[0].id)
    assert messages[0].timestamp == datetime(2024, 1, 15, 1, 0, 0, 123456, tzinfo=UTC)
    assert messages[1].timestamp == datetime(2024, 7, 1, 7, tzinfo=UTC)


def test_one_owner_may_be_taken_alone(memory: MemoryManager) -> None:
    report = take(memory.for_user("alice"), foreign.old())
    assert (report.sessions, report.messages_added, report.tasks_added, report.preferences_saved) == (1, 3, 1, 1)
    assert (report.facts_added, report.fault_count) == (0, 0)
    assert {session.user_id for session in memory.list_sessions()} == {"alice"}
    assert memory.get_knowledge() == []


BROKEN: dict[str, tuple[str, str, int]] = {
    # what breaks it: where it stands, how many of the two conversations are imported
    "UPDATE messages SET role = 'king' WHERE id = 1": ("session s1, message 1: role", "", 1),
    "UPDATE messages SET timestamp = 'yesterday' WHERE id = 4": ("session s1, message 4: timestamp", "", 1),
    "UPDATE messages SET tokens = -1 WHERE id = 1": ("session s1, message 1: tokens", "", 1),
    "UPDATE messages SET tokens = 'many' WHERE id = 1": ("session s1, message 1: tokens", "", 1),
    "UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE id = 1": ("session s1, message 1: content", "UTF-8", 1),
    "UPDATE messages SET content = 'a' || char(0) WHERE id = 1": ("session s1, message 1: content", "NUL", 1),
    "UPDATE sessions SET user_id = '' WHERE id = 's1'": ("session s1: user_id", "empty", 1),
    "UPDATE sessions SET created_at = '2024-13-01' WHERE id = 's1'": ("session s1: created_at", "", 1),
    "UPDATE messages SET session_id = 'gone' WHERE id = 1": ("messages of session gone: 1", "no such session", 2),
    "UPDATE messages SET session_id = NULL WHERE id = 1": ("messages of session NULL: 1", "no such session", 2),
    "UPDATE tasks SET status = 'paused' WHERE id = 1": ("session s1, task 1: status", "paused", 2),
    "UPDATE tasks SET description = NULL WHERE id = 1": ("session s1, task 1: description", "", 2),
    "UPDATE tasks SET session_id = 'gone' WHERE id = 1": ("task 1: its session", "missing", 2),
    "UPDATE user_preferences SET favorite_tools = 'uv'": ("preferences of alice: favorite_tools", "JSON", 2),
    "UPDATE user_preferences SET favorite_tools = '[1]'": ("preferences of alice: favorite_tools", "", 2),
    "UPDATE knowledge SET confidence = 7 WHERE id = 1": ("knowledge 1: confidence", "", 2),
    "UPDATE knowledge SET embedding = '[1, \"x\"]' WHERE id = 1": ("knowledge 1: embedding", "", 2),
    "UPDATE knowledge SET value = NULL WHERE id = 1": ("knowledge 1: value", "", 2),
    "ALTER TABLE messages DROP COLUMN tokens": ("table messages: the table has no column tokens", "", 0),
    "ALTER TABLE tasks DROP COLUMN result": ("table tasks: the table has no column result", "", 2),
    "DROP TABLE knowledge": ("table knowledge: the table is missing", "", 2),
}


@pytest.mark.parametrize("statement", BROKEN)
def test_what_is_broken_is_named_and_the_rest_is_imported(memory: MemoryManager, statement: str) -> None:
    place, reason, conversations = BROKEN[statement]
    path = foreign.old()
    foreign.change(path, statement)
    report = take(memory, path, format="first-version")
    assert report.fault_count == 1
    (fault,) = faults(report)
    assert fault.startswith(f"old.db, {place}")
    assert reason in fault
    assert report.conversations == conversations == len(memory.list_sessions())
    assert report.conversations_refused == (1 if conversations == 1 else 0)


def test_foreign_types_are_taken_as_they_are_meant(memory: MemoryManager) -> None:
    path = foreign.old(
        script=foreign.FIRST_VERSION.replace(" TEXT", "").replace(" INTEGER", "").replace("AUTOINCREMENT", "")
    )
    foreign.change(path, "UPDATE sessions SET user_id = 42 WHERE id = 's1'")
    foreign.change(
        path, "UPDATE messages SET id = 1, content = 7, tokens = '6', timestamp = 1705309200 WHERE rowid = 1"
    )
    foreign.change(path, "UPDATE messages SET id = 2, content = CAST('bytes' AS BLOB) WHERE rowid = 3")
    report = take(memory, path)
    assert report.fault_count == 0
    messages = memory.get_messages(memory.list_sessions("42")[0].id)
    assert [message.content for message in messages] == ["7", "bytes", "Thanks"]
    assert (messages[0].tokens, messages[0].timestamp) == (6, datetime(2024, 1, 15, 9, tzinfo=UTC))


def test_a_damaged_database_is_a_fault(memory: MemoryManager) -> None:
    many = "INSERT INTO messages (session_id, role, content) SELECT 's1', 'user', hex(zeroblob(400)) FROM generate"
    numbers = "WITH RECURSIVE generate(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM generate WHERE n < 500) "
    path = foreign.old((numbers + many, ()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096 + 4096] + b"\xff" * (len(whole) // 2 // 4096 * 4096 - 8192))
    report = take(memory, path, format="first-version")
    assert report.fault_count > 0


def test_the_memory_cannot_be_its_own_source(sqlite_memory: MemoryManager) -> None:
    Path("link.db").symlink_to(sqlite_memory.url)
    for path in (Path(sqlite_memory.url), Path("link.db")):
        with pytest.raises(InvalidInput, match="itself"):
            take(sqlite_memory, path)
    alice = sqlite_memory.for_user("alice")
    for format, reason in ((None, "known format"), ("first-version", "of this version"), ("openai", "SQLite database")):
        assert reason in faults(take(alice, Path(sqlite_memory.url), format=format))[0]


def test_owners_cannot_be_made_up(memory: MemoryManager) -> None:
    with pytest.raises(InvalidInput, match="for_user"):
        take(memory, foreign.write([foreign.chat("a", foreign.said("user", "hi"))]))
    with pytest.raises(InvalidInput, match="format"):
        take(memory, foreign.old(), format="xml")


def test_a_dry_run_says_the_same_and_stores_nothing(memory: MemoryManager) -> None:
    path = foreign.old()
    foreign.change(path, "UPDATE tasks SET status = 'paused' WHERE id = 1")
    dry = take(memory, path, dry_run=True)
    assert memory.get_stats()["total_messages"] == memory.get_stats()["total_knowledge"] == 0
    assert memory.list_sessions() == []
    assert memory.get_user_preferences("alice") is None
    assert take(memory, path) == dry
    assert take(memory, path, dry_run=True) == take(memory, path)


def test_messages_come_in_the_order_in_which_they_were_written(memory: MemoryManager) -> None:
    path = foreign.old()
    make: Callable[[int], tuple[str, tuple[Any, ...]]] = lambda n: (  # noqa: E731
        "INSERT INTO messages (session_id, role, content) VALUES (?, 'user', ?)",
        (f"s{n % 2 + 1}", f"number {n}"),
    )
    foreign.database("old.db", "", *map(make, range(1200)))
    assert take(memory, path).messages_added == 1204
    (session,) = memory.list_sessions("alice")
    contents = [message.content for message in memory.get_messages(session.id, limit=1000)][3:]
    assert contents == [f"number {n}" for n in range(0, 1200, 2)]
