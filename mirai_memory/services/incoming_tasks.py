"""Tasks on their way in: known by their client_id, or else by session, time and words."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import insert, select

from mirai_memory.models import TaskRow
from mirai_memory.services.incoming import Batch, Incoming, Record
from mirai_memory.services.incoming_sessions import IncomingSessions

TASKS = TaskRow.table()
_HELD = 500
_SAME = ("session_id", "description", "status", "result", "created_at", "completed_at", "metadata", "client_id")


class IncomingTasks(Incoming):
    def __init__(self, sessions: IncomingSessions, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sessions, self._new = sessions, Batch()

    def take(self, record: Record) -> None:
        values = record.values
        if self._is_old(values["created_at"]):
            return self._count("erased")
        if values["session_id"] is not None:
            session = self._sessions.ids[values["session_id"]]
            if session is None:
                return self._count("erased")  # it belongs to a session that stays out, and goes with it
            values = {**values, "session_id": session}
        stored = self._stored(values)
        if stored is None:
            self._count("tasks_added")
            if self._new.add(Record(record.line, record.kind, values)):
                self.finish()
            return None
        row = self._db.execute(select(TASKS).where(TASKS.c.id == stored)).one()._mapping
        if all(row[name] == values[name] for name in _SAME):
            return self._count("tasks_there")
        return self._tally.conflict(record.line, "task", "is here with other values, which stay")

    def finish(self) -> None:
        rows = [record.values for record in self._new.take()]
        if rows:
            self._db.execute(insert(TASKS), rows)

    def _stored(self, values: dict[str, Any]) -> int | None:
        """The id of the task here that this one is. Of tasks that are alike, each is one of the file."""
        named, alike = self._here
        if values["client_id"] is not None:
            return named.get(values["client_id"])
        same = alike.get(_digest(values["session_id"], values["created_at"], values["description"]))
        return same.popleft() if same else None

    @cached_property
    def _here(self) -> tuple[dict[str, int], dict[bytes, deque[int]]]:
        """What was here before: by client_id, and where a task has none by what it is."""
        named: dict[str, int] = {}
        alike: dict[bytes, deque[int]] = defaultdict(deque)
        columns = [TASKS.c[name] for name in ("id", "client_id", "session_id", "created_at", "description")]
        own = select(*columns).where(TASKS.c.user_id == self._whose).order_by(TASKS.c.id)
        for row in self._db.execute(own, execution_options={"yield_per": _HELD}):
            if row.client_id is not None:
                named[row.client_id] = row.id
            else:
                alike[_digest(row.session_id, row.created_at, row.description)].append(row.id)
        return named, dict(alike)


def _digest(session_id: str | None, created_at: datetime, description: str) -> bytes:
    parts = "\0".join((session_id or "", created_at.isoformat(), description))
    return hashlib.blake2b(parts.encode(), digest_size=16).digest()
