"""The messages of a scope as columns of numbers: what the signals of context are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirai_memory.search.cues import ASKS

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

# How far back the question that a turn answers may lie.
REPLY_REACH = 4
_COLUMNS = 7
_BYTES = 8 * _COLUMNS + 40  # of a message, with what is derived


@dataclass(frozen=True, eq=False)
class Layout:
    """Columns of equal length, in order of session and position; ``speakers`` holds places in ``names``."""

    ids: Ints
    sessions: Ints  # which session, as an unordered number
    positions: Ints
    speakers: Ints
    cues: Ints
    lengths: Ints  # terms
    times: Ints  # microseconds since 1970
    names: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[tuple[Any, ...]]) -> Layout:
        """From rows of id, session, position, speaker, cues, length, time."""
        names: dict[str, int] = {}
        return cls._sorted(_columns(rows, names), tuple(names))

    def extended(self, rows: Sequence[tuple[Any, ...]]) -> Layout:
        """This one and more messages."""
        names = {name: number for number, name in enumerate(self.names)}
        more = _columns(rows, names)
        mine = (self.ids, self.sessions, self.positions, self.speakers, self.cues, self.lengths, self.times)
        both = [np.concatenate(pair) for pair in zip(mine, more, strict=True)]
        return self._sorted(both, tuple(names))

    @classmethod
    def _sorted(cls, columns: Sequence[Ints], names: tuple[str, ...]) -> Layout:
        order = np.lexsort((columns[2], columns[1]))
        ids, sessions, positions, speakers, cues, lengths, times = (column[order] for column in columns)
        return cls(ids, sessions, positions, speakers, cues, lengths, times, names)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return _BYTES * len(self)

    @cached_property
    def _by_id(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.ids)
        return order, self.ids[order]

    @property
    def last(self) -> int:
        """The highest id, 0 where there is none."""
        return int(self._by_id[1][-1]) if len(self) else 0

    def after(self, id: int) -> Ints:
        """The ids that are higher, in order."""
        in_order = self._by_id[1]
        return in_order[np.searchsorted(in_order, id, side="right") :]

    def newest(self, count: int) -> Ints:
        """The highest ids, so many at most, in order."""
        return self._by_id[1][-count:]

    def find(self, ids: Sequence[int] | Ints) -> Ints:
        """Where each of these ids stands, -1 for one that is not there."""
        wanted = np.asarray(ids, dtype=np.int64)
        if not len(self) or not len(wanted):
            return np.full(len(wanted), -1, dtype=np.int64)
        order, ids_in_order = self._by_id
        near = np.minimum(np.searchsorted(ids_in_order, wanted), len(self) - 1)
        return np.where(ids_in_order[near] == wanted, order[near], -1)

    def places(self, ids: Sequence[int] | Ints) -> Ints:
        """Where these ids stand; those that are not there are passed over."""
        found = self.find(ids)
        return found[found >= 0]

    @cached_property
    def starts(self) -> Ints:
        """Where each session begins."""
        if not len(self):
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(np.concatenate(([True], self.sessions[1:] != self.sessions[:-1])))

    @cached_property
    def session_numbers(self) -> Ints:
        """The session of each message, counted from 0."""
        numbers = np.zeros(len(self), dtype=np.int64)
        numbers[self.starts[1:]] = 1
        return np.cumsum(numbers)

    def together(self, distance: int) -> Flags:
        """For each message but the last ``distance``: whether the one so far on is of the same session."""
        return np.asarray(self.sessions[:-distance] == self.sessions[distance:])

    def beside(self, places: Ints, distance: int) -> Ints:
        """The places so far before and after these, in the same sessions."""
        after, before = places[places < len(self) - distance], places[places >= distance]
        after = after[self.sessions[after] == self.sessions[after + distance]] + distance
        before = before[self.sessions[before] == self.sessions[before - distance]] - distance
        return np.concatenate((after, before))

    @cached_property
    def has_speakers(self) -> Flags:
        """Whether the message's session has more than one speaker; one that has not is a document, or notes."""
        if not len(self):
            return np.zeros(0, np.bool_)
        first = np.minimum.reduceat(self.speakers, self.starts)
        last = np.maximum.reduceat(self.speakers, self.starts)
        return np.asarray((first != last)[self.session_numbers])

    @cached_property
    def replied(self) -> Ints:
        """Where the question stands that each message replies to, -1 where there is none.

        That is the last turn of another speaker, not far back, if it asks; without speakers, the turn before.
        """
        replied = np.full(len(self), -1, dtype=np.int64)
        unanswered = np.ones(len(self), dtype=np.bool_)
        for distance in range(1, min(REPLY_REACH, len(self) - 1) + 1):
            here = np.arange(distance, len(self))
            other = (self.speakers[:-distance] != self.speakers[distance:]) | ~self.has_speakers[distance:]
            hits = here[self.together(distance) & other & unanswered[distance:]]
            replied[hits] = hits - distance
            unanswered[hits] = False
        asks = (self.cues[replied] & ASKS) > 0
        return np.where((replied >= 0) & asks, replied, -1)

    @cached_property
    def opens(self) -> Flags:
        """Whether the message is the first of its session."""
        opens = np.zeros(len(self), dtype=np.bool_)
        opens[self.starts] = True
        return opens

    def widened(self, places: Ints, reach: int) -> Ints:
        """These places and those at most ``reach`` away from one in its session, some more than once."""
        return np.concatenate((places, *(self.beside(places, distance) for distance in range(1, reach + 1))))


def _columns(rows: Sequence[tuple[Any, ...]], names: dict[str, int]) -> list[Ints]:
    """The rows as columns; speakers as numbers, for which ``names`` grows."""
    if not rows:
        return [np.empty(0, dtype=np.int64) for _ in range(_COLUMNS)]
    ids, sessions, positions, speakers, cues, lengths, times = zip(*rows, strict=True)
    numbers = [names.setdefault(speaker, len(names)) for speaker in speakers]
    return [np.array(c, dtype=np.int64) for c in (ids, sessions, positions, numbers, cues, lengths, times)]
