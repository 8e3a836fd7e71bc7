"""A log file that any number of threads and processes append to, rotated by size, with no line lost or torn.

Whoever appends holds the lock file beside the log, opens what is at the path now, rotates it if the line has no room
left, writes the line whole and closes again. Nothing is kept open between two lines: a rotation by another process,
a deleted file and a fork need no care, and on Windows the file can be renamed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mirai_memory._locks import file_lock
from mirai_memory.errors import Busy

# How long a line waits for its turn. Where somebody holds the lock for longer (a process that was stopped), the lines
# after it do not wait at all until the lock is free again: the host must not stand still for its log.
_PATIENCE = 1.0
_TRIES = 5
_FLAGS = (
    os.O_RDWR
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)


def rotated(path: Path, number: int) -> Path:
    """Where the content of ``path`` is after so many rotations."""
    return path.with_name(f"{path.name}.{number}")


class LogFile:
    """Lines at the end of ``path``; over ``max_bytes`` (None: never) it becomes ``path.1``, that one ``path.2``, ...

    ``backup_count`` old files are kept. A line longer than ``max_bytes`` has a file to itself. Raises OSError.
    """

    def __init__(self, path: Path, *, max_bytes: int | None, backup_count: int) -> None:
        self.path = path
        self._lock = path.with_name(f"{path.name}.lock")
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self._patience = _PATIENCE

    def append(self, line: bytes) -> None:
        try:
            self._append_in_turn(line)
        except FileNotFoundError:  # the folder: not made yet, or removed since
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append_in_turn(line)

    def _append_in_turn(self, line: bytes) -> None:
        try:
            with file_lock(self._lock, wait=self._patience):
                self._patience = _PATIENCE
                self._append_alone(line)
        except Busy:
            self._patience = 0
            self._append_among_others(line)

    def _append_alone(self, line: bytes) -> None:
        with self._opened() as fd:
            if self._has_room(fd, len(line)):
                _write_whole(fd, line)
                return
        try:
            self._rotate()
        finally:  # where the files cannot be renamed, the line is worth more than the size
            with self._opened() as fd:
                _write_whole(fd, line)

    def _append_among_others(self, line: bytes) -> None:
        """One write at the end, which the system does not mix with another; again, if the file was just dropped."""
        for _ in range(_TRIES):
            with self._opened() as fd:
                os.write(fd, line)
                if os.fstat(fd).st_nlink:
                    return

    @contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self.path, _FLAGS, 0o600)
        try:
            _refuse_foreign(fd)
            yield fd
        finally:
            os.close(fd)

    def _has_room(self, fd: int, length: int) -> bool:
        size = os.fstat(fd).st_size
        return self._max_bytes is None or size == 0 or size + length <= self._max_bytes

    def _rotate(self) -> None:
        if self._backup_count == 0:
            self.path.unlink()
            return
        numbers = range(1, self._backup_count + 1)
        # Only what stands before a gap moves: a gap is a rotation that was interrupted, and costs no file.
        last = next((number for number in numbers if not os.path.lexists(rotated(self.path, number))), numbers[-1])
        for number in range(last, 1, -1):
            os.replace(rotated(self.path, number - 1), rotated(self.path, number))
        os.replace(self.path, rotated(self.path, 1))
        self._drop_from(self._backup_count + 1)

    def _drop_from(self, number: int) -> None:
        """Files of a time when more of them were kept."""
        with suppress(FileNotFoundError):
            while True:
                rotated(self.path, number).unlink()
                number += 1


def _refuse_foreign(fd: int) -> None:
    """The default path is in a folder where everybody writes: what another user put there is not our log."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file")
    if os.name == "posix":
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "belongs to another user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(fd, 0o600)


def _write_whole(fd: int, line: bytes) -> None:
    size = os.lseek(fd, 0, os.SEEK_END)
    if size:
        os.lseek(fd, size - 1, os.SEEK_SET)
        if os.read(fd, 1) != b"\n":  # a writer was killed half-way through a line
            line = b"\n" + line
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        os.ftruncate(fd, size)  # a full disk takes half a line
        raise
