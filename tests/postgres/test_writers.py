"""Sixty-four writers at one time, and random mixes of everything: one order, right sums, and no error for anybody."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mixed_work import CALLS, OWNERS, at_random
from server_side import GUARD, set_for_database, until

from mirai_memory import MemoryManager, Message, load_settings
from mirai_memory.testing import FakeEmbedder, FakeExtractor

WRITER = Path(__file__).with_name("many_writers.py")
WRITERS = 64
CALLS_EACH = 5


def _sessions(memory: MemoryManager, count: int) -> list[str]:
    """Of as many owners as there are sessions, but for eight of which the first has two."""
    return [memory.create_session(f"owner{number % 7}").id for number in range(count)]


def _check(memory: MemoryManager, sessions: list[str], given: list[int]) -> None:
    found = []
    for session in sessions:
        messages = memory.get_messages(session, limit=10_000)
        assert [message.position for message in messages] == list(range(1, len(messages) + 1))
        stored = memory.get_session(session)
        assert stored is not None
        assert stored.message_count == len(messages)
        last: dict[str, int] = {}
        for message in messages:  # of one thread in the order in which it wrote them
            name, number = message.content.split(" number ")
            assert int(number.split()[0]) == last.get(name, -1) + 1
            last[name] = int(number.split()[0])
        found += messages
    assert sorted(message.id or 0 for message in found) == sorted(given)
    assert memory.search_messages("tea")
    assert memory.verify().ok


class Readers:
    """Read a session over and over while others write: what was read once never moves."""

    def __init__(self, memory: MemoryManager, session: str) -> None:
        self._memory, self._session, self._done = memory, session, threading.Event()
        self.reads = 0

    def _read(self) -> None:
        seen: list[tuple[int | None, int | None]] = []
        while not self._done.is_set():
            now = [(m.id, m.position) for m in self._memory.get_messages(self._session, limit=10_000)]
            assert now[: len(seen)] == seen
            window = [m.position for m in self._memory.get_recent_messages(self._session, 5)]
            assert window == sorted(window, key=lambda place: place or 0)
            seen, self.reads = now, self.reads + 1

    def __enter__(self) -> Readers:
        self._pool = ThreadPoolExecutor(2)
        self._reading = [self._pool.submit(self._read) for _ in range(2)]
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for reading in self._reading:
            reading.result(GUARD)
        self._pool.shutdown()


@pytest.mark.parametrize("count", [1, 8], ids=["one session", "many sessions and owners"])
def test_threads(postgres_url: str, count: int) -> None:
    with MemoryManager(postgres_url) as memory, ThreadPoolExecutor(WRITERS) as pool:
        sessions = _sessions(memory, count)
        together = threading.Barrier(WRITERS, timeout=GUARD)

        def write(thread: int) -> list[int]:
            session = sessions[thread % count]
            together.wait()
            texts = (f"thread {thread} number {number} drinks tea" for number in range(CALLS_EACH))
            return [memory.add_message(Message(session_id=session, role="user", content=text)) for text in texts]

        with Readers(memory, sessions[0]) as readers:
            given = [id for ids in pool.map(write, range(WRITERS), timeout=GUARD) for id in ids]
        assert readers.reads
        assert len(given) == WRITERS * CALLS_EACH
        _check(memory, sessions, given)


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
@pytest.mark.parametrize("count", [1, 8], ids=["one session", "many sessions and owners"])
def test_processes(postgres_url: str, count: int, isolation: str) -> None:
    """Four, of sixteen threads each. What the database's owner has set for its transactions costs time only."""
    set_for_database(postgres_url, "default_transaction_isolation", isolation)
    with MemoryManager(postgres_url) as memory:
        sessions = _sessions(memory, count)
        command = [sys.executable, str(WRITER), postgres_url]
        options = [str(WRITERS // 4), str(CALLS_EACH), *sessions]
        pipe = subprocess.PIPE
        writers = [
            subprocess.Popen([*command, f"process {number}", *options], stdin=pipe, stdout=pipe, text=True)
            for number in range(4)
        ]
        try:
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "ready\n"
            with Readers(memory, sessions[0]):
                for writer in writers:
                    assert writer.stdin is not None
                    writer.stdin.write("go\n")
                    writer.stdin.flush()
                said = [json.loads(writer.communicate(timeout=GUARD)[0]) for writer in writers]
        finally:
            for writer in writers:
                writer.kill()
        assert [writer.wait() for writer in writers] == [0] * 4
        _check(memory, sessions, [id for process in said for ids in process for id in ids])


def test_each_gets_its_turn(postgres_url: str) -> None:
    """Of sixty-four that write without pause, none is left behind by many calls."""
    with MemoryManager(postgres_url) as memory:
        session, counts, done = memory.create_session("alice").id, dict.fromkeys(range(WRITERS), 0), threading.Event()

        def write(thread: int) -> None:
            while not done.is_set():
                memory.add_message(Message(session_id=session, role="user", content="tea"))
                counts[thread] += 1

        with ThreadPoolExecutor(WRITERS) as pool:
            writing = [pool.submit(write, thread) for thread in counts]
            until(lambda: sum(counts.values()) >= 8 * WRITERS or any(one.done() for one in writing))
            done.set()
            for one in writing:
                one.result(GUARD)
        assert min(counts.values()) >= 4, counts
        assert memory.get_stats()["total_messages"] == sum(counts.values())


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("seed", [1, 2])
def test_everything_at_random_from_sixteen_threads(postgres_url: str, isolation: str, seed: int) -> None:
    set_for_database(postgres_url, "default_transaction_isolation", isolation)
    _mix(postgres_url, seed)


def test_everything_at_random_in_a_file(sqlite_url: str) -> None:
    _mix(sqlite_url, seed=3)


def _mix(url: str, seed: int) -> None:
    # How long a lost unit of work is run again is a matter of the machine's load; that it is, is what counts here.
    patient = load_settings(memory={"busy_timeout_ms": 60_000})
    with MemoryManager(url, embedder=FakeEmbedder(dim=8), extractor=FakeExtractor(), settings=patient) as memory:
        done, wrong = at_random(memory, threads=16, calls=25, seed=seed)
        assert wrong == []
        assert len(done) > len(CALLS) // 2
        memory.reindex()
        assert {fault.name: fault.count for fault in memory.verify().faults} == {}
        for session in memory.list_sessions(limit=1000):
            places = [message.position or 0 for message in memory.get_messages(session.id, limit=10_000)]
            assert places == sorted(set(places))
        for owner in OWNERS:
            own = Counter((fact.category, fact.key) for fact in memory.get_knowledge(user_id=owner) if fact.user_id)
            assert max(own.values(), default=1) == 1, "two current values of one key"
