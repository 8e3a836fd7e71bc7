"""What an import of one owner is made of: records that are checked, and what has become of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mirai_memory.services.base import Service, Work

# A file that fits nowhere must not become a report as long as itself; the count stays exact.
MAX_LISTED = 100
BATCH, BATCH_CHARACTERS = 500, 1 << 21  # rows of one statement, or fewer that are long


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the file whose values keep every rule."""

    line: int
    kind: str
    values: dict[str, Any]


@dataclass(slots=True)
class Tally:
    """What has become of the records, by name, and what is here otherwise: (line, kind, reason)."""

    counts: Counter[str] = field(default_factory=Counter)
    conflicts: list[tuple[int, str, str]] = field(default_factory=list)

    def conflict(self, line: int, kind: str, reason: str, *, not_imported: int = 1) -> None:
        self.counts["conflict_count"] += 1
        self.counts["not_imported"] += not_imported
        if len(self.conflicts) < MAX_LISTED:
            self.conflicts.append((line, kind, reason))


class Incoming(Service):
    """One kind of record on its way in. ``is_old`` tells what an erasure of the owner has to keep out."""

    def __init__(self, work: Work, owner: str, tally: Tally, is_old: Callable[[datetime], bool]) -> None:
        super().__init__(work)
        self._whose, self._tally, self._is_old = owner, tally, is_old

    def _count(self, name: str, number: int = 1) -> None:
        self._tally.counts[name] += number


class Batch:
    """Records that are dealt with together: so many, or fewer that are long."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._size = 0

    def add(self, record: Record) -> bool:
        """Whether it is full now."""
        self.records.append(record)
        self._size += _size(record.values)
        return len(self.records) >= BATCH or self._size > BATCH_CHARACTERS

    def take(self) -> list[Record]:
        taken, self.records, self._size = self.records, [], 0
        return taken


def _size(values: dict[str, Any]) -> int:
    return sum(
        len(value) if isinstance(value, str) else len(str(value))
        for value in values.values()
        if value and isinstance(value, (str, list, dict))
    )
