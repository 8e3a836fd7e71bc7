"""Conversations: made, named, listed, cleared, deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from mirai_memory import _checks
from mirai_memory._ids import new_session_id
from mirai_memory.entities import JsonObject, Session
from mirai_memory.errors import Conflict, InvalidInput, NotFound
from mirai_memory.models import MessageRow, SessionRow, TaskRow
from mirai_memory.services.base import Service
from mirai_memory.services.leases import FREE, NO_SUMMARY

SESSIONS = SessionRow.table()
MESSAGES = MessageRow.table()
TASKS = TaskRow.table()

_COLUMNS = (
    SESSIONS.c.id,
    SESSIONS.c.user_id,
    SESSIONS.c.external_id,
    SESSIONS.c.agent_id,
    SESSIONS.c.created_at,
    SESSIONS.c.last_active,
    SESSIONS.c.message_count,
    SESSIONS.c.summary,
    SESSIONS.c.summarized_through,
    SESSIONS.c.summary_method,
    SESSIONS.c.summary_tokens,
    SESSIONS.c.summary_source_tokens,
    SESSIONS.c.metadata,
)
_SELECT = select(*_COLUMNS)


class Sessions(Service):
    def create(
        self,
        user_id: str | None = None,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Session:
        owner = self._owner_of(user_id)
        if session_id is not None and self._owner is not None:
            # That one is taken would tell of another owner's session.
            raise InvalidInput("session_id", "is not for one owner to choose; use ensure")
        id = new_session_id() if session_id is None else _checks.name("session_id", session_id)
        if session_id is not None and self._db.execute(select(SESSIONS.c.id).where(SESSIONS.c.id == id)).first():
            raise Conflict("session", id, "already exists; leave session_id out, or use ensure_session")
        return self._insert(id, owner, None, agent_id, metadata)

    def ensure(
        self,
        external_id: str,
        user_id: str | None = None,
        *,
        agent_id: str | None = None,
        metadata: JsonObject | None = None,
    ) -> Session:
        """The owner's session of that name, made if there is none; ``agent_id`` and ``metadata`` are for a new one."""
        owner = self._owner_of(user_id)
        name = _checks.name("external_id", external_id)
        _checks.optional_name("agent_id", agent_id)
        self._metadata(metadata)
        found = self._named(owner, name)
        if found is not None:
            return found
        try:
            # A savepoint, so that a lost race does not cost the transaction, which may hold more than this.
            with self._db.begin_nested():
                return self._insert(new_session_id(), owner, name, agent_id, metadata)
        except IntegrityError:
            found = self._named(owner, name)
            if found is None:
                raise
            return found

    def _named(self, owner: str, external_id: str) -> Session | None:
        condition = (SESSIONS.c.user_id == owner) & (SESSIONS.c.external_id == external_id)
        row = self._db.execute(_SELECT.where(condition)).one_or_none()
        return to_session(row) if row else None

    def _insert(
        self, id: str, owner: str, external_id: str | None, agent_id: str | None, metadata: JsonObject | None
    ) -> Session:
        now = self._now()
        values = {
            "id": id,
            "user_id": owner,
            "external_id": external_id,
            "agent_id": _checks.optional_name("agent_id", agent_id),
            "created_at": now,
            "last_active": now,
            "metadata": self._metadata(metadata),
        }
        self._db.execute(insert(SESSIONS), values)
        return Session(**values)

    def _metadata(self, metadata: Any) -> JsonObject:
        given = {} if metadata is None else metadata
        return _checks.json_object("metadata", given, limit=self._settings.max_content_chars)

    def get(self, session_id: str) -> Session | None:
        row = self._db.execute(self._own(_SELECT, SESSIONS.c.user_id).where(SESSIONS.c.id == _id(session_id))).first()
        return to_session(row) if row else None

    def update(self, session_id: str, *, metadata: JsonObject) -> Session:
        """Replace the metadata."""
        values = {"metadata": _checks.json_object("metadata", metadata, limit=self._settings.max_content_chars)}
        return self._update(session_id, values)

    def touch(self, session_id: str) -> Session:
        """Set ``last_active`` to now."""
        return self._update(session_id, {"last_active": self._now()})

    def _update(self, session_id: str, values: dict[str, Any]) -> Session:
        id = _id(session_id)
        statement = self._own(update(SESSIONS), SESSIONS.c.user_id).where(SESSIONS.c.id == id)
        row = self._db.execute(statement.values(values).returning(*_COLUMNS)).first()
        if row is None:
            raise NotFound("session", id)
        return to_session(row)

    def active(self, since: datetime) -> list[Session]:
        """Those active since then, the latest first."""
        statement = self._own(_SELECT, SESSIONS.c.user_id).where(SESSIONS.c.last_active >= since)
        return [
            to_session(row)
            for row in self._db.execute(statement.order_by(SESSIONS.c.last_active.desc(), SESSIONS.c.id.desc()))
        ]

    def page(self, *, limit: int, after: str | None = None) -> list[Session]:
        """One page, in order of (created_at, id)."""
        place = tuple_(SESSIONS.c.created_at, SESSIONS.c.id)
        statement = self._own(_SELECT, SESSIONS.c.user_id).order_by(SESSIONS.c.created_at, SESSIONS.c.id).limit(limit)
        if after is not None:
            last = self.get(after)
            if last is None:
                raise InvalidInput("after", "names no session of this list")
            statement = statement.where(place > tuple_(last.created_at, last.id))
        return [to_session(row) for row in self._db.execute(statement)]

    def clear(self, session_id: str) -> int:
        """Delete every message, and the summary that was made of them; the number of messages."""
        id = self._hold_session(session_id)
        ids = self._message_ids([id])
        self._forget_projections("message", ids)
        self._db.execute(delete(MESSAGES).where(MESSAGES.c.session_id == id))
        self._db.execute(update(SESSIONS).where(SESSIONS.c.id == id).values(message_count=0, **NO_SUMMARY, **FREE))
        return len(ids)

    def delete(self, session_id: str) -> None:
        """Delete a session with its messages and tasks; facts that were learned from it stay and lose the link."""
        self._delete_all([self._hold_session(session_id)])

    def _delete_all(self, ids: list[str]) -> None:
        self._forget_projections("message", self._message_ids(ids))
        for table, column in (
            (MESSAGES, MESSAGES.c.session_id),
            (TASKS, TASKS.c.session_id),
            (SESSIONS, SESSIONS.c.id),
        ):
            self._db.execute(delete(table).where(column.in_(ids)))

    def _message_ids(self, session_ids: list[str]) -> list[int]:
        return list(self._db.execute(select(MESSAGES.c.id).where(MESSAGES.c.session_id.in_(session_ids))).scalars())


def _id(session_id: Any) -> str:
    return _checks.name("session_id", session_id)


def to_session(row: Any) -> Session:
    return Session(**row._mapping)
