"""What all fakes of models have: going wrong when they are told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Scripted:
    """A fake that answers, or does what it was told to do instead."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._error: Exception | None = None
        self._nonsense: list[Any] = []
        self._released = threading.Event()
        self._released.set()
        self._counting = threading.Lock()

    def fail(self, error: Exception | None = None) -> None:
        """Raise ``error``, if none is given a ConnectionError, at every call."""
        self.recover()
        self._error = error or ConnectionError(f"the fake {self._what} was told to fail")

    def answer_with(self, answer: Any) -> None:
        """Return ``answer`` from every call, whatever it is."""
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

    def _as_told(self, answer: Callable[[], Any]) -> Any:
        """The answer, if it was not told otherwise."""
        self._released.wait(timeout=60)
        if self._error is not None:
            raise self._error
        return self._nonsense[0] if self._nonsense else answer()
