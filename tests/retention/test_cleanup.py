"""What is kept no longer goes, a batch at a time, whoever writes meanwhile and whenever it is cut short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from beside import write_lock
from sqlalchemy import func, select

from mirai_memory import (
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    ReadOnly,
    Task,
    UnitOfWork,
    load_settings,
)
from mirai_memory.models import Base
from mirai_memory.retention import Cleanup
from mirai_memory.search.postings import PLACES, SCOPES, WORDS
from mirai_memory.services.retention import Retention
from mirai_memory.testing.clock import FrozenClock

GUARD = 120.0
TABLES = ("sessions", "messages", "tasks", "knowledge", "embeddings")


def _counts(memory: MemoryManager) -> dict[str, int]:
    def count(uow: UnitOfWork) -> dict[str, int]:
        tables = [*(Base.metadata.tables[name] for name in TABLES), *WORDS.values(), PLACES]
        return {table.name: uow.db.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}

    return memory._store.read(count)


def _session(memory: MemoryManager, messages: int, owner: str = "alice", text: str = "walrus") -> str:
    session = memory.create_session(owner).id
    for start in range(0, messages, 1_000):
        count = min(1_000, messages - start)
        memory.add_messages([Message(session_id=session, role="user", content=f"{text} {n}") for n in range(count)])
    return session


def _fill(memory: MemoryManager, clock: FrozenClock) -> str:
    """Old sessions of two owners, facts that expire, and, forty days later, a session in use, whose id this is."""
    for owner in ("alice", "bob"):
        session = _session(memory, 30, owner)
        memory.add_task(Task(session_id=session, description="goes with it"))
        memory.add_task(Task(user_id=owner, description="stays"))
        learned = memory.get_messages(session)[0].id
        vector: dict[str, Any] = {"embedding": [1.0], "embedding_model": "m"}
        memory.add_knowledge(Knowledge(user_id=owner, key="stays", value="x", message_id=learned, **vector))
        soon = clock() + timedelta(days=9)
        memory.add_knowledge(Knowledge(user_id=owner, key="k", value="before"))
        memory.add_knowledge(Knowledge(user_id=owner, key="k", value="expires", expires_at=soon, **vector))
    memory.add_knowledge(Knowledge(key="shared", value="x", expires_at=clock() + timedelta(days=50)))
    memory.add_knowledge(Knowledge(key="shared and old", value="x", expires_at=clock() + timedelta(days=1)))
    clock.advance(days=40)
    return _session(memory, 5)


def test_what_is_old_goes_and_the_rest_stays(memory: MemoryManager, clock: FrozenClock) -> None:
    kept = _fill(memory, clock)
    planned = memory.cleanup(30, dry_run=True)
    before = _counts(memory)
    done = memory.cleanup(30)
    gone = {"sessions": 2, "messages": 60, "tasks": 2, "knowledge": 3, "embeddings": 2}
    assert {name: getattr(done, name) for name in TABLES} == gone
    assert planned == Cleanup(**{**done.to_dict(), "before": done.before, "dry_run": True})
    after = _counts(memory)
    assert {name: before[name] - after[name] for name in TABLES} == gone
    assert (after["word_messages"], after["word_places"]) == (5, 5)
    assert after["word_knowledge"] == 3  # what stays of each owner, and the shared fact
    assert [session.id for session in memory.list_sessions()] == [kept]
    assert [task.description for task in memory.get_tasks()] == ["stays", "stays"]
    assert memory.cleanup(30) == Cleanup(before=done.before, dry_run=False)


def test_the_counters_of_the_index_follow(memory: MemoryManager, clock: FrozenClock) -> None:
    _fill(memory, clock)
    memory.cleanup(30)
    scopes = memory._store.read(
        lambda uow: uow.db.execute(select(SCOPES.c.user_id, SCOPES.c.kind, SCOPES.c.item_count)).all()
    )
    assert {(owner, kind): count for owner, kind, count in scopes} == {
        ("alice", "message"): 5,
        ("bob", "message"): 0,
        ("alice", "knowledge"): 1,
        ("bob", "knowledge"): 1,
        ("", "knowledge"): 1,
    }
    assert memory.search_messages("walrus", user_id="bob") == []
    assert len(memory.search_messages("walrus", user_id="alice", limit=50)) == 5


def test_an_expired_fact_does_not_give_its_place_back(memory: MemoryManager, clock: FrozenClock) -> None:
    _fill(memory, clock)
    assert [fact.key for fact in memory.get_knowledge(user_id="alice")] == ["stays", "shared"]
    assert len(memory.knowledge_history("k", user_id="alice")) == 2
    memory.cleanup(1e6)
    assert [fact.value for fact in memory.knowledge_history("k", user_id="alice")] == ["before"]
    assert [fact.key for fact in memory.get_knowledge(user_id="alice")] == ["stays", "shared"]


def test_a_fact_stays_and_loses_its_message(memory: MemoryManager, clock: FrozenClock) -> None:
    _fill(memory, clock)
    assert memory.get_knowledge(key="stays", user_id="alice")[0].message_id is not None
    memory.cleanup(30)
    assert memory.get_knowledge(key="stays", user_id="alice")[0].message_id is None


def test_cleanup_old_sessions_does_the_same_and_says_how_many(memory: MemoryManager, clock: FrozenClock) -> None:
    _fill(memory, clock)
    assert memory.cleanup_old_sessions(30, dry_run=True) == 2
    assert memory.cleanup_old_sessions(30) == 2
    assert _counts(memory)["knowledge"] == 5
    assert memory.cleanup_old_sessions(30) == 0


def test_expired_facts_go_also_where_facts_are_switched_off(memory: MemoryManager, clock: FrozenClock) -> None:
    _fill(memory, clock)
    off = load_settings(memory={"long_term": {"enabled": False}})
    with MemoryManager(memory.url, settings=off, clock=clock) as other:
        assert other.cleanup(30).knowledge == 3


def test_the_span_of_the_settings_is_the_default(url: str, clock: FrozenClock) -> None:
    settings = load_settings(memory={"long_term": {"retention_days": 39}})
    with MemoryManager(url, settings=settings, clock=clock) as memory:
        _fill(memory, clock)
        done = memory.cleanup()
        assert (done.sessions, clock() - done.before) == (2, timedelta(days=39))


@pytest.mark.parametrize("days", [-1, float("nan"), "7", True])
def test_no_span(memory: MemoryManager, days: Any) -> None:
    with pytest.raises(InvalidInput, match="days"):
        memory.cleanup(days)


def test_a_read_only_memory_plans_only(memory: MemoryManager, clock: FrozenClock) -> None:
    _fill(memory, clock)
    with MemoryManager(memory.url, clock=clock, read_only=True) as other:
        assert other.cleanup(30, dry_run=True).sessions == 2
        with pytest.raises(ReadOnly):
            other.cleanup(30)


# --- in batches -------------------------------------------------------------------------------------------------------


class Watch:
    """In place of the module ``time``: how long a batch takes is what the test says."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(("row_s", "rows"), [(1 / 1024, 40), (1 / 8192, 327), (0.5, 10), (0.0, 2_000)], ids=str)
def test_a_batch_has_as_many_rows_as_fit_into_its_time(
    memory: MemoryManager, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch, row_s: float, rows: int
) -> None:
    """40 ms with the lock held, but for the first, of which nothing is known. Real time is for the benchmarks."""
    _session(memory, 8_000)
    clock.advance(days=40)
    watch = Watch()
    sweep = Retention.sweep_sessions

    def timed(retention: Retention, before: datetime, *, rows: int) -> Counter[str]:
        gone = sweep(retention, before, rows=rows)
        watch.now += row_s * gone.total()
        return gone

    monkeypatch.setattr(Retention, "sweep_sessions", timed)
    monkeypatch.setattr("mirai_memory.retention.time", watch)
    done = [0]
    memory.cleanup(30, progress=lambda gone, _: done.append(gone))
    first, *batches = [after - before for before, after in pairwise(done)]
    assert done[-1] == 8_001
    assert first == 100
    assert max(batches) == rows
    assert all(after <= 2 * before for before, after in pairwise([first, *batches]))


def test_others_write_between_the_batches(memory: MemoryManager, clock: FrozenClock) -> None:
    _session(memory, 4_000)
    clock.advance(days=40)
    session = memory.create_session("bob").id
    between: list[int] = []

    def write(done: int, total: int) -> None:
        assert done <= total
        with write_lock(memory.url):
            pass  # nobody has it
        with ThreadPoolExecutor(1) as pool:
            said = Message(session_id=session, role="user", content="x")
            pool.submit(memory.add_message, said).result(GUARD)
        between.append(done)

    assert memory.cleanup(30, progress=write).messages == 4_000
    assert len(between) > 3
    assert between == sorted(between)
    assert between[-1] == 4_001
    assert len(memory.get_messages(session, limit=9_999)) == len(between)


def test_a_batch_of_long_texts_is_a_small_one(memory: MemoryManager, clock: FrozenClock) -> None:
    session = memory.create_session("alice").id
    memory.add_messages([Message(session_id=session, role="user", content="x" * 100_000) for _ in range(60)])
    clock.advance(days=40)
    done: list[int] = []
    memory.cleanup(30, progress=lambda rows, _: done.append(rows))
    assert done[0] <= 10
    assert done[-1] == 61


def test_what_was_cut_short_is_taken_up(memory: MemoryManager, clock: FrozenClock) -> None:
    session = _session(memory, 700)
    _session(memory, 3)
    clock.advance(days=40)

    def stop(done: int, total: int) -> None:
        if done > 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.cleanup(30, progress=stop)
    left = memory.get_messages(session, limit=999)
    found = memory.get_session(session)
    assert found is not None
    assert 0 < len(left) == found.message_count < 700
    assert [m.position for m in left] == list(range(701 - len(left), 701)), "the oldest go first"
    assert memory.get_stats()["total_messages"] == len(left) + 3
    counts = _counts(memory)
    assert counts["messages"] == counts["word_messages"] == counts["word_places"]
    rest = memory.cleanup(30)
    assert (rest.messages, rest.sessions) == (len(left) + 3, 2)


def test_one_that_comes_back_to_life_is_left(memory: MemoryManager, clock: FrozenClock) -> None:
    session = _session(memory, 700)
    clock.advance(days=40)
    lives: list[bool] = []

    def use(done: int, total: int) -> None:
        if not lives:
            with ThreadPoolExecutor(1) as pool:
                said = Message(session_id=session, role="user", content="still here")
                pool.submit(memory.add_message, said).result(GUARD)
            lives.append(True)

    done = memory.cleanup(30, progress=use)
    assert (done.sessions, done.messages < 700) == (0, True)
    assert memory.get_recent_messages(session)[-1].content == "still here"
    assert memory.get_messages(session, limit=999)[-1].position == 701


def test_two_at_once_delete_everything_once(memory: MemoryManager, clock: FrozenClock) -> None:
    for _ in range(30):
        _session(memory, 20)
    clock.advance(days=40)
    start = threading.Barrier(3, timeout=GUARD)

    def clean() -> Cleanup:
        start.wait()
        return memory.cleanup(30)

    with ThreadPoolExecutor(3) as pool:
        done = [future.result(GUARD) for future in [pool.submit(clean) for _ in range(3)]]
    total: Counter[str] = sum((Counter({name: getattr(item, name) for name in TABLES}) for item in done), Counter())
    assert (total["sessions"], total["messages"]) == (30, 600)
    assert set(_counts(memory).values()) == {0}


CODE = """
import sys, time
from datetime import datetime, timedelta
from itertools import pairwise
from mirai_memory import MemoryManager
from mirai_memory._time import utc_now

def progress(done, total):
    print(done, flush=True)
    if done > 300:
        time.sleep(600)

with MemoryManager(sys.argv[1], clock=lambda: utc_now() + timedelta(days=400)) as memory:
    memory.cleanup(30, progress=progress)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
def test_kill_9_between_two_batches(url: str) -> None:
    with MemoryManager(url) as memory:
        session = _session(memory, 2_000)
    with subprocess.Popen([sys.executable, "-c", CODE, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done = next(int(line) for line in process.stdout if int(line) > 300)
        process.send_signal(signal.SIGKILL)
        process.wait(GUARD)
    with MemoryManager(url) as memory:
        found = memory.get_session(session)
        assert found is not None
        counts = _counts(memory)
        assert counts["messages"] == found.message_count == counts["word_messages"] == 2_000 - done
        assert len(memory.search_messages("walrus", limit=9)) == 9
        clock = FrozenClock(found.last_active + timedelta(days=400))
    with MemoryManager(url, clock=clock) as memory:
        assert memory.cleanup(30).messages == 2_000 - done
        assert set(_counts(memory).values()) == {0}
