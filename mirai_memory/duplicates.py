"""Facts that may say the same, proposed: nothing is merged unless somebody says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from mirai_memory.entities import Duplicate, DuplicateReason
from mirai_memory.search import likeness
from mirai_memory.search.likeness import Pair
from mirai_memory.services.duplicates import Compared
from mirai_memory.unit_of_work import UnitOfWork

SIMILAR = 0.5  # from here on two facts are proposed

Read = Callable[[Callable[[UnitOfWork], Any]], Any]


def find_duplicates(read: Read, *, limit: int, threshold: float) -> list[Duplicate]:
    """The ``limit`` most similar pairs. ``read`` opens the door; comparing, which may take long, is done outside."""
    compared: Compared = read(lambda uow: uow.knowledge.compared())
    similar: dict[tuple[int, int], float] = {}
    reasons: dict[tuple[int, int], list[DuplicateReason]] = defaultdict(list)
    for reason, pairs in _all_pairs(compared, limit, threshold):
        for similarity, first, second in pairs:
            pair = (first, second)
            similar[pair] = max(similar.get(pair, 0.0), 1.0 if reason == "value" else similarity)
            if reason not in reasons[pair]:
                reasons[pair].append(reason)
    # Equal values come first, those before that share other words as well.
    ranked = sorted(similar, key=lambda pair: ("value" not in reasons[pair], -similar[pair], -len(reasons[pair]), pair))
    ids = sorted({id for pair in ranked[:limit] for id in pair})
    facts = read(lambda uow: uow.knowledge.still_current(ids))
    return [
        Duplicate(
            first=facts[one], second=facts[two], similarity=round(similar[one, two], 4), reasons=reasons[one, two]
        )
        for one, two in ranked[:limit]
        if one in facts and two in facts
    ]


def _all_pairs(compared: Compared, limit: int, threshold: float) -> Iterator[tuple[DuplicateReason, list[Pair]]]:
    """The best pairs for each reason, as ids."""
    ids = compared.ids
    yield "value", _named(likeness.best(_of_one_value(compared), limit), ids)
    yield "words", _named(likeness.best(likeness.by_words(compared.words, threshold), limit), ids)
    for items, values in compared.vectors.values():
        yield "meaning", _named(likeness.best(likeness.by_meaning(values, threshold, limit), limit), items)


def _named(pairs: list[Pair], ids: list[int]) -> list[Pair]:
    return [(similarity, ids[one], ids[two]) for similarity, one, two in pairs]


def _of_one_value(compared: Compared) -> Iterator[Pair]:
    """Each fact beside the first one that has the same value, with how much their words overlap, keys included."""
    first: dict[bytes, int] = {}
    for place, value in enumerate(compared.values):
        if (before := first.setdefault(value, place)) != place:
            yield likeness.overlap(compared.words[before], compared.words[place]), before, place
