"""The first version's database: sessions with their messages and tasks, preferences, and facts shared by all.

Owners are kept. Its times had no zone: they are those of ``Options.timezone``. A session's id becomes its
``external_id`` "first-version:ID"; its summary and its times are kept in its metadata.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.entities import ROLES, Knowledge, Role, Task, TaskStatus, UserPreferences
from mirai_memory.errors import InvalidInput
from mirai_memory.importers import sqlite_source as source
from mirai_memory.importers.base import Conversation, Options, Record, SourceError, conversation_of, refused
from mirai_memory.importers.json_text import MAX_VALUE
from mirai_memory.importers.records import ORIGIN
from mirai_memory.schema import VERSION_TABLE

NAME = "first-version"
_TABLES = {
    "sessions": ("id", "user_id", "created_at", "last_active", "summary"),
    "messages": ("id", "session_id", "role", "content", "timestamp", "tokens", "model"),
    "tasks": ("id", "session_id", "description", "status", "created_at", "completed_at", "result"),
    "user_preferences": (
        "user_id",
        "coding_style",
        "communication_tone",
        "favorite_tools",
        "project_context",
        "updated_at",
    ),
    "knowledge": (
        "id",
        "category",
        "key",
        "value",
        "source",
        "confidence",
        "created_at",
        "updated_at",
        "embedding",
    ),
}
_INDEX = "SELECT CAST(session_id AS TEXT), rowid FROM messages WHERE session_id IS NOT NULL"
_INDEX_TASKS = "SELECT CAST(session_id AS TEXT), rowid FROM tasks WHERE session_id IS NOT NULL"
_SESSIONS = """
    SELECT CAST(id AS TEXT), user_id, created_at, last_active, summary FROM sessions
    WHERE ?1 IS NULL OR CAST(user_id AS TEXT) = ?1 ORDER BY created_at, rowid
"""
_MESSAGES = """
    SELECT coalesce(m.id, '#' || m.rowid), m.role, m.content, m.timestamp, m.tokens, m.model
    FROM by_session r CROSS JOIN messages m ON m.rowid = r.place WHERE r.session = ? ORDER BY r.place
"""
_TASKS = """
    SELECT coalesce(t.id, '#' || t.rowid), t.description, t.status, t.created_at, t.completed_at, t.result
    FROM tasks_by_session r CROSS JOIN tasks t ON t.rowid = r.place WHERE r.session = ? ORDER BY r.place
"""
_PREFERENCES = """
    SELECT user_id, coding_style, communication_tone, favorite_tools, project_context, updated_at
    FROM user_preferences WHERE ?1 IS NULL OR CAST(user_id AS TEXT) = ?1 ORDER BY rowid
"""
_KNOWLEDGE = """
    SELECT coalesce(id, '#' || rowid), category, key, value, source, confidence, created_at, updated_at, embedding
    FROM knowledge ORDER BY rowid
"""
_LOST_MESSAGES = """
    SELECT session, count(*) FROM by_session
    WHERE session NOT IN (SELECT CAST(id AS TEXT) FROM sessions WHERE id NOT NULL) GROUP BY session
    UNION ALL SELECT NULL, count(*) FROM messages WHERE session_id IS NULL HAVING count(*) > 0
"""
_LOST_TASKS = """
    SELECT id FROM tasks WHERE session_id IS NULL
    OR CAST(session_id AS TEXT) NOT IN (SELECT CAST(id AS TEXT) FROM sessions WHERE id NOT NULL) ORDER BY rowid
"""
_OTHER_ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "bot": "assistant", "function": "tool"}
_ROLES: dict[str, Role] = {**{role: role for role in ROLES}, **_OTHER_ROLES}
_STATUSES: dict[str, TaskStatus] = {
    "pending": "pending",
    "todo": "pending",
    "in_progress": "in_progress",
    "running": "in_progress",
    "completed": "completed",
    "done": "completed",
    "failed": "failed",
    "error": "failed",
}
_FINISHED = ("completed", "failed")
_BATCH = 200


class FirstVersion:
    """The importer of the first version's database."""

    name = NAME
    has_owners = True

    def detect(self, path: Path) -> bool:
        found = source.tables(path) or {}
        return _TABLES.keys() <= found.keys() and VERSION_TABLE not in found

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        try:
            with source.opened(path) as connection:
                if source.has_table(connection, VERSION_TABLE):
                    yield refused("", "the database is of this version, not of the first")
                    return
                yield from _Database(connection, options).all()
        except SourceError as error:
            yield refused("", str(error))


class _Database:
    def __init__(self, connection: sqlite3.Connection, options: Options) -> None:
        self._connection, self._zone, self._owner = connection, options.timezone, options.user_id
        self._wrong = source.missing(connection, _TABLES)

    def all(self) -> Iterator[Conversation]:
        yield from _batches(Record(f"table {table}", fault=reason) for table, reason in self._wrong.items())
        if not self._wrong.keys() & {"sessions", "messages"}:
            yield from self._sessions()
        if "user_preferences" not in self._wrong:
            yield from _batches(self._records("preferences of", _PREFERENCES, self._preferences, self._owner))
        # Facts have no owner: they are shared by all, which is nothing that one owner may write.
        if "knowledge" not in self._wrong and self._owner is None:
            yield from _batches(self._records("knowledge", _KNOWLEDGE, self._fact))

    def _sessions(self) -> Iterator[Conversation]:
        source.index_rows(self._connection, _INDEX)
        if "tasks" not in self._wrong:
            source.index_rows(self._connection, _INDEX_TASKS, "tasks_by_session")
        for row in source.rows(self._connection, _SESSIONS, self._owner):
            yield self._session(*row)
        if self._owner is None:
            yield from _batches(self._lost())

    def _session(self, id: Any, user_id: Any, created_at: Any, last_active: Any, summary: Any) -> Conversation:
        place = f"session {source.listed(id)}"
        try:
            name = _checks.name("id", source.text("id", id))
            owner = _checks.owner(source.text("user_id", user_id))
            created = self._moment("created_at", created_at)
            about = {"summary": source.text("summary", summary) or None}
            about |= {"created_at": _iso(created), "last_active": _iso(self._moment("last_active", last_active))}
            metadata = {key: value for key, value in about.items() if value is not None}
            _checks.json_object("summary", metadata, limit=MAX_VALUE)
        except InvalidInput as error:
            return refused(place, str(error))
        return conversation_of(
            place,
            external_id=f"{NAME}:{name}",
            metadata={"source": NAME, **metadata},
            entries=lambda: (
                (f"message {source.listed(row[0])}", row) for row in source.rows(self._connection, _MESSAGES, name)
            ),
            fields=self._message,
            since=created,
            empty=True,
            user_id=owner,
            tasks=None if "tasks" in self._wrong else lambda session_id: self._tasks(place, name, session_id),
        )

    def _message(self, row: tuple[Any, ...]) -> dict[str, Any]:
        id, role, content, timestamp, tokens, model = row
        text = source.text("role", role)
        return {
            "role": _ROLES[_checks.one_of("role", (text or "").lower(), tuple(_ROLES))],
            "content": _checks.text("content", source.text("content", content) or "", limit=MAX_VALUE),
            "timestamp": self._moment("timestamp", timestamp),
            "tokens": source.integer("tokens", tokens),
            "model": _checks.optional_text("model", source.text("model", model) or None, limit=MAX_VALUE),
            "client_id": _checks.name("id", source.text("id", id)),
        }

    def _tasks(self, place: str, name: str, session_id: str) -> Iterator[Record]:
        def task(*row: Any) -> Task:
            return self._task(session_id, *row)

        for record in self._records("task", _TASKS, task, name):
            yield Record(f"{place}, {record.place}", record.value, record.fault)

    def _task(
        self, session_id: str, id: Any, description: Any, status: Any, created_at: Any, completed_at: Any, result: Any
    ) -> Task:
        state = (source.text("status", status) or "pending").strip().lower().replace("-", "_").replace(" ", "_")
        wanted = _STATUSES[_checks.one_of("status", state, tuple(_STATUSES))]
        created, completed = self._moment("created_at", created_at), self._moment("completed_at", completed_at)
        finished = wanted in _FINISHED
        return Task(
            session_id=session_id,
            description=_checks.text("description", source.text("description", description), limit=MAX_VALUE),
            status=wanted,
            result=source.text("result", result),
            created_at=created,
            # One that is finished has a time of it; where the source has none, the only other one there is.
            completed_at=(completed or created) if finished else None,
            metadata={"completed_at": _iso(completed)} if completed and not finished else {},
            client_id=f"{NAME}:{_checks.name('id', source.text('id', id), limit=200)}",
        )

    def _preferences(self, user_id: Any, style: Any, tone: Any, tools: Any, context: Any, updated: Any) -> Any:
        favorites = source.json_value("favorite_tools", tools)
        return UserPreferences(
            user_id=_checks.owner(source.text("user_id", user_id)),
            coding_style=source.text("coding_style", style),
            communication_tone=source.text("communication_tone", tone),
            favorite_tools=_checks.texts("favorite_tools", favorites if favorites else [], limit=MAX_VALUE),
            project_context=source.text("project_context", context),
            updated_at=self._moment("updated_at", updated),
        )

    def _fact(
        self,
        id: Any,
        category: Any,
        key: Any,
        value: Any,
        origin: Any,
        confidence: Any,
        created_at: Any,
        updated_at: Any,
        embedding: Any,
    ) -> Knowledge:
        created, updated = self._moment("created_at", created_at), self._moment("updated_at", updated_at)
        sure = source.number("confidence", confidence)
        vector = source.json_value("embedding", embedding) or None
        return Knowledge(
            value=_checks.text("value", source.text("value", value), limit=MAX_VALUE),
            category=source.text("category", category) or "general",
            key=source.text("key", key) or None,
            source=source.text("source", origin),
            source_kind="import",
            confidence=1.0 if sure is None else sure,
            created_at=created,
            updated_at=updated or created,
            embedding=None if vector is None else _checks.vector("embedding", vector),
            embedding_model=NAME if vector is not None else None,
            metadata={ORIGIN: {"format": NAME, "id": source.text("id", id), "updated_at": _iso(updated)}},
        )

    def _lost(self) -> Iterator[Record]:
        for session, count in source.rows(self._connection, _LOST_MESSAGES):
            name = "" if session is None else source.listed(session)
            yield Record(f"messages of session {name or 'NULL'}", fault=f"{count}, but there is no such session")
        if "tasks" not in self._wrong:
            for (id,) in source.rows(self._connection, _LOST_TASKS):
                yield Record(f"task {source.listed(id)}", fault="its session, which has the owner, is missing")

    def _records(self, kind: str, statement: str, made: Callable[..., Any], *values: Any) -> Iterator[Record]:
        """A record of each row; the first column tells which it is."""
        for row in source.rows(self._connection, statement, *values):
            place = f"{kind} {source.listed(row[0])}"
            try:
                yield Record(place, made(*row))
            except InvalidInput as error:
                yield Record(place, fault=str(error))

    def _moment(self, field: str, value: Any) -> datetime | None:
        return source.moment(field, value, self._zone)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _batches(records: Iterator[Record]) -> Iterator[Conversation]:
    while batch := list(islice(records, _BATCH)):
        yield Conversation(place="", records=batch)
