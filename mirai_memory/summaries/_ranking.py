"""Which sentences matter: near to many others, and telling of names, numbers, days and decisions.

Centrality is LexRank (Erkan and Radev, "LexRank: Graph-based Lexical Centrality as Salience in Text Summarization",
JAIR 22, 2004). Everything here is exact arithmetic in one thread, so that the same text has the same summary.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mirai_memory.summaries._sentences import Sentence
from mirai_memory.summaries._stems import stems

Floats = NDArray[np.float64]

MOST: Final = 800  # sentences that are compared, each with each
_STRETCHES: Final = 100  # parts of a longer conversation, of each of which as many are compared
_DAMPING, _ROUNDS = 0.85, 40
# Tuned on one conversation of a public set, and only tried on others. What they weigh beside each other matters little.
# A sentence of the summary before weighs a little less: made anew every few messages, a summary has then as much of the
# conversation's first half as of its second.
_CENTRAL, _NAMES, _NUMBERS, _DECISION, _TIME, _ASKS, _FULL, _KEPT = 0.5, 0.5, 0.5, 0.2, 0.5, -1.0, 2.0, -0.2
_FULL_AT: Final = 10  # different stems

_NUMBER: Final = re.compile(r"\d+")
# A capital inside of a sentence; at its beginning every word has one.
_NAME: Final = re.compile(r"(?<=[^.!?…:\s] )[\"'«“(]?[A-ZА-ЯЁ][\w'’-]+")
_DECISION_WORDS: Final = re.compile(
    r"\b(?:decid\w+|agree\w*|plan(?:s|ned|ning)?|will|won't|going to|gonna|must|need to|have to|promis\w+|chose"
    r"|choos\w+|start(?:ed|ing)?|signed up|bought|moved?|quit|join(?:ed|ing)?|deadline|prefer\w*|favou?rite|always"
    r"|never|решил\w*|решен\w+|договор\w+|планир\w+|буду|будем|надо|нужно|должн\w+|обеща\w+|выбра\w+|начал\w*|купил\w*"
    r"|переех\w+|срок\w*|предпоч\w+|любим\w+|всегда|никогда)\b",
    re.IGNORECASE,
)
_TIME_WORDS: Final = re.compile(
    r"\b(?:yesterday|last|ago|weeks?|months?|years?|(?:mon|tues|wednes|thurs|fri|satur|sun)day|since"
    r"|вчера|назад|прошл\w+|недел\w+|месяц\w*|год\w*|лет|понедельник\w*|вторник\w*|сред[ауы]|четверг\w*|пятниц\w+"
    r"|суббот\w+|воскресень\w+)\b|\(\d{1,2} ",
    re.IGNORECASE,
)
_QUESTION: Final = re.compile(r"[?？]\W*$")


@dataclass(frozen=True, slots=True)
class Ranked:
    """Sentences in the order of the conversation, what each is worth, and how alike each two are (0 to 1)."""

    sentences: list[Sentence]
    worth: Floats
    alike: Floats


def ranked(sentences: Sequence[Sentence]) -> Ranked:
    """The sentences that may be taken, at most ``MOST`` of them: those that say more than a word or two."""
    held = [(sentence, stems(sentence.text)) for sentence in sentences]
    telling = [(sentence, terms) for sentence, terms in held if len(set(terms)) > 2] or held
    told = [_told(sentence, terms) for sentence, terms in telling]
    taken = _spread(told)
    similarities = alike([telling[place][1] for place in taken])
    own = np.array([told[place] for place in taken], dtype=np.float64)
    worth = own + _CENTRAL * centrality(similarities)
    return Ranked([telling[place][0] for place in taken], np.round(worth, 6), similarities)


def _told(sentence: Sentence, terms: Sequence[str]) -> float:
    """What the sentence tells by itself."""
    text = sentence.text
    return (
        _FULL * min(1.0, len(set(terms)) / _FULL_AT)
        + _NAMES * min(2, len(_NAME.findall(text)))
        + _NUMBERS * min(2, len(_NUMBER.findall(text)))
        + _DECISION * bool(_DECISION_WORDS.search(text))
        + _TIME * bool(_TIME_WORDS.search(text))
        + _ASKS * bool(_QUESTION.search(text))
        + _KEPT * sentence.kept
    )


def _spread(told: Sequence[float]) -> list[int]:
    """Places of the sentences that are compared: of a long conversation the most telling ones of each stretch."""
    if len(told) <= MOST:
        return list(range(len(told)))
    size = math.ceil(len(told) / _STRETCHES)
    taken: list[int] = []
    for start in range(0, len(told), size):
        stretch = range(start, min(start + size, len(told)))
        taken += sorted(stretch, key=lambda place: (-told[place], place))[: MOST // _STRETCHES]
    return sorted(taken)


def alike(terms: Sequence[Sequence[str]]) -> Floats:
    """The cosine of each two sentences, by stems that weigh more the fewer sentences have them."""
    holders: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for place, own in enumerate(terms):
        for term, count in Counter(own).items():
            holders[term].append((place, 1 + math.log(count)))
    count = len(terms)
    products, lengths = np.zeros((count, count)), np.zeros(count)
    for held in holders.values():
        places = np.array([place for place, _ in held])
        weights = np.array([weight for _, weight in held]) * math.log(1 + count / len(held))
        lengths[places] += weights**2
        if len(held) > 1:
            products[np.ix_(places, places)] += np.outer(weights, weights)
    norms = np.sqrt(np.maximum(lengths, 1e-12))
    cosines: Floats = products / np.outer(norms, norms)
    np.fill_diagonal(cosines, 0.0)
    return cosines


def centrality(similarities: Floats) -> Floats:
    """How often a reader comes by who goes on from each sentence to one that is like it; 1 for the most central."""
    count = len(similarities)
    if not count:
        return np.zeros(0)
    totals = similarities.sum(axis=1, keepdims=True)
    steps = np.where(totals > 0, similarities / np.maximum(totals, 1e-12), 1 / count)
    often = np.full(count, 1 / count)
    for _ in range(_ROUNDS):
        often = (1 - _DAMPING) / count + _DAMPING * (steps * often[:, None]).sum(axis=0)
    return np.asarray(often / often.max())
