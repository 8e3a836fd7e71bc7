"""Facts found by words and by meaning. A fact is a session of its own: there is nothing around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, select

from mirai_memory.database import Db
from mirai_memory.search import bm25, fusion
from mirai_memory.search.analyzer import query_terms
from mirai_memory.search.base import Hit, Query, Scope
from mirai_memory.search.layout import Floats
from mirai_memory.search.nearest import VectorStore
from mirai_memory.search.postings import ITEMS, Corpus, PostingsIndex, by_weight, length

# The best by words and the best by meaning, whose scores are computed exactly.
CANDIDATES = 200
_FACTS = ITEMS["knowledge"]


class KnowledgeSearch:
    def __init__(self, words: PostingsIndex, vectors: VectorStore) -> None:
        self._words = words
        self._vectors = vectors

    def find(
        self,
        db: Db,
        query: Query,
        scope: Scope,
        *,
        limit: int,
        narrow: Sequence[ColumnElement[bool]],
        always: Sequence[ColumnElement[bool]],
        shared: bool,
    ) -> list[Hit]:
        corpus = self._words.corpus(db, "knowledge", scope)
        if not corpus.items or limit < 1:
            return []
        postings = self._words.postings(db, "knowledge", corpus, query_terms(query.text), narrow)
        weights = self._words.weights(db, "knowledge", corpus, postings)
        most = max(CANDIDATES, limit)
        rows = self._words.allowed(db, "knowledge", by_weight(postings, weights), always, most)
        near = self._near(db, corpus, query, narrow, shared=shared)
        if near:
            held = {row.rowid for row in rows}
            nearest = [id for id in near if id not in held]  # in order
            rows += self._words.allowed(db, "knowledge", nearest[: 10 * most], always, most)
        return _ranked(rows, corpus, weights, near, limit)

    def _near(
        self, db: Db, corpus: Corpus, query: Query, narrow: Sequence[ColumnElement[bool]], *, shared: bool
    ) -> dict[int, float]:
        """How near each fact is, in standard deviations above the mean of all; the nearest first."""
        if query.vector is None or not corpus.bounded:
            return {}
        near = self._vectors.nearest(db, "knowledge", corpus, query.vector, shared=shared, narrow=narrow)
        if narrow and len(near.items):
            owners = [scope.user_id for scope in corpus.scopes]
            wanted = db.execute(select(_FACTS.c.id).where(_FACTS.c.user_id.in_(owners), *narrow)).scalars()
            near = near.kept(np.isin(near.items, np.fromiter(wanted, dtype=np.int64)))
        order = np.argsort(-near.cosines)
        signal = near.signal(corpus.items)
        return dict(zip(near.items[order].tolist(), signal[order].tolist(), strict=True))


def _ranked(
    rows: Sequence[Row[Any]], corpus: Corpus, weights: Mapping[str, float], near: Mapping[int, float], limit: int
) -> list[Hit]:
    if not rows:
        return []
    ids = np.array([row.rowid for row in rows], dtype=np.int64)
    bm, held = _words(rows, corpus, weights)
    values = {"bm": bm, "sess": bm, "near": held}
    if near:
        values["dense"] = np.array([near.get(row.rowid, 0.0) for row in rows], dtype=np.float32)
    scores = fusion.fused(values, len(ids))
    places = fusion.best(scores, ids, np.arange(len(ids)), limit)
    return [Hit(int(ids[p]), float(scores[p]), partial(fusion.parts, values, p)) for p in places]


def _words(rows: Sequence[Row[Any]], corpus: Corpus, weights: Mapping[str, float]) -> tuple[Floats, Floats]:
    """BM25 of each row, and the share of the question's words that stand in it."""
    marks = [(corpus.marks(term), weight) for term, weight in weights.items()]
    total = sum(weights.values())
    bm, held = np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.float32)
    for place, row in enumerate(rows):
        size = length(row.terms)
        for own, weight in marks:
            count = sum(row.terms.count(mark) for mark in own)
            if count:
                bm[place] += weight * bm25.weight(count, size, corpus.average_length)
                held[place] += weight / total
    return bm, held
