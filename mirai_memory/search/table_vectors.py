"""The nearest of a large scope from a table of vectors (pgvector); a small scope is searched exactly, as everywhere.

How near the others are, which a score needs, is estimated from vectors of the scope that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

import numpy as np
from psycopg import sql
from sqlalchemy import ColumnElement, select

from mirai_memory.database import Db, vector_tables
from mirai_memory.database.engine import at_once, driver_of
from mirai_memory.database.vector_tables import VectorTable
from mirai_memory.search.base import ItemKind, QueryVector
from mirai_memory.search.layout import Floats
from mirai_memory.search.nearest import Near, idle
from mirai_memory.search.postings import ITEMS, Corpus, ScopeCounts
from mirai_memory.search.vectors import Vectors, unpacked

# Up to so many items, all of a scope's vectors are read once and kept: nothing is approximate.
EXACT: Final = 20_000
# So many of a larger scope are asked for. Twice as many took nearly twice as long, and moved recall by less than
# chance does (tests/benchmarks/recall_locomo.py --tables).
NEAREST: Final = 100
# An HNSW index finds anybody's vectors, and passes over those of others: this many, pgvector's own limit. Where it
# would take more to find enough of the scope's, reading all of the scope's is the shorter way.
_PASSED_OVER: Final = 20_000
# The oldest and as many of the newest of each scope are kept, to know how near its vectors are to a question.
_SAMPLE: Final = 1_000

# pgvector's limit of hnsw.ef_search, and how many more to look at than should do: to begin again costs more than half.
_MOST_AT_ONCE: Final = 1_000
_SPARE: Final = 1.15

_SETTINGS = "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)"
_HNSW = (
    "SELECT item_id, 1 - distance FROM (SELECT item_id, vector OPERATOR({extension}.<=>) CAST(%(query)s AS {half}) "
    "AS distance FROM {table} WHERE kind = {kind} AND user_id = ANY(%(owners)s) "
    "ORDER BY distance LIMIT {most}) AS found"
)
_READ = (
    "WITH scoped AS MATERIALIZED (SELECT item_id, vector OPERATOR({extension}.<=>) CAST(%(query)s AS {half}) "
    "AS distance FROM {table} WHERE kind = {kind} AND user_id = ANY(%(owners)s)) "
    "SELECT item_id, 1 - distance FROM scoped ORDER BY distance LIMIT {most}"
)
_COUNT = "SELECT count(*) FROM {table} WHERE kind = {kind} AND user_id = %(owner)s"
_SAMPLED = (
    "SELECT e.vector FROM (SELECT embedding_id FROM {table} WHERE kind = {kind} AND user_id = %(owner)s "
    "ORDER BY item_id {order} LIMIT {most}) AS sampled JOIN {embeddings} AS e ON e.id = sampled.embedding_id"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """How many vectors a scope had, when it had ``items``, and some of these."""

    changes: tuple[int, int]
    items: int
    count: int
    values: Floats

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def serves(self, scope: ScopeCounts) -> bool:
        """A tenth more or less of the same moves neither mean nor spread; while vectors are being made, they count."""
        if self.changes == (scope.removals, scope.vectors):
            return True
        complete = self.count >= 0.99 * self.items
        return complete and abs(scope.items - self.items) <= 0.1 * self.items


class TableVectors:
    """A ``VectorStore`` over the tables of ``vector_tables``, where there is one; else the exact one."""

    def __init__(self, exact: Vectors) -> None:
        self._exact = exact

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
        scopes = [scope for scope in corpus.scopes if scope.vectors]
        table = None
        if sum(scope.items for scope in scopes) > EXACT and query.values.any():
            table = vector_tables.find(db, query.model, len(query.values))
        if table is None or not table.ready:
            return self._exact.nearest(db, kind, corpus, query, shared=shared, narrow=narrow)
        samples = [self._sample(db, kind, scope, table, shared=shared) for scope in scopes]
        moments = cache(partial(_moments, samples, query))
        search = _Search(db, table, kind, [scope.user_id for scope in scopes], query, (moments, meanwhile))
        count = sum(sample.count for sample in samples)
        items, cosines = search.find(count, narrow)
        return Near(items, cosines, count, *moments())

    def _sample(self, db: Db, kind: ItemKind, scope: ScopeCounts, table: VectorTable, *, shared: bool) -> _Sample:
        key = ("sample", scope.id, table.name)
        known: _Sample | None = self._exact.cache.get(key)
        if known is not None and known.serves(scope):
            return known
        sample = _read_sample(db, kind, scope, table)
        if shared:
            self._exact.cache.put(key, sample)
        return sample


@dataclass(frozen=True, slots=True)
class _Search:
    db: Db
    table: VectorTable
    kind: ItemKind
    owners: list[str]
    query: QueryVector
    meanwhile: Sequence[Callable[[], object]]

    def find(self, count: int, narrow: Sequence[ColumnElement[bool]]) -> tuple[np.ndarray, Floats]:
        """The nearest items and their cosines; ``count`` is how many there are."""
        most = min(NEAREST, count)
        if narrow:
            return self._read(most, self._wanted(narrow))
        if count and self.table.rows * NEAREST <= _PASSED_OVER * count:
            # Others' vectors are found too, and passed over.
            looked_at = min(_MOST_AT_ONCE, round(_SPARE * most * max(1.0, self.table.rows / count)))
            items, cosines = self._run(_HNSW, most, None, looked_at)
            if len(items) >= most:
                return items, cosines
        return self._read(most, None)

    def _read(self, most: int, wanted: list[int] | None) -> tuple[np.ndarray, Floats]:
        return self._run(_READ, most, wanted)

    def _wanted(self, narrow: Sequence[ColumnElement[bool]]) -> list[int]:
        table = ITEMS[self.kind]
        found = self.db.execute(select(table.c.id).where(table.c.user_id.in_(self.owners), *narrow))
        return [int(id) for id in found.scalars()]

    def _run(
        self, statement: str, most: int, wanted: list[int] | None, looked_at: int = 0
    ) -> tuple[np.ndarray, Floats]:
        if wanted is not None:
            statement = statement.replace("ANY(%(owners)s)", "ANY(%(owners)s) AND item_id = ANY(%(wanted)s)")
        values = {"query": str(self.query.values.tolist()), "owners": self.owners, "wanted": wanted}
        driver = driver_of(self.db)
        with at_once(self.db):
            if looked_at:
                driver.execute(_SETTINGS, (str(looked_at),))
            found = driver.execute(_formed(statement, self.table, self.kind, most=most), values)
            for work in self.meanwhile:
                work()
        rows = found.fetchall()
        items, cosines = np.array([row[0] for row in rows], dtype=np.int64), [row[1] for row in rows]
        values_ = np.array(cosines, dtype=np.float32)
        known = ~np.isnan(values_)  # a vector of zeros is near to nothing
        return items[known], values_[known]


def _formed(statement: str, table: VectorTable, kind: ItemKind, *, most: int = 0, order: str = "ASC") -> sql.Composed:
    return sql.SQL(statement).format(
        table=table.place,
        embeddings=sql.Identifier(table.schema, "embeddings"),
        extension=sql.Identifier(table.extension),
        half=vector_tables.half_type(table),
        kind=sql.Literal(kind),  # the indexes are of one kind each
        most=sql.Literal(most),
        order=sql.SQL(order),
    )


def _read_sample(db: Db, kind: ItemKind, scope: ScopeCounts, table: VectorTable) -> _Sample:
    driver, owner = driver_of(db), {"owner": scope.user_id}
    count = int(driver.execute(_formed(_COUNT, table, kind), owner).fetchone()[0])
    packed = [
        vector
        for order in ("ASC", "DESC")
        for (vector,) in driver.execute(_formed(_SAMPLED, table, kind, most=_SAMPLE, order=order), owner).fetchall()
    ]
    values = unpacked(packed, table.dim) if packed else np.empty((0, table.dim), dtype=np.float32)
    return _Sample((scope.removals, scope.vectors), scope.items, count, values)


def _moments(samples: Sequence[_Sample], query: QueryVector) -> tuple[float, float]:
    """Mean and standard deviation of the cosines of all scopes' vectors, each scope by how many it has."""
    known = [(sample.count, np.vecdot(sample.values, query.values)) for sample in samples if len(sample.values)]
    total = sum(count for count, _ in known)
    if not total:
        return 0.0, 0.0
    mean = sum(count * float(cosines.mean()) for count, cosines in known) / total
    square = sum(count * float(np.square(cosines - mean).mean()) for count, cosines in known) / total
    return mean, float(np.sqrt(square))
