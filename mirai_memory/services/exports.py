"""Everything of one owner, as rows in the order in which it was stored, read a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Row, Select, func, select

from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, PreferencesRow, SessionRow, TaskRow
from mirai_memory.services.base import Service
from mirai_memory.services.embeddings import GIVEN

EMBEDDINGS = EmbeddingRow.table()
KNOWLEDGE = KnowledgeRow.table()
MESSAGES = MessageRow.table()
PREFERENCES = PreferencesRow.table()
SESSIONS = SessionRow.table()
TASKS = TaskRow.table()

# Rows held at a time. Each may hold a million characters several times over, and all of them together must fit.
_HELD = 25
_FACTS = 100  # facts whose vectors are looked up at once


class Exports(Service):
    """Reads of a whole owner. What the settings have switched off since is there, and is read, all the same."""

    def counts(self, user_id: str | None = None) -> dict[str, int]:
        """How many rows there are of each kind."""
        owner = self._owner_of(user_id)
        tables = {"preferences": PREFERENCES, "sessions": SESSIONS, "tasks": TASKS, "facts": KNOWLEDGE}
        found = {
            name: int(self._db.execute(select(func.count()).where(table.c.user_id == owner)).scalar_one())
            for name, table in tables.items()
        }
        messages = select(func.coalesce(func.sum(SESSIONS.c.message_count), 0)).where(SESSIONS.c.user_id == owner)
        return {**found, "messages": int(self._db.execute(messages).scalar_one())}

    def preferences(self, user_id: str | None = None) -> Row[Any] | None:
        """The owner's row, or None."""
        return self._db.execute(select(PREFERENCES).where(PREFERENCES.c.user_id == self._owner_of(user_id))).first()

    def sessions(self, user_id: str | None = None) -> Iterator[Row[Any]]:
        """In order of (created_at, id)."""
        own = select(SESSIONS).where(SESSIONS.c.user_id == self._owner_of(user_id))
        return self._rows(own.order_by(SESSIONS.c.created_at, SESSIONS.c.id))

    def messages(self, session_id: str) -> Iterator[Row[Any]]:
        """Of one session, in order."""
        statement = self._own(select(MESSAGES), MESSAGES.c.user_id).where(MESSAGES.c.session_id == session_id)
        return self._rows(statement.order_by(MESSAGES.c.position))

    def tasks(self, user_id: str | None = None) -> Iterator[Row[Any]]:
        return self._rows(select(TASKS).where(TASKS.c.user_id == self._owner_of(user_id)).order_by(TASKS.c.id))

    def facts(self, user_id: str | None = None) -> Iterator[tuple[Row[Any], list[Row[Any]]]]:
        """Each own fact, superseded and closed ones too, with the place of its message and the vectors given with it.

        Shared facts are nobody's own.
        """
        linked = KNOWLEDGE.outerjoin(MESSAGES, MESSAGES.c.id == KNOWLEDGE.c.message_id)
        place = (MESSAGES.c.session_id.label("message_session"), MESSAGES.c.position.label("message_position"))
        own = select(*KNOWLEDGE.c, *place).select_from(linked).where(KNOWLEDGE.c.user_id == self._owner_of(user_id))
        for facts in _batches(self._rows(own.order_by(KNOWLEDGE.c.id)), _FACTS):
            vectors = self._given([fact.id for fact in facts])
            for fact in facts:
                yield fact, vectors.get(fact.id, [])

    def _given(self, ids: Sequence[int]) -> dict[int, list[Row[Any]]]:
        wanted = (EMBEDDINGS.c.kind == "knowledge") & (EMBEDDINGS.c.status == "ready") & EMBEDDINGS.c.item_id.in_(ids)
        given = select(EMBEDDINGS).where(wanted, EMBEDDINGS.c.content_hash.startswith(GIVEN))
        found: dict[int, list[Row[Any]]] = {}
        for row in self._db.execute(given.order_by(EMBEDDINGS.c.id)):
            found.setdefault(row.item_id, []).append(row)
        return found

    def _rows(self, statement: Select[Any]) -> Iterator[Row[Any]]:
        with self._db.execute(statement, execution_options={"yield_per": _HELD}) as result:
            yield from result


def _batches(rows: Iterable[Row[Any]], size: int) -> Iterator[list[Row[Any]]]:
    batch: list[Row[Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
