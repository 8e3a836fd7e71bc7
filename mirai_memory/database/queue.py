"""Writers of one SQLite file take turns: threads in the order in which they came, processes as the kernel has it.

SQLite's own way of waiting is to try again after ever longer pauses, by which one writer can starve while others write
a thousand times. So a writer first takes a lock on a file beside the database, which the kernel hands on, and takes
away from a process that dies; then it takes SQLite's. That one stays the lock that counts: it keeps out writers that
know nothing of the queue.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirai_memory._locks import lock_or_wait, open_lock_file, try_lock, unlock
from mirai_memory.errors import Busy

_ENDING = ".writers.lock"
_BEFORE_FORK = 2.0  # seconds that a fork waits for a write that is under way
_BURST = 0.025  # seconds that a process keeps a lock which others wait for, over several writes
_PAUSE = 0.004  # seconds between writes that belong together
_LINGERING = 5.0  # seconds that the thread that waits for the kernel stays for the next wait


class WriterQueue:
    """The queue of one database file, for the threads of this process and for all processes."""

    def __init__(self, path: Path, *, wait_s: float) -> None:
        self._path = path.with_name(path.name + _ENDING)
        self._wait_s = wait_s
        self._new_process()
        _queues.add(self)

    def _new_process(self) -> None:
        self._turns = _Turns()
        self._holder: int | None = None
        self._held_for_fork = False
        self._lock: _KernelLock | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the write turn. Raises Busy where it does not come in time."""
        deadline = time.monotonic() + self._wait_s
        if not self._turns.take(self._wait_s):
            raise _busy(self._wait_s)
        try:
            self._holder = threading.get_ident()
            lock = self._kernel_lock()
            if lock is None:
                yield
                return
            if not lock.take(deadline - time.monotonic()):
                raise _busy(self._wait_s)
            try:
                yield
            finally:
                lock.give_back()
        finally:
            self._holder = None
            self._turns.give_back()

    def _kernel_lock(self) -> _KernelLock | None:
        """None where no file can be made beside the database: then SQLite's own lock has to do."""
        if self._lock is None:
            try:
                self._lock = _KernelLock(self._path)
            except OSError:
                return None
        return self._lock

    def close(self) -> None:
        """Release the file. A writer that comes later opens it again."""
        if self._turns.take(0):
            try:
                lock, self._lock = self._lock, None
                if lock is not None:
                    lock.close()
            finally:
                self._turns.give_back()

    def before_fork(self) -> None:
        """Let a write that is under way end: of one that a fork copies half-way, SQLite would think for ever that it
        goes on in the child. For a while only, since it may wait for the thread that forks."""
        self._held_for_fork = self._holder != threading.get_ident() and self._turns.take(_BEFORE_FORK)

    def after_fork(self) -> None:
        """In the parent."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._turns.give_back()

    def forget_parent(self) -> None:
        """In a forked child: an inherited handle would keep the parent's lock alive after its death."""
        if self._lock is not None:
            self._lock.close_in_child()
        self._new_process()


class _Turns:
    """A lock that is handed on in the order of asking, which a ``threading.Lock`` does not promise."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def take(self, wait_s: float) -> bool:
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            mine.wait(max(0.0, wait_s))
        except BaseException:
            if not self._leave(mine):
                self.give_back()
            raise
        return not self._leave(mine)

    def _leave(self, mine: threading.Event) -> bool:
        """Out of the queue; False where the turn has come already."""
        with self._guard:
            if mine.is_set():
                return False
            self._waiting.remove(mine)
            return True

    def give_back(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class _KernelLock:
    """The lock on the file; asked for by one thread at a time.

    A wait that can end is made by a thread of its own, since the kernel's cannot: should the lock come when nobody
    waits any more, that thread gives it back. It has a handle of its own, so that the two never mistake each other's
    lock.

    A process that writes again and again keeps a lock that it had to wait for over the writes of some milliseconds:
    handed on after each, eight processes got six writes done where SQLite's own waiting gets ten.
    """

    def __init__(self, path: Path) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wanted = False  # somebody waits
        self._comes_back = False  # who waits has only just written
        self._granted = False  # after a wait
        self._kept_since: float | None = None  # granted, and between two writes
        self._burst_ends = 0.0
        self._given_back = 0.0
        self._closed = True  # until both handles are there
        self._own = open_lock_file(path)
        try:
            self._asker = open_lock_file(path)
        except BaseException:
            os.close(self._own)
            raise
        self._closed = False

    def take(self, wait_s: float) -> bool:
        with self._changed:
            self._kept_since = None
            if self._granted:
                return True
        if try_lock(self._own):
            return True
        with self._changed:
            self._wanted = True
            self._comes_back = time.monotonic() - self._given_back < _PAUSE
            if self._thread is None:
                self._thread = threading.Thread(target=self._ask, name="mirai-memory-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._granted, max(0.0, wait_s))
                return self._granted
            finally:
                self._wanted = False

    def _ask(self) -> None:
        while self._is_wanted():
            lock_or_wait(self._asker)
            with self._changed:
                if self._wanted:
                    self._wanted = False
                    self._granted = True
                    self._burst_ends = time.monotonic() + (_BURST if self._comes_back else 0.0)
                    self._changed.notify_all()
                    self._end_burst()
                else:
                    unlock(self._asker)

    def _end_burst(self) -> None:
        """Give back the lock that nobody came back for."""
        while self._granted:
            # Woken by the clock, since to be woken after each write would cost more than the write's own waiting.
            self._changed.wait(None if self._kept_since is None and time.monotonic() > self._burst_ends else _PAUSE)
            now = time.monotonic()
            if self._kept_since is not None and (now > self._burst_ends or now - self._kept_since > _PAUSE):
                self._let_go()

    def _let_go(self) -> None:
        self._kept_since = None
        self._granted = False
        unlock(self._asker)
        self._changed.notify_all()

    def _is_wanted(self) -> bool:
        """Wait a little for the next one to ask; False ends the thread."""
        with self._changed:
            if not self._wanted:
                self._changed.wait_for(lambda: self._wanted or self._closed, _LINGERING)
            if self._wanted:
                return True
            self._thread = None
            if self._closed:
                os.close(self._asker)
            return False

    def give_back(self) -> None:
        with self._changed:
            self._given_back = time.monotonic()
            if not self._granted:
                unlock(self._own)
            elif self._given_back < self._burst_ends:
                self._kept_since = self._given_back
            else:
                self._let_go()

    def close(self) -> None:
        """Nobody waits any more; a thread that still waits for the kernel closes its handle itself."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            os.close(self._own)
            if self._granted:
                self._let_go()
            self._changed.notify_all()
            if self._thread is None:
                os.close(self._asker)

    def __del__(self) -> None:
        # Of a memory that was dropped without being closed. The thread, while there is one, keeps this object.
        self.close()

    def close_in_child(self) -> None:
        """After a fork: the thread is not there, and may have held the condition."""
        self._closed, self._changed = True, threading.Condition()
        os.close(self._own)
        os.close(self._asker)


def _busy(wait_s: float) -> Busy:
    return Busy(
        f"other writers kept the database for longer than memory.busy_timeout_ms ({wait_s:g} s); nothing was changed, "
        "try again"
    )


_queues: weakref.WeakSet[WriterQueue] = weakref.WeakSet()


def _before_fork() -> None:
    for queue in list(_queues):
        queue.before_fork()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.after_fork()


def _after_fork_in_child() -> None:
    for queue in list(_queues):
        queue.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
