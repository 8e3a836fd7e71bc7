"""Search with the help of Chroma: it names the nearest vectors of a large scope, and the rows say the rest.

Every vector that it names is read and compared here, with those that it has not been given yet: what it holds decides
which items are looked at, never which are the owner's, nor how near they are. Where it cannot be asked, and for scopes
that are small, the built-in store answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement

from mirai_memory.database import Db
from mirai_memory.logging import logger
from mirai_memory.search import chroma_rows as rows
from mirai_memory.search.base import ItemKind, QueryVector
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.chroma_link import SEARCH_S, Link, Refused, Unavailable
from mirai_memory.search.chroma_rows import Collection, Read
from mirai_memory.search.layout import Floats
from mirai_memory.search.nearest import NOTHING, Near, VectorStore, idle
from mirai_memory.search.postings import Corpus, ScopeCounts

NEAREST = 1_000  # vectors that Chroma is asked for; where it has no more, nothing is left out
ENOUGH = 400  # of them that must be left, once those are taken out that are gone, or that are not wanted
MOST = 16_000  # more are not asked for: to compare all is no dearer then
TAIL = 5_000  # vectors that Chroma may lack
SAMPLE = 2_000  # vectors that tell how near the others are
_SAMPLES_BYTES = 64_000_000
_GROWN = 1.2  # a scope that has changed by so much is sampled anew


@dataclass(frozen=True, eq=False)
class _Sample:
    count: int
    values: Floats

    @property
    def nbytes(self) -> int:
        return self.values.nbytes


class ChromaVectors:
    """A ``VectorStore`` that asks Chroma for scopes of ``least`` items and more."""

    def __init__(self, exact: VectorStore, link: Link, least: int) -> None:
        self._exact = exact
        self._link = link
        self._least = least
        self._prefix: str | None = None
        self._remade: set[str] = set()
        self._samples = ScopeCache(_SAMPLES_BYTES)

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
        """All of a small scope; the nearest thousand of a large one, or hundreds of those that meet ``narrow``."""
        parts = []
        for scope in corpus.scopes:
            if not scope.vectors:
                continue
            part = self._of_scope(db, kind, scope, query, narrow) if shared and scope.items >= self._least else None
            if part is None:
                part = self._exact.nearest(db, kind, Corpus((scope,), corpus.bounded), query, shared=shared)
            parts.append(part)
        return _joined(parts)

    def _of_scope(
        self, db: Db, kind: ItemKind, scope: ScopeCounts, query: QueryVector, narrow: Sequence[ColumnElement[bool]]
    ) -> Near | None:
        """None where Chroma is of no help."""
        if not self._link.is_ready:
            self._link.open_soon()
            return None
        collection = Collection(kind, scope.id, scope.user_id, query.model, len(query.values))
        try:
            return self._asked(db, scope, collection, query, narrow)
        except Unavailable:
            return None
        except Refused as error:
            if self._prefix and not error.is_missing:
                self._faulty(collection.name(self._prefix), scope)
            self._link.when_lacking(scope.id)
            return None

    def _asked(
        self,
        db: Db,
        scope: ScopeCounts,
        collection: Collection,
        query: QueryVector,
        narrow: Sequence[ColumnElement[bool]],
    ) -> Near | None:
        if narrow:
            few = rows.meeting(db, collection, narrow, TAIL + 1)
            if len(few.rows) <= TAIL:  # no index is needed to look at all of them
                return self._among_all(db, scope, collection, query, few, scope.items)
        most = NEAREST
        while most <= MOST:
            answer = self._answer(db, scope, collection, query, most)
            if answer is None:
                return None
            ids, count, tail = answer
            found = rows.with_ids(db, collection, [*ids, *tail.rows.tolist()] if narrow else ids, narrow)
            found = found if narrow else found.with_more(tail)
            complete = count <= most
            if complete and not narrow:
                return Near.of_all(found.items, np.vecdot(found.values, query.values))
            if complete or len(found.rows) >= ENOUGH:
                return self._among_all(db, scope, collection, query, found, count + len(tail.rows))
            most *= 4
        return None

    def _answer(
        self, db: Db, scope: ScopeCounts, collection: Collection, query: QueryVector, most: int
    ) -> tuple[list[int], int, Read] | None:
        """The rows that Chroma names, how many it has, and those that it lacks; None where it is of no help."""
        prefix = self._prefix = self._prefix or rows.prefix(db, self._link.place.apart)
        if prefix is None:  # nothing has ever been given to Chroma
            self._link.when_lacking(scope.id)
            return None
        vector = query.values.astype("<f4").tobytes()
        name = collection.name(prefix)
        answer = self._link.ask("nearest", vector, timeout_s=SEARCH_S, name=name, most=most)
        mark, ids = answer["mark"], answer["ids"]
        expected = min(most, mark["count"])
        if 2 * len(ids) < expected:
            self._faulty(name, scope)
        if len(ids) < expected and (len(ids) < ENOUGH or mark["count"] <= most):
            return None  # of vectors that are very much alike its index does not reach all, however whole it is
        if mark["vectors"] > scope.vectors or mark["removals"] > scope.removals:
            # Of another state of the rows: a later one than this transaction sees, or a restored one's.
            self._link.when_lacking(scope.id)
            return None
        tail = rows.after(db, collection, mark["last"], TAIL + 1)
        if len(tail.rows) or mark["removals"] != scope.removals:
            self._link.when_lacking(scope.id)
        return None if len(tail.rows) > TAIL else (ids, mark["count"], tail)

    def _faulty(self, name: str, scope: ScopeCounts) -> None:
        """Chroma has lost much of what it was given: all of the collection is given to it again, once."""
        if name in self._remade:
            return
        self._remade.add(name)
        logger.warning("Chroma has lost vectors of {}, which is made anew from the database", name)
        with suppress(Refused, Unavailable):
            self._link.ask("drop", timeout_s=SEARCH_S, name=name)
        self._link.when_lacking(scope.id)

    def _among_all(
        self, db: Db, scope: ScopeCounts, collection: Collection, query: QueryVector, found: Read, count: int
    ) -> Near:
        """How near the found ones are, and, by a sample, how near all are."""
        sample = self._sample(db, collection, count) @ query.values
        cosines = np.vecdot(found.values, query.values)
        if not len(sample):
            return NOTHING
        return Near(found.items, cosines, min(count, scope.items), float(sample.mean()), float(sample.std()))

    def _sample(self, db: Db, collection: Collection, count: int) -> Floats:
        known: _Sample | None = self._samples.get(collection)
        if known is None or not count / _GROWN <= known.count <= count * _GROWN:
            ids = rows.ids(db, collection)
            chosen = ids[np.linspace(0, len(ids) - 1, min(len(ids), SAMPLE)).astype(np.int64)]
            known = _Sample(count, rows.with_ids(db, collection, chosen.tolist()).values)
            self._samples.put(collection, known)
        return known.values


def _joined(parts: Sequence[Near]) -> Near:
    """Scopes as one: their means and spreads weigh by how many vectors each has."""
    parts = [part for part in parts if part.count]
    if len(parts) < 2:
        return parts[0] if parts else NOTHING
    items = np.concatenate([part.items for part in parts])
    cosines = np.concatenate([part.cosines for part in parts])
    if all(len(part.items) == part.count for part in parts):
        return Near.of_all(items, cosines)
    weights = np.array([part.count for part in parts], dtype=np.float64)
    means = np.array([part.mean for part in parts])
    squares = np.array([part.spread**2 + part.mean**2 for part in parts])
    mean = float(np.average(means, weights=weights))
    spread = float(np.sqrt(max(0.0, np.average(squares, weights=weights) - mean**2)))
    return Near(items, cosines, int(weights.sum()), mean, spread)


def kept(db: Db, link: Link, least: int) -> tuple[int, int]:
    """How many vectors Chroma has, and how many it should have. Raises Unavailable, Refused."""
    wanted = rows.wanted(db, least)
    prefix = rows.prefix(db, link.place.apart)
    if prefix is None or not link.may_hold:
        return 0, wanted
    marks = link.ask("marks", prefix=prefix)["marks"]
    return sum(mark["count"] for mark in marks.values()), wanted
