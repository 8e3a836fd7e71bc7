"""The word index beside what it was made of: which of its rows are not what they should be.

A batch is read and compared in the caller's transaction: to count what is wrong, or to put it right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, and_, exists, func, or_, select
from sqlalchemy import bindparam as bind

from mirai_memory.database import Db
from mirai_memory.models import KnowledgeRow, MessageRow
from mirai_memory.search.base import Entry, ItemKind
from mirai_memory.search.postings import ITEMS, PLACES, SCOPES, WORDS, place_row, tokens_of
from mirai_memory.search.terms import knowledge_terms, message_place, message_terms

BATCH = 500  # items that are compared at once
# Characters of one batch, for texts can be long; but always one item.
_MOST_CHARACTERS = 4_000_000

_MESSAGES, _KNOWLEDGE = MessageRow.table(), KnowledgeRow.table()
_PLACE_COLUMNS = ("session", "position", "speaker", "cues", "length", "time")
_ENDS = (_KNOWLEDGE.c.superseded_at, _KNOWLEDGE.c.superseded_by, _KNOWLEDGE.c.valid_to)
_IS_OPEN = and_(*(end.is_(None) for end in _ENDS))
_LATER = _KNOWLEDGE.alias("later")
_SUCCESSOR = _LATER.c.id == _KNOWLEDGE.c.superseded_by
# What has its words in the index.
INDEXED: dict[ItemKind, ColumnElement[bool]] = {"message": _MESSAGES.c.kind == "chat", "knowledge": _IS_OPEN}
# A value that is true until a later one is keeps its words, unless the index is made anew.
_TRUE_FOR_A_WHILE = _KNOWLEDGE.c.superseded_at.is_not(None) & or_(
    exists().where(_SUCCESSOR, _LATER.c.valid_from > _KNOWLEDGE.c.superseded_at),
    _KNOWLEDGE.c.valid_to > _KNOWLEDGE.c.superseded_at,
)
MAY_BE_INDEXED = {**INDEXED, "knowledge": or_(_IS_OPEN, _TRUE_FOR_A_WHILE)}
# Those that certainly have no words any more. What is wrong with how values replace each other is another fault.
_REPLACED = exists().where(_SUCCESSOR, _LATER.c.id > _KNOWLEDGE.c.id, _LATER.c.valid_from <= _KNOWLEDGE.c.superseded_at)
_CLOSED = _KNOWLEDGE.c.superseded_by.is_(None) & _KNOWLEDGE.c.valid_to.is_not(None)
_HAS_ENDED = or_(_REPLACED, _CLOSED & ~_TRUE_FOR_A_WHILE)


@dataclass(frozen=True, slots=True)
class Compared:
    """One item of the index: what its rows should be, and whether they are."""

    entry: Entry
    scope: int | None  # None: its owner has none
    words_right: bool
    place_right: bool


def compared(db: Db, kind: ItemKind, after: int) -> list[Compared]:
    """The next items behind this id, as many as one batch has; none at the end."""
    sizes = db.execute(_SIZES[kind], {"after": after, "most": BATCH}).all()
    if not sizes:
        return []
    rows = db.execute(_ROWS[kind], {"after": after, "last": _end(sizes)})
    return [_compared(kind, row) for row in rows]


def item_count(db: Db, kind: ItemKind) -> int:
    """How many items ``all_compared`` has."""
    items = _MESSAGES if kind == "message" else _KNOWLEDGE
    return int(db.execute(select(func.count()).select_from(items).where(INDEXED[kind])).scalar_one())


def all_compared(db: Db, kind: ItemKind) -> Iterator[Compared]:
    """Every item of the index, in order of id."""
    after = 0
    while batch := compared(db, kind, after):
        yield from batch
        after = batch[-1].entry.id


def _end(sizes: Sequence[Row[Any]]) -> int:
    """The last id of those that fit into one batch."""
    characters = 0
    last = int(sizes[0].id)
    for row in sizes:
        characters += row.size
        if characters > _MOST_CHARACTERS:
            break
        last = int(row.id)
    return last


def _compared(kind: ItemKind, row: Row[Any]) -> Compared:
    if kind == "knowledge":
        entry = Entry(row.id, row.user_id, knowledge_terms(row.key, row.value))
        return Compared(entry, row.scope_id, _words_right(row, entry), True)
    place = message_place(row.content, row.name, row.role, row.timestamp, row.session_id, row.message_position)
    entry = Entry(row.id, row.user_id, message_terms(row.content, row.name, row.timestamp), place)
    return Compared(entry, row.scope_id, _words_right(row, entry), _place_right(row, entry))


def _words_right(row: Row[Any], entry: Entry) -> bool:
    return row.scope_id is not None and row.terms == tokens_of(entry.terms, row.scope_id)


def _place_right(row: Row[Any], entry: Entry) -> bool:
    if row.scope_id is None:
        return False
    wanted = place_row(row.scope_id, entry)
    return all(getattr(row, f"place_{name}") == wanted[name] for name in _PLACE_COLUMNS)


def orphaned_words(kind: ItemKind) -> Select[Any]:
    """Rows of the index whose item is gone, or has no words to be found by."""
    words, items = WORDS[kind], ITEMS[kind]
    kept = exists().where(items.c.id == words.c.rowid, INDEXED[kind] if kind == "message" else ~_HAS_ENDED)
    return select(words.c.rowid).where(~kept)


def orphaned_places() -> Select[Any]:
    """Places of no message, or below another scope than its owner's."""
    kept = exists().where(
        _MESSAGES.c.id == PLACES.c.id,
        INDEXED["message"],
        SCOPES.c.kind == "message",
        SCOPES.c.user_id == _MESSAGES.c.user_id,
        SCOPES.c.id == PLACES.c.scope,
    )
    return select(PLACES.c.scope, PLACES.c.id).where(~kept)


def _sizes(kind: ItemKind, items: Table, size: ColumnElement[int]) -> Select[Any]:
    has_words = exists().where(WORDS[kind].c.rowid == items.c.id)
    is_compared = INDEXED[kind] if kind == "message" else or_(INDEXED[kind], has_words)
    statement = select(items.c.id, size.label("size")).where(items.c.id > bind("after"), is_compared)
    return statement.order_by(items.c.id).limit(bind("most"))


def _rows(kind: ItemKind, items: Table, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    words = WORDS[kind]
    scopes = (SCOPES.c.kind == kind) & (SCOPES.c.user_id == items.c.user_id)
    joined = items.outerjoin(SCOPES, scopes).outerjoin(words, words.c.rowid == items.c.id)
    more: list[ColumnElement[Any]] = [SCOPES.c.id.label("scope_id"), words.c.terms]
    if kind == "message":
        joined = joined.outerjoin(PLACES, (PLACES.c.scope == SCOPES.c.id) & (PLACES.c.id == items.c.id))
        more += [PLACES.c[name].label(f"place_{name}") for name in _PLACE_COLUMNS]
    statement = select(items.c.id, items.c.user_id, *columns, *more).select_from(joined)
    between = items.c.id.between(bind("after") + 1, bind("last"))
    is_compared = INDEXED[kind] if kind == "message" else or_(INDEXED[kind], words.c.rowid.is_not(None))
    return statement.where(between, is_compared).order_by(items.c.id)


_SIZES: dict[ItemKind, Select[Any]] = {
    "message": _sizes("message", _MESSAGES, func.length(_MESSAGES.c.content)),
    "knowledge": _sizes("knowledge", _KNOWLEDGE, func.length(_KNOWLEDGE.c.value)),
}
_ROWS: dict[ItemKind, Select[Any]] = {
    "message": _rows(
        "message",
        _MESSAGES,
        [
            *(_MESSAGES.c[name] for name in ("content", "name", "role", "timestamp", "session_id")),
            _MESSAGES.c.position.label("message_position"),
        ],
    ),
    "knowledge": _rows("knowledge", _KNOWLEDGE, [_KNOWLEDGE.c.key, _KNOWLEDGE.c.value]),
}
