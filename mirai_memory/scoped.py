"""The memory as one owner has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, BinaryIO

from mirai_memory import _checks
from mirai_memory._facade import RECALL_KINDS, RecallKind, Tools
from mirai_memory._learning import Learns
from mirai_memory._summaries import Summarizes
from mirai_memory.database.urls import sqlite_path
from mirai_memory.duplicates import SIMILAR, find_duplicates
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
from mirai_memory.services import preferences as likes
from mirai_memory.transfer import UserExport, UserImport
from mirai_memory.transfer import run as transfer


class UserMemory(Summarizes, Learns):
    """Bound to one owner by ``MemoryManager.for_user``: what an agent, an adapter or a tool is given.

    It reads the owner's own rows and the shared facts, and writes the owner's own only. Another owner's id answers
    like a missing one. Methods are those of MemoryManager without ``user_id``; upkeep is absent.
    """

    def __init__(self, tools: Tools, user_id: str) -> None:
        super().__init__(tools, user_id)
        self._user_id = user_id

    @property
    def user_id(self) -> str:
        """The owner."""
        return self._user_id

    def __repr__(self) -> str:
        return f"UserMemory({self._user_id!r})"

    # No session_id to choose here: that one is taken would tell of another owner's session.
    def create_session(self, *, agent_id: str | None = None, metadata: JsonObject | None = None) -> Session:
        """A new session."""
        return self._write(lambda uow: uow.sessions.create(agent_id=agent_id, metadata=metadata))

    def ensure_session(
        self, external_id: str, *, agent_id: str | None = None, metadata: JsonObject | None = None
    ) -> Session:
        """The session called ``external_id``, made if there is none: once, however many ask at a time."""
        return self._write(lambda uow: uow.sessions.ensure(external_id, agent_id=agent_id, metadata=metadata))

    def get_active_sessions(self, hours: float | None = None) -> list[Session]:
        """Sessions used within the last ``hours`` (None: ``memory.short_term.ttl_hours``), the latest first."""
        span = _checks.period("hours", hours, self._settings.short_term.ttl_hours, "hours")
        since = _checks.before("hours", self._clock(), span)
        return self._read(lambda uow: uow.sessions.active(since))

    def list_sessions(self, *, limit: int = 100, after: str | None = None) -> list[Session]:
        """One page of sessions in order of (created_at, id); ``after`` is the id of the last one seen."""
        count = _checks.integer("limit", limit)
        return self._read(lambda uow: uow.sessions.page(limit=count, after=after))

    def search_messages(
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
        return self._search_messages(
            query, None, session_id=session_id, limit=limit, since=since, until=until, explain=explain
        )

    def save_user_preferences(self, preferences: UserPreferences) -> UserPreferences:
        """Replace the preferences, whose ``user_id`` must be the owner's; as in MemoryManager."""
        checked = likes.checked(preferences, self._settings)
        return self._write(lambda uow: uow.preferences.save(checked))

    def get_user_preferences(self) -> UserPreferences | None:
        """The preferences, or None."""
        return self._read(lambda uow: uow.preferences.get())

    def update_user_preferences(self, **changes: Any) -> UserPreferences:
        """Set the named fields and keep the others, in one step; ``metadata`` is merged key by key."""
        return self._write(lambda uow: uow.preferences.change(None, changes))

    def delete_user_preferences(self) -> None:
        """Delete the preferences. Raises NotFound."""
        self._write(lambda uow: uow.preferences.delete())

    def get_tasks(
        self,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        *,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Task]:
        """One page of tasks in order of id; ``after`` is the id of the last one seen."""
        count = _checks.integer("limit", limit)
        return self._read(lambda uow: uow.tasks.page(session_id, status, limit=count, after=after))

    def get_knowledge(
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
        count = _checks.integer("limit", limit)
        return self._read(
            lambda uow: uow.knowledge.page(
                category,
                key=key,
                as_of=as_of,
                known_at=known_at,
                with_embedding=with_embedding,
                limit=count,
                after=after,
            )
        )

    def search_knowledge(
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
        return self._search_knowledge(
            query,
            None,
            limit=limit,
            category=category,
            source_kind=source_kind,
            min_confidence=min_confidence,
            embedding=embedding,
            embedding_model=embedding_model,
            explain=explain,
        )

    def knowledge_history(self, key: str, *, category: str = "general") -> list[Knowledge]:
        """Every value the key has had, oldest first, own and shared."""
        return self._read(lambda uow: uow.knowledge.history(key, category=category))

    def diff(self, t1: datetime, t2: datetime, *, limit: int = 1000, after: int | None = None) -> KnowledgeDiff:
        """What was learned from ``t1`` to ``t2``, of own and shared facts; as in MemoryManager."""
        count = _checks.integer("limit", limit)
        return self._read(lambda uow: uow.knowledge.diff(t1, t2, limit=count, after=after))

    def find_duplicates(self, *, limit: int = 100, threshold: float = SIMILAR) -> list[Duplicate]:
        """Pairs of current own facts that may say the same; best first. As in MemoryManager."""
        count, least = _checks.integer("limit", limit), _checks.number("threshold", threshold, least=0.0, most=1.0)
        return find_duplicates(self._read, limit=count, threshold=least)

    def merge_knowledge(self, keep: int, drop: int) -> Knowledge:
        """Have one own fact take the place of another, which says the same; as in MemoryManager."""
        return self._write(lambda uow: uow.knowledge.merge(keep, drop))

    def delete_knowledge(
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
        return self._write(
            lambda uow: uow.knowledge.delete(
                knowledge_id, key=key, category=category, source=source, source_kind=source_kind, dry_run=dry_run
            )
        )

    def recall(
        self, query: str, *, limit: int = 10, kinds: Sequence[RecallKind] = RECALL_KINDS, explain: bool = False
    ) -> list[Knowledge | Message]:
        """What the memory holds on the query: messages, own and shared facts in one list, best first."""
        return self._recall(query, self._user_id, limit, kinds, explain)

    def forget_user(
        self, *, dry_run: bool = False, compact: bool = True, progress: Callable[[int, int], object] | None = None
    ) -> Erasure:
        """Delete everything of the owner, so that no byte of it is left in the database's files; as MemoryManager."""
        return self._forget(self._user_id, dry_run=dry_run, compact=compact, progress=progress)

    def export_user(
        self, target: str | os.PathLike[str] | BinaryIO, *, progress: Callable[[int, int], object] | None = None
    ) -> UserExport:
        """Write all of the owner's own to a new file, or to one that is open in binary mode; as in MemoryManager."""
        return transfer.export_user(self._store, self._clock(), self._user_id, target, progress=progress)

    def import_user(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> UserImport:
        """Take in a file of ``export_user`` that is the owner's; as in MemoryManager, but never what was erased.

        Sessions that are not here get new ids: that one is taken would tell of another owner's.
        """
        done = transfer.import_user(
            self._store,
            self._settings,
            source,
            database=sqlite_path(self._database.url),
            owner=self._user_id,
            include_erased=False,
            dry_run=dry_run,
            progress=progress,
        )
        self._want_vectors()
        return done
