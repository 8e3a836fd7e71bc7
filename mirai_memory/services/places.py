"""Where a message goes: at the end of its session."""

from __future__ import annotations

from sqlalchemy import bindparam, update

from mirai_memory.models import SessionRow

_SESSIONS = SessionRow.table()
# One statement counts, takes the places, holds the session's row until the end and says whose it is.
TAKE_PLACES = (
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("session"))
    .values(
        next_position=_SESSIONS.c.next_position + bindparam("places"),
        message_count=_SESSIONS.c.message_count + bindparam("places"),
        last_active=bindparam("now"),
    )
    .returning(_SESSIONS.c.next_position, _SESSIONS.c.user_id)
)
