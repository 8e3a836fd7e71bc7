"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["FrozenClock"]

START = datetime(2026, 1, 15, 12, tzinfo=UTC)


class FrozenClock:
    """Give it as ``clock=`` and every time the memory writes is yours to choose.

    ::

        clock = FrozenClock()
        with MemoryManager(":memory:", clock=clock) as memory:
            clock.advance(hours=25)
    """

    def __init__(self, start: datetime = START) -> None:
        if start.tzinfo is None:
            raise ValueError("start: a time with a timezone")
        self._now = start.astimezone(UTC)

    def __call__(self) -> datetime:
        return self._now

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
        """Move the clock and return the new time; a negative step moves it back, as real clocks sometimes do."""
        self._now += timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        return self._now
