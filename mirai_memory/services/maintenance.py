"""Counting, and the projections' upkeep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from mirai_memory import _checks
from mirai_memory.database import Db
from mirai_memory.models import KnowledgeRow, SessionRow, TaskRow
from mirai_memory.search import ItemKind
from mirai_memory.services.base import Service
from mirai_memory.services.copies import Copies
from mirai_memory.services.erasing import Erasing
from mirai_memory.services.mending import Mending
from mirai_memory.services.verification import Verification

SESSIONS = SessionRow.table()


# What an engine may reckon instead of counting: its table, and the column that is NULL in what is counted.
ESTIMATED: dict[str, tuple[str, str | None]] = {
    "total_sessions": ("sessions", None),
    "total_messages": ("messages", None),
    "total_tasks": ("tasks", None),
    "total_knowledge": ("knowledge", "superseded_at"),
}
EXACT_BELOW = 1_000_000


class Maintenance(Service):
    def counts(self, estimated_rows: Callable[[Db, Mapping[str, str | None]], Mapping[str, int]]) -> dict[str, Any]:
        """Numbers of rows, and under ``estimated`` the names of those that were reckoned, since there are too many.

        Counted messages are summed over their sessions' counters, a row a session.
        """
        reckoned = estimated_rows(self._db, dict(ESTIMATED.values()))
        totals: dict[str, Any] = {}
        estimated = []
        for name, (table, _) in ESTIMATED.items():
            rows = reckoned.get(table, 0)
            if rows >= EXACT_BELOW:
                estimated.append(name)
            totals[name] = rows if rows >= EXACT_BELOW else self._exact(name)
        active = SESSIONS.c.last_active >= _checks.before("clock", self._now(), timedelta(hours=24))
        totals["active_sessions_24h"] = self._number(select(func.count()).select_from(SESSIONS).where(active))
        return {**totals, "estimated": estimated}

    def _exact(self, name: str) -> int:
        knowledge = KnowledgeRow.table()
        statements = {
            "total_sessions": select(func.count()).select_from(SESSIONS),
            "total_messages": select(func.coalesce(func.sum(SESSIONS.c.message_count), 0)),
            "total_tasks": select(func.count()).select_from(TaskRow.table()),
            "total_knowledge": select(func.count()).select_from(knowledge).where(knowledge.c.superseded_at.is_(None)),
        }
        return self._number(statements[name])

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
