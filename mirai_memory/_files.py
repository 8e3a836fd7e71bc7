"""Where files come to stand: written under a name of no meaning, synced, and only then given their own."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mirai_memory.errors import Conflict, MiraiMemoryError, ReadOnly, StorageError, StorageFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_UNFINISHED = re.compile(r"\.mirai-(backup|restore|export)-[0-9a-f]{16}")
_STALE = 86_400.0  # seconds after which what is unfinished was left by a process that died
# What SQLite would take for a part of the file beside which it stands.
COMPANIONS = ("-wal", "-journal", "-shm")


def storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    """Our error for what the system said; ``doing`` names what failed."""
    if error.errno in FULL:
        return StorageFull(f"no space is left at {path.parent} while {doing}; nothing was kept of it")
    if error.errno in _REFUSED:
        return ReadOnly(f"{path} may not be written or read while {doing}: {error.strerror}")
    return StorageError(f"{path}: {error.strerror or type(error).__name__} while {doing}")


@contextmanager
def translated(path: Path, doing: str) -> Iterator[None]:
    """Inside, what the system refuses is raised as our own error."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MiraiMemoryError):
            raise
        raise storage_error(error, path, doing) from error


def open_new(path: Path) -> int:
    """A new file that only its owner can read. FileExistsError where something stands there, a link included."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)


def open_existing(path: Path, mode: int = os.O_RDONLY) -> int:
    """A regular file, no link followed. Raises OSError."""
    if path.is_symlink():  # for systems where opening cannot refuse it
        raise OSError(errno.ELOOP, "is a link, which is not followed")
    fd = os.open(path, mode | _FLAGS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no regular file")
    return fd


def make_folder(folder: Path) -> None:
    """The folder, for its owner alone where it is new."""
    with translated(folder, "the folder was made"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def refuse_unless_free(path: Path, *, overwrite: bool) -> None:
    """Raise where a new file cannot take the name: Conflict for an old one, StorageError for what is no file of ours.

    A link is never followed nor replaced; SQLite's own files beside the name would become a part of what gets it.
    """
    if path.is_symlink():
        raise StorageError(f"{path} is a link, which is not followed; name the file itself")
    for ending in COMPANIONS:
        if os.path.lexists(f"{path}{ending}"):
            raise StorageError(
                f"{path}{ending} stands there: a database of that name is in use, or was left by a crash"
            )
    if os.path.lexists(path):
        if not path.is_file():
            raise StorageError(f"{path} is no regular file; name another")
        if not overwrite:
            raise Conflict("backup", str(path), "exists already; name another file, or overwrite it")


def unfinished(target: Path, what: Literal["backup", "restore", "export"]) -> Path:
    """A name beside ``target`` for what shall become it; ``sweep`` knows it again."""
    return target.parent / f".mirai-{what}-{secrets.token_hex(8)}"


@contextmanager
def draft(target: Path) -> Iterator[Path]:
    """A new empty file beside ``target``; gone at the end, unless ``publish`` has given it its name."""
    folder = target.parent
    path = unfinished(target, "backup")
    with translated(target, "the backup was made"):
        sweep(folder)
        os.close(open_new(path))
    try:
        yield path
    finally:
        for ending in ("", *COMPANIONS):
            with suppress(OSError):
                os.unlink(f"{path}{ending}")


@contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """A new folder beside ``target``, for its owner alone; gone at the end with all that is in it."""
    path = unfinished(target, "restore")
    with translated(target, "it was restored"):
        sweep(target.parent)
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what processes that died have left unfinished in the folder a day ago or longer."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _UNFINISHED.match(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def publish(path: Path, target: Path, *, overwrite: bool) -> None:
    """Give the finished file its name, in one step, and have the folder on the disk too."""
    with translated(target, "it got its name"):
        if overwrite:
            os.replace(path, target)
        else:
            _rename_to_new(path, target)
        sync_folder(target.parent)


def _rename_to_new(path: Path, target: Path) -> None:
    # A plain rename would replace what somebody has put there meanwhile; a second name cannot.
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        raise Conflict("backup", str(target), "exists already; name another file, or overwrite it") from None
    except (OSError, NotImplementedError):  # a file system without hard links
        refuse_unless_free(target, overwrite=False)
        os.rename(path, target)
    else:
        os.unlink(path)


def sync_file(path: Path) -> None:
    fd = open_existing(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is."""
    if os.name != "posix":  # pragma: no cover - written for Windows, where folders cannot be opened; not run there
        return
    fd = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
