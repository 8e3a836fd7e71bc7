"""What is kept no longer: sessions that nobody has used for long, and facts that have expired. A batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update

from mirai_memory.database.chunks import chunks
from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, SessionRow, TaskRow
from mirai_memory.search import ItemKind
from mirai_memory.services.base import Service
from mirai_memory.services.knowledge import KnowledgeBase

EMBEDDINGS = EmbeddingRow.table()
KNOWLEDGE = KnowledgeRow.table()
MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()
TASKS = TaskRow.table()

_SESSIONS = 20  # of one batch, however few messages they have
_CHARACTERS = 1 << 19  # of one batch: a long text takes as long as many short ones


@dataclass(slots=True)
class Room:
    """What is left of a batch."""

    rows: int
    characters: int

    @property
    def is_full(self) -> bool:
        return self.rows <= 0 or self.characters <= 0


class Retention(Service):
    def due(self, before: datetime) -> Counter[str]:
        """How many rows of each table would go: of sessions unused since ``before``, and facts expired by now."""
        old = SESSIONS.c.last_active < before
        sessions = select(SESSIONS.c.id).where(old)
        messages = select(func.coalesce(func.sum(SESSIONS.c.message_count), 0)).where(old)
        expired = KNOWLEDGE.c.expires_at <= self._now()
        return Counter(
            sessions=self._number(select(func.count()).select_from(SESSIONS).where(old)),
            messages=self._number(messages),
            tasks=self._number(select(func.count()).select_from(TASKS).where(TASKS.c.session_id.in_(sessions))),
            knowledge=self._number(select(func.count()).select_from(KNOWLEDGE).where(expired)),
            embeddings=self._vectors("message", select(MESSAGES.c.id).where(MESSAGES.c.session_id.in_(sessions)))
            + self._vectors("knowledge", select(KNOWLEDGE.c.id).where(expired)),
        )

    def _vectors(self, kind: str, items: Any) -> int:
        of_items = (EMBEDDINGS.c.kind == kind) & EMBEDDINGS.c.item_id.in_(items)
        return self._number(select(func.count()).select_from(EMBEDDINGS).where(of_items))

    def _number(self, statement: Any) -> int:
        return int(self._db.execute(statement).scalar_one())

    def sweep_sessions(self, before: datetime, *, rows: int) -> Counter[str]:
        """Delete about so many rows of sessions unused since then, the longest unused first; how many of each table.

        Of a session that has more, its oldest messages go first: it goes itself with the last of them, unless somebody
        uses it meanwhile. Nothing is left to do where nothing went.
        """
        old = select(SESSIONS.c.id, SESSIONS.c.message_count).where(SESSIONS.c.last_active < before)
        ordered = old.order_by(SESSIONS.c.last_active, SESSIONS.c.id).limit(_SESSIONS)
        # Held, so that one that comes back to life meanwhile is not deleted; one that another holds is in use.
        held = self._db.execute(ordered.with_for_update(skip_locked=True)).all()
        gone: Counter[str] = Counter()
        room = Room(rows, _CHARACTERS)
        for session in held:
            if gone and session.message_count > room.rows:
                break
            swept = self._sweep_session(session.id, room)
            gone += swept
            if not swept["sessions"] or room.is_full:
                break
        return gone

    def _sweep_session(self, id: str, room: Room) -> Counter[str]:
        messages, all_of_them = self._oldest(id, room)
        gone = Counter(embeddings=self._forget_all("message", messages), messages=len(messages))
        self._delete(MESSAGES, messages)
        if all_of_them:
            own = select(TASKS.c.id).where(TASKS.c.session_id == id).order_by(TASKS.c.id).limit(room.rows)
            gone["tasks"] = self._delete(TASKS, list(self._db.execute(own).scalars()))
            room.rows -= gone["tasks"]
        if room.rows > 0 and all_of_them:
            gone["sessions"] = self._db.execute(delete(SESSIONS).where(SESSIONS.c.id == id)).rowcount
            room.rows -= 1
        elif messages:
            fewer = {"message_count": SESSIONS.c.message_count - len(messages)}
            self._db.execute(update(SESSIONS).where(SESSIONS.c.id == id).values(fewer))
        return gone

    def _oldest(self, session_id: str, room: Room) -> tuple[list[int], bool]:
        """The first messages of the session, as many as there is room for; and whether that is all of them."""
        own = select(MESSAGES.c.id, func.length(MESSAGES.c.content)).where(MESSAGES.c.session_id == session_id)
        found = self._db.execute(own.order_by(MESSAGES.c.position).limit(room.rows)).all()
        taken: list[int] = []
        for id, characters in found:
            if taken and room.characters < characters:
                break
            taken.append(id)
            room.characters -= characters
        room.rows -= len(taken)
        return taken, len(taken) == len(found) and room.rows > 0

    def sweep_facts(self, *, rows: int) -> Counter[str]:
        """Delete so many facts that have expired. Whom they superseded stays superseded."""
        expired = select(KNOWLEDGE.c.id).where(KNOWLEDGE.c.expires_at <= self._now())
        ordered = expired.order_by(KNOWLEDGE.c.expires_at, KNOWLEDGE.c.id).limit(rows)
        ids = list(self._db.execute(ordered.with_for_update(skip_locked=True)).scalars())
        vectors = self._forget_all("knowledge", ids)
        # Also where long_term.enabled is false: what has expired is kept by nobody.
        return Counter(embeddings=vectors, knowledge=KnowledgeBase(self._work)._delete(ids))

    def _forget_all(self, kind: ItemKind, ids: Sequence[int]) -> int:
        """Index rows and vectors; how many vectors."""
        self._index.remove(self._db, kind, ids)  # first: it holds the items
        of_kind = EMBEDDINGS.c.kind == kind
        return sum(
            self._db.execute(delete(EMBEDDINGS).where(of_kind, EMBEDDINGS.c.item_id.in_(chunk))).rowcount
            for chunk in chunks(ids)
        )

    def _delete(self, table: Any, ids: Sequence[int]) -> int:
        return sum(self._db.execute(delete(table).where(table.c.id.in_(chunk))).rowcount for chunk in chunks(ids))
