"""A memory copied to another engine and back: every row of every table is the same, and what is derived works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner
from owners import fill
from sqlalchemy import select

from mirai_memory import (
    Conflict,
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    ReadOnly,
    StorageError,
    UnitOfWork,
    UserPreferences,
)
from mirai_memory.cli.app import app
from mirai_memory.models import Base
from mirai_memory.services import copies
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock

GUARD = 120


@pytest.fixture
def other(memory: MemoryManager, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MemoryManager]:
    """An empty memory of the other engine."""
    url = str(tmp_path / "other.db") if "://" in memory.url else request.getfixturevalue("postgres_url")
    with MemoryManager(url) as opened:
        yield opened


def tables(memory: MemoryManager) -> dict[str, list[str]]:
    """Every row of every table that is no projection of words, as text: 1, 1.0 and True differ."""

    def read(uow: UnitOfWork) -> dict[str, list[str]]:
        return {
            table.name: sorted(repr(dict(row._mapping)) for row in uow.db.execute(select(table)))
            for table in Base.metadata.sorted_tables
            if table.name != "memory_state"
        }

    return memory._store.read(read)


def _fill(memory: MemoryManager, clock: FrozenClock) -> None:
    for owner in ("alice", "Боб"):
        fill(memory, clock, owner)
    memory.add_knowledge(Knowledge(key="office", value="closed on Friday", embedding=[0.5, 1.0], embedding_model="m"))
    for number in range(40):
        session = memory.create_session(f"owner {number % 7}", session_id=f"Сессия {number % 13} z{number}").id
        memory.add_message(Message(session_id=session, role="user", content=f"walnut {number} " * (number + 1)))
    memory.delete_message(memory.add_message(Message(session_id=session, role="user", content="the last one")))


# --- there and back ---------------------------------------------------------------------------------------------------


def test_everything_is_the_same_there_and_back_again(
    memory: MemoryManager, other: MemoryManager, clock: FrozenClock, sqlite_url: str, tmp_path: Path
) -> None:
    _fill(memory, clock)
    done = memory.copy_to(other)
    assert tables(other) == tables(memory)
    assert done.rows == done.written == {name: len(rows) for name, rows in tables(memory).items()}
    assert other.verify().ok
    with MemoryManager(tmp_path / "back.db", clock=clock) as back:
        again = other.copy_to(back)
        assert tables(back) == tables(memory)
        assert again.checksums == done.checksums
        assert back.verify().ok
        for place in (other, back):
            found = place.search_messages("walnut 3", user_id="owner 3", limit=3)
            assert [m.id for m in found] == [
                m.id for m in memory.search_messages("walnut 3", user_id="owner 3", limit=3)
            ]
            assert [fact.id for fact in place.knowledge_history("city", user_id="alice")] == [
                fact.id for fact in memory.knowledge_history("city", user_id="alice")
            ]


def test_an_id_that_was_deleted_here_is_not_given_there(
    memory: MemoryManager, other: MemoryManager, clock: FrozenClock
) -> None:
    _fill(memory, clock)
    memory.copy_to(other)
    session = other.create_session("carol").id
    last = memory.add_message(Message(session_id=memory.create_session("x").id, role="user", content="next"))
    assert other.add_message(Message(session_id=session, role="user", content="next")) == last


def test_rows_are_read_in_blocks(
    memory: MemoryManager, other: MemoryManager, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_ROWS", 3)
    monkeypatch.setattr(copies, "_CHARACTERS", 200)
    _fill(memory, clock)
    told: list[tuple[int, int]] = []
    memory.copy_to(other, progress=lambda done, total: told.append((done, total)))
    assert tables(other) == tables(memory)
    rows = sum(len(found) for found in tables(memory).values())
    assert told[-1] == (2 * rows, 2 * rows)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > rows / 3


def test_a_fact_may_be_superseded_by_one_with_a_lower_id(memory: MemoryManager, other: MemoryManager) -> None:
    first = memory.add_knowledge(Knowledge(user_id="alice", key="a", value="tea"))
    second = memory.add_knowledge(Knowledge(user_id="alice", key="b", value="tea too"))
    with memory.unit_of_work() as uow:
        facts = Base.metadata.tables["knowledge"]
        now = uow.db.execute(select(facts.c.created_at)).scalars().first()
        uow.db.execute(facts.update().where(facts.c.id == second).values(superseded_by=first, superseded_at=now))
    memory.copy_to(other)
    assert tables(other) == tables(memory)


# --- again ------------------------------------------------------------------------------------------------------------


def test_a_second_run_moves_what_has_changed_meanwhile(
    memory: MemoryManager, other: MemoryManager, clock: FrozenClock
) -> None:
    _fill(memory, clock)
    memory.copy_to(other)
    assert not any(memory.copy_to(other).written.values())
    clock.advance(minutes=1)
    session = memory.list_sessions("alice")[0].id
    ids = [message.id for message in memory.get_messages(session)]
    memory.update_message(ids[0], "changed since")
    memory.delete_message(ids[1])
    memory.delete_session(memory.list_sessions("owner 3")[0].id)
    memory.add_message(Message(session_id=session, role="user", content="new since"))
    memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Sochi"))
    memory.delete_user_preferences("alice")
    memory.save_user_preferences(UserPreferences(user_id="carol", coding_style="terse"))
    done = memory.copy_to(other)
    assert tables(other) == tables(memory)
    assert done.written["messages"] == 2
    assert done.deleted["messages"] == 2
    assert other.verify().ok
    assert other.search_messages("changed since", user_id="alice")[0].id == ids[0]


def test_a_name_that_became_free_may_be_taken_by_a_row_with_a_lower_key(
    memory: MemoryManager, other: MemoryManager
) -> None:
    late = memory.create_session("alice", session_id="z").id
    memory.ensure_session("alice", "chat")
    memory.copy_to(other)
    with memory.unit_of_work() as uow:
        sessions = Base.metadata.tables["sessions"]
        uow.db.execute(sessions.delete().where(sessions.c.external_id == "chat"))
        uow.db.execute(sessions.insert().values({**_row(uow, late), "id": "0", "external_id": "chat"}))
    memory.copy_to(other)
    assert tables(other) == tables(memory)


def _row(uow: UnitOfWork, id: str) -> dict[str, Any]:
    sessions = Base.metadata.tables["sessions"]
    return dict(uow.db.execute(select(sessions).where(sessions.c.id == id)).one()._mapping)


KILLED = """
import os, signal, sys
from mirai_memory import MemoryManager
from mirai_memory.services import copies
copies._ROWS = 3
source, target, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
def told(done, total):
    if done >= at:
        os.kill(os.getpid(), signal.SIGKILL)
with MemoryManager(source) as memory, MemoryManager(target) as other:
    memory.copy_to(other, progress=told)
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("at", [1, 40, 90, 200])
def test_one_that_was_killed_is_gone_on_with(sqlite_url: str, tmp_path: Path, clock: FrozenClock, at: int) -> None:
    target = tmp_path / "target.db"
    with MemoryManager(sqlite_url, clock=clock) as memory:
        _fill(memory, clock)
        killed = subprocess.run([sys.executable, "-c", KILLED, sqlite_url, target, str(at)], check=False, timeout=GUARD)
        assert killed.returncode == -signal.SIGKILL
        with MemoryManager(target, clock=clock) as other:
            faults = {fault.name for fault in other.verify().faults}
            assert faults <= {"session_counts"}, "each block is whole, and has its words"
            done = memory.copy_to(other)
            assert sum(done.written.values()) < sum(done.rows.values()) or at == 1
            assert tables(other) == tables(memory)
            assert other.verify().ok


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_vectors_that_were_made_come_along(sqlite_url: str, tmp_path: Path) -> None:
    with (
        MemoryManager(sqlite_url, embedder=FakeEmbedder()) as memory,
        MemoryManager(tmp_path / "other.db", embedder=FakeEmbedder()) as other,
    ):
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"green tea {n}") for n in range(30)])
        memory.reindex()
        memory.copy_to(other)
        assert other.reindex() == 0
        for place in (memory, other):
            found = place.search_messages("green 7", user_id="alice", explain=True)[0]
            assert any("dense" in name for name in found.explanation or {})


def test_the_target_embeds_nothing_meanwhile(sqlite_url: str, tmp_path: Path) -> None:
    embedder = FakeEmbedder()
    embedder.fail()
    with MemoryManager(sqlite_url, embedder=embedder) as memory:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"tea {n}") for n in range(30)])
        with MemoryManager(tmp_path / "other.db", embedder=FakeEmbedder()) as other:
            done = memory.copy_to(other, progress=lambda done, total: other._want_vectors())
            assert done.rows["embeddings"] == done.written["embeddings"] == 30
            other.reindex()
            found = other.search_messages("tea 7", user_id="alice", explain=True)[0]
            assert any("dense" in name for name in found.explanation or {}), "but afterwards"


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_target_that_holds_something_is_refused_untouched(memory: MemoryManager, other: MemoryManager) -> None:
    memory.create_session("alice")
    other.create_session("bob")
    before = tables(other)
    with pytest.raises(Conflict, match="holds something"):
        memory.copy_to(other)
    assert tables(other) == before


def test_nor_one_that_was_used_since_it_was_copied(memory: MemoryManager, other: MemoryManager) -> None:
    memory.create_session("alice")
    memory.copy_to(other)
    theirs = other.create_session("bob").id
    with pytest.raises(Conflict, match="in use"):
        memory.copy_to(other)
    assert other.get_session(theirs) is not None


def test_nor_one_that_was_copied_from_elsewhere(memory: MemoryManager, other: MemoryManager, tmp_path: Path) -> None:
    memory.create_session("alice")
    memory.copy_to(other)
    with MemoryManager(tmp_path / "third.db") as third, pytest.raises(Conflict, match="from another"):
        third.copy_to(other)


def test_nor_itself(url: str, memory: MemoryManager) -> None:
    with MemoryManager(url) as again, pytest.raises(InvalidInput, match="itself"):
        memory.copy_to(again)
    with pytest.raises(InvalidInput, match="must be a MemoryManager"):
        memory.copy_to(url)  # type: ignore[arg-type]


def test_two_memories_in_memory_are_not_one() -> None:
    with MemoryManager(":memory:") as one, MemoryManager(":memory:") as two:
        one.create_session("alice")
        assert one.copy_to(two).rows["sessions"] == 1


def test_a_target_that_may_only_be_read(sqlite_url: str, tmp_path: Path) -> None:
    MemoryManager(tmp_path / "target.db").close()
    with (
        MemoryManager(sqlite_url) as memory,
        MemoryManager(tmp_path / "target.db", read_only=True) as target,
        pytest.raises(ReadOnly),
    ):
        memory.copy_to(target)


def test_a_copy_that_somebody_else_changes_is_told(url: str, tmp_path: Path, clock: FrozenClock) -> None:
    """``url`` is the target: what was copied is compared by what it has."""

    def meddle(done: int, total: int) -> None:
        if done == total // 2:  # all is copied, nothing compared yet
            with MemoryManager(url) as stranger:
                stranger.update_message(2, "tea!")

    with MemoryManager(tmp_path / "source.db", clock=clock) as memory, MemoryManager(url) as target:
        session = memory.create_session("alice").id
        memory.add_messages([Message(session_id=session, role="user", content=f"tea {n}") for n in range(30)])
        with pytest.raises(StorageError, match="differs from its source in messages"):
            memory.copy_to(target, progress=meddle)
        memory.copy_to(target)
        assert tables(target) == tables(memory)


# --- on the command line ----------------------------------------------------------------------------------------------


def test_the_command(sqlite_url: str, postgres_url: str, clock: FrozenClock) -> None:
    with MemoryManager(sqlite_url, clock=clock) as memory:
        _fill(memory, clock)
        rows = {name: len(found) for name, found in tables(memory).items()}
    result = CliRunner().invoke(app, ["copy", "--db", sqlite_url, "--to", postgres_url, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == rows
    again = CliRunner().invoke(app, ["copy", "--db", sqlite_url, "--to", postgres_url])
    assert "postgres" in again.stderr
    assert str(rows["messages"]) in again.stdout


def test_the_command_refuses_what_cannot_be(sqlite_url: str, empty_postgres_url: str, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["copy", "--db", sqlite_url, "--to", "x.db"]).exit_code == 4
    assert not Path("x.db").exists()
    MemoryManager(sqlite_url).close()
    unready = CliRunner().invoke(app, ["copy", "--db", sqlite_url, "--to", empty_postgres_url])
    assert unready.exit_code == 4
    assert "db upgrade" in unready.stderr
    with MemoryManager(tmp_path / "used.db") as used:
        used.create_session("bob")
    refused = CliRunner().invoke(app, ["copy", "--db", sqlite_url, "--to", str(tmp_path / "used.db")])
    assert refused.exit_code == 1
    assert "holds something" in refused.stderr
