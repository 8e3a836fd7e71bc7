"""Session ids: UUID version 7 (RFC 9562), as text, growing within a process."""

from __future__ import annotations

import os
import threading
import time
import uuid

_lock = threading.Lock()
_last = 0


def new_session_id() -> str:
    """A new UUIDv7; later calls in one process sort after earlier ones, also within a millisecond.

    >>> new_session_id() < new_session_id()
    True
    """
    global _last
    # The 74 bits below the millisecond are random, but the whole never goes back: when the clock stands still or
    # steps back the last value is counted up instead, which keeps ids sortable and unique.
    stamp = (time.time_ns() // 1_000_000) << 74 | int.from_bytes(os.urandom(10), "big") >> 6
    with _lock:
        _last = stamp if stamp > _last else _last + 1
        value = _last
    milliseconds, high, low = value >> 74, (value >> 62) & 0xFFF, value & (1 << 62) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low))


def _after_fork() -> None:
    # Another thread may have held the lock at the moment of the fork; the child starts with one of its own.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
