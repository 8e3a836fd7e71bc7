"""Vectors made of texts: of a query at once, of what is stored by whoever finds the time.

Who finds it: ``add_knowledge`` before its transaction, a search for its own scope within a budget, a thread in the
background, and ``reindex``. All of them may run at once, in any number of processes: a vector counts only while the
row that wants it is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mirai_memory._locks import file_lock
from mirai_memory._process import OncePerProcess
from mirai_memory.background import Worker
from mirai_memory.config import RagSettings
from mirai_memory.embeddings import GuardedEmbedder
from mirai_memory.errors import Busy, EmbeddingError, StorageError
from mirai_memory.logging import logger
from mirai_memory.search import ItemKind, QueryVector
from mirai_memory.services.embeddings import EMBEDDED_CHARACTERS, Pending, content_hash
from mirai_memory.unit_of_work import Store, UnitOfWork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_BATCH = 64  # texts of one transaction
_BACKGROUND_BATCH = 16  # fewer, so that close() and other callers of the embedder do not wait long
_LOOKED_AT = 500  # items of one transaction that looks for missing vectors
_FIRST_REST, _LONGEST_REST = 1.0, 300.0  # seconds without a try after a failure, doubled each time
_DOUBLED = 10  # times, which is more than it takes to the longest
_HARMLESS = "text"  # what any embedder takes, if it works at all
_KINDS: tuple[ItemKind, ...] = ("message", "knowledge")


class _Outage:
    """Whether an embedder that has failed is to be left alone for a while; said once, when it begins and ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failures = 0
        self._until = 0.0

    @property
    def resting(self) -> bool:
        return time.monotonic() < self._until

    def failed(self, error: Exception) -> None:
        if self.resting:
            return  # of many that tried at once only the first counts
        rest = min(_FIRST_REST * 2 ** min(self._failures, _DOUBLED), _LONGEST_REST)
        if not self._failures:
            logger.warning("{}; texts are kept, and found by their words until it works again", error)
        self._failures += 1
        self._until = time.monotonic() + rest

    def worked(self) -> None:
        if self._failures:
            logger.info("embedder {!r} works again", self._name)
        self._failures, self._until = 0, 0.0


class Vectorizer:
    """An embedder at work for one database. ``lock_path``: one process at a time works in the background."""

    def __init__(
        self,
        store: Store,
        embedder: GuardedEmbedder,
        rag: RagSettings,
        lock_path: Path | None,
        *,
        read_only: bool = False,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._rag = rag
        self._outage = _Outage(embedder.name)
        self._lock_path = lock_path
        self._worker = OncePerProcess(lambda: Worker(self._work_off, "vectors"))
        self._writes = not read_only
        self._closed = self._paused = False
        self.when_made: Callable[[], None] | None = None  # told that there are new vectors

    @property
    def model(self) -> str:
        return self._embedder.name

    def query(self, text: str) -> QueryVector | None:
        """The vector of a question; None where it has no text, or while the embedder fails: then words have to do."""
        if not text.strip():
            return None
        return self._try(lambda: self._query(text[:EMBEDDED_CHARACTERS]))

    def _query(self, text: str) -> QueryVector:
        vector = QueryVector(self.model, self._embedder.query(text))
        self._outage.worked()
        return vector

    def documents(self, texts: Sequence[str]) -> list[list[float]] | None:
        """Vectors of texts that are about to be stored; None while the embedder fails."""
        if not texts:
            return []
        vectors = self._try(lambda: self._made(texts, self._known(texts)))
        return None if vectors is None else [vector.tolist() for vector in vectors]

    def is_behind(self, uow: UnitOfWork) -> bool:
        """Whether a search in this unit of work should wait for ``catch_up``."""
        if not self._writes or self._paused or self._outage.resting or not self._rag.search_budget_ms:
            return False
        return uow.pending.exist()

    def catch_up(self, owner: str) -> None:
        """Make the vectors that the owner still waits for, as many as the budget of a search allows.

        A search has nothing to write: where the disk is full, or others write for too long, it goes on without.
        """
        if not self._writes:
            return
        try:
            self._fill_within_budget(owner)
        except (Busy, StorageError) as error:
            logger.debug("a search goes on without new vectors: {}", error)

    def _fill_within_budget(self, owner: str) -> None:
        deadline = time.monotonic() + self._rag.search_budget_ms / 1000
        batch, left = 1, deadline - time.monotonic()
        while left > 0 and not self._outage.resting:
            started = time.monotonic()
            if self._try(lambda: self._fill(batch, owner)) in (None, 0):  # noqa: B023 - called at once
                return
            left = deadline - time.monotonic()
            each = (time.monotonic() - started) / batch
            batch = min(_BATCH, int(left / each) if each else _BATCH)
            if not batch:
                return

    def notify(self) -> None:
        """Something may have been stored that wants a vector."""
        if self._rag.background and self._writes and not self._closed:
            self._worker().wake()

    def reindex(self, *, keep_old: bool, progress: Callable[[int, int], object] | None) -> int:
        """Make every vector that is missing, failed, or of another model or dimension; how many were made.

        Raises EmbeddingError. What is done stays done, and the next call goes on from there.
        """
        dim = self._embedder.dim
        self._store.write(lambda uow: uow.vectors.want_again(self.model, dim))
        for kind in _KINDS:
            after: int | None = 0
            while after is not None:
                after = self._want_missing(kind, after)
        made = 0
        while count := self._fill(_BATCH, None):
            made += count
            if progress is not None:
                progress(made, self._store.read(lambda uow: uow.vectors.count("pending")))
        while not keep_old and self._store.write(lambda uow: uow.vectors.retire(self.model, limit=_LOOKED_AT)):
            pass
        logger.info("vectors made anew: {}", made)
        return made

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, no vector is begun: the rows that want one are being written, and compared, by somebody."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def close(self) -> None:
        """End the thread in the background, after the batch that it is at."""
        self._closed = True
        self._worker().stop()
        self._embedder.close()

    def _want_missing(self, kind: ItemKind, after: int) -> int | None:
        return self._store.write(lambda uow: uow.vectors.want_missing(self.model, kind, after=after, limit=_LOOKED_AT))

    def _try(self, call: Callable[[], T]) -> T | None:
        """What comes of a call that may need the embedder, or None while that fails."""
        if self._outage.resting:
            return None
        try:
            return call()
        except EmbeddingError as error:
            self._outage.failed(error)
            return None

    def _fill(self, limit: int, owner: str | None) -> int:
        """Make the next wanted vectors; how many rows that was. Raises EmbeddingError."""
        if self._paused:
            return 0
        items = self._store.read(lambda uow: uow.vectors.pending(self.model, limit=limit, owner=owner))
        if not items:
            return 0
        texts = [item.text for item in items]
        known = self._known(texts)
        try:
            vectors = list(self._made(texts, known))
        except EmbeddingError:
            self._embed([_HARMLESS])  # raises where the embedder is at fault, not one of the texts
            return self._fill_singly(items)
        self._keep(list(zip(items, vectors, strict=True)))
        return len(items)

    def _fill_singly(self, items: list[Pending]) -> int:
        """One of the texts is at fault: one that fails while another does not is given up."""
        for item in items:
            try:
                vector = self._embed([item.text])[0]
            except EmbeddingError:
                self._embed([_HARMLESS])
                self._give_up(item)
            else:
                self._keep([(item, vector)])
        return len(items)

    def _give_up(self, item: Pending) -> None:
        self._store.write(lambda uow: uow.vectors.give_up([item]))
        logger.warning("the embedder refuses {} {}, which is found by its words", item.kind, item.item_id)

    def _keep(self, vectors: Sequence[tuple[Pending, NDArray[np.float32]]]) -> None:
        packed = [(item, vector.astype("<f2").tobytes()) for item, vector in vectors]
        self._store.write(lambda uow: uow.vectors.store(self.model, self._embedder.dim, packed))
        if self.when_made is not None:
            self.when_made()

    def _known(self, texts: Sequence[str]) -> dict[str, bytes]:
        if not self._rag.cache_embeddings:
            return {}
        hashes = list({content_hash(text) for text in texts})
        return self._store.read(lambda uow: uow.vectors.known(self.model, hashes, self._embedder.dim))

    def _made(self, texts: Sequence[str], known: dict[str, bytes]) -> NDArray[np.float32]:
        """A row for each text: known ones are not made again, and equal ones once."""
        import numpy as np

        hashes = [content_hash(text) for text in texts]
        new = {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}
        made = dict(zip(new, self._embed(list(new.values())), strict=True)) if new else {}
        made |= {key: np.frombuffer(packed, dtype="<f2").astype(np.float32) for key, packed in known.items()}
        return np.stack([made[key] for key in hashes])

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._embedder.documents(texts)
        self._outage.worked()
        return vectors

    def _work_off(self, stopping: threading.Event) -> None:
        """In the background: everything that is wanted, by anybody."""
        while not stopping.is_set():
            done = self._work_off_batch()
            if done == 0:
                return
            if done is None:
                stopping.wait(_FIRST_REST)

    def _work_off_batch(self) -> int | None:
        """How many vectors were made; None where the embedder rests, or another process is at work."""
        with suppress(Busy), self._alone():
            return self._try(lambda: self._fill(_BACKGROUND_BATCH, None))
        return None

    def _alone(self) -> AbstractContextManager[None]:
        return nullcontext() if self._lock_path is None else file_lock(self._lock_path, wait=0)
