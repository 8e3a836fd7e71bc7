"""Exact search by vectors: the cosine of every item of a scope, from a matrix that is kept and grown.

Vectors are stored as float16 and kept as float32 rows of length 1. ``np.vecdot`` takes them one by one and in one
thread: for a hundred thousand it is twice as fast as BLAS's matrix by vector, which also starts threads that spin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, select
from sqlalchemy import bindparam as bind

from mirai_memory.database import Db
from mirai_memory.database.hot import HotStatement
from mirai_memory.models import EmbeddingRow
from mirai_memory.search.base import ItemKind, QueryVector
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.layout import Floats, Ints
from mirai_memory.search.nearest import NOTHING, Near, idle
from mirai_memory.search.postings import Corpus, ScopeCounts

_BLOCK = 5_000  # vectors read at once
_EMBEDDINGS = EmbeddingRow.table()
_OF_SCOPE = (
    (_EMBEDDINGS.c.user_id == bind("owner"))
    & (_EMBEDDINGS.c.model == bind("name"))
    & (_EMBEDDINGS.c.kind == bind("of"))
)
_READY = (_EMBEDDINGS.c.status == "ready") & (_EMBEDDINGS.c.dim == bind("size"))
_READ = HotStatement(
    select(_EMBEDDINGS.c.id, _EMBEDDINGS.c.item_id, _EMBEDDINGS.c.vector)
    .where(_OF_SCOPE, _READY, _EMBEDDINGS.c.id > bind("after"))
    .order_by(_EMBEDDINGS.c.id)
    .limit(bind("most"))
)
_ALIVE = HotStatement(select(_EMBEDDINGS.c.id).where(_OF_SCOPE))


@dataclass(frozen=True, eq=False)
class _Matrix:
    """The first ``count`` rows of arrays that have room for more. Rows that are there are never changed."""

    removals: int
    vectors: int
    count: int
    rows: Ints  # ids of the stored vectors, ascending
    items: Ints  # whose they are; -1 where the vector is gone
    values: Floats

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.rows.nbytes + self.items.nbytes

    @property
    def last(self) -> int:
        return int(self.rows[self.count - 1]) if self.count else 0


class Vectors:
    """The built-in ``VectorStore``: exact, from the rows of ``embeddings`` alone."""

    def __init__(self, cache: ScopeCache, most_bytes: int) -> None:
        self.cache = cache
        self._most_bytes = most_bytes
        self._growing = threading.Lock()

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
        """Every item of the scopes that has a vector of the query's model; nothing is left out for ``narrow``."""
        found = [self._of_scope(db, kind, scope, query, shared=shared) for scope in corpus.scopes if scope.vectors]
        if not found:
            return NOTHING
        return Near.of_all(np.concatenate([ids for ids, _ in found]), np.concatenate([cosines for _, cosines in found]))

    def _of_scope(
        self, db: Db, kind: ItemKind, scope: ScopeCounts, query: QueryVector, *, shared: bool
    ) -> tuple[Ints, Floats]:
        large = scope.items * 4 * len(query.values) > self._most_bytes
        matrix = self._matrix(db, kind, scope, query) if shared and not large else None
        if matrix is None:
            return self._streamed(db, kind, scope, query)
        items, values = matrix.items[: matrix.count], matrix.values[: matrix.count]
        cosines = np.vecdot(values, query.values)
        alive = items >= 0
        return (items, cosines) if alive.all() else (items[alive], cosines[alive])

    def _streamed(self, db: Db, kind: ItemKind, scope: ScopeCounts, query: QueryVector) -> tuple[Ints, Floats]:
        """Read anew, in blocks: for a scope that the cache has no room for, or must not have."""
        blocks = [
            (items, np.vecdot(values, query.values)) for _, items, values in _blocks(db, kind, scope, query, after=0)
        ]
        if not blocks:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return np.concatenate([items for items, _ in blocks]), np.concatenate([cosines for _, cosines in blocks])

    def _matrix(self, db: Db, kind: ItemKind, scope: ScopeCounts, query: QueryVector) -> _Matrix | None:
        """The scope's vectors; None where another thread keeps a later state of them than this transaction sees."""
        key = ("vectors", scope.id, query.model, len(query.values))
        # Two threads would grow the same arrays.
        with self._growing:
            known: _Matrix | None = self.cache.get(key)
            if known and (known.removals, known.vectors) == (scope.removals, scope.vectors):
                return known
            if known and (known.removals > scope.removals or known.vectors > scope.vectors):
                return None
            matrix = known or _empty(scope, len(query.values))
            if matrix.count and matrix.removals != scope.removals:
                matrix = _without_gone(db, kind, scope, query, matrix)
            for rows, items, values in _blocks(db, kind, scope, query, after=matrix.last):
                matrix = _appended(matrix, rows, items, values)
            matrix = replace(matrix, removals=scope.removals, vectors=scope.vectors)
            self.cache.put(key, matrix)
            return matrix


def _empty(scope: ScopeCounts, size: int) -> _Matrix:
    room = max(64, scope.items)
    numbers = np.empty(room, dtype=np.int64)
    return _Matrix(0, 0, 0, numbers, numbers.copy(), np.empty((room, size), dtype=np.float32))


def _appended(matrix: _Matrix, rows: Ints, items: Ints, values: Floats) -> _Matrix:
    replaced = np.isin(matrix.items[: matrix.count], items)
    if replaced.any():  # the newer vector of an item is the one that counts
        matrix = replace(matrix, items=matrix.items.copy())
        matrix.items[: matrix.count][replaced] = -1
    count = matrix.count + len(rows)
    if count > len(matrix.rows):
        room = max(count, 2 * len(matrix.rows))
        matrix = replace(
            matrix,
            rows=np.resize(matrix.rows, room),
            items=np.resize(matrix.items, room),
            values=_with_room(matrix.values, matrix.count, room),
        )
    matrix.rows[matrix.count : count] = rows
    matrix.items[matrix.count : count] = items
    matrix.values[matrix.count : count] = values
    return replace(matrix, count=count)


def _with_room(values: Floats, count: int, room: int) -> Floats:
    larger = np.empty((room, values.shape[1]), dtype=np.float32)
    larger[:count] = values[:count]
    return larger


def _without_gone(db: Db, kind: ItemKind, scope: ScopeCounts, query: QueryVector, matrix: _Matrix) -> _Matrix:
    """Items were removed: the vectors that are left are looked up by an index alone."""
    stored = _ALIVE.tuples(db, {"owner": scope.user_id, "name": query.model, "of": kind})
    alive = np.isin(matrix.rows[: matrix.count], np.array([id for (id,) in stored], dtype=np.int64))
    items = matrix.items.copy()
    items[: matrix.count][~alive] = -1
    return replace(matrix, items=items)


def _blocks(
    db: Db, kind: ItemKind, scope: ScopeCounts, query: QueryVector, *, after: int
) -> Iterator[tuple[Ints, Ints, Floats]]:
    size = len(query.values)
    values: dict[str, Any] = {"owner": scope.user_id, "name": query.model, "of": kind, "size": size, "most": _BLOCK}
    while rows := _READ.tuples(db, {**values, "after": after}):
        after = rows[-1][0]
        ids, items, packed = zip(*rows, strict=True)
        yield np.array(ids, dtype=np.int64), np.array(items, dtype=np.int64), unpacked(packed, size)


def unpacked(packed: Sequence[bytes], size: int) -> Floats:
    values = np.frombuffer(b"".join(packed), dtype="<f2").reshape(-1, size).astype(np.float32)
    lengths = np.sqrt(np.vecdot(values, values))
    return np.asarray(values / np.maximum(lengths, 1e-30)[:, None], dtype=np.float32)
