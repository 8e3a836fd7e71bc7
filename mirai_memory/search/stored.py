"""What is stored, in batches of index entries: an index is made anew from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, select

from mirai_memory.database import Db
from mirai_memory.models import KnowledgeRow, MessageRow
from mirai_memory.search.base import Entry, ItemKind
from mirai_memory.search.terms import knowledge_terms, message_place, message_terms

_BATCH = 2_000
_MESSAGES, _KNOWLEDGE = MessageRow.table(), KnowledgeRow.table()
_IS_CHAT = _MESSAGES.c.kind == "chat"
_IS_OPEN = _KNOWLEDGE.c.superseded_at.is_(None) & _KNOWLEDGE.c.valid_to.is_(None)


def messages(db: Db) -> Iterator[list[Entry]]:
    for rows in _batches(db, _MESSAGES, _IS_CHAT):
        yield [_message(row) for row in rows]


def knowledge(db: Db) -> Iterator[list[Entry]]:
    for rows in _batches(db, _KNOWLEDGE, _IS_OPEN):
        yield [_fact(row) for row in rows]


def entries(db: Db, kind: ItemKind, ids: Sequence[int]) -> list[Entry]:
    """Of these items, those that are in the index."""
    if kind == "message":
        rows = db.execute(select(_MESSAGES).where(_MESSAGES.c.id.in_(ids), _IS_CHAT).order_by(_MESSAGES.c.id))
        return [_message(row) for row in rows]
    rows = db.execute(select(_KNOWLEDGE).where(_KNOWLEDGE.c.id.in_(ids), _IS_OPEN).order_by(_KNOWLEDGE.c.id))
    return [_fact(row) for row in rows]


def _fact(row: Row[Any]) -> Entry:
    return Entry(row.id, row.user_id, knowledge_terms(row.key, row.value))


def _message(row: Row[Any]) -> Entry:
    place = message_place(row.content, row.name, row.role, row.timestamp, row.session_id, row.position)
    return Entry(row.id, row.user_id, message_terms(row.content, row.name, row.timestamp), place)


def _batches(db: Db, items: Table, condition: ColumnElement[bool]) -> Iterator[Sequence[Row[Any]]]:
    last = 0
    while rows := db.execute(
        select(items).where(items.c.id > last, condition).order_by(items.c.id).limit(_BATCH)
    ).all():
        yield rows
        last = rows[-1].id
