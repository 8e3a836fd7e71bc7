"""A turn that fails, a lock that comes too late and a process that dies hold up nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirai_memory import Busy, MemoryManager, Settings, UnitOfWork, load_settings
from mirai_memory.database import queue
from mirai_memory.database.queue import WriterQueue

PATIENCE = 60.0  # seconds after which something that should have happened will not; no test waits that long


def _impatient() -> Settings:
    """Long enough for a turn that is free, short enough to be told in a test that it is not."""
    return load_settings(memory={"busy_timeout_ms": 1_000})


def _fail(uow: UnitOfWork) -> None:
    uow.sessions.create("lost")
    raise ZeroDivisionError


def test_a_failed_write_gives_its_lock_to_others_at_once(sqlite_url: str) -> None:
    """Two memories of one file lock it as two processes do: each by a handle of its own."""
    with MemoryManager(sqlite_url) as first, MemoryManager(sqlite_url, settings=_impatient()) as second:
        with pytest.raises(ZeroDivisionError):
            first.run(_fail)
        second.create_session("alice")
        assert [session.user_id for session in first.list_sessions()] == ["alice"]


def test_a_lock_that_comes_too_late_goes_on_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, late, next_ = (WriterQueue(tmp_path / "memory.db", wait_s=wait) for wait in (PATIENCE, 0.01, 2.0))
    came = threading.Event()
    wait_for = queue.lock_or_wait
    monkeypatch.setattr(queue, "lock_or_wait", lambda fd: (wait_for(fd), came.set()))
    with first.turn(), pytest.raises(Busy), late.turn():
        pass
    assert came.wait(PATIENCE)
    with next_.turn():
        pass
    for writers in (first, late, next_):
        writers.close()


# The child keeps all that it has inherited; the parent dies in the middle of a write.
DYING = """
import os, sys
from mirai_memory import MemoryManager

memory = MemoryManager(sys.argv[1])
with memory.unit_of_work() as uow:
    uow.sessions.create("lost")
    if os.fork():
        os._exit(0)
    print("alone", flush=True)
    sys.stdin.readline()
    os._exit(0)
"""


@contextmanager
def _orphan(path: str) -> Iterator[None]:
    """A process whose parent died with the write turn; it lives as long as the block."""
    command, pipe = [sys.executable, "-W", "ignore", "-c", DYING, path], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "alone\n"
        assert parent.wait(PATIENCE) == 0
        try:
            yield
        finally:
            parent.communicate("go\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
def test_a_child_does_not_keep_the_turn_of_a_parent_that_died(sqlite_url: str) -> None:
    with MemoryManager(sqlite_url, settings=_impatient()) as memory, _orphan(sqlite_url):
        memory.create_session("alice")
        assert [session.user_id for session in memory.list_sessions()] == ["alice"]
