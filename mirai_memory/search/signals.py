"""Signals: for each message of a scope, how much speaks for it from one point of view. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mirai_memory.search import bm25
from mirai_memory.search.cues import ENDS_ASKING, NAMES_TIME, OF_ONESELF, NamedDate, Question
from mirai_memory.search.layout import Floats, Ints, Layout
from mirai_memory.search.terms import named_speaker

# A word counts fully where it stands, less in the turns beside it.
NEAR = ((1, 0.8), (2, 0.5))
_UNKNOWN_WEIGHT = 8.0  # of a word that the scope has never seen: nothing can cover it
_DAY = 86_400_000_000  # microseconds
_AFTER_DAY, _AFTER_MONTH = 14, 10  # days


def words(
    layout: Layout, places: Mapping[str, Ints], weights: Mapping[str, float], average_length: float
) -> dict[str, Floats]:
    """bm, sess, near and reply from the places where each term stands and what it weighs.

    A term counts once in a message: how often it stands there moved nothing (chats are short), and is not in postings.
    """
    known = [(held, weights[term]) for term, held in places.items() if len(held)]
    total = sum(weight for _, weight in known) + _UNKNOWN_WEIGHT * (len(places) - len(known))
    bm, near, one = (np.zeros(len(layout), dtype=np.float32) for _ in range(3))
    for held, weight in known:
        bm[held] += np.float32(weight)
        near += _spread(layout, held, weight, one)
    near /= np.float32(max(total, 1e-9))
    matches = np.flatnonzero(bm)
    bm[matches] *= _length_norm(layout.lengths[matches], average_length)
    return {
        "bm": bm,
        "sess": _session_scores(layout, [held for held, _ in known]),
        "near": near,
        "reply": np.where(layout.replied >= 0, bm[layout.replied], np.float32(0)),
    }


def _length_norm(lengths: Ints, average: float) -> Floats:
    return ((bm25.K1 + 1) / (1 + bm25.K1 * (1 - bm25.B + bm25.B * lengths / average))).astype(np.float32)


def _spread(layout: Layout, held: Ints, weight: float, out: Floats) -> Floats:
    """How much a term that stands in the places ``held`` counts in each message, by its best place near that."""
    out.fill(0)
    for distance, worth in reversed(NEAR):  # the nearest last, which counts most
        out[layout.beside(held, distance)] = worth * weight
    out[held] = weight
    return out


def _session_scores(layout: Layout, places: Sequence[Ints]) -> Floats:
    """BM25 of the whole session as one document, for each of its messages."""
    numbers, count = layout.session_numbers, len(layout.starts)
    lengths = np.add.reduceat(layout.lengths, layout.starts) if count else layout.lengths
    average = max(1.0, float(lengths.mean())) if count else 1.0
    norm = bm25.K1 * (1 - bm25.B + bm25.B * lengths / average)
    scores = np.zeros(count)
    for held in places:
        frequency = np.bincount(numbers[held], minlength=count)
        scores += bm25.idf(count, int(np.count_nonzero(frequency))) * frequency * (bm25.K1 + 1) / (frequency + norm)
    return scores.astype(np.float32)[numbers]


def context(layout: Layout, question: Question) -> dict[str, Floats]:
    """Who is named, what kind of answer is wanted, which date."""
    named = [number for number, speaker in enumerate(layout.names) if named_speaker(speaker) in question.speakers]
    spoken = np.isin(layout.speakers, named) & layout.has_speakers if named else np.zeros(len(layout), np.bool_)
    signals = {
        "speaker": spoken,
        "of_oneself": spoken & ((layout.cues & OF_ONESELF) > 0),
        "asks": spoken & ((layout.cues & ENDS_ASKING) > 0),
        "opens": layout.opens & layout.has_speakers,
    }
    if question.asks_when:
        signals["time"] = (layout.cues & NAMES_TIME) > 0
    out = {name: flags.astype(np.float32) for name, flags in signals.items()}
    if question.dates:
        out["date"] = dated(layout.times, question.dates)
    return out


def dense(layout: Layout, near: Floats) -> dict[str, Floats]:
    """dense, dense_near and dense_sess from how near each message is (``Near.signal``), 0 where that is not known."""
    beside = np.zeros_like(near)
    for distance, worth in ((1, 1.0), (2, 0.5)):
        if distance < len(layout):
            same = layout.together(distance) * np.float32(worth)
            beside[distance:] += near[:-distance] * same
            beside[:-distance] += near[distance:] * same
    of_session = np.maximum.reduceat(near, layout.starts)[layout.session_numbers] if len(layout) else near
    return {"dense": near, "dense_near": beside, "dense_sess": of_session}


def dated(times: Ints, dates: Sequence[NamedDate]) -> Floats:
    """1 on a named day; half in a named month and in the days after, when what happened is told."""
    best = np.zeros(len(times), dtype=np.float32)
    days = times // _DAY
    years = days.astype("datetime64[D]").astype("datetime64[Y]")
    for named in dates:
        if named.year is None:
            # The latest such day: in December of the year before, seen from January.
            candidates = [years, years - np.timedelta64(1, "Y")]
        else:
            candidates = [np.full(len(times), named.year - 1970).astype("datetime64[Y]")]
        for year in candidates:
            np.maximum(best, _closeness(days, year, named), out=best)
    return best


def _closeness(days: Ints, years: NDArray[np.datetime64], named: NamedDate) -> Floats:
    months = years.astype("datetime64[M]") + np.timedelta64(named.month - 1, "M")
    begin = months.astype("datetime64[D]").astype(np.int64)
    end = (months + np.timedelta64(1, "M")).astype("datetime64[D]").astype(np.int64)
    if named.day is None:
        return ((days >= begin) & (days < end + _AFTER_MONTH)).astype(np.float32) * np.float32(0.5)
    day = begin + named.day - 1
    near = ((days >= begin) & (days < end)) | ((days > day) & (days <= day + _AFTER_DAY))
    exact = (days == day) & (day < end)  # 29 February is not in every year
    return np.where(exact, np.float32(1), near.astype(np.float32) * np.float32(0.5))
