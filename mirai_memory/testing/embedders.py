"""An embedder for tests, which needs no model and fails on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from mirai_memory.search.analyzer import analyze

__all__ = ["FakeEmbedder"]


class FakeEmbedder:
    """Texts that share words, in any of their forms, have vectors that are near; the same in every process.

    ::

        embedder = FakeEmbedder()
        embedder.fail()                     # ConnectionError from now on; or any exception you hand in
        embedder.answer_with([[1.0]])       # this, whatever it is asked
        embedder.hang()                     # no answer before release()
        embedder.recover()                  # as at first
        assert embedder.calls == 0          # batches of documents and queries; the texts are in embedder.texts
    """

    def __init__(self, *, dim: int = 256, name: str = "fake") -> None:
        self.name = name
        self.dim = dim
        self.calls = 0
        self.texts: list[str] = []
        self._error: Exception | None = None
        self._nonsense: list[Any] = []
        self._released = threading.Event()
        self._released.set()
        self._counting = threading.Lock()

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """A list of numbers for each text, or what it was told to do."""
        return self._answer(list(texts), lambda: [self._vector(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        """A list of numbers, or what it was told to do."""
        return self._answer([text], lambda: self._vector(text))

    def fail(self, error: Exception | None = None) -> None:
        """Raise ``error``, if none is given a ConnectionError, at every call."""
        self.recover()
        self._error = error or ConnectionError("the fake embedder was told to fail")

    def answer_with(self, answer: Any) -> None:
        """Return ``answer`` from every call, vectors or not."""
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

    def _answer(self, texts: list[str], answer: Callable[[], Any]) -> Any:
        with self._counting:
            self.calls += 1
            self.texts += texts
        self._released.wait(timeout=60)
        if self._error is not None:
            raise self._error
        return self._nonsense[0] if self._nonsense else answer()

    def _vector(self, text: str) -> list[float]:
        # The first number, which no whole number takes away again: no text is without direction.
        vector = [0.1] + [0.0] * (self.dim - 1)
        for term in analyze(text):
            digest = int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big")
            vector[digest % self.dim] += 1.0 if digest >> 63 else -1.0
        return vector
