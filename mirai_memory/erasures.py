"""Who was forgotten, and when: ``<database>.erasures.jsonl``, beside the file that forgot.

A backup is older than the erasures after it. Whoever brings one back, or an export, asks here first, and leaves out
what its owner had before the erasure. One line each, appended and synced::

    {"version": 1, "at": "2026-01-31T12:00:00+00:00", "salt": "<hex>", "owner": "<hex>"}

``owner`` is a hash: the file must recognise an owner and name none. BLAKE2b keyed with the salt, not a slow hash like
scrypt: a restore tries every owner of a backup, and at 50 ms each a hundred thousand would take more than an hour. Nor
would it hide more from those who may read the file, since it lies beside the database with the same rights. The salt is
the file's: lines share it, so that one hash of an owner serves for all of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mirai_memory import _files
from mirai_memory._locks import lock_or_wait, unlock
from mirai_memory.errors import StorageError

_VERSION = 1
_SALT_BYTES = 32
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True, slots=True)
class _Line:
    at: datetime
    salt: bytes
    owner: bytes


def erasures_path(database: str | os.PathLike[str]) -> Path:
    """Where the erasures of the SQLite file at ``database`` are kept."""
    path = Path(database)
    return path.with_name(f"{path.name}.erasures.jsonl")


def record(database: str | os.PathLike[str], user_id: str, at: datetime) -> None:
    """Note that the owner was forgotten ``at`` this time; on the disk when this returns. Raises StorageError.

    A file that is missing is made, mode 0600; a link in its place is not followed.
    """
    if at.tzinfo is None:
        raise ValueError("naive datetime: pass one with a timezone")
    path = erasures_path(database)
    with _opened(path, os.O_RDWR | os.O_CREAT) as fd:
        lock_or_wait(fd)
        try:
            _append(fd, path, user_id, at.astimezone(UTC))
        finally:
            unlock(fd)
    with suppress(OSError):  # a file system that does not sync folders
        _files.sync_folder(path.parent)


def erased(database: str | os.PathLike[str], user_id: str) -> datetime | None:
    """When the owner was forgotten last; None where never. Raises StorageError."""
    return erased_owners(database, (user_id,)).get(user_id)


def erased_owners(database: str | os.PathLike[str], user_ids: Iterable[str]) -> dict[str, datetime]:
    """Those of the owners who were forgotten, with the time of the last erasure. Raises StorageError."""
    path = erasures_path(database)
    try:
        with _opened(path, os.O_RDONLY) as fd:
            newest = _newest(_lines(fd, path)[0])
    except FileNotFoundError:
        return {}
    found = {}
    for user_id in user_ids:
        times = [at for salt, owners in newest.items() if (at := owners.get(_hash(salt, user_id))) is not None]
        if times:
            found[user_id] = max(times)
    return found


def _append(fd: int, path: Path, user_id: str, at: datetime) -> None:
    lines, end = _lines(fd, path)
    # What a killed process left of a line was never promised to anybody.
    os.ftruncate(fd, end)
    salt = lines[-1].salt if lines else os.urandom(_SALT_BYTES)
    fields = {"version": _VERSION, "at": at.isoformat(), "salt": salt.hex(), "owner": _hash(salt, user_id).hex()}
    rest = memoryview(json.dumps(fields).encode() + b"\n")
    os.lseek(fd, end, os.SEEK_SET)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, end)
        raise


def _newest(lines: list[_Line]) -> dict[bytes, dict[bytes, datetime]]:
    """The last time of each owner, by salt: files that were joined have several."""
    newest: dict[bytes, dict[bytes, datetime]] = {}
    for line in lines:
        owners = newest.setdefault(line.salt, {})
        owners[line.owner] = max(line.at, owners.get(line.owner, line.at))
    return newest


def _lines(fd: int, path: Path) -> tuple[list[_Line], int]:
    """The whole lines of the file, and where they end. A torn last line is none."""
    os.lseek(fd, 0, os.SEEK_SET)
    content = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    end = content.rfind(b"\n") + 1
    return [_parsed(line, number, path) for number, line in enumerate(content[:end].splitlines(), 1)], end


def _parsed(line: bytes, number: int, path: Path) -> _Line:
    try:
        fields = json.loads(line)
        if fields["version"] == _VERSION:
            at = datetime.fromisoformat(fields["at"])
            salt, owner = bytes.fromhex(fields["salt"]), bytes.fromhex(fields["owner"])
            if at.tzinfo is not None and 0 < len(salt) <= hashlib.blake2b.MAX_KEY_SIZE:
                return _Line(at.astimezone(UTC), salt, owner)
    except (ValueError, KeyError, TypeError):
        pass
    raise StorageError(
        f"{path.name}: line {number} is no erasure that this version knows; upgrade the package, or bring back the "
        "file from a copy: without it a restore could bring back what was forgotten"
    )


def _hash(salt: bytes, user_id: str) -> bytes:
    return hashlib.blake2b(user_id.encode(), key=salt, person=b"mirai erasure").digest()


@contextmanager
def _opened(path: Path, mode: int) -> Iterator[int]:
    """A descriptor of the regular file at ``path``. FileNotFoundError where there is none, else StorageError."""
    try:
        if path.is_symlink():  # for systems where opening cannot refuse it
            raise OSError(errno.ELOOP, "is a link")
        fd = os.open(path, mode | _FLAGS, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "is no regular file")
            yield fd
        finally:
            os.close(fd)
    except StorageError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not mode & os.O_CREAT:
            raise
        raise StorageError(f"{path} cannot be used: {error.strerror or type(error).__name__}") from error
