"""Facts in plain Python: rows in a list, and every question answered by looking at all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Policy = Literal["replace", "keep_higher_confidence", "reject"]


@dataclass
class Row:
    """A value and its times; ``later`` the row that took its place, ``replaced`` when that was stored."""

    id: int
    key: str
    value: str
    confidence: float
    created: datetime
    updated: datetime
    since: datetime
    until: datetime | None
    expires: datetime | None
    replaced: datetime | None = None
    later: int | None = None

    @property
    def is_open(self) -> bool:
        return self.replaced is None and self.until is None

    @property
    def was_open(self) -> bool:
        """Whether it is of the chain of values of which one replaces the other; a closed one stands beside it."""
        return self.replaced is not None or self.until is None

    def lives(self, moment: datetime) -> bool:
        return self.expires is None or self.expires > moment


@dataclass
class Bitemporal:
    rows: dict[int, Row] = field(default_factory=dict)

    def open(self, key: str) -> Row | None:
        return next((row for row in self.rows.values() if row.key == key and row.is_open), None)

    def holder(self, new: Row, policy: Policy, now: datetime) -> int | Literal["new", "refused"]:
        """Whose the value is when ``new`` is added: a row that is there, a new one, or nobody's."""
        current = self.open(new.key)
        if new.until is not None or current is None or not current.lives(now):
            return "new"
        if current.value == new.value:
            return "new" if new.since <= now < current.since else current.id
        if policy == "reject":
            return "refused"
        if policy == "keep_higher_confidence" and new.confidence < current.confidence:
            return current.id
        return "new"

    def store(self, new: Row, now: datetime) -> None:
        current = self.open(new.key)
        if new.until is None and current is not None:
            current.replaced, current.later = now, new.id
        self.rows[new.id] = new

    def refresh(self, id: int, new: Row, now: datetime) -> None:
        row = self.rows[id]
        if row.value == new.value:
            row.updated, row.confidence, row.expires = now, max(row.confidence, new.confidence), new.expires

    def can_merge(self, id: int, now: datetime) -> bool:
        row = self.rows[id]
        return row.is_open and row.since <= now and row.lives(now)

    def merge(self, keep: int, drop: int, now: datetime) -> None:
        kept, dropped = self.rows[keep], self.rows[drop]
        dropped.replaced, dropped.later = now, keep
        kept.updated, kept.confidence = now, max(kept.confidence, dropped.confidence)

    def delete(self, id: int) -> None:
        """What the row hid is not seen again."""
        gone = self.rows.pop(id)
        for row in self.rows.values():
            if row.later == id:
                row.later = None
                if row.key != gone.key and row.until is None:
                    row.until = max(row.since, gone.since)
            if row.key == gone.key and row.id < id and row.replaced is not None and gone.was_open:
                end = max(row.since, gone.since)
                row.until = end if row.until is None else min(row.until, end)

    def holds(self, row: Row, true: datetime, known: datetime) -> bool:
        """Whether it was true at the one moment, as far as was believed at the other."""
        if row.created > known or not row.since <= true or (row.until is not None and row.until <= true):
            return False
        if row.replaced is None:
            return True
        merged = None if row.later is None or self.rows[row.later].key == row.key else self.rows[row.later]
        if merged is not None and row.replaced <= known and merged.since <= true:
            return False
        return not any(
            other.key == row.key
            and other.id > row.id
            and other.was_open
            and other.created <= known
            and other.since <= true
            for other in self.rows.values()
        )

    def shown(self, now: datetime, true: datetime | None = None, known: datetime | None = None) -> list[int]:
        """What ``get_knowledge`` shows."""
        rows = self.rows.values()
        return sorted(row.id for row in rows if row.lives(now) and self.holds(row, true or now, known or now))

    def found(self, now: datetime) -> set[int]:
        """What a search may find: what is shown, but for closed facts."""
        return {id for id in self.shown(now) if self.rows[id].was_open}

    def changes(self, t1: datetime, t2: datetime) -> Iterator[tuple[str, str | None, str | None]]:
        """Key, old value, new value."""
        for key in {row.key for row in self.rows.values()}:
            own = [row for _, row in sorted(self.rows.items()) if row.key == key]
            old = [row for row in own if row.lives(t1) and self.holds(row, t1, t1)]
            new = [row for row in own if row.lives(t2) and self.holds(row, t2, t2)]
            was = [row.value for row in old if row not in new]
            now = [row.value for row in new if row not in old]
            for value in list(now):
                if value in was:
                    was.remove(value)
                    now.remove(value)
            for place in range(max(len(was), len(now))):
                yield key, was[place] if place < len(was) else None, now[place] if place < len(now) else None
