"""The guard: what an embedder may do wrong, be it ours or a user's, ends here as an EmbeddingError."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from mirai_memory import _checks
from mirai_memory._process import OncePerProcess
from mirai_memory.embeddings._calls import CallThread, Overdue, StillBusy
from mirai_memory.embeddings.base import Embedder
from mirai_memory.errors import EmbeddingError, InvalidInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mirai_memory.embeddings._answers import Answers

__all__ = ["GuardedEmbedder"]

T = TypeVar("T")

# For an embedder that says nothing else: little enough for a small model on one core to be done well within the
# time-out, even if the texts are long.
_BATCH_TEXTS, _BATCH_CHARS = 32, 20_000
_MAX_DIM = 65_536


class GuardedEmbedder:
    """An embedder whose calls end in time, and whose vectors are finite, of one dimension and of length one.

    Calls of all threads go to the embedder one at a time, in the order in which they came, on a daemon thread. One
    that gives no answer within ``timeout_s`` raises EmbeddingError; so do all others, at once, until it has come
    back. Documents go in batches, each with its own time, and between two batches it is another caller's turn. Texts
    are handed on as they are, empty ones too.

    Messages name the embedder and the rule, never a text or a key; what a user's embedder raised is chained.
    Raises InvalidInput for an object that lacks what an embedder has.
    """

    def __init__(self, embedder: Embedder, *, timeout_s: float = 30.0) -> None:
        missing = [name for name in ("embed_documents", "embed_query") if not callable(getattr(embedder, name, None))]
        if missing:
            raise InvalidInput("embedder", f"has no method {' and no method '.join(missing)}")
        self.name = _checks.name("embedder.name", getattr(embedder, "name", None))
        self.timeout_s = timeout_s
        self._embedder = embedder
        self._batch_texts = _positive(getattr(embedder, "batch_texts", None), _BATCH_TEXTS)
        self._batch_chars = _positive(getattr(embedder, "batch_chars", None), _BATCH_CHARS)
        self._dim: int | None = None
        # A forked child has none of its parent's threads, and may have its locks locked for ever.
        self._thread = OncePerProcess(lambda: CallThread("mirai-memory-embedder"))

    def __repr__(self) -> str:
        return f"GuardedEmbedder({self.name!r})"

    @property
    def dim(self) -> int:
        """How many numbers each vector has, as the embedder first told it."""
        return self._dim or self._call(self._known_dim, None)

    def documents(self, texts: Sequence[str], *, timeout_s: float | None = None) -> NDArray[np.float32]:
        """A row of length one for each text. ``timeout_s`` holds for each batch; None means the guard's own."""
        if isinstance(texts, str):
            raise InvalidInput("texts", "must be a list of strings, not a string")
        import numpy as np

        batches = _batches(texts, self._batch_texts, self._batch_chars)
        rows = [self._call(partial(self._documents, batch), timeout_s) for batch in batches]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    def query(self, text: str, *, timeout_s: float | None = None) -> NDArray[np.float32]:
        """The vector of a question, of length one."""
        return self._call(partial(self._query, text), timeout_s)

    def close(self) -> None:
        """End the thread; a later call starts another."""
        self._thread().close()

    def _call(self, call: Callable[[], T], timeout_s: float | None) -> T:
        limit = self.timeout_s if timeout_s is None else timeout_s
        try:
            done = self._thread().run(call, limit)
        except Overdue:
            problem = f"gave no answer within {limit:g} s"
        except StillBusy:
            problem = "is still busy with an earlier call that gave no answer in time"
        else:
            return self._result(done)
        raise EmbeddingError(f"embedder {self.name!r} {problem}")

    def _result(self, done: Future[T]) -> T:
        error = done.exception()
        if error is None:
            return done.result()
        if isinstance(error, EmbeddingError):
            raise error
        # A SystemExit of the embedder's is a failure like any other.
        raise EmbeddingError(f"embedder {self.name!r} failed with {type(error).__name__}") from error

    # What follows runs on the thread: an answer may be an object that computes only when it is looked at.

    def _documents(self, texts: list[str]) -> NDArray[np.float32]:
        answers = self._answers()
        return answers.matrix(self._embedder.embed_documents(list(texts)), count=len(texts))

    def _query(self, text: str) -> NDArray[np.float32]:
        answers = self._answers()
        return answers.vector(self._embedder.embed_query(text))

    def _answers(self) -> Answers:
        from mirai_memory.embeddings._answers import Answers  # NumPy

        return Answers(self.name, self._known_dim())

    def _known_dim(self) -> int:
        if self._dim is None:
            dim: Any = self._embedder.dim
            size = index(dim) if isinstance(dim, SupportsIndex) and dim is not True else 0
            if not 1 <= size <= _MAX_DIM:
                raise EmbeddingError(f"embedder {self.name!r}: dim must be an integer between 1 and {_MAX_DIM}")
            self._dim = size
        return self._dim


def _positive(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 1 else default


def _batches(texts: Sequence[str], most: int, most_chars: int) -> Iterator[list[str]]:
    """At most ``most`` texts at a time, with at most ``most_chars`` characters in all; a longer one goes alone."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and (len(batch) == most or chars + len(text) > most_chars):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch
