"""What is nearest in meaning: the seam between the searches and whatever keeps the vectors.

A store of vectors is a projection: ids that it returns are joined with the rows of the scope, whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sqlalchemy import ColumnElement

from mirai_memory.database import Db
from mirai_memory.search.base import ItemKind, QueryVector
from mirai_memory.search.layout import Floats, Ints
from mirai_memory.search.postings import Corpus


@dataclass(frozen=True, eq=False)
class Near:
    """How near items are to a question: all that have a vector, or of many the nearest.

    ``cosines`` belong to ``items``. ``count`` is how many items of the scopes have a vector of the question's model;
    ``mean`` and ``spread`` (the standard deviation) are of the cosines of all these, not of the returned ones alone.
    """

    items: Ints
    cosines: Floats
    count: int
    mean: float
    spread: float

    @classmethod
    def of_all(cls, items: Ints, cosines: Floats) -> Near:
        """Nothing was left out."""
        if not len(items):
            return NOTHING
        return cls(items, cosines, len(items), float(cosines.mean()), float(cosines.std()))

    def kept(self, flags: np.ndarray) -> Near:
        """The same of some of the items; how near all are stays as it is."""
        return Near(self.items[flags], self.cosines[flags], self.count, self.mean, self.spread)

    def highest(self, most: int) -> Ints:
        """The nearest items, the nearest first."""
        return self.items[np.argsort(-self.cosines, kind="stable")[:most]]

    def signal(self, among: int) -> Floats:
        """For each item how much nearer it is than others, in standard deviations above the mean; below it is 0.

        While few of the ``among`` items of the scopes have a vector, being the nearest of them says little: each counts
        by the share of those that have. Where only one has, there is nothing to compare it with, and it counts as 1.
        """
        share = np.float32(min(1.0, self.count / max(1, among)))
        if self.count < 2:
            return np.full(len(self.items), share, dtype=np.float32)
        above = (self.cosines - np.float32(self.mean)) / np.float32(max(self.spread, 1e-6))
        return np.asarray(np.maximum(above, 0) * share, dtype=np.float32)


NOTHING = Near(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), 0, 0.0, 0.0)


def idle() -> None:
    """What there is to do while a store is asked."""


class VectorStore(Protocol):
    """Answers which items are near to a question. Safe for many threads."""

    def nearest(
        self,
        db: Db,
        kind: ItemKind,
        corpus: Corpus,
        query: QueryVector,
        *,
        shared: bool,
        narrow: Sequence[ColumnElement[bool]] = (),
        meanwhile: Callable[[], object] = idle,
    ) -> Near:
        """How near the items of the scopes are, as far as they have a vector of the question's model and dimension.

        All of them, or no fewer than the hundred nearest. ``shared``: what is read may be kept for later searches.
        ``narrow`` are conditions on the items' rows that the caller keeps to afterwards: a store that returns only the
        nearest has to find them among the items that meet these, one that returns all need not look at them.
        ``meanwhile`` is work that the caller has to do anyway, without the database: a store that waits for somebody
        else's answer may do it before that comes, and no store has to.
        """
