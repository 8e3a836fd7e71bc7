"""Messages found by words, by context and by meaning: candidates, signals, one score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from sqlalchemy import ColumnElement

from mirai_memory.database import Db
from mirai_memory.search import fusion, signals
from mirai_memory.search.analyzer import query_terms
from mirai_memory.search.base import Hit, MessageFilter, Query, Scope
from mirai_memory.search.cues import read_question
from mirai_memory.search.layout import Flags, Floats, Layout
from mirai_memory.search.layouts import Layouts
from mirai_memory.search.postings import ITEMS, POSTINGS, Corpus, PostingsIndex, by_weight
from mirai_memory.search.terms import named_speaker, session_number
from mirai_memory.search.vectors import Vectors

# The best by words and the best by meaning are looked at with the turns around them: what answers a question often
# shares no word with it. Without these turns a fifth of the evidence was lost.
CANDIDATES = 200
AROUND = 2

_MESSAGES = ITEMS["message"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the index knows of a query: where its terms stand, what they weigh, how near the vectors are."""

    postings: Mapping[str, list[int]]
    weights: Mapping[str, float]
    near: tuple[np.ndarray, Floats] | None


class MessageSearch:
    def __init__(self, words: PostingsIndex, layouts: Layouts, vectors: Vectors) -> None:
        self._words = words
        self._layouts = layouts
        self._vectors = vectors

    def find(self, db: Db, query: Query, scope: Scope, *, limit: int, only: MessageFilter, shared: bool) -> list[Hit]:
        corpus = self._words.corpus(db, "message", scope)
        if not corpus.items or limit < 1:
            return []
        found = self._look_up(db, query, corpus, only, shared=shared)
        layout = self._layouts.whole(db, corpus, shared=shared)
        if layout is None:
            layout = self._layouts.around(db, corpus, _candidates(found))
        if not len(layout):
            return []
        values, eligible = _signals(query, corpus, layout, found)
        scores = fusion.fused(values, len(layout))
        places = fusion.best(scores, layout.ids, np.flatnonzero(eligible & _allowed(layout, only)), limit)
        return [Hit(int(layout.ids[p]), float(scores[p]), fusion.parts(values, p)) for p in places]

    def _look_up(self, db: Db, query: Query, corpus: Corpus, only: MessageFilter, *, shared: bool) -> _Found:
        large = not self._layouts.reads_whole(corpus)
        postings = {}
        for term in query_terms(query.text):
            ids = self._words.postings(db, "message", corpus, term)
            # What is common among all may be rare among the wanted ones, and stand before the newest.
            if only and len(ids) >= POSTINGS:
                ids = self._words.postings(db, "message", corpus, term, _conditions(only))
            postings[term] = ids
        near = None
        if query.vector and corpus.bounded:
            near = self._vectors.similarities(db, "message", corpus, query.vector, shared=shared)
        weights = self._words.weights(db, "message", corpus, postings)
        if only and large:
            postings = {t: self._words.postings(db, "message", corpus, t, _conditions(only)) for t in postings}
        return _Found(postings, weights, near)


def _candidates(found: _Found) -> list[int]:
    ids = by_weight(found.postings, found.weights)[:CANDIDATES]
    if found.near is not None:
        items, cosines = found.near
        ids += (int(id) for id in items[np.argsort(-cosines)[:CANDIDATES]])
    return list(dict.fromkeys(ids))


def _signals(query: Query, corpus: Corpus, layout: Layout, found: _Found) -> tuple[dict[str, Floats], Flags]:
    """The signals of every message of the layout, and which messages may be found at all."""
    names = [name for name in map(named_speaker, layout.names) if name is not None]
    question = read_question(query.text, list(found.postings), names)
    places = {term: layout.places(found.postings[term]) for term in question.terms}
    values = signals.words(layout, places, found.weights, corpus.average_length)
    eligible = values["near"] > 0
    values |= signals.context(layout, question)
    if found.near is not None and len(found.near[0]):
        cosines = _aligned(layout, *found.near)
        values |= signals.dense(layout, cosines)
        eligible |= layout.widened(_highest(cosines, CANDIDATES), AROUND)
    return values, eligible


def _aligned(layout: Layout, items: np.ndarray, cosines: Floats) -> Floats:
    aligned = np.full(len(layout), np.nan, dtype=np.float32)
    places = layout.find(items)
    aligned[places[places >= 0]] = cosines[places >= 0]
    return aligned


def _highest(cosines: Floats, count: int) -> Flags:
    known = ~np.isnan(cosines)
    if np.count_nonzero(known) <= count:
        return known
    lowest = np.partition(cosines[known], -count)[-count]
    return np.asarray(np.nan_to_num(cosines, nan=-2.0) >= lowest)


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
