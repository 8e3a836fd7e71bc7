"""The front door for asyncio: one object over one database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from types import TracebackType

from sqlalchemy import URL

from mirai_memory import _checks
from mirai_memory._time import Clock
from mirai_memory.aio import pages
from mirai_memory.aio.facade import AsyncFacade
from mirai_memory.aio.manager_methods import ManagerMethods
from mirai_memory.aio.scoped import AsyncUserMemory
from mirai_memory.aio.threads import Threads
from mirai_memory.config import Settings
from mirai_memory.embeddings import Embedder
from mirai_memory.entities import (
    Knowledge,
    Session,
    Task,
    TaskStatus,
)
from mirai_memory.learning import Extractor
from mirai_memory.manager import MemoryManager
from mirai_memory.reranking import Reranker
from mirai_memory.summaries import Summarizer
from mirai_memory.tokens import TokenCounter


class AsyncMemoryManager(ManagerMethods):
    """MemoryManager for asyncio: the same arguments, the same methods, awaited.

    Making one opens nothing. ``async with`` opens it, or ``await open()``, or else the first call; what can go wrong
    there is what MemoryManager raises. Calls run in threads of its own, whole: when an await is cancelled, its write is
    done to its end or not at all, and a ``client_id`` tells which. Any number of tasks, and event loops one after the
    other or in several threads, may use one.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        *,
        settings: Settings | None = None,
        embedder: Embedder | None = None,
        summarizer: Summarizer | None = None,
        extractor: Extractor | None = None,
        reranker: Reranker | None = None,
        token_counter: TokenCounter | None = None,
        clock: Clock | None = None,
        read_only: bool = False,
    ) -> None:
        opens = partial(
            MemoryManager,
            url,
            settings=settings,
            embedder=embedder,
            summarizer=summarizer,
            extractor=extractor,
            reranker=reranker,
            token_counter=token_counter,
            clock=clock,
            read_only=read_only,
        )
        super().__init__(Threads(opens), _itself)

    @classmethod
    def of(cls, memory: MemoryManager) -> AsyncMemoryManager:
        """The same memory for asyncio. ``close()`` ends the threads; the memory stays open, for its maker to close."""
        made = cls.__new__(cls)
        AsyncFacade.__init__(made, Threads(lambda: memory, memory=memory), _itself)
        return made

    @property
    def settings(self) -> Settings:
        """The settings this memory was opened with. Raises StorageError before it is open."""
        return self._threads.memory.settings

    @property
    def url(self) -> str:
        """Where the memory is: a path, or the URL with its password hidden. Raises StorageError before it is open."""
        return self._threads.memory.url

    @property
    def embedding_model(self) -> str | None:
        """The name of the embedder; None where there is none. Raises StorageError before the memory is open."""
        return self._threads.memory.embedding_model

    def __repr__(self) -> str:
        return f"AsyncMemoryManager({self.url!r})" if self._threads.is_open else "AsyncMemoryManager(not open yet)"

    async def open(self) -> AsyncMemoryManager:
        """Open the memory now rather than with the first call, and return it; opening it again does nothing."""
        await self._threads.open()
        return self

    async def __aenter__(self) -> AsyncMemoryManager:
        try:
            return await self.open()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse new calls, wait for those that were made, and release the database; again, it does nothing.

        It waits when it is cancelled, too, and is cancelled then.
        """
        await self._threads.close()

    def for_user(self, user_id: str) -> AsyncUserMemory:
        """The memory as one owner has it: nothing of others can be seen or changed through it."""
        return AsyncUserMemory(self._threads, _checks.owner(user_id))

    async def reindex(self, *, keep_old: bool = False, progress: Callable[[int, int], object] | None = None) -> int:
        """Make the vectors that are missing or have failed; how many were made.

        Then those of embedders that were used before go, unless ``keep_old``; given ones stay. Searches and writes go
        on meanwhile. ``progress(made, wanted)`` is called after each batch, in a thread. When the await is cancelled,
        the run ends after the batch that it is at, and is taken up by the next one. Without an embedder there is
        nothing to make. Raises EmbeddingError, ReadOnly.
        """
        wanted = True

        def after_batch(made: int, left: int) -> None:
            if not wanted:
                raise _NotWanted
            if progress is not None:
                progress(made, left)

        try:
            return await self._slow(lambda memory: memory.reindex(keep_old=keep_old, progress=after_batch))
        finally:
            wanted = False

    def iterate_sessions(self, user_id: str | None = None, *, page_size: int = 100) -> AsyncIterator[Session]:
        """All sessions in order of (created_at, id), read by pages; None means everybody's."""
        size = pages.page_size(page_size)
        return pages.sessions(lambda after: self.list_sessions(user_id, limit=size, after=after), size)

    def iterate_tasks(
        self,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        *,
        user_id: str | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[Task]:
        """All tasks in order of id, read by pages; conditions as in ``get_tasks``."""
        size = pages.page_size(page_size)
        return pages.numbered(
            lambda after: self.get_tasks(session_id, status, user_id=user_id, limit=size, after=after), size
        )

    def iterate_knowledge(
        self,
        category: str | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        with_embedding: bool = False,
        page_size: int = 100,
    ) -> AsyncIterator[Knowledge]:
        """All facts in order of id, read by pages; conditions as in ``get_knowledge``."""
        size = pages.page_size(page_size)
        return pages.numbered(
            lambda after: self.get_knowledge(
                category,
                key=key,
                user_id=user_id,
                as_of=as_of,
                known_at=known_at,
                with_embedding=with_embedding,
                limit=size,
                after=after,
            ),
            size,
        )


class _NotWanted(Exception):
    """Nobody waits for the rest."""


def _itself(memory: MemoryManager) -> MemoryManager:
    return memory
