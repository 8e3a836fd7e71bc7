"""A summariser for tests, which needs no model and fails on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirai_memory.entities import Message
from mirai_memory.testing._scripted import Scripted

__all__ = ["FakeSummarizer"]


class FakeSummarizer(Scripted):
    """Tells how many messages it was given in all, and how the last one began; the same in every process.

    ::

        summarizer = FakeSummarizer()
        summarizer.fail()                   # ConnectionError from now on; or any exception you hand in
        summarizer.answer_with("short")     # this, whatever it is given
        summarizer.hang()                   # no answer before release()
        summarizer.recover()                # as at first
        assert summarizer.calls == []       # the contents of the messages of each call
    """

    def __init__(self, *, name: str = "fake") -> None:
        super().__init__("summarizer")
        self.name = name
        self.calls: list[list[str]] = []
        self.previous: list[str | None] = []

    def summarize(self, messages: Sequence[Message], *, previous: str | None, max_tokens: int) -> Any:
        """``"7 messages, the last: ..."``, or what it was told to do."""
        with self._counting:
            self.calls.append([message.content for message in messages])
            self.previous.append(previous)
        return self._as_told(lambda: self._summary(messages, previous))

    def _summary(self, messages: Sequence[Message], previous: str | None) -> str:
        told = (previous or "").split(maxsplit=1)[:1]
        before = int(told[0]) if told and told[0].isdecimal() else 0
        return f"{before + len(messages)} messages, the last: {messages[-1].content[:40] if messages else ''}"
