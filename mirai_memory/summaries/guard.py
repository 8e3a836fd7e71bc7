"""The guard: what a summariser may do wrong, be it ours or a user's, ends here as a ModelError."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from mirai_memory import _checks
from mirai_memory.embeddings._calls import CallThread, Overdue
from mirai_memory.entities import Message
from mirai_memory.errors import InvalidInput, ModelError
from mirai_memory.summaries.base import Summarizer
from mirai_memory.tokens import TokenCounter

__all__ = ["GuardedSummarizer", "beginning"]

_GRACE_S = 1.0  # for a summariser that keeps its own time
_CHARS_OF_A_TOKEN = 20  # more make one token of hardly any text, and to count millions would take a while
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'»”)\]]*\s+|\n+")


class GuardedSummarizer:
    """A summariser whose calls end in time, and whose answers are text that can be stored, within the budget.

    Messages of errors name the summariser and the rule, never a text; what a user's summariser raised is chained.
    Raises InvalidInput for an object that is none.
    """

    def __init__(self, summarizer: Summarizer, counter: TokenCounter, *, timeout_s: float) -> None:
        if not callable(getattr(summarizer, "summarize", None)):
            raise InvalidInput("summarizer", "has no method summarize")
        self.name = _checks.name("summarizer.name", getattr(summarizer, "name", None))
        own = getattr(summarizer, "longest_s", None)
        self.longest_s = (own if isinstance(own, int | float) and own > 0 else timeout_s) + _GRACE_S
        self._summarizer = summarizer
        self._counter = counter

    def __repr__(self) -> str:
        return f"GuardedSummarizer({self.name!r})"

    def summarize(self, messages: Sequence[Message], *, previous: str | None, max_tokens: int) -> str:
        """The summary, not empty, of at most ``max_tokens`` tokens. Raises ModelError."""
        call = partial(self._summarizer.summarize, messages, previous=previous, max_tokens=max_tokens)
        # A thread for each call: one that hangs is nobody else's trouble.
        thread = CallThread("mirai-memory-summarizer")
        try:
            answer = self._result(thread.run(call, self.longest_s))
        except Overdue:
            answer = None
        finally:
            thread.close()
        if answer is None:
            raise ModelError(f"summarizer {self.name!r} gave no answer within {self.longest_s:g} s")
        return self._checked(answer[0], max_tokens)

    def _result(self, done: Future[Any]) -> tuple[Any]:
        error = done.exception()
        if error is None:
            return (done.result(),)
        if isinstance(error, ModelError):
            raise error
        # A SystemExit of the summariser's is a failure like any other.
        raise ModelError(f"summarizer {self.name!r} failed with {type(error).__name__}") from error

    def _checked(self, answer: Any, max_tokens: int) -> str:
        try:
            text = _checks.text("summary", answer, limit=_checks.MAX_INTEGER).strip()
        except InvalidInput as error:
            problem = error.rule
        else:
            fitting = beginning(text, max_tokens, self._counter)
            if fitting:
                return fitting
            problem = "must not be empty"
        raise ModelError(f"summarizer {self.name!r} answered with what is no summary: it {problem}")


def beginning(text: str, most: int, counter: TokenCounter) -> str:
    """The text, or as many of its first sentences as have ``most`` tokens; of a longer sentence the first words."""
    if len(text) <= _CHARS_OF_A_TOKEN * most and counter.count(text) <= most:
        return text
    text = text[: _CHARS_OF_A_TOKEN * most]
    while (tokens := counter.count(text)) > most:
        text = text[: min(len(text) - 1, len(text) * most // tokens)]
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    if ends:
        return text[: ends[-1]].rstrip()
    return text.rsplit(maxsplit=1)[0] if len(text.split()) > 1 else text
