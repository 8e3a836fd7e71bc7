"""Writers take turns: in order, never for ever, and the turn outlives neither its holder nor its process."""

from __future__ import annotations

import gc
import os
import signal
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import Busy, MemoryManager, Message, load_settings
from mirai_memory.database import queue
from mirai_memory.database.queue import WriterQueue

DB = "memory.db"
LOCK = Path(f"{DB}.writers.lock")
PATIENCE = 60.0  # seconds after which a test has failed; nothing here takes a second


@contextmanager
def _opened(busy_timeout_ms: int = 30_000) -> Iterator[MemoryManager]:
    with MemoryManager(DB, settings=load_settings(memory={"busy_timeout_ms": busy_timeout_ms})) as memory:
        yield memory


def _say(memory: MemoryManager, session_id: str, content: str) -> None:
    memory.add_message(Message(session_id=session_id, role="user", content=content))


def _in_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


HOLDER = """
import sys
from mirai_memory import MemoryManager
with MemoryManager("memory.db") as memory, memory.unit_of_work() as uow:
    uow.sessions.create("holder")
    print("held", flush=True)
    sys.stdin.readline()
"""

WRITER = """
import sys
from mirai_memory import MemoryManager, Message
session, name, count = sys.argv[1:]
with MemoryManager("memory.db") as memory:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(count)):
        memory.add_message(Message(session_id=session, role="user", content=f"{name} {number}"))
"""


def _started(script: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() in {"held", "ready"}
    return process


def _ended(process: subprocess.Popen[str]) -> int:
    """Let it go on to its end; the exit code."""
    process.communicate("\n", timeout=PATIENCE)
    return process.returncode


@pytest.mark.long
def test_eight_processes_lose_nothing_and_agree_on_one_order() -> None:
    with _opened() as memory:
        session = memory.create_session("alice").id
    writers = [_started(WRITER, session, f"w{number}", "25") for number in range(8)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [_ended(writer) for writer in writers] == [0] * 8
    with _opened() as memory:
        stored = memory.get_messages(session, limit=1_000)
        assert [message.position for message in stored] == list(range(1, 201))
        for number in range(8):
            own = [message.content for message in stored if message.content.startswith(f"w{number} ")]
            assert own == [f"w{number} {turn}" for turn in range(25)]


def test_threads_write_in_the_order_in_which_they_came() -> None:
    with _opened() as memory:
        session = memory.create_session("alice").id
        queue = memory._database.queue
        assert queue is not None
        threads = []
        with memory.unit_of_work():
            for number in range(10):
                threads.append(_in_thread(lambda n=number: _say(memory, session, str(n))))  # type: ignore[misc]
                _until(lambda n=number: len(queue._turns._waiting) == n + 1)  # type: ignore[misc]
        for thread in threads:
            thread.join(PATIENCE)
        assert [message.content for message in memory.get_messages(session)] == [str(n) for n in range(10)]


def _until(condition: Callable[[], bool]) -> None:
    """Wait for a state that is surely reached; an event would have to be built into what is tested."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    pytest.fail("the state was not reached")


@pytest.mark.parametrize("where", ["a thread", "a process"])
def test_a_turn_that_does_not_come_is_busy_and_changes_nothing(where: str) -> None:
    with _opened() as memory:
        session = memory.create_session("alice").id
        memory.create_session("other")
        with _opened(busy_timeout_ms=50) as impatient, _held(memory, where):
            with pytest.raises(Busy, match=r"memory\.busy_timeout_ms"):
                _say(impatient, session, "lost")
            assert impatient.get_session(session) is not None  # readers wait for nobody
        assert memory.get_messages(session) == []


@contextmanager
def _held(memory: MemoryManager, where: str) -> Iterator[None]:
    if where == "a process":
        process = _started(HOLDER)
        try:
            yield
        finally:
            assert _ended(process) == 0
        return
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with memory.unit_of_work():
            held.set()
            done.wait(PATIENCE)

    thread = _in_thread(hold)
    held.wait(PATIENCE)
    yield
    done.set()
    thread.join(PATIENCE)


@pytest.mark.parametrize("where", ["a thread", "a process"])
def test_who_gave_up_may_come_again(where: str) -> None:
    """The kernel may hand the lock to somebody who has stopped waiting: it goes on to the next."""
    with _opened() as memory, _opened(busy_timeout_ms=30) as impatient:
        session = memory.create_session("alice").id
        with _held(memory, where):
            for _ in range(3):
                with pytest.raises(Busy):
                    _say(impatient, session, "lost")
        for memory_again in (memory, impatient, memory, impatient):
            _say(memory_again, session, "kept")
        assert len(memory.get_messages(session)) == 4


def test_a_process_that_is_killed_gives_its_turn_to_the_next() -> None:
    with _opened() as memory:
        session = memory.create_session("alice").id
        holder = _started(HOLDER)
        waiting = _in_thread(lambda: _say(memory, session, "next"))
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate(timeout=PATIENCE)
        waiting.join(PATIENCE)
        assert [message.content for message in memory.get_messages(session)] == ["next"]
        assert memory.list_sessions("holder") == []


@contextmanager
def _keeping(monkeypatch: pytest.MonkeyPatch, pause: float) -> Iterator[tuple[MemoryManager, MemoryManager, str]]:
    """A memory that has kept the lock for its next write, after it had to wait for it; another one; a session."""
    monkeypatch.setattr(queue, "_BURST", PATIENCE)
    monkeypatch.setattr(queue, "_PAUSE", PATIENCE)
    with _opened(busy_timeout_ms=10_000) as memory, _opened(busy_timeout_ms=10_000) as other:
        session = memory.create_session("alice").id
        waiting: threading.Thread | None = None
        with other.unit_of_work():
            waiting = _in_thread(lambda: _say(memory, session, "after the other"))
            _until(lambda: _lock(memory)._wanted)
            monkeypatch.setattr(queue, "_PAUSE", pause)
        waiting.join(PATIENCE)
        assert _lock(memory)._kept_since is not None
        yield memory, other, session


def _lock(memory: MemoryManager) -> Any:
    assert memory._database.queue is not None
    return memory._database.queue._lock


def test_a_lock_that_is_kept_for_the_next_write_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with _keeping(monkeypatch, PATIENCE) as (memory, other, session):
        _say(memory, session, "and again")  # other threads' too
        assert _lock(memory)._kept_since is not None
        late = _in_thread(lambda: _say(other, session, "as soon as the first is closed"))
        _until(lambda: _lock(other) is not None and _lock(other)._wanted)
        memory.close()
        late.join(5)
        assert [message.content for message in other.get_messages(session)][-1] == "as soon as the first is closed"


def test_a_lock_that_nobody_comes_back_for_goes_on_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with _keeping(monkeypatch, 1.0) as (memory, other, session):
        _say(other, session, "at last")  # else Busy
        assert _lock(memory)._kept_since is None
        _say(memory, session, "and so on")
        assert len(memory.get_messages(session)) == 3


def test_a_failed_write_gives_its_turn_back() -> None:
    with _opened(busy_timeout_ms=1_000) as memory:
        session = memory.create_session("alice").id
        for error in (RuntimeError, KeyboardInterrupt):
            with pytest.raises(error), memory.unit_of_work():
                raise error
        _say(memory, session, "kept")
        with _opened(busy_timeout_ms=1_000) as other:
            _say(other, session, "kept too")
        assert len(memory.get_messages(session)) == 2


def test_an_interrupted_wait_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = WriterQueue(Path(DB), wait_s=PATIENCE)
    with queue.turn():
        monkeypatch.setattr(threading.Event, "wait", _interrupted)
        with pytest.raises(KeyboardInterrupt), queue.turn():
            pytest.fail("the turn was taken")
        monkeypatch.undo()
    with queue.turn():
        pass
    queue.close()


def _interrupted(event: threading.Event, timeout: float | None = None) -> bool:
    raise KeyboardInterrupt


@pytest.mark.parametrize("obstacle", ["a folder", "a link"])
def test_without_a_lock_file_sqlite_s_own_lock_has_to_do(obstacle: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    if obstacle == "a folder":
        LOCK.mkdir()
    else:
        LOCK.symlink_to(elsewhere)
    with _opened() as memory:
        _say(memory, memory.create_session("alice").id, "kept")
        assert memory.get_stats()["total_messages"] == 1
    assert not elsewhere.exists()  # a link is not followed


def test_the_lock_file_is_the_owner_s_and_stays() -> None:
    with _opened() as memory:
        memory.create_session("alice")
        first = LOCK.stat()
        assert stat.S_IMODE(first.st_mode) == 0o600
    with _opened() as memory:
        memory.create_session("alice")
    assert LOCK.stat().st_ino == first.st_ino  # deleted, it would let two writers in


def test_reading_makes_no_lock_file() -> None:
    with _opened() as memory:
        memory.create_session("alice")
    LOCK.unlink()
    with MemoryManager(DB, read_only=True) as memory:
        assert len(memory.list_sessions("alice")) == 1
    assert not LOCK.exists()


def test_a_closed_memory_leaves_no_handle_and_no_thread() -> None:
    with _opened() as memory, _opened() as other:
        session = memory.create_session("alice").id
        with memory.unit_of_work():
            waiting = _in_thread(lambda: _say(other, session, "x"))
            _until(lambda: other._database.queue is not None and other._database.queue._lock is not None)
        waiting.join(PATIENCE)
        assert _handles(LOCK)
    _until(lambda: not _handles(LOCK))
    _until(lambda: not [thread for thread in threading.enumerate() if thread.name == "mirai-memory-writer"])


def test_a_memory_that_is_dropped_unclosed_leaves_no_handle() -> None:
    memory = MemoryManager(DB)
    _say(memory, memory.create_session("alice").id, "x")
    assert _handles(LOCK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the connection
        del memory
        _until(lambda: gc.collect() is not None and not _handles(LOCK))


def _handles(path: Path) -> list[str]:
    """Of this process, on this file."""
    wanted = str(path.resolve())
    return [fd for fd in os.listdir("/proc/self/fd") if _target(fd) == wanted]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""  # of the listing itself


FORKING = """
import os, sys, threading, time
from mirai_memory import MemoryManager, Message
memory = MemoryManager("memory.db")
session = memory.create_session("alice").id
held = threading.Event()

def hold():
    with memory.unit_of_work():
        held.set()
        time.sleep(0.3)                 # ends while the fork waits for it

threading.Thread(target=hold).start()
held.wait(60)
if os.fork() == 0:                      # while another thread of the parent has the turn
    memory.add_message(Message(session_id=session, role="user", content="child"))
    os._exit(0)
{parent}
"""


@pytest.mark.parametrize("parent", ["sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))", "os._exit(0)"])
def test_a_child_forked_during_a_write_writes_too(parent: str) -> None:
    """A child that kept the inherited handle open would hold the lock of a parent that has died."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING.format(parent=parent)], timeout=PATIENCE, check=False
    )
    assert done.returncode == 0
    with _opened() as memory:
        session = memory.list_sessions("alice")[0].id
        _until(lambda: len(memory.get_messages(session)) == 1)
        _say(memory, session, "after")
        assert [message.content for message in memory.get_messages(session)] == ["child", "after"]


def test_a_write_may_fork() -> None:
    """The thread that forks has the turn itself: waiting for it would never end."""
    with _opened() as memory:
        queue = memory._database.queue
        assert queue is not None
        with memory.unit_of_work():
            queue.before_fork()
            queue.after_fork()
        memory.create_session("alice")


def test_the_wal_is_given_back_after_a_long_reader() -> None:
    wal = Path(f"{DB}-wal")
    big = "x" * 200_000
    with _opened() as memory:
        session = memory.create_session("alice").id
        reading = memory._database.engine.connect()
        reading.connection.driver_connection.execute("BEGIN")  # type: ignore[union-attr]
        reading.connection.driver_connection.execute("SELECT count(*) FROM messages").fetchall()  # type: ignore[union-attr]
        for _ in range(120):
            _say(memory, session, big)  # the reader blocks no writer
        grown = wal.stat().st_size
        assert grown > 20_000_000
        reading.connection.driver_connection.execute("ROLLBACK")  # type: ignore[union-attr]
        reading.close()
        for _ in range(20):
            _say(memory, session, big)
        assert wal.stat().st_size < grown
        assert wal.stat().st_size <= 17_000_000
