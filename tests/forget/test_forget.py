"""An owner is forgotten: no row, no byte, no answer is left; everybody else has what they had."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from beside import is_server
from canaries import CANARY, fill, rows_of

from mirai_memory import (
    Knowledge,
    MemoryManager,
    Message,
    ReadOnly,
    erasures,
    load_settings,
)
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

FORGETS = Path(__file__).with_name("forgets.py")


def bytes_beside(path: str) -> bytes:
    """Everything in the file and in what SQLite has put beside it."""
    return b"".join(file.read_bytes() for file in Path(path).parent.glob(f"{Path(path).name}*"))


def test_nothing_is_left_and_others_have_what_they_had(memory: MemoryManager) -> None:
    fill(memory)
    theirs, before = rows_of(memory, "bob"), rows_of(memory, "alice")
    plan = memory.forget_user("alice", dry_run=True)
    assert rows_of(memory, "alice") == before
    done = memory.forget_user("alice")
    assert not any(rows_of(memory, "alice").values())
    assert rows_of(memory, "bob") == theirs
    assert (done.state, done.reason) == ("done", None)
    counted = {name: len(before[name]) for name in ("sessions", "messages", "tasks", "knowledge", "embeddings")}
    assert {name: getattr(done, name) for name in counted} == counted
    assert (done.preferences, done.summaries, done.unlinked_facts) == (1, 1, 1)
    assert plan.state == "planned"
    assert plan.rows == done.rows
    assert memory.verify().ok
    assert memory.verify_forgotten("alice", [CANARY]).ok
    assert not memory.verify_forgotten("bob", ["sparrow"]).ok
    shared = memory.get_knowledge()
    assert [fact.message_id is None for fact in shared] == [True, False]


def test_the_receipt_has_no_content(memory: MemoryManager) -> None:
    fill(memory)
    receipt = memory.forget_user("alice")
    assert CANARY not in json.dumps(receipt.to_dict())
    assert receipt.to_dict()["started_at"].endswith("+00:00")


def test_an_owner_forgets_themselves_and_begins_again(memory: MemoryManager) -> None:
    fill(memory)
    alice = memory.for_user("alice")
    assert alice.forget_user().state == "done"
    assert alice.list_sessions() == []
    session = alice.create_session().id
    alice.add_message(Message(session_id=session, role="user", content="hello again"))
    assert [m.content for m in alice.search_messages("hello")] == ["hello again"]
    assert memory.verify().ok


def test_whoever_has_nothing_is_forgotten_too(memory: MemoryManager) -> None:
    receipt = memory.forget_user("nobody")
    assert (receipt.state, receipt.rows) == ("done", 0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
def test_no_byte_is_left_in_any_file(sqlite_url: str, seed: int) -> None:
    """Deleting zeroes rows where they stand; what the engine has moved from page to page it zeroes nowhere."""
    with MemoryManager(sqlite_url) as memory:
        fill(memory, rounds=40, seed=seed)
        assert CANARY.encode() in bytes_beside(sqlite_url)
        assert memory.forget_user("alice").state == "done"
        held = bytes_beside(sqlite_url)
        assert b"sparrow" in held
        assert not [trace for trace in (CANARY, CANARY[:6], CANARY[4:], "alice") if trace.encode() in held]


def test_an_in_memory_database_forgets(clock: FrozenClock) -> None:
    with MemoryManager(":memory:", clock=clock) as memory:
        fill(memory, rounds=3)
        receipt = memory.forget_user("alice")
        assert (receipt.state, receipt.recorded) == ("done", False)
        assert memory.search_messages(CANARY) == []


def test_a_reader_that_holds_the_log_makes_it_pending_and_a_second_call_ends_it(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url) as memory:
        fill(memory)
        with closing(sqlite3.connect(sqlite_url, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            [(count,)] = reader.execute("SELECT count(*) FROM messages").fetchall()
            first = memory.forget_user("alice")
            assert first.state == "pending"
            assert "forget_user again" in str(first.reason)
            assert first.messages
            assert reader.execute("SELECT count(*) FROM messages").fetchall() == [(count,)]
            assert CANARY.encode() in bytes_beside(sqlite_url), "which is why it is pending"
            reader.execute("ROLLBACK")
            second = memory.forget_user("alice")
        assert (second.state, second.rows) == ("done", 0)
        assert CANARY.encode() not in bytes_beside(sqlite_url)


def test_a_writer_that_is_in_the_way_makes_it_pending(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(memory={"busy_timeout_ms": 50})
    with MemoryManager(sqlite_url, settings=settings) as memory:
        fill(memory, rounds=4)
        with closing(sqlite3.connect(sqlite_url, isolation_level=None)) as writer:
            merge = memory._database.dialect.compact

            def busy(db: Any) -> None:
                writer.execute("BEGIN IMMEDIATE")
                merge(db)

            monkeypatch.setattr(type(memory._database.dialect), "compact", lambda self, db: busy(db))
            assert memory.forget_user("alice").state == "pending"
            writer.execute("ROLLBACK")
        monkeypatch.undo()
        assert memory.forget_user("somebody else").state == "done", "whoever comes next ends it"
        assert CANARY.encode() not in bytes_beside(sqlite_url)


def test_the_files_may_be_written_anew_later(url: str) -> None:
    with MemoryManager(url) as memory:
        fill(memory, rounds=20)
        first = memory.forget_user("alice", compact=False)
        assert first.state == "pending"
        assert not any(rows_of(memory, "alice").values())
    with MemoryManager(url) as memory:
        assert memory.forget_user("alice").state == "done"
        assert CANARY.encode() not in bytes_beside(url)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment_it_is_ended_by_the_next(url: str, seed: int) -> None:
    with MemoryManager(url) as memory:
        fill(memory, rounds=60, seed=seed)
        theirs = rows_of(memory, "bob")
    last = random.Random(seed).choice([1, 2, 3, 5, 8])
    command = [sys.executable, str(FORGETS), url, "alice"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _, _line in zip(range(last), child.stdout, strict=False):
            pass
        os.kill(child.pid, signal.SIGKILL)
    assert erasures.erased(url, "alice") or is_server(url), "recorded before the first row went"
    with MemoryManager(url) as memory:
        assert memory.verify().ok, "nothing that is left is wrong"
        assert memory.forget_user("alice").state == "done"
        assert rows_of(memory, "bob") == theirs
        assert memory.verify_forgotten("alice", [CANARY]).ok


def test_what_others_store_for_the_owner_meanwhile_goes_too(memory: MemoryManager) -> None:
    fill(memory)
    late: list[int] = []

    def store(_done: int, _total: int) -> None:
        if not late:
            with MemoryManager(memory._database.url) as other:
                session = other.create_session("alice").id
                late.append(other.add_message(Message(session_id=session, role="user", content=CANARY)))
                late.append(other.add_knowledge(Knowledge(user_id="alice", key="late", value=CANARY)))

    assert memory.forget_user("alice", progress=store).state == "done"
    assert len(late) == 2
    assert not any(rows_of(memory, "alice").values())


def test_a_search_cache_elsewhere_serves_nothing(url: str, clock: FrozenClock) -> None:
    embedder = FakeEmbedder()
    settings = load_settings(memory={"rag": {"background": False}})
    with (
        MemoryManager(url, settings=settings, embedder=embedder, clock=clock) as here,
        MemoryManager(url, settings=settings, embedder=embedder, clock=clock) as elsewhere,
    ):
        fill(here)
        here.reindex()
        for memory in (here, elsewhere):
            assert memory.search_messages(CANARY, user_id="alice")
            assert memory.recall(CANARY, user_id="alice")
        here.forget_user("alice")
        for memory in (here, elsewhere):
            assert memory.search_messages(CANARY, user_id="alice") == []
            assert [f.user_id for f in memory.recall(CANARY, user_id="alice")] in ([], [None], [None, None])
            assert memory.search_messages("sparrow", user_id="bob")
        session = elsewhere.create_session("alice").id
        elsewhere.add_message(Message(session_id=session, role="user", content="a new beginning"))
        elsewhere.reindex()
        for memory in (here, elsewhere):
            assert [m.content for m in memory.search_messages("beginning", user_id="alice")] == ["a new beginning"]


def test_a_vector_that_is_being_made_is_not_kept(url: str, clock: FrozenClock) -> None:
    embedder = FakeEmbedder()
    settings = load_settings(memory={"rag": {"background": False, "search_budget_ms": 0}})
    with MemoryManager(url, settings=settings, embedder=embedder, clock=clock) as memory:
        session = memory.create_session("alice").id
        memory.add_message(Message(session_id=session, role="user", content=CANARY))
        embedder.hang()
        working = threading.Thread(target=memory.reindex)
        working.start()
        while not embedder.texts:
            working.join(0.001)
        done = memory.forget_user("alice")
        embedder.release()
        working.join()
        assert done.embeddings == 1
        assert not any(rows_of(memory, "alice").values())


def test_backups_that_are_older_are_named(sqlite_url: str, clock: FrozenClock) -> None:
    with MemoryManager(sqlite_url, clock=clock) as memory:
        fill(memory, rounds=3)
        made = memory.backup()
        clock.advance(hours=1)
        receipt = memory.forget_user("alice")
        assert receipt.backups == (made.path.name,)
        clock.advance(hours=1)
        memory.backup()
        later = memory.forget_user("bob")
        assert len(later.backups) == 2
        assert erasures.erased(sqlite_url, "alice") == receipt.started_at
    aside = Path(f"{sqlite_url}.replaced-20260115T120000Z")
    for ending in ("", "-wal"):
        Path(f"{aside}{ending}").write_bytes(b"")
    with MemoryManager(sqlite_url, clock=clock) as memory:
        assert memory.forget_user("alice").backups[-1:] == (aside.name,), "what a restore has put aside"


def test_a_memory_that_is_read_only_forgets_nothing(url: str) -> None:
    with MemoryManager(url) as memory:
        fill(memory, rounds=2)
    with MemoryManager(url, read_only=True) as memory, pytest.raises(ReadOnly):
        memory.forget_user("alice")
    assert erasures.erased(url, "alice") is None


def test_messages_in_a_session_of_another_owner_go_too(memory: MemoryManager) -> None:
    """There are none, unless somebody wrote to the tables by other means."""
    fill(memory, rounds=4)
    with memory.unit_of_work() as uow:
        messages = "mirai_memory.messages" if is_server(memory.url) else "messages"
        last = f"SELECT max(id) FROM {messages} WHERE user_id = 'bob'"
        changed = uow.db.exec_driver_sql(f"UPDATE {messages} SET user_id = 'alice' WHERE id = ({last})")
        assert changed.rowcount == 1
    memory.forget_user("alice")
    assert not any(rows_of(memory, "alice").values())
    assert "session_counts" not in {fault.name for fault in memory.verify().faults}
