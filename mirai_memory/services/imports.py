"""One owner's memory taken in from a file: what is new is added, what is here stays, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from mirai_memory.config import PREFERENCES as REMEMBERABLE
from mirai_memory.errors import ConfigurationError
from mirai_memory.models import PreferencesRow
from mirai_memory.services.base import Service
from mirai_memory.services.incoming import Incoming, Record, Tally
from mirai_memory.services.incoming_facts import Again, IncomingFacts
from mirai_memory.services.incoming_sessions import IncomingSessions
from mirai_memory.services.incoming_tasks import IncomingTasks
from mirai_memory.services.preferences import CHANGEABLE

PREFERENCES = PreferencesRow.table()


class Imports(Service):
    def store(
        self,
        user_id: str,
        records: Iterator[Record],
        facts: Again,
        is_old: Callable[[datetime], bool],
    ) -> Tally:
        """Store the records, which come in the file's order; ``facts`` reads its facts once more."""
        arguments = (self._work, self._owner_of(user_id), Tally(), is_old)
        sessions = IncomingSessions(*arguments)
        tasks = IncomingTasks(sessions, *arguments)
        known = IncomingFacts(sessions, facts, *arguments)
        take = {
            "preferences": _IncomingPreferences(*arguments).take,
            "session": sessions.take_session,
            "message": sessions.take_message,
            "task": tasks.take,
            "fact": known.take,
        }
        for record in records:
            if record.kind in ("task", "fact"):
                sessions.finish()  # their messages are there, to be linked
            take[record.kind](record)
        sessions.finish()
        tasks.finish()
        known.finish()
        return arguments[2]


class _IncomingPreferences(Incoming):
    def take(self, record: Record) -> None:
        if not self._settings.user_preferences.enabled:
            raise ConfigurationError("memory.user_preferences.enabled is false: preferences are not kept")
        if self._is_old(record.values["updated_at"]):
            return self._count("erased")
        not_kept = set(REMEMBERABLE) - set(self._settings.user_preferences.remember)
        emptied: dict[str, Any] = {name: [] if name == "favorite_tools" else None for name in not_kept}
        values = {**record.values, **emptied, "user_id": self._whose}
        held = select(PREFERENCES).where(PREFERENCES.c.user_id == self._whose).with_for_update()
        stored = self._db.execute(held).first()
        if stored is None:
            self._db.execute(insert(PREFERENCES), values)
            return self._count("preferences_added")
        if all(stored._mapping[name] == values[name] for name in CHANGEABLE):
            return self._count("preferences_there")
        return self._tally.conflict(record.line, "preferences", "are others here, which stay")
