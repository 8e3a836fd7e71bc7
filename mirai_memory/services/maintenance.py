"""Counting, and the projections' upkeep."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from mirai_memory import _checks
from mirai_memory.models import KnowledgeRow, SessionRow, TaskRow
from mirai_memory.search import ItemKind
from mirai_memory.services.base import Service
from mirai_memory.services.copies import Copies
from mirai_memory.services.erasing import Erasing
from mirai_memory.services.mending import Mending
from mirai_memory.services.verification import Verification

SESSIONS = SessionRow.table()


class Maintenance(Service):
    def counts(self) -> dict[str, Any]:
        """Exact numbers of rows. Messages are summed over their sessions' counters, a row a session."""
        active = SESSIONS.c.last_active >= _checks.before("clock", self._now(), timedelta(hours=24))
        knowledge = KnowledgeRow.table()
        return {
            "total_sessions": self._number(select(func.count()).select_from(SESSIONS)),
            "active_sessions_24h": self._number(select(func.count()).select_from(SESSIONS).where(active)),
            "total_messages": self._number(select(func.coalesce(func.sum(SESSIONS.c.message_count), 0))),
            "total_tasks": self._number(select(func.count()).select_from(TaskRow.table())),
            "total_knowledge": self._number(
                select(func.count()).select_from(knowledge).where(knowledge.c.superseded_at.is_(None))
            ),
        }

    @property
    def erasing(self) -> Erasing:
        """Deleting all that one owner has."""
        return Erasing(self._work)

    @property
    def verification(self) -> Verification:
        """Counting what is wrong."""
        return Verification(self._work)

    @property
    def mending(self) -> Mending:
        """Putting it right."""
        return Mending(self._work)

    @property
    def copies(self) -> Copies:
        """Rows of every table, as another database has them too."""
        return Copies(self._work)

    def merge_index(self, kind: ItemKind, *, begin: bool) -> bool:
        """A step of bringing the word index in order; whether there is more to do."""
        return self._index.merge(self._db, kind, begin=begin)

    def index_is_current(self) -> bool:
        """Whether the word index was made by this version's analyser."""
        return self._index.is_current(self._db)

    def rebuild_index(self) -> int:
        """Make the word index anew, unless another process has done so meanwhile; how many items."""
        return 0 if self._index.is_current(self._db) else self._index.rebuild(self._db)

    def _number(self, statement: Any) -> int:
        return int(self._db.execute(statement).scalar_one())
