"""What a backup, a restore and a drill say of themselves: numbers, times and places, no content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

Stage = Literal["copy", "check"]
STEPS = 5  # of a check
# Called with the stage, how much of it is done, and how much there is: bytes of a copy, steps of a check.
Progress = Callable[[Stage, int, int], object]


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a file: the revision of its schema, and how many rows each table has."""

    revision: str
    rows: dict[str, int]

    def total(self) -> int:
        return sum(self.rows.values())


class _Report:
    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: _plain(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup(_Report):
    """A backup that was made, checked, and has its name."""

    path: Path
    made_at: datetime
    size: int
    revision: str
    rows: dict[str, int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(_Report):
    """A database that was brought back. ``kept`` is the file that stood in its place before, under its new name.

    ``sealed``: the backup carried the checksum of its bytes; one made by other means has none. ``erased``: how many
    owners in it had been forgotten since, whose rows were left out.
    """

    path: Path
    backup: Path
    sealed: bool
    made_at: datetime | None
    kept: Path | None
    upgraded_from: str | None
    revision: str
    rows: dict[str, int]
    erased: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill(_Report):
    """A restore into a temporary place, which was searched and is gone again.

    ``asked`` texts of it were looked for by their own words, and ``found`` of them came back.
    """

    backup: Path
    sealed: bool
    made_at: datetime | None
    upgraded_from: str | None
    revision: str
    rows: dict[str, int]
    erased: int
    asked: int
    found: int
    ok: bool
    seconds: float
