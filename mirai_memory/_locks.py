"""One lock between processes, on a file that is never deleted; the kernel releases it when its holder dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirai_memory.errors import Busy

if sys.platform == "win32":  # pragma: no cover - written for Windows, not run there
    import msvcrt

    def try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def lock_or_wait(fd: int) -> None:
        while not try_lock(fd):
            time.sleep(_FIRST_PAUSE)

    def unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock_or_wait(fd: int) -> None:
        """Wait for as long as it takes."""
        fcntl.flock(fd, fcntl.LOCK_EX)

    def unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


def open_lock_file(path: Path) -> int:
    """A descriptor of the lock file, which is made if it is missing, mode 0600; a link is not followed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600)


@contextmanager
def file_lock(path: Path, *, wait: float) -> Iterator[None]:
    """Hold the lock file at ``path`` (made if missing, mode 0600); ``Busy`` after ``wait`` seconds.

    Threads of one process exclude each other too, since every call opens the file anew.
    """
    fd = open_lock_file(path)
    try:
        deadline, pause = time.monotonic() + wait, _FIRST_PAUSE
        while not try_lock(fd):
            if time.monotonic() >= deadline:
                raise Busy(f"{path.name} was held by another process for {wait:g} s; try again")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            yield
        finally:
            unlock(fd)
    finally:
        os.close(fd)
