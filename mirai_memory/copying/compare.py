"""Rows as bytes that are the same for the same values on every engine; two databases compared by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from mirai_memory.services.copies import Copies, Key, Part, Row


def blocks(source: Copies, target: Copies, part: Part) -> Iterator[tuple[list[Row], list[Row]]]:
    """All rows of both sides, those of one range of keys at a time, in order of the key."""
    after: Key | None = None
    while (last := source.block_end(part, after)) is not None:
        yield source.rows(part, after, last), target.rows(part, after, last)
        after = last
    while (last := target.block_end(part, after)) is not None:
        yield [], target.rows(part, after, last)
        after = last


def encoded(row: Row, names: Sequence[str]) -> bytes:
    return json.dumps([row[name] for name in names], ensure_ascii=True, default=_plain).encode()


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    raise TypeError(f"no column has a {type(value).__name__}")


class Sum:
    """The number of rows, and their checksum in order of the key."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def add_all(self, part: Part, rows: Sequence[Row]) -> None:
        names = [column.name for column in part.table.c]
        for row in rows:
            self._hash.update(encoded(row, names) + b"\n")
        self.rows += len(rows)

    @property
    def hex(self) -> str:
        return str(self._hash.hexdigest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.rows, self.hex) == (other.rows, other.hex)

    __hash__ = None  # type: ignore[assignment]


def compared(source: Copies, target: Copies, part: Part, told: Callable[[int], object]) -> tuple[Sum, Sum]:
    """The sums of a table on both sides; ``told`` of rows."""
    sums = Sum(), Sum()
    for mine, theirs in blocks(source, target, part):
        sums[0].add_all(part, mine)
        sums[1].add_all(part, theirs)
        told(len(mine))
    return sums


def summed(copies: Copies, part: Part) -> Sum:
    """The sum of a table on one side."""
    own, after = Sum(), None
    while (last := copies.block_end(part, after)) is not None:
        own.add_all(part, copies.rows(part, after, last))
        after = last
    return own
