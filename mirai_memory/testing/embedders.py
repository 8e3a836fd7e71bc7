"""An embedder for tests, which needs no model and fails on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from mirai_memory.search.analyzer import analyze
from mirai_memory.testing._scripted import Scripted

__all__ = ["FakeEmbedder"]


class FakeEmbedder(Scripted):
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
        super().__init__("embedder")
        self.name = name
        self.dim = dim
        self.calls = 0
        self.texts: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> Any:
        """A list of numbers for each text, or what it was told to do."""
        return self._answer(list(texts), lambda: [self._vector(text) for text in texts])

    def embed_query(self, text: str) -> Any:
        """A list of numbers, or what it was told to do."""
        return self._answer([text], lambda: self._vector(text))

    def _answer(self, texts: list[str], answer: Callable[[], Any]) -> Any:
        with self._counting:
            self.calls += 1
            self.texts += texts
        return self._as_told(answer)

    def _vector(self, text: str) -> list[float]:
        # The first number, which no whole number takes away again: no text is without direction.
        vector = [0.1] + [0.0] * (self.dim - 1)
        for term in analyze(text):
            digest = int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "big")
            vector[digest % self.dim] += 1.0 if digest >> 63 else -1.0
        return vector
