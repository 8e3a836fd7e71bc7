"""So many connections and no more, given out in the order in which they were asked for.

A pool alone is not fair: whoever gives a connection back and asks again at once has it before those who wait are awake.
Of sixteen threads that wrote without pause over fifteen connections, one wrote once in five seconds.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from mirai_memory.errors import Busy


class Seats:
    """A semaphore that is fair."""

    def __init__(self, count: int, *, wait_s: float, busy: str = "") -> None:
        """``busy``: what is said to whom has waited in vain."""
        self._count = count
        self._busy = busy or f"none of {count} connections was free within {wait_s:g} s; try again"
        self._wait_s = wait_s
        self._changing = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Event] = deque()

    def renewed(self) -> Seats:
        """All of them free: for a process that was forked off, in which nobody else is."""
        return Seats(self._count, wait_s=self._wait_s, busy=self._busy)

    def __enter__(self) -> None:
        with self._changing:
            if self._free and not self._waiting:
                self._free -= 1
                return
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            given = mine.wait(self._wait_s)
        except BaseException:
            self._leave(mine)
            raise
        if not given and self._leave(mine, keep=True):
            raise Busy(self._busy)

    def _leave(self, mine: threading.Event, *, keep: bool = False) -> bool:
        """Whether the place in the queue is given up; one that was given a seat meanwhile keeps or passes it on."""
        with self._changing:
            if not mine.is_set():
                self._waiting.remove(mine)
                return True
        if not keep:
            self._pass_on()
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
