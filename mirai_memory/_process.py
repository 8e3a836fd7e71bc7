"""Values that belong to one process: connections, and threads of native libraries, do not survive a fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["OncePerProcess"]

T = TypeVar("T")


class OncePerProcess(Generic[T]):
    """Makes a value when it is first asked for, and another one in a process that was forked off."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        # The parent's is kept: to tear it down in the child would close what the parent still uses. A dict's
        # setdefault is one step, so that no lock is needed, which the fork could leave locked for ever.
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        pid = os.getpid()
        if pid not in self._made:
            self._made.setdefault(pid, self._make())
        return self._made[pid]
