"""A drill: a backup is one when it has been restored, and what is in it has been found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from mirai_memory._time import Clock
from mirai_memory.backups.check import sqlite_database
from mirai_memory.backups.report import Drill, Progress
from mirai_memory.backups.restore import prepared
from mirai_memory.config import MemorySettings
from mirai_memory.models import KnowledgeRow, MessageRow
from mirai_memory.search import open_index
from mirai_memory.search.analyzer import query_terms
from mirai_memory.unit_of_work import Store, UnitOfWork

_ASKED = 5  # texts of each kind that are looked for
_LOOKED_AT = 200  # newest ones of which they are chosen
_LONGEST = 5.0  # seconds of searches of one kind, after which no other is begun
_QUESTION = 300  # characters of a text that are asked for
_FOUND_AMONG = 10
_MESSAGES, _KNOWLEDGE = MessageRow.table(), KnowledgeRow.table()

Text = tuple[str, str]  # an owner, and what is theirs


def drill(
    backup: Path, beside: Path, clock: Clock, *, others: Sequence[Path] = (), progress: Progress | None = None
) -> Drill:
    """Restore the backup into a passing folder beside ``beside``, and look for some of its newest texts.

    All that a restore does is done but the last step. Raises what ``restore`` raises for a backup that is of no use.
    """
    started = time.perf_counter()
    with prepared(backup, beside, (beside, *others), clock, progress) as found:
        asked, came_back = _recalled(found.path, clock)
    return Drill(
        backup=backup,
        sealed=found.seal is not None,
        made_at=found.made_at,
        upgraded_from=found.upgraded_from,
        revision=found.contents.revision,
        rows=found.contents.rows,
        erased=found.erased,
        asked=asked,
        found=came_back,
        ok=asked == came_back,
        seconds=time.perf_counter() - started,
    )


def _recalled(path: Path, clock: Clock) -> tuple[int, int]:
    """How many texts were asked for, and how many came back."""
    database, settings = sqlite_database(path), MemorySettings()
    store = Store(database, open_index(database, cache_mb=settings.rag.cache_mb), settings, clock)
    try:
        store.write(lambda uow: uow.maintenance.rebuild_index())  # nothing to do, unless its analyser was another
        messages, facts = store.read(_messages), store.read(lambda uow: _facts(uow, clock()))
        found = _asked(store, _finds_message, messages) + _asked(store, _finds_fact, facts)
        return len(found), sum(found)
    finally:
        store.close()
        database.dispose()


def _asked(store: Store, finds: Callable[[Store, str, str], bool], texts: list[Text]) -> list[bool]:
    """Whether each text was found; at least of the first, and of more while there is time."""
    found: list[bool] = []
    deadline = time.monotonic() + _LONGEST
    for owner, text in texts:
        if found and time.monotonic() > deadline:
            break
        found.append(finds(store, owner, text))
    return found


def _messages(uow: UnitOfWork) -> list[Text]:
    newest = select(_MESSAGES.c.user_id, _MESSAGES.c.content).where(_MESSAGES.c.kind == "chat")
    return _with_words(uow.db.execute(newest.order_by(_MESSAGES.c.id.desc()).limit(_LOOKED_AT)))


def _facts(uow: UnitOfWork, now: datetime) -> list[Text]:
    table = _KNOWLEDGE
    current = (
        table.c.superseded_at.is_(None)
        & table.c.valid_to.is_(None)
        & (table.c.valid_from <= now)
        & (table.c.expires_at.is_(None) | (table.c.expires_at > now))
    )
    newest = select(table.c.user_id, table.c.value).where(current).order_by(table.c.id.desc()).limit(_LOOKED_AT)
    return _with_words(uow.db.execute(newest))


def _with_words(rows: Iterable[Any]) -> list[Text]:
    """The first that can be found by words at all: a text of stop words or signs has none."""
    return [(owner, text) for owner, text in rows if query_terms(text[:_QUESTION])][:_ASKED]


def _finds_message(store: Store, owner: str, text: str) -> bool:
    found = store.read(lambda uow: uow.messages.search(text[:_QUESTION], limit=_FOUND_AMONG), owner=owner)
    return any(message.content == text for message in found)


def _finds_fact(store: Store, owner: str, text: str) -> bool:
    found = store.read(lambda uow: uow.knowledge.search(text[:_QUESTION], limit=_FOUND_AMONG), owner=owner or None)
    return any(fact.value == text for fact in found)
