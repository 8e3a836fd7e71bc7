"""Who was forgotten stays forgotten: what a backup still has of them goes before it becomes a database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, select, union

from mirai_memory import erasures
from mirai_memory.database import Db
from mirai_memory.models import EmbeddingRow, KnowledgeRow, PreferencesRow, SessionRow, TaskRow
from mirai_memory.search.postings import SCOPES
from mirai_memory.unit_of_work import Store, UnitOfWork

_BATCH = 50
_SESSIONS, _KNOWLEDGE, _TASKS = SessionRow.table(), KnowledgeRow.table(), TaskRow.table()
_PREFERENCES, _EMBEDDINGS = PreferencesRow.table(), EmbeddingRow.table()
_EVERYBODY = union(*(select(table.c.user_id) for table in (_SESSIONS, _KNOWLEDGE, _TASKS, _PREFERENCES, _EMBEDDINGS)))
_ASKED = 1_000  # owners of one look into the file of erasures


def replay(store: Store, databases: Iterable[Path]) -> int:
    """Delete what owners had before they were forgotten, in any of these databases; how many they were."""
    owners = store.read(lambda uow: [str(owner) for owner in uow.db.execute(_EVERYBODY).scalars()])
    forgotten: dict[str, datetime] = {}
    for database in databases:
        for owner, at in erasures.erased_owners(database, owners).items():
            forgotten[owner] = max(at, forgotten.get(owner, at))
    return sum(_forget(store, owner, at) for owner, at in forgotten.items())


def _forget(store: Store, owner: str, at: datetime) -> bool:
    """Whether there was anything to delete. Sessions go as a whole, with their messages, by when they were made."""
    old = {
        table: select(column).where(table.c.user_id == owner, created <= at).limit(_BATCH)
        for table, column, created in (
            (_SESSIONS, _SESSIONS.c.id, _SESSIONS.c.created_at),
            (_TASKS, _TASKS.c.id, _TASKS.c.created_at),
            (_KNOWLEDGE, _KNOWLEDGE.c.id, _KNOWLEDGE.c.created_at),
            (_PREFERENCES, _PREFERENCES.c.user_id, _PREFERENCES.c.updated_at),
        )
    }
    deletes: Sequence[tuple[Any, Callable[[UnitOfWork, Any], object]]] = (
        (_SESSIONS, lambda uow, id: uow.sessions.delete(id)),
        (_TASKS, lambda uow, id: uow.tasks.delete(id)),
        (_KNOWLEDGE, lambda uow, id: uow.knowledge.delete(id)),
        (_PREFERENCES, lambda uow, id: uow.preferences.delete(id)),
    )
    count = 0
    for table, remove in deletes:
        while gone := store.write(lambda uow: _delete(uow, old[table], remove)):  # noqa: B023 - called at once
            count += gone
    store.write(lambda uow: _delete_name(uow.db, owner))
    return count > 0


def _delete(uow: UnitOfWork, old: Select[Any], remove: Callable[[UnitOfWork, Any], object]) -> int:
    ids = list(uow.db.execute(old).scalars())
    for id in ids:
        remove(uow, id)
    return len(ids)


def _delete_name(db: Db, owner: str) -> None:
    """The scope of one who has nothing left says who that was."""
    db.execute(delete(SCOPES).where(SCOPES.c.user_id == owner, SCOPES.c.item_count == 0))
