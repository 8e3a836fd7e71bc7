"""The memory as one owner has it, for asyncio."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, BinaryIO

from mirai_memory._facade import RECALL_KINDS, RecallKind
from mirai_memory.aio import pages
from mirai_memory.aio.learning_methods import LearningMethods
from mirai_memory.aio.summary_methods import SummaryMethods
from mirai_memory.aio.threads import Threads
from mirai_memory.duplicates import SIMILAR
from mirai_memory.entities import (
    Duplicate,
    JsonObject,
    Knowledge,
    KnowledgeDiff,
    Message,
    Session,
    SourceKind,
    Task,
    TaskStatus,
    UserPreferences,
)
from mirai_memory.forgetting import Erasure
from mirai_memory.scoped import UserMemory
from mirai_memory.transfer import UserExport, UserImport


class AsyncUserMemory(SummaryMethods[UserMemory], LearningMethods[UserMemory]):
    """UserMemory for asyncio, bound to one owner by ``AsyncMemoryManager.for_user``: the same methods, awaited.

    It reads the owner's own rows and the shared facts, and writes the owner's own only. Another owner's id answers
    like a missing one. Methods are those of AsyncMemoryManager without ``user_id``; upkeep is absent.
    """

    def __init__(self, threads: Threads, user_id: str) -> None:
        super().__init__(threads, lambda memory: memory.for_user(user_id))
        self._user_id = user_id

    @property
    def user_id(self) -> str:
        """The owner."""
        return self._user_id

    def __repr__(self) -> str:
        return f"AsyncUserMemory({self._user_id!r})"

    def iterate_sessions(self, *, page_size: int = 100) -> AsyncIterator[Session]:
        """All sessions in order of (created_at, id), read by pages."""
        size = pages.page_size(page_size)
        return pages.sessions(lambda after: self.list_sessions(limit=size, after=after), size)

    def iterate_tasks(
        self, session_id: str | None = None, status: TaskStatus | None = None, *, page_size: int = 100
    ) -> AsyncIterator[Task]:
        """All tasks in order of id, read by pages; conditions as in ``get_tasks``."""
        size = pages.page_size(page_size)
        return pages.numbered(lambda after: self.get_tasks(session_id, status, limit=size, after=after), size)

    def iterate_knowledge(
        self,
        category: str | None = None,
        *,
        key: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        with_embedding: bool = False,
        page_size: int = 100,
    ) -> AsyncIterator[Knowledge]:
        """All own and shared facts in order of id, read by pages; conditions as in ``get_knowledge``."""
        size = pages.page_size(page_size)
        return pages.numbered(
            lambda after: self.get_knowledge(
                category,
                key=key,
                as_of=as_of,
                known_at=known_at,
                with_embedding=with_embedding,
                limit=size,
                after=after,
            ),
            size,
        )

    # Made by tests/aio/test_methods.py --write

    async def create_session(self, *, agent_id: str | None = None, metadata: JsonObject | None = None) -> Session:
        """A new session."""
        return await self._write(lambda memory: memory.create_session(agent_id=agent_id, metadata=metadata))

    async def ensure_session(
        self, external_id: str, *, agent_id: str | None = None, metadata: JsonObject | None = None
    ) -> Session:
        """The session called ``external_id``, made if there is none: once, however many ask at a time."""
        return await self._write(
            lambda memory: memory.ensure_session(external_id, agent_id=agent_id, metadata=metadata)
        )

    async def get_active_sessions(self, hours: float | None = None) -> list[Session]:
        """Sessions used within the last ``hours`` (None: ``memory.short_term.ttl_hours``), the latest first."""
        return await self._read(lambda memory: memory.get_active_sessions(hours))

    async def list_sessions(self, *, limit: int = 100, after: str | None = None) -> list[Session]:
        """One page of sessions in order of (created_at, id); ``after`` is the id of the last one seen."""
        return await self._read(lambda memory: memory.list_sessions(limit=limit, after=after))

    async def search_messages(
        self,
        query: str,
        *,
        session_id: str | None = None,
        limit: int = 10,
        since: datetime | None = None,
        until: datetime | None = None,
        explain: bool = False,
    ) -> list[Message]:
        """Messages that match the query, best first, each with its ``score``; as in MemoryManager."""
        return await self._slow(
            lambda memory: memory.search_messages(
                query, session_id=session_id, limit=limit, since=since, until=until, explain=explain
            )
        )

    async def save_user_preferences(self, preferences: UserPreferences) -> UserPreferences:
        """Replace the preferences, whose ``user_id`` must be the owner's; as in MemoryManager."""
        return await self._write(lambda memory: memory.save_user_preferences(preferences))

    async def get_user_preferences(self) -> UserPreferences | None:
        """The preferences, or None."""
        return await self._read(lambda memory: memory.get_user_preferences())

    async def update_user_preferences(self, **changes: Any) -> UserPreferences:
        """Set the named fields and keep the others, in one step; ``metadata`` is merged key by key."""
        return await self._write(lambda memory: memory.update_user_preferences(**changes))

    async def delete_user_preferences(self) -> None:
        """Delete the preferences. Raises NotFound."""
        await self._write(lambda memory: memory.delete_user_preferences())

    async def get_tasks(
        self,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        *,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Task]:
        """One page of tasks in order of id; ``after`` is the id of the last one seen."""
        return await self._read(lambda memory: memory.get_tasks(session_id, status, limit=limit, after=after))

    async def get_knowledge(
        self,
        category: str | None = None,
        *,
        key: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        with_embedding: bool = False,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Knowledge]:
        """One page of own and shared facts in order of id; times as in MemoryManager."""
        return await self._read(
            lambda memory: memory.get_knowledge(
                category,
                key=key,
                as_of=as_of,
                known_at=known_at,
                with_embedding=with_embedding,
                limit=limit,
                after=after,
            )
        )

    async def search_knowledge(
        self,
        query: str,
        limit: int = 10,
        *,
        category: str | None = None,
        source_kind: SourceKind | None = None,
        min_confidence: float = 0.0,
        embedding: Sequence[float] | None = None,
        embedding_model: str | None = None,
        explain: bool = False,
    ) -> list[Knowledge]:
        """Current own and shared facts that match the query, best first, each with its ``score``; as MemoryManager."""
        return await self._slow(
            lambda memory: memory.search_knowledge(
                query,
                limit,
                category=category,
                source_kind=source_kind,
                min_confidence=min_confidence,
                embedding=embedding,
                embedding_model=embedding_model,
                explain=explain,
            )
        )

    async def knowledge_history(self, key: str, *, category: str = "general") -> list[Knowledge]:
        """Every value the key has had, oldest first, own and shared."""
        return await self._read(lambda memory: memory.knowledge_history(key, category=category))

    async def diff(self, t1: datetime, t2: datetime, *, limit: int = 1000, after: int | None = None) -> KnowledgeDiff:
        """What was learned from ``t1`` to ``t2``, of own and shared facts; as in MemoryManager."""
        return await self._read(lambda memory: memory.diff(t1, t2, limit=limit, after=after))

    async def find_duplicates(self, *, limit: int = 100, threshold: float = SIMILAR) -> list[Duplicate]:
        """Pairs of current own facts that may say the same; best first. As in MemoryManager."""
        return await self._slow(lambda memory: memory.find_duplicates(limit=limit, threshold=threshold))

    async def merge_knowledge(self, keep: int, drop: int) -> Knowledge:
        """Have one own fact take the place of another, which says the same; as in MemoryManager."""
        return await self._write(lambda memory: memory.merge_knowledge(keep, drop))

    async def delete_knowledge(
        self,
        knowledge_id: int | None = None,
        *,
        key: str | None = None,
        category: str | None = None,
        source: str | None = None,
        source_kind: SourceKind | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete own facts by id or by conditions, earlier values included; how many. As in MemoryManager."""
        return await self._write(
            lambda memory: memory.delete_knowledge(
                knowledge_id, key=key, category=category, source=source, source_kind=source_kind, dry_run=dry_run
            )
        )

    async def recall(
        self, query: str, *, limit: int = 10, kinds: Sequence[RecallKind] = RECALL_KINDS, explain: bool = False
    ) -> list[Knowledge | Message]:
        """What the memory holds on the query: messages, own and shared facts in one list, best first."""
        return await self._slow(lambda memory: memory.recall(query, limit=limit, kinds=kinds, explain=explain))

    async def forget_user(
        self, *, dry_run: bool = False, compact: bool = True, progress: Callable[[int, int], object] | None = None
    ) -> Erasure:
        """Delete everything of the owner, so that no byte of it is left in the database's files; as MemoryManager."""
        return await self._slow(lambda memory: memory.forget_user(dry_run=dry_run, compact=compact, progress=progress))

    async def export_user(
        self, target: str | os.PathLike[str] | BinaryIO, *, progress: Callable[[int, int], object] | None = None
    ) -> UserExport:
        """Write all of the owner's own to a new file, or to one that is open in binary mode; as in MemoryManager."""
        return await self._slow(lambda memory: memory.export_user(target, progress=progress))

    async def import_user(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> UserImport:
        """Take in a file of ``export_user`` that is the owner's; as in MemoryManager, but never what was erased.

        Sessions that are not here get new ids: that one is taken would tell of another owner's.
        """
        return await self._slow(lambda memory: memory.import_user(source, dry_run=dry_run, progress=progress))
