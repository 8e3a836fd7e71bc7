"""Methods of AsyncMemoryManager that only hand a call on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mirai_memory._facade import RECALL_KINDS, RecallKind
from mirai_memory.aio.fact_methods import OwnersFactMethods
from mirai_memory.aio.learning_methods import LearningMethods
from mirai_memory.aio.summary_methods import SummaryMethods
from mirai_memory.entities import (
    JsonObject,
    Knowledge,
    Message,
    Session,
    Task,
    TaskStatus,
    UserPreferences,
)
from mirai_memory.manager import MemoryManager

if TYPE_CHECKING:
    from mirai_memory.health import Health


class ManagerMethods(OwnersFactMethods, SummaryMethods[MemoryManager], LearningMethods[MemoryManager]):
    """Those whose arguments may name an owner, and upkeep."""

    # Made by tests/aio/test_methods.py --write

    async def create_session(
        self,
        user_id: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Session:
        """A new session of the owner. Raises Conflict where ``session_id`` is taken."""
        return await self._write(
            lambda memory: memory.create_session(user_id, session_id=session_id, agent_id=agent_id, metadata=metadata)
        )

    async def ensure_session(
        self, user_id: str, external_id: str, *, agent_id: str | None = None, metadata: JsonObject | None = None
    ) -> Session:
        """The owner's session called ``external_id``, made if there is none: once, however many ask at a time."""
        return await self._write(
            lambda memory: memory.ensure_session(user_id, external_id, agent_id=agent_id, metadata=metadata)
        )

    async def get_active_sessions(self, hours: float | None = None, *, user_id: str | None = None) -> list[Session]:
        """Sessions used within the last ``hours`` (None: ``memory.short_term.ttl_hours``), the latest first."""
        return await self._read(lambda memory: memory.get_active_sessions(hours, user_id=user_id))

    async def list_sessions(
        self, user_id: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> list[Session]:
        """One page of sessions in order of (created_at, id); ``after`` is the id of the last one seen."""
        return await self._read(lambda memory: memory.list_sessions(user_id, limit=limit, after=after))

    async def search_messages(
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
        return await self._slow(
            lambda memory: memory.search_messages(
                query, user_id=user_id, session_id=session_id, limit=limit, since=since, until=until, explain=explain
            )
        )

    async def save_user_preferences(self, preferences: UserPreferences) -> UserPreferences:
        """Replace the owner's preferences; what was stored, with its new version.

        With ``version`` set, Conflict if the stored one is another. Raises InvalidInput.
        """
        return await self._write(lambda memory: memory.save_user_preferences(preferences))

    async def get_user_preferences(self, user_id: str) -> UserPreferences | None:
        """The owner's preferences, or None."""
        return await self._read(lambda memory: memory.get_user_preferences(user_id))

    async def update_user_preferences(self, user_id: str, **changes: Any) -> UserPreferences:
        """Set the named fields and keep the others, in one step; ``metadata`` is merged key by key."""
        return await self._write(lambda memory: memory.update_user_preferences(user_id, **changes))

    async def delete_user_preferences(self, user_id: str) -> None:
        """Delete the owner's preferences. Raises NotFound."""
        await self._write(lambda memory: memory.delete_user_preferences(user_id))

    async def get_tasks(
        self,
        session_id: str | None = None,
        status: TaskStatus | None = None,
        *,
        user_id: str | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> list[Task]:
        """One page of tasks in order of id; ``after`` is the id of the last one seen."""
        return await self._read(
            lambda memory: memory.get_tasks(session_id, status, user_id=user_id, limit=limit, after=after)
        )

    async def recall(
        self,
        query: str,
        *,
        user_id: str,
        limit: int = 10,
        kinds: Sequence[RecallKind] = RECALL_KINDS,
        explain: bool = False,
    ) -> list[Knowledge | Message]:
        """What the owner's memory holds on the query: messages, own and shared facts in one list, best first."""
        return await self._slow(
            lambda memory: memory.recall(query, user_id=user_id, limit=limit, kinds=kinds, explain=explain)
        )

    async def health(self, *, timeout_s: float = 10.0) -> Health:
        """How the memory is, and all it stands on: what is wrong is told, never raised, and nothing is changed.

        No check takes longer than ``timeout_s``. Raises InvalidInput for what is no number of seconds.
        """
        return await self._slow(lambda memory: memory.health(timeout_s=timeout_s))

    async def get_stats(self) -> dict[str, Any]:
        """Counts over all owners and the size of the database.

        ``total_sessions, active_sessions_24h, total_messages, total_tasks, total_knowledge`` (current values),
        ``db_size_mb`` (millions of bytes), and ``estimated``: the names of what a server has reckoned instead of
        counted, which it does from a million rows on, and never for what was not analysed yet.
        """
        return await self._read(lambda memory: memory.get_stats())
