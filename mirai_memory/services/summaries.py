"""What is to be summarised of a session, and where its summary is kept. No message is changed or deleted here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update

from mirai_memory import _checks
from mirai_memory.entities import Message, Session
from mirai_memory.errors import NotFound
from mirai_memory.models import MessageRow, SessionRow
from mirai_memory.services import windows
from mirai_memory.services.base import Service
from mirai_memory.services.leases import FREE
from mirai_memory.services.messages import Messages, to_message
from mirai_memory.services.sessions import Sessions

MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()

LOOKED_AT = 100  # messages of one range at most, but for a group that is larger
_COLUMNS = [*(column for column in MESSAGES.c if column.name != "group_start"), MESSAGES.c.group_start]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsummarized:
    """The next messages that the session's summary does not tell yet, as whole groups, oldest first."""

    session: Session
    groups: list[list[Message]]


class Summaries(Service):
    def due(self, session_id: str, keep: int | None = None) -> tuple[int, int]:
        """Before which position everything is to be summarised, and how many messages still are.

        None: what has left the window. Else all but the newest ``keep``, as ``trim`` would delete them.
        """
        id = self._session(session_id).id
        if keep is None:
            before = Messages(self._work).rest_begins(id, self._settings.short_term.max_messages, chat=True)
        else:
            before = Messages(self._work).rest_begins(id, keep)
        return before, self.left(id, before)

    def left(self, session_id: str, before: int) -> int:
        """How many messages before that position the summary does not tell."""
        told = self._session(session_id).summarized_through or 0
        here = MESSAGES.c.session_id == session_id
        statement = select(func.count()).where(here, MESSAGES.c.position > told, MESSAGES.c.position < before)
        return int(self._db.execute(statement).scalar_one())

    def next(self, session_id: str, before: int) -> Unsummarized | None:
        """The first of these messages; None where there is none."""
        session = self._session(session_id)
        here = MESSAGES.c.session_id == session.id
        since = MESSAGES.c.position > (session.summarized_through or 0)
        statement = select(*_COLUMNS).where(here, since, MESSAGES.c.position < before).order_by(MESSAGES.c.position)
        rows = self._db.execute(statement.limit(LOOKED_AT)).all()
        sizes = windows.whole_groups([(row.position, row.group_start) for row in reversed(rows)])
        groups, start = [], 0
        for size in reversed(sizes):
            groups.append([to_message(row) for row in rows[start : start + size]])
            start += size
        if len(rows) == LOOKED_AT and len(groups) > 1:
            groups.pop()  # more of it may follow
        return Unsummarized(session=session, groups=groups) if groups else None

    def store(self, seen: Session, through: int, values: dict[str, Any], token: str) -> bool:
        """Keep a summary and give the lease back, if the session is still what it was when the lease was taken."""
        unchanged = (
            SESSIONS.c.id == seen.id,
            SESSIONS.c.lease_owner == token,
            SESSIONS.c.summarized_through.is_not_distinct_from(seen.summarized_through),
        )
        statement = self._own(update(SESSIONS), SESSIONS.c.user_id).where(*unchanged)
        return bool(self._db.execute(statement.values(summarized_through=through, **values, **FREE)).rowcount)

    def _session(self, session_id: str) -> Session:
        session = Sessions(self._work).get(session_id)
        if session is None:
            raise NotFound("session", _checks.name("session_id", session_id))
        return session
