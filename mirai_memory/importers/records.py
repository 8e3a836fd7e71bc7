"""Storing what is no message: tasks, facts and preferences. A second time adds nothing, and what is newer stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from mirai_memory.entities import Knowledge, Task, UserPreferences
from mirai_memory.errors import Conflict, InvalidInput
from mirai_memory.importers.base import ImportFault, ImportReport, Record
from mirai_memory.services.knowledge import default_key
from mirai_memory.unit_of_work import UnitOfWork

# Where a fact came from: what an import finds again, and no other writer's fact has.
ORIGIN = "imported_from"
_PAGE = 1_000


def store_all(uow: UnitOfWork, records: Iterable[Record], session_id: str | None = None) -> ImportReport:
    """Store each, or say why not. They are refused before anything of them is written, so nothing needs undoing."""
    report, known = ImportReport(), None if session_id is None else _task_names(uow, session_id)
    for record in records:
        reason = record.fault
        try:
            if isinstance(record.value, Task):
                report += _store_task(uow, record.value, known or set())
            elif isinstance(record.value, Knowledge):
                report += _store_fact(uow, record.value)
            elif isinstance(record.value, UserPreferences):
                report += _store_preferences(uow, record.value)
        except (InvalidInput, Conflict) as error:
            reason = str(error)
        if reason:
            report += ImportReport(fault_count=1, faults=(ImportFault(record.place, reason),))
    return report


def _task_names(uow: UnitOfWork, session_id: str) -> set[str | None]:
    names: set[str | None] = set()
    last: int | None = None
    while page := uow.tasks.page(session_id, None, limit=_PAGE, after=last):
        names.update(task.client_id for task in page)
        last = page[-1].id
    return names


def _store_task(uow: UnitOfWork, task: Task, known: set[str | None]) -> ImportReport:
    uow.tasks.add(task)
    there = task.client_id in known
    return ImportReport(tasks_added=not there, tasks_already_there=there)


def _store_fact(uow: UnitOfWork, fact: Knowledge) -> ImportReport:
    """``updated_at`` is the source's. A newer value of somebody else stays current; the old one goes beside it."""
    earlier = uow.knowledge.history(fact.key or default_key(fact.value), category=fact.category)
    current = next((item for item in earlier if item.superseded_at is None and item.valid_to is None), None)
    stored = [item for item in earlier if item is current or item.metadata.get(ORIGIN) == fact.metadata.get(ORIGIN)]
    if any(item.value == fact.value for item in stored):
        return ImportReport(facts_already_there=1)
    if current is not None and ORIGIN not in current.metadata and not _older(current.updated_at, fact.updated_at):
        fact = replace(fact, valid_to=current.valid_from or current.created_at)
    uow.knowledge.add(fact)
    return ImportReport(facts_added=1)


def _store_preferences(uow: UnitOfWork, wanted: UserPreferences) -> ImportReport:
    stored = uow.preferences.get(wanted.user_id)
    if stored is not None and not _older(stored.updated_at, wanted.updated_at):
        return ImportReport(preferences_already_there=1)
    changes = {
        "coding_style": wanted.coding_style,
        "communication_tone": wanted.communication_tone,
        "favorite_tools": wanted.favorite_tools,
        "project_context": wanted.project_context,
    }
    uow.preferences.change(wanted.user_id, changes)
    return ImportReport(preferences_saved=1)


def _older(stored: datetime | None, wanted: datetime | None) -> bool:
    """Whether what is stored is older; where the source has no time, what is stored wins."""
    return wanted is not None and (stored is None or stored < wanted)
