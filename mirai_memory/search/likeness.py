"""Which of many items are nearly the same: by the words they share, and by their vectors. Never all pairs by words.

Two sets that are alike share one of their rarest words: only such pairs are compared (Bayardo, Ma and Srikant, "Scaling
Up All Pairs Similarity Search", WWW 2007). Pure arithmetic.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from mirai_memory.search.layout import Floats

# Items that share a word and are compared with one that has it too: the nearest before it. More would make the price
# depend on the words.
NEIGHBOURS: Final = 30
NEWEST: Final = 10_000  # vectors that are compared, each with each
_BLOCK: Final = 500
# How near two items are that have nothing in common, as if so many pairs had been seen: few vectors tell little.
_USUAL, _SEEN = 0.75, 20

Pair = tuple[float, int, int]  # similarity, and the places of both, the earlier one first


def best(pairs: Iterator[Pair], most: int) -> list[Pair]:
    """The most similar ones, the most similar first; of equals the earlier."""
    return heapq.nsmallest(most, pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))


def overlap(one: frozenset[int], other: frozenset[int]) -> float:
    """The share of their words that both have (Jaccard)."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def by_words(items: Sequence[frozenset[int]], threshold: float) -> Iterator[Pair]:
    """Pairs whose words overlap by ``threshold`` or more."""
    frequency = Counter(word for words in items for word in words)
    recent: dict[int, deque[int]] = {}
    # From few words to many, so that the earlier one of a pair is the smaller one: fewer of its words lead to it then.
    for place in sorted(range(len(items)), key=lambda place: len(items[place])):
        words = items[place]
        size = len(words)
        ordered = sorted(words, key=lambda word: (frequency[word], word))
        candidates: set[int] = set()
        for word in ordered[: _leading(size, threshold)]:
            candidates.update(recent.get(word, ()))
        for other in candidates:
            shared = len(words & items[other])
            if shared >= threshold * (size + len(items[other]) - shared):
                yield shared / (size + len(items[other]) - shared), min(other, place), max(other, place)
        for word in ordered[: _leading(size, 2 * threshold / (1 + threshold))]:
            if frequency[word] > 1:
                recent.setdefault(word, deque(maxlen=NEIGHBOURS)).append(place)


def _leading(size: int, share: float) -> int:
    """How many of the rarest words one must be among, if that share of all of them is in another set."""
    return min(size, size - math.ceil(share * size - 1e-9) + 1)


def by_meaning(values: Floats, threshold: float, most: int) -> Iterator[Pair]:
    """Pairs of vectors of length 1 that are nearer than any two are: 0 is as near as usual, 1 is the same.

    How near any two are depends on the model: some put all texts into a narrow cone. So it is measured.
    """
    count = len(values)
    if count < 2:
        return
    total = values.sum(axis=0, dtype=np.float64)
    measured = (float(total @ total) - count) / (count * (count - 1))
    usual = min(0.99, (count * measured + _SEEN * _USUAL) / (count + _SEEN))
    for start in range(0, count, _BLOCK):
        block = values[start : start + _BLOCK] @ values[start:].T
        near = (np.triu(block, 1) - usual) / (1 - usual)
        found = np.argwhere(near >= threshold)
        if len(found) > most:
            strength = near[found[:, 0], found[:, 1]]
            found = found[np.argsort(-strength, kind="stable")[:most]]
        for one, other in found.tolist():
            yield min(1.0, float(near[one, other])), start + one, start + other
