"""Work in the background: a thread that nobody waits for, and that keeps nothing from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mirai_memory.errors import MiraiMemoryError
from mirai_memory.logging import logger

__all__ = ["Worker"]

_LINGERING = 1.0  # seconds that the thread waits for more
_LONGEST_GOODBYE = 2.0  # seconds that stop() waits for it: one that hangs in a model finds the memory closed


class Worker:
    """A thread that is there while there is something to do, and a little longer; ``what`` it makes is its name."""

    def __init__(self, work: Callable[[threading.Event], None], what: str) -> None:
        self._work = work
        self._what = what
        self._changed = threading.Condition()
        self._wanted = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        with self._changed:
            self._wanted = True
            if self._thread is None and not self._stopping.is_set():
                # A daemon: it never keeps a process from ending, and what it leaves undone stays wanted.
                self._thread = threading.Thread(target=self._run, name=f"mirai-memory-{self._what}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def stop(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LONGEST_GOODBYE)

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._work(self._stopping)
            except Exception as error:
                if not self._stopping.is_set():
                    why = error if isinstance(error, MiraiMemoryError) else type(error).__name__
                    logger.warning("{} are not made in the background for now: {}", self._what, why)

    def _is_wanted(self) -> bool:
        """Wait a little for something to do; False ends the thread."""
        with self._changed:
            if not self._wanted and not self._stopping.is_set():
                self._changed.wait(_LINGERING)
            wanted = self._wanted and not self._stopping.is_set()
            self._wanted = False
            if not wanted:
                self._thread = None
            return wanted
