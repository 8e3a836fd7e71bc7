"""Pieces of work and their status."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from mirai_memory import _checks
from mirai_memory.config import MemorySettings
from mirai_memory.entities import TASK_STATUSES, Task, TaskStatus
from mirai_memory.errors import Conflict, InvalidInput, NotFound
from mirai_memory.models import SessionRow, TaskRow
from mirai_memory.services.base import Service

TASKS = TaskRow.table()
SESSIONS = SessionRow.table()
FINISHED = ("completed", "failed")
_CONTENT = ("session_id", "description")


def checked(task: Task, settings: MemorySettings) -> Task:
    """The task, if every value keeps its rule. Raises InvalidInput."""
    if not isinstance(task, Task):
        raise InvalidInput("task", f"must be a Task, not {type(task).__name__}")
    limit = settings.max_content_chars
    _checks.optional_name("session_id", task.session_id)
    _checks.optional_owner(task.user_id)
    if not _checks.text("description", task.description, limit=limit):
        raise InvalidInput("description", "must not be empty")
    _checks.one_of("status", task.status, TASK_STATUSES)
    _checks.optional_text("result", task.result, limit=limit)
    _checks.optional_moment("created_at", task.created_at)
    _checks.optional_moment("completed_at", task.completed_at)
    _checks.json_object("metadata", task.metadata, limit=limit)
    _checks.optional_name("client_id", task.client_id)
    if task.completed_at is not None and task.status not in FINISHED:
        raise InvalidInput("completed_at", f"is for a task that is {' or '.join(FINISHED)}")
    return task


class Tasks(Service):
    def add(self, task: Task) -> int:
        task = checked(task, self._settings)
        owner = self._task_owner(task)
        if task.client_id is not None:
            stored = self._by_client_id(owner, task.client_id)
            if stored is not None:
                if any(getattr(task, name) != getattr(stored, name) for name in _CONTENT):
                    raise Conflict("task", task.client_id, "this client_id is stored with other content")
                return int(stored.id)
        now = self._now()
        finished = task.status in FINISHED
        values = {
            "session_id": task.session_id,
            "user_id": owner,
            "description": task.description,
            "status": task.status,
            "result": task.result,
            "created_at": task.created_at or now,
            "completed_at": (task.completed_at or now) if finished else None,
            "metadata": task.metadata,
            "client_id": task.client_id,
        }
        return int(self._db.execute(insert(TASKS).returning(TASKS.c.id), values).scalar_one())

    def _task_owner(self, task: Task) -> str:
        if task.session_id is None:
            return self._owner_of(task.user_id)
        statement = self._own(select(SESSIONS.c.user_id), SESSIONS.c.user_id).where(SESSIONS.c.id == task.session_id)
        owner = self._db.execute(statement.with_for_update(read=True)).scalar()
        if owner is None:
            raise NotFound("session", task.session_id)
        if task.user_id not in (None, owner):
            raise InvalidInput("user_id", "is not the owner of the session; leave it out")
        return str(owner)

    def _by_client_id(self, owner: str, client_id: str) -> Row[Any] | None:
        return self._db.execute(
            select(TASKS).where(TASKS.c.user_id == owner, TASKS.c.client_id == client_id)
        ).one_or_none()

    def get(self, task_id: int) -> Task | None:
        id = _checks.row_id("task_id", task_id)
        row = self._db.execute(self._own(select(TASKS), TASKS.c.user_id).where(TASKS.c.id == id)).first()
        return Task(**row._mapping) if row else None

    def set_status(self, task_id: int, status: TaskStatus, result: str | None = None) -> Task:
        """``completed_at`` follows the status; a finished task may be reopened. ``result`` None keeps what is there."""
        id = _checks.row_id("task_id", task_id)
        wanted = _checks.one_of("status", status, TASK_STATUSES)
        values: dict[str, Any] = {"status": wanted, "completed_at": self._now() if wanted in FINISHED else None}
        if result is not None:
            values["result"] = _checks.text("result", result, limit=self._settings.max_content_chars)
        statement = self._own(update(TASKS), TASKS.c.user_id).where(TASKS.c.id == id).values(values)
        row = self._db.execute(statement.returning(*TASKS.c)).first()
        if row is None:
            raise NotFound("task", task_id)
        return Task(**row._mapping)

    def page(
        self, session_id: str | None, status: TaskStatus | None, *, limit: int, after: int | None = None
    ) -> list[Task]:
        """One page in order of id."""
        statement = self._own(select(TASKS), TASKS.c.user_id).order_by(TASKS.c.id).limit(limit)
        if session_id is not None:
            statement = statement.where(TASKS.c.session_id == _checks.name("session_id", session_id))
        if status is not None:
            statement = statement.where(TASKS.c.status == _checks.one_of("status", status, TASK_STATUSES))
        if after is not None:
            statement = statement.where(TASKS.c.id > _checks.after(after))
        return [Task(**row._mapping) for row in self._db.execute(statement)]

    def delete(self, task_id: int) -> None:
        id = _checks.row_id("task_id", task_id)
        if not self._db.execute(self._own(delete(TASKS), TASKS.c.user_id).where(TASKS.c.id == id)).rowcount:
            raise NotFound("task", task_id)
