"""Messages found by words, by context and by meaning: candidates, signals, one score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import ColumnElement

from mirai_memory.database import Db
from mirai_memory.search import fusion, signals
from mirai_memory.search.analyzer import query_terms
from mirai_memory.search.base import Hit, MessageFilter, Query, Scope
from mirai_memory.search.cache import ScopeCache
from mirai_memory.search.cues import read_question
from mirai_memory.search.kept_postings import KeptPostings
from mirai_memory.search.layout import Flags, Floats, Layout
from mirai_memory.search.layouts import Layouts
from mirai_memory.search.nearest import NOTHING, Near, VectorStore, idle
from mirai_memory.search.postings import ITEMS, POSTINGS, SAMPLE, Corpus, PostingsIndex, by_weight
from mirai_memory.search.terms import named_speaker, session_number

if TYPE_CHECKING:
    from mirai_memory.search.postings import Ids

# The best by words and the best by meaning are looked at with the turns around them: what answers a question often
# shares no word with it. Without these turns a fifth of the evidence was lost.
CANDIDATES = 200
AROUND = 2

_MESSAGES = ITEMS["message"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Words:
    """What the index knows of a query's words: where its terms stand, and what they weigh."""

    postings: Mapping[str, Ids]
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _ByWords:
    """The signals of words and context of every message of a layout, and their sums."""

    values: dict[str, Floats]
    scores: Floats


class MessageSearch:
    def __init__(self, words: PostingsIndex, cache: ScopeCache, vectors: VectorStore) -> None:
        self._words = words
        self._kept = KeptPostings(words, cache)
        self._layouts = Layouts(cache)
        self._vectors = vectors

    def find(self, db: Db, query: Query, scope: Scope, *, limit: int, only: MessageFilter, shared: bool) -> list[Hit]:
        corpus = self._words.corpus(db, "message", scope)
        if not corpus.items or limit < 1:
            return []
        narrow = _conditions(only)
        whole = self._layouts.whole(db, corpus, shared=shared)
        words = self._look_up(db, query, corpus, whole, narrow, shared=shared)
        if whole is None:
            near = self._near(db, query, corpus, narrow, shared=shared)
            layout = self._layouts.around(db, corpus, _candidates(words, near))
            by_words = _by_words(query, corpus, layout, words)
        else:
            layout, later = whole, cache(partial(_by_words, query, corpus, whole, words))
            near = self._near(db, query, corpus, narrow, shared=shared, meanwhile=later)
            by_words = later()
        if not len(layout):
            return []
        by_vectors, eligible = _by_vectors(corpus, layout, near)
        eligible |= by_words.values["near"] > 0
        values = by_words.values | by_vectors
        scores = by_words.scores + fusion.fused(by_vectors, len(layout))
        places = fusion.best(scores, layout.ids, np.flatnonzero(eligible & _allowed(layout, only)), limit)
        return [Hit(int(layout.ids[p]), float(scores[p]), partial(fusion.parts, values, p)) for p in places]

    def _near(
        self,
        db: Db,
        query: Query,
        corpus: Corpus,
        narrow: Sequence[ColumnElement[bool]],
        *,
        shared: bool,
        meanwhile: Callable[[], object] = idle,
    ) -> Near:
        if not query.vector or not corpus.bounded:
            return NOTHING
        return self._vectors.nearest(
            db, "message", corpus, query.vector, shared=shared, narrow=narrow, meanwhile=meanwhile
        )

    def _look_up(
        self,
        db: Db,
        query: Query,
        corpus: Corpus,
        whole: Layout | None,
        narrow: Sequence[ColumnElement[bool]],
        *,
        shared: bool,
    ) -> _Words:
        postings = self._postings(db, corpus, whole if shared else None, query_terms(query.text))
        if narrow:
            # What is common among all may be rare among the wanted ones, and stand before the newest.
            common = [term for term, ids in postings.items() if len(ids) >= POSTINGS]
            postings |= self._words.postings(db, "message", corpus, common, narrow)
        newest = None if whole is None else whole.newest(SAMPLE)
        weights = self._words.weights(db, "message", corpus, postings, newest)
        if narrow and whole is None:
            postings = self._words.postings(db, "message", corpus, list(postings), narrow)
        return _Words(postings, weights)

    def _postings(self, db: Db, corpus: Corpus, kept_with: Layout | None, terms: Sequence[str]) -> dict[str, Ids]:
        if kept_with is not None:
            return dict(self._kept.of(db, corpus, kept_with, terms))
        return self._words.postings(db, "message", corpus, terms)


def _candidates(words: _Words, near: Near) -> list[int]:
    ids = by_weight(words.postings, words.weights)[:CANDIDATES]
    ids += near.highest(CANDIDATES).tolist()
    return list(dict.fromkeys(ids))


def _by_words(query: Query, corpus: Corpus, layout: Layout, words: _Words) -> _ByWords:
    names = [name for name in map(named_speaker, layout.names) if name is not None]
    question = read_question(query.text, list(words.postings), names)
    places = {term: layout.places(words.postings[term]) for term in question.terms}
    values = signals.words(layout, places, words.weights, corpus.average_length) | signals.context(layout, question)
    return _ByWords(values, fusion.fused(values, len(layout)))


def _by_vectors(corpus: Corpus, layout: Layout, near: Near) -> tuple[dict[str, Floats], Flags]:
    """The signals of vectors of every message of the layout, and which messages may be found by them."""
    eligible = np.zeros(len(layout), dtype=np.bool_)
    if not len(near.items):
        return {}, eligible
    eligible[layout.widened(layout.places(near.highest(CANDIDATES)), AROUND)] = True
    return signals.dense(layout, _aligned(layout, near, corpus.items)), eligible


def _aligned(layout: Layout, near: Near, among: int) -> Floats:
    found = layout.find(near.items)
    aligned = np.zeros(len(layout), dtype=np.float32)
    aligned[found[found >= 0]] = near.signal(among)[found >= 0]
    return aligned


def _allowed(layout: Layout, only: MessageFilter) -> Flags:
    allowed = np.ones(len(layout), dtype=np.bool_)
    if only.session_id is not None:
        allowed &= layout.sessions == session_number(only.session_id)
    if only.since is not None:
        allowed &= layout.times >= only.since
    if only.until is not None:
        allowed &= layout.times < only.until
    return allowed


def _conditions(only: MessageFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if only.session_id is not None:
        conditions.append(_MESSAGES.c.session_id == only.session_id)
    if only.since is not None:
        conditions.append(_MESSAGES.c.timestamp >= _EPOCH + timedelta(microseconds=only.since))
    if only.until is not None:
        conditions.append(_MESSAGES.c.timestamp < _EPOCH + timedelta(microseconds=only.until))
    return conditions
