"""Long lists in pieces that fit into one statement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

# SQLite takes 32,766 parameters in a statement; older builds 999.
MOST = 900


def chunks(values: Sequence[T], size: int = MOST) -> Iterator[Sequence[T]]:
    """Pieces small enough for one statement's parameters."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
