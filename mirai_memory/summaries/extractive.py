"""A summary made of the conversation's own sentences: offline, without a model, the same for the same text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from mirai_memory.entities import Message
from mirai_memory.summaries._ranking import Ranked, ranked
from mirai_memory.summaries._sentences import Sentence, lines, of_messages, of_summary
from mirai_memory.tokens import TokenCounter

__all__ = ["ExtractiveSummarizer"]

_SAME: Final = 0.85  # so much alike, the second of two sentences says nothing new
_LENGTH: Final = 0.5  # how much a sentence's length counts against it, as a power
_TRIES: Final = 20  # shorter sentences that are tried for the last free tokens
_CYRILLIC: Final = re.compile("[\u0400-\u04ff]")
_LETTER: Final = re.compile(r"[^\W\d_]")


class ExtractiveSummarizer:
    """Takes the sentences that tell most, in the order of the conversation, each with who said it and on which day.

    Sentences count by how central they are, by names, numbers, days and decisions in them, and by how little they
    repeat of what was taken (maximal marginal relevance: Carbonell and Goldstein, SIGIR 1998). Those of the summary
    before compete with the new ones. "Yesterday" and its like get their day. What tools answered and systems were
    told is left out where anybody spoke; so is code. English and Russian; other languages by their words alone.
    """

    name = "extractive"

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter

    def __repr__(self) -> str:
        return f"ExtractiveSummarizer({self._counter.name!r})"

    def summarize(self, messages: Sequence[Message], *, previous: str | None, max_tokens: int) -> str:
        """The summary, of at most ``max_tokens`` tokens. Never empty, unless not one letter has room."""
        found = [*of_summary(previous or ""), *of_messages(messages)]
        if not found:
            return self._cut(f"({len(messages)} messages without words)", max_tokens)
        of = ranked(found)
        russian = _is_russian(of.sentences)
        return self._fitted(of, max_tokens, russian) or self._cut(_best(of).text, max_tokens)

    def _fitted(self, of: Ranked, max_tokens: int, russian: bool) -> str:
        """As many of the best as there is room for."""
        costs = np.array([self._cost(sentence) for sentence in of.sentences], dtype=np.float64)
        order = _in_order(of, costs, max_tokens)
        taken: list[int] = []
        spent = 0.0
        while order and spent + costs[order[0]] <= max_tokens:
            spent += costs[order[0]]
            taken.append(order.pop(0))
        text = self._text(of, taken, russian)
        while taken and self._counter.count(text) > max_tokens:  # days, too, take room
            order.insert(0, taken.pop())
            text = self._text(of, taken, russian)
        for place in order[:_TRIES]:
            longer = self._text(of, [*taken, place], russian)
            if self._counter.count(longer) <= max_tokens:
                taken.append(place)
                text = longer
        return text

    def _cost(self, sentence: Sentence) -> int:
        # The speaker is counted by half: often two sentences in a row have the same.
        return self._counter.count(sentence.text) + self._counter.count(sentence.speaker) // 2

    @staticmethod
    def _text(of: Ranked, taken: Sequence[int], russian: bool) -> str:
        return "\n".join(lines([of.sentences[place] for place in sorted(taken)], russian=russian))

    def _cut(self, text: str, max_tokens: int) -> str:
        """As many characters as fit, up to a word's end where there is one."""
        cut = text
        while cut and self._counter.count(cut) > max_tokens:
            cut = cut[: min(len(cut) - 1, len(cut) * max(max_tokens, 0) // self._counter.count(cut) + 1)]
        return cut if cut == text or " " not in cut else cut[: cut.rindex(" ")]


def _in_order(of: Ranked, costs: np.ndarray[tuple[int], np.dtype[np.float64]], max_tokens: int) -> list[int]:
    """Places in the order in which they are taken: the best for its length and beside those taken before it."""
    shortness = np.maximum(costs, 1.0) ** -_LENGTH
    repeated = np.zeros(len(of.worth))
    left = np.ones(len(of.worth), dtype=bool)
    order: list[int] = []
    tokens = 0.0
    # Some more than have room: shorter ones may fill what the last one leaves.
    while left.any() and (tokens <= max_tokens or len(order) < 2 * _TRIES):
        gains = of.worth - repeated
        values = np.where(left, np.where(gains > 0, gains * shortness, gains / shortness), -np.inf)
        best = int(np.argmax(np.round(values, 9)))
        left[best] = False
        order.append(best)
        tokens += costs[best]
        repeated = np.maximum(repeated, of.alike[best])
        left &= of.alike[best] < _SAME
    return order


def _best(of: Ranked) -> Sentence:
    return of.sentences[int(np.argmax(of.worth))]


def _is_russian(sentences: Sequence[Sentence]) -> bool:
    """Whether days are better named in Russian."""
    text = " ".join(sentence.text for sentence in sentences)
    return 2 * len(_CYRILLIC.findall(text)) > len(_LETTER.findall(text))
