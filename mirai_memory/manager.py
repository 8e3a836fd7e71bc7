"""The front door: one object over one database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import URL

from mirai_memory import _checks, schema
from mirai_memory._facade import RECALL_KINDS, RecallKind, Tools
from mirai_memory._facts import OwnersFacts
from mirai_memory._learning import Learns, usable_extractor
from mirai_memory._summaries import Summarizes
from mirai_memory._time import Clock, utc_now
from mirai_memory.backups import DailyBackup, before_change
from mirai_memory.chroma_opening import open_feeder, open_link, vectors_by
from mirai_memory.config import MemorySettings, Settings, load_settings
from mirai_memory.database import MEMORY, display, open_database, resolve_url
from mirai_memory.database.engine import Database, Options
from mirai_memory.database.urls import sqlite_path
from mirai_memory.embeddings import Embedder, GuardedEmbedder, open_embedder
from mirai_memory.entities import (
    JsonObject,
    Knowledge,
    Message,
    Session,
    Task,
    TaskStatus,
    UserPreferences,
)
from mirai_memory.health import Health
from mirai_memory.learning import Extractor
from mirai_memory.logging import logger
from mirai_memory.reranking import Reranker
from mirai_memory.scoped import UserMemory
from mirai_memory.search import SearchIndex, StaleIndex, open_index
from mirai_memory.services import preferences as likes
from mirai_memory.summaries import GuardedSummarizer, Summarizer, open_summarizer
from mirai_memory.summarizing import Summarizing
from mirai_memory.tokens import TokenCounter, default_counter
from mirai_memory.unit_of_work import Store
from mirai_memory.vectorizing import Vectorizer

_MEGABYTE = 1_000_000


class MemoryManager(OwnersFacts, Summarizes, Learns):
    """The memory of any number of owners, in one database.

    ``url`` is a path, ``":memory:"`` or a URL; None means the settings'. A missing SQLite file is made, an older one is
    upgraded; PostgreSQL is upgraded by ``mirai-memory db upgrade`` only. ``embedder`` takes the place of the one that
    ``memory.rag.embedder`` names, ``summarizer`` of the one of ``memory.short_term.summarizer``, ``extractor`` of the
    one of ``memory.long_term.extractor``; ``reranker`` has the last word in searches. ``token_counter`` counts for
    budgets (None: exactly with the extra ``tokens``, else estimated); ``clock`` returns aware times; ``read_only``
    opens an existing file and refuses every write.

    Raises ConfigurationError, StorageError and its kin, SchemaError and its kin. Safe to use from many threads.
    ``user_id=None`` means everybody's sessions, messages and tasks, but only the shared facts.
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
        self._all_settings = settings if settings is not None else load_settings()
        memory = self._all_settings.memory
        guarded = _guarded(embedder, self._all_settings)
        counter = token_counter or default_counter()
        chosen_summarizer = _guarded_summarizer(summarizer, self._all_settings, counter)
        chosen_extractor = usable_extractor(extractor, self._all_settings)
        # Switched off, the memory works all the same, for as long as the process lives, and leaves no trace.
        place = resolve_url(url if memory.enabled else MEMORY, self._all_settings)
        link = open_link(place, memory, read_only=read_only)
        self._database = open_database(place, _options(memory, read_only and memory.enabled))
        self._closed = False
        now = clock or utc_now
        try:
            schema.ensure_current(self._database, partial(before_change, settings=memory.long_term, clock=now))
            model = guarded.name if guarded else None
            index = open_index(self._database, cache_mb=memory.rag.cache_mb, vectors=vectors_by(link, memory))
            store = _open_store(self._database, index, memory, now, model, read_only)
        except BaseException:
            self._database.dispose()
            raise
        chroma = open_feeder(store, link, memory)
        vectorizer = None
        if guarded is not None:
            vectorizer = Vectorizer(store, guarded, memory.rag, _beside(place, ".embedding.lock"), read_only=read_only)
            vectorizer.when_made = chroma.notify if chroma is not None else None
        summarizing = Summarizing(
            store,
            chosen_summarizer,
            counter,
            memory.short_term,
            wait_s=memory.busy_timeout_ms / 1000,
            read_only=read_only,
        )
        store.when_grown = summarizing.notify
        tools = Tools(
            database=self._database,
            store=store,
            settings=memory,
            clock=now,
            counter=counter,
            vectorizer=vectorizer,
            chroma=chroma,
            reranker=reranker,
            summarizing=summarizing,
            extractor=chosen_extractor,
        )
        super().__init__(tools, None)
        self._daily = DailyBackup(store, self._database, memory.long_term, now)
        self._daily.begin_if_due()

    @property
    def settings(self) -> Settings:
        """The settings this memory was opened with."""
        return self._all_settings

    @property
    def url(self) -> str:
        """Where the memory is: a path for SQLite, else the URL with its password hidden."""
        return display(self._database.url)

    @property
    def embedding_model(self) -> str | None:
        """The name of the embedder, which is the model of the vectors it makes; None where there is none."""
        return None if self._vectorizer is None else self._vectorizer.model

    def __repr__(self) -> str:
        return f"MemoryManager({self.url!r})"

    def __enter__(self) -> MemoryManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for running work and release the database; calling it again does nothing."""
        if not self._closed:
            self._closed = True
            _forget_manager(self)
            self._daily.finish()
            if self._vectorizer is not None:
                self._vectorizer.close()
            if self._tools.chroma is not None:
                self._tools.chroma.close()
            self._tools.summarizing.close()
            self._store.close()
            self._database.dispose()

    def for_user(self, user_id: str) -> UserMemory:
        """The memory as one owner has it: nothing of others can be seen or changed through it."""
        return UserMemory(self._tools, _checks.owner(user_id))

    # Sessions

    def create_session(
        self,
        user_id: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Session:
        """A new session of the owner. Raises Conflict where ``session_id`` is taken."""
        owner = _checks.owner(user_id)
        return self._write(
            lambda uow: uow.sessions.create(owner, session_id=session_id, agent_id=agent_id, metadata=metadata)
        )

    def ensure_session(
        self,
        user_id: str,
        external_id: str,
        *,
        agent_id: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Session:
        """The owner's session called ``external_id``, made if there is none: once, however many ask at a time."""
        owner = _checks.owner(user_id)
        return self._write(lambda uow: uow.sessions.ensure(external_id, owner, agent_id=agent_id, metadata=metadata))

    def get_active_sessions(self, hours: float | None = None, *, user_id: str | None = None) -> list[Session]:
        """Sessions used within the last ``hours`` (None: ``memory.short_term.ttl_hours``), the latest first."""
        span = _checks.period("hours", hours, self._settings.short_term.ttl_hours, "hours")
        owner = _checks.optional_owner(user_id)
        since = _checks.before("hours", self._clock(), span)
        return self._read(lambda uow: uow.sessions.active(since), owner)

    def list_sessions(self, user_id: str | None = None, *, limit: int = 100, after: str | None = None) -> list[Session]:
        """One page of sessions in order of (created_at, id); ``after`` is the id of the last one seen."""
        owner, count = _checks.optional_owner(user_id), _checks.integer("limit", limit)
        return self._read(lambda uow: uow.sessions.page(limit=count, after=after), owner)

    # Messages

    def search_messages(
        self,
        query: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        limit: int = 10,
        since: datetime | None = None,
        until: datetime | None = None,
        explain: bool = False,
    ) -> list[Message]:
        """Messages that match the query by words, context and, with an embedder, meaning; best first.

        Each with its ``score``, and with ``explain`` the parts that make it up in ``explanation``. What answers a
        question often shares no word with it: messages beside a match in its session may be found too. Any text may
        be asked; it is never query syntax. ``since`` <= timestamp < ``until``. For everybody (None) no vectors are
        used.
        """
        owner = _checks.optional_owner(user_id)
        return self._search_messages(
            query, owner, session_id=session_id, limit=limit, since=since, until=until, explain=explain
        )

    # Preferences

    def save_user_preferences(self, preferences: UserPreferences) -> UserPreferences:
        """Replace the owner's preferences; what was stored, with its new version.

        With ``version`` set, Conflict if the stored one is another. Raises InvalidInput.
        """
        checked = likes.checked(preferences, self._settings)
        return self._write(lambda uow: uow.preferences.save(checked))

    def get_user_preferences(self, user_id: str) -> UserPreferences | None:
        """The owner's preferences, or None."""
        owner = _checks.owner(user_id)
        return self._read(lambda uow: uow.preferences.get(owner))

    def update_user_preferences(self, user_id: str, **changes: Any) -> UserPreferences:
        """Set the named fields and keep the others, in one step; ``metadata`` is merged key by key."""
        owner = _checks.owner(user_id)
        return self._write(lambda uow: uow.preferences.change(owner, changes))

    def delete_user_preferences(self, user_id: str) -> None:
        """Delete the owner's preferences. Raises NotFound."""
        owner = _checks.owner(user_id)
        self._write(lambda uow: uow.preferences.delete(owner))

    # Tasks

    def get_tasks(
        self,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        *,
        user_id: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Task]:
        """One page of tasks in order of id; ``after`` is the id of the last one seen."""
        owner, count = _checks.optional_owner(user_id), _checks.integer("limit", limit)
        return self._read(lambda uow: uow.tasks.page(session_id, status, limit=count, after=after), owner)

    # Across

    def recall(
        self,
        query: str,
        *,
        user_id: str,
        limit: int = 10,
        kinds: Sequence[RecallKind] = RECALL_KINDS,
        explain: bool = False,
    ) -> list[Knowledge | Message]:
        """What the owner's memory holds on the query: messages, own and shared facts in one list, best first."""
        return self._recall(query, user_id, limit, kinds, explain)

    # Upkeep

    def reindex(self, *, keep_old: bool = False, progress: Callable[[int, int], object] | None = None) -> int:
        """Make the vectors that are missing or have failed; how many were made.

        Then those of embedders that were used before go, unless ``keep_old``; given ones stay. Searches and writes go
        on meanwhile, and a run that was cut short is taken up by the next. ``progress(made, wanted)`` is called after
        each batch. Without an embedder there is nothing to make. Chroma, where it is used, is given all vectors anew.
        Raises EmbeddingError, ReadOnly.
        """
        made = 0 if self._vectorizer is None else self._vectorizer.reindex(keep_old=keep_old, progress=progress)
        if self._tools.chroma is not None:
            self._tools.chroma.rebuild()
        return made

    def health(self, *, timeout_s: float = 10.0) -> Health:
        """How the memory is, and all it stands on: what is wrong is told, never raised, and nothing is changed.

        No check takes longer than ``timeout_s``. Raises InvalidInput for what is no number of seconds.
        """
        from mirai_memory.health import check_health  # which most processes never ask for

        return check_health(manager=self, timeout_s=timeout_s)

    def get_stats(self) -> dict[str, Any]:
        """Counts over all owners and the size of the database.

        ``total_sessions, active_sessions_24h, total_messages, total_tasks, total_knowledge`` (current values),
        ``db_size_mb`` (millions of bytes), and ``estimated``: the names of what a server has reckoned instead of
        counted, which it does from a million rows on, and never for what was not analysed yet.
        """
        engine = self._database.dialect
        return self._read(
            lambda uow: {
                **uow.maintenance.counts(engine.estimated_rows),
                "db_size_mb": engine.size_bytes(uow.db) / _MEGABYTE,
            }
        )


def _guarded(embedder: Embedder | None, settings: Settings) -> GuardedEmbedder | None:
    """The embedder that was handed in, or else the one of the settings."""
    chosen = open_embedder(settings) if embedder is None else embedder
    return None if chosen is None else GuardedEmbedder(chosen, timeout_s=settings.models.embedding.timeout_s)


def _guarded_summarizer(summarizer: Summarizer | None, settings: Settings, counter: TokenCounter) -> GuardedSummarizer:
    """The summariser that was handed in, or else the one of the settings."""
    chosen = open_summarizer(settings, counter) if summarizer is None else summarizer
    return GuardedSummarizer(chosen, counter, timeout_s=settings.models.chat.timeout_s)


def _open_store(
    database: Database, index: SearchIndex, settings: MemorySettings, clock: Clock, model: str | None, read_only: bool
) -> Store:
    store = Store(database, index, settings, clock, model=model)
    if store.read(lambda uow: uow.maintenance.index_is_current()):
        return store
    # The words are indexed by another analyser than this one, or by none yet.
    if read_only:
        return Store(database, StaleIndex(), settings, clock)
    count = store.write(lambda uow: uow.maintenance.rebuild_index())
    logger.info("word index made anew: {} items", count)
    return store


def _beside(url: URL, ending: str) -> Path | None:
    """A file beside the database's, where it has one."""
    path = sqlite_path(url)
    return None if path is None else path.with_name(path.name + ending)


def _options(settings: MemorySettings, read_only: bool) -> Options:
    return Options(
        schema=settings.schema_,
        pool_size=settings.pool_size,
        synchronous=settings.synchronous,
        busy_timeout_ms=settings.busy_timeout_ms,
        statement_timeout_ms=settings.statement_timeout_ms,
        read_only=read_only,
    )


def _after_fork() -> None:
    # Another thread may have held the lock at the moment of the fork.
    global _managers_lock
    _managers_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_managers: dict[tuple[int, str], MemoryManager] = {}
_managers_lock = threading.Lock()


def get_memory_manager(url: str | os.PathLike[str] | URL | None = None) -> MemoryManager:
    """The process's one MemoryManager for the database that ``url`` names; made when first asked for.

    ``close()`` takes it out, and the next call makes a new one. A child process after a fork has its own.
    """
    settings = load_settings() if url is None else None
    resolved = resolve_url(url, settings)
    key = (os.getpid(), resolved.render_as_string(hide_password=False))
    with _managers_lock:
        manager = _managers.get(key)
        if manager is None:
            manager = _managers[key] = MemoryManager(resolved, settings=settings)
        return manager


def _forget_manager(manager: MemoryManager) -> None:
    with _managers_lock:
        for key in [key for key, known in _managers.items() if known is manager]:
            del _managers[key]
