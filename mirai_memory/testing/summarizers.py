"""A summariser for tests, which needs no model and fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from mirai_memory.entities import Message

__all__ = ["FakeSummarizer"]


class FakeSummarizer:
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
        self.name = name
        self.calls: list[list[str]] = []
        self.previous: list[str | None] = []
        self._error: Exception | None = None
        self._nonsense: list[Any] = []
        self._released = threading.Event()
        self._released.set()
        self._counting = threading.Lock()

    def summarize(self, messages: Sequence[Message], *, previous: str | None, max_tokens: int) -> Any:
        """``"7 messages, the last: ..."``, or what it was told to do."""
        with self._counting:
            self.calls.append([message.content for message in messages])
            self.previous.append(previous)
        self._released.wait(timeout=60)
        if self._error is not None:
            raise self._error
        if self._nonsense:
            return self._nonsense[0]
        told = (previous or "").split(maxsplit=1)[:1]
        before = int(told[0]) if told and told[0].isdecimal() else 0
        return f"{before + len(messages)} messages, the last: {messages[-1].content[:40] if messages else ''}"

    def fail(self, error: Exception | None = None) -> None:
        """Raise ``error``, if none is given a ConnectionError, at every call."""
        self.recover()
        self._error = error or ConnectionError("the fake summarizer was told to fail")

    def answer_with(self, answer: Any) -> None:
        """Return ``answer`` from every call, a summary or not."""
        self.recover()
        self._nonsense = [answer]

    def hang(self) -> None:
        """Let every call wait for ``release``; tests that forget it do not hang for ever, but for a minute."""
        self.recover()
        self._released.clear()

    def release(self) -> None:
        """Let the calls that hang, and those to come, go on."""
        self._released.set()

    def recover(self) -> None:
        """Work again, after ``fail``, ``answer_with`` or ``hang``."""
        self._error = None
        self._nonsense = []
        self._released.set()
