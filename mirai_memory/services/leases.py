"""Leases on sessions: who works on what a session is to become, while a model is asked outside of any transaction.

A lease keeps others from asking the same; it does not keep anybody from writing. What was made under it is stored only
while ``holds`` says so, in the transaction that stores it. So a lease that ran out and was taken over costs a second
call, never a second result, and neither does one that was broken: whoever deletes or changes a message takes the lease
away from those who have read it.
"""

from __future__ import annotations

import uuid
from datetime import timedelta

from sqlalchemy import or_, select, update

from mirai_memory import _checks
from mirai_memory.errors import NotFound
from mirai_memory.models import SessionRow
from mirai_memory.services.base import Service

SESSIONS = SessionRow.table()

# What a session has where nobody works on it, and where there is no summary.
FREE = {"lease_owner": None, "lease_until": None}
NO_SUMMARY = dict.fromkeys(
    ("summary", "summarized_through", "summary_method", "summary_tokens", "summary_source_tokens")
)


class Leases(Service):
    def take(self, session_id: str, purpose: str, seconds: float) -> str | None:
        """A token, for so many seconds; None where somebody else has one that has not run out. Raises NotFound."""
        id, now = _checks.name("session_id", session_id), self._now()
        token = f"{_checks.name('purpose', purpose, limit=100)}:{uuid.uuid4().hex}"
        free = or_(SESSIONS.c.lease_until.is_(None), SESSIONS.c.lease_until <= now)
        statement = self._own(update(SESSIONS), SESSIONS.c.user_id).where(SESSIONS.c.id == id, free)
        if self._db.execute(statement.values(lease_owner=token, lease_until=now + timedelta(seconds=seconds))).rowcount:
            return token
        if self._db.execute(self._own(select(SESSIONS.c.id), SESSIONS.c.user_id).where(SESSIONS.c.id == id)).first():
            return None
        raise NotFound("session", id)

    def holds(self, session_id: str, token: str) -> bool:
        """Whether the lease is still the token's: also one that has run out, until somebody takes it over.

        The session is held until the transaction ends, so that nobody takes it away meanwhile.
        """
        id = _checks.name("session_id", session_id)
        held = (SESSIONS.c.id == id) & (SESSIONS.c.lease_owner == token)
        statement = self._own(select(SESSIONS.c.id), SESSIONS.c.user_id).where(held)
        return self._db.execute(statement.with_for_update()).first() is not None

    def release(self, session_id: str, token: str) -> None:
        """Give it back; one that is somebody else's by now stays theirs."""
        id = _checks.name("session_id", session_id)
        statement = self._own(update(SESSIONS), SESSIONS.c.user_id)
        self._db.execute(statement.where(SESSIONS.c.id == id, SESSIONS.c.lease_owner == token).values(FREE))

    def message_changed(self, session_id: str, position: int) -> None:
        """What is made of the message that was there, by somebody or by now, is not to be kept: it may hold the text.

        A summary goes, also where some of what it was made of has been trimmed and will not be in the next one: that
        a text which was deleted comes back would be worse. Facts stay, which have their own ways to go.
        """
        row = self._own(update(SESSIONS), SESSIONS.c.user_id).where(SESSIONS.c.id == session_id)
        # Whether or not there is a lease: the row is held then, and nobody who takes one reads the old text any more.
        self._db.execute(row.values(FREE))
        self._db.execute(row.where(SESSIONS.c.summarized_through >= position).values(NO_SUMMARY))
