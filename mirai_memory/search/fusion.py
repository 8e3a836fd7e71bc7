"""How signals become one score: a weighted sum.

The constants were fitted by a conditional logit to questions over long conversations, rounded, and checked on
conversations of other people: single ones may change by half without moving recall by more than a point. Reciprocal
rank fusion of words and vectors was worse than words alone, since it throws away how much better a match is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mirai_memory.search.layout import Floats, Ints

WEIGHTS: Mapping[str, float] = {
    "bm": 0.25,  # BM25 of the message: 0 to about 20
    "sess": 0.3,  # BM25 of its session as one document
    "near": 4.0,  # the share of the question's words that stand in it or beside it: 0 to 1
    "reply": 0.25,  # BM25 of the question it replies to
    "speaker": 1.6,  # its speaker is named in the question
    "of_oneself": 1.0,  # and speaks of himself: what is asked about somebody is mostly told by him
    "asks": -0.8,  # and asks: a question tells little
    "time": 2.0,  # the question asks when, and the message names a time
    "date": 3.5,  # the question names a date: 1 on that day, a half near it
    "opens": 1.0,  # the first turn of a talk says what is new
    "dense": 0.8,  # how much nearer its vector is than others of the scope, in standard deviations
    "dense_near": 0.25,  # the same of the turns beside it
    "dense_sess": 0.5,  # the same of the nearest in its session
}


def fused(signals: Mapping[str, Floats], size: int) -> Floats:
    total, part = np.zeros(size, dtype=np.float32), np.empty(size, dtype=np.float32)
    for name, values in signals.items():
        total += np.multiply(values, np.float32(WEIGHTS[name]), out=part)
    return total


def best(scores: Floats, ids: Ints, eligible: Ints, limit: int) -> Ints:
    """The places of the highest scores among the eligible ones, best first; of two equals the newer."""
    if len(eligible) > limit:
        lowest = np.partition(scores[eligible], len(eligible) - limit)[len(eligible) - limit]
        eligible = eligible[scores[eligible] >= lowest]
    order = np.lexsort((-ids[eligible], -scores[eligible]))
    return eligible[order[:limit]]


def parts(signals: Mapping[str, Floats], place: int) -> dict[str, float]:
    """What each signal adds to the score of one item; those that add nothing are left out."""
    values = {name: round(WEIGHTS[name] * float(values[place]), 4) for name, values in signals.items()}
    return {name: value for name, value in values.items() if value}
