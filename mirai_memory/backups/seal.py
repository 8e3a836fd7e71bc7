"""The seal of a backup: a line behind its last page that holds the checksum of every byte before it.

SQLite has no checksums of its own: a bit that a disk has turned over inside a text passes every check that the engine
knows. It counts its pages by its header, and takes no notice of what stands behind the last one; so a sealed backup is
a SQLite file like any other, and stays one file. A file that is used as a database and grows loses its seal.

The seal tells damage, not malice: whoever can write the file can seal it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mirai_memory.errors import Corrupt

_MARK = b"\nmirai-memory-backup "
_LONGEST = 500  # less than the smallest page
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Seal:
    """When a backup was made, the revision of its schema, how many bytes it has, and the checksum of all of this."""

    made_at: datetime
    revision: str
    size: int
    sha256: str

    @classmethod
    def of(cls, pages: Pages, made_at: datetime, revision: str) -> Seal:
        """The seal of pages that have been read."""
        moment = made_at.astimezone(UTC)
        whole = pages.sha256.copy()
        whole.update(f"{moment.isoformat()} {revision}".encode())
        return cls(moment, revision, pages.size, whole.hexdigest())

    def line(self) -> bytes:
        fields = {
            "version": 1,
            "made_at": self.made_at.isoformat(),
            "revision": self.revision,
            "bytes": self.size,
            "sha256": self.sha256,
        }
        return _MARK + json.dumps(fields).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Pages:
    """So many bytes from the beginning of a file, summed up."""

    size: int
    sha256: Any


def read_pages(fd: int, size: int, each: Callable[[bytes], object] = lambda chunk: None) -> Pages:
    """The first ``size`` bytes, which ``each`` gets in pieces."""
    sha256, left = hashlib.sha256(), size
    os.lseek(fd, 0, os.SEEK_SET)
    while left and (chunk := os.read(fd, min(_CHUNK, left))):
        sha256.update(chunk)
        each(chunk)
        left -= len(chunk)
    return Pages(size, sha256)


def put(fd: int, seal: Seal) -> None:
    """Write the seal behind the last page."""
    rest = memoryview(seal.line())
    os.lseek(fd, seal.size, os.SEEK_SET)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read(fd: int, path: Path) -> Seal | None:
    """The seal of a file; None where it has none. Raises Corrupt where what stands behind the last page is no seal."""
    size = os.fstat(fd).st_size
    if size and size % 512 == 0:
        return None  # whole pages, whatever their size is, and no more
    start = max(0, size - _LONGEST)
    os.lseek(fd, start, os.SEEK_SET)
    end = os.read(fd, _LONGEST)
    at = end.rfind(_MARK)
    seal = _parsed(end[at:]) if at >= 0 else None
    if seal is None or seal.size != start + at:
        raise Corrupt(f"{path} is damaged: it ends with neither a whole page nor a seal; take another backup")
    return seal


def _parsed(line: bytes) -> Seal | None:
    try:
        fields = json.loads(line[len(_MARK) :])
        made_at = datetime.fromisoformat(fields["made_at"])
        seal = Seal(made_at, str(fields["revision"]), int(fields["bytes"]), str(fields["sha256"]))
        return seal if fields["version"] == 1 and made_at.tzinfo is not None and seal.line() == line else None
    except (ValueError, KeyError, TypeError):
        return None
