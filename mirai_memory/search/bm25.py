"""BM25 as arithmetic: how much a term weighs, and what a document scores.

Robertson, Walker: Some simple effective approximations to the 2-Poisson model (SIGIR 1994), with Lucene's idf, which
is never negative. k1 and b were measured on chats: short documents, where repeats and length say little.
"""

from __future__ import annotations

import math

K1, B = 0.9, 0.4


def idf(items: float, holding: float) -> float:
    """The weight of a term that ``holding`` of ``items`` documents contain."""
    return math.log(1 + (max(items, holding) - holding + 0.5) / (holding + 0.5))


def weight(count: int, length: int, average_length: float) -> float:
    """What ``count`` occurrences in a document of ``length`` terms are worth, 0 to ``K1 + 1``."""
    return count * (K1 + 1) / (count + K1 * (1 - B + B * length / average_length))
