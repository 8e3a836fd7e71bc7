"""What every service works with, and the rules that all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Delete, Select, Update, delete, select

from mirai_memory import _checks
from mirai_memory._time import Clock
from mirai_memory.config import MemorySettings
from mirai_memory.database import Db
from mirai_memory.database.chunks import chunks
from mirai_memory.entities import Knowledge, Message
from mirai_memory.errors import InvalidInput, NotFound
from mirai_memory.models import EmbeddingRow, SessionRow
from mirai_memory.search import Hit, ItemKind, SearchIndex

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_EMBEDDINGS = EmbeddingRow.table()
_SESSIONS = SessionRow.table()

Item = TypeVar("Item", Message, Knowledge)
Made = TypeVar("Made", bound="DataclassInstance")
Statement = TypeVar("Statement", Select[Any], Update, Delete)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One transaction and its circumstances.

    ``owner`` bounds what may be seen and changed; None is everybody. ``model`` is the embedder's, for which vectors
    are wanted, None where there is no embedder. What a ``writing`` one reads may be rolled back, and is not kept.
    ``grown`` are the sessions out of whose window messages may have gone.
    """

    db: Db
    clock: Clock
    index: SearchIndex
    settings: MemorySettings
    owner: str | None
    writing: bool
    model: str | None
    grown: set[str] = field(default_factory=set)


class Service:
    """Rules and SQL on one transaction, which others open and end."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._db = work.db
        self._index = work.index
        self._settings = work.settings
        self._owner = work.owner

    def _now(self) -> Any:
        return _checks.moment("clock", self._work.clock())

    def _own(self, statement: Statement, column: ColumnElement[Any]) -> Statement:
        """The statement, bounded to rows of the owner whose unit of work this is."""
        return statement if self._owner is None else statement.where(column == self._owner)

    def _owner_of(self, user_id: str | None) -> str:
        """Whose a new row will be: the named owner's, who must be the one that this unit of work is bound to."""
        if self._owner is None:
            return _checks.owner(user_id)
        if user_id is not None and user_id != self._owner:
            raise InvalidInput("user_id", "is not the owner that this memory is bound to")
        return self._owner

    def _hold_session(self, session_id: Any) -> str:
        """The id of a session that is there, held until the transaction ends (SQLite's writer holds everything)."""
        id = _checks.name("session_id", session_id)
        statement = self._own(select(_SESSIONS.c.id), _SESSIONS.c.user_id).where(_SESSIONS.c.id == id)
        if self._db.execute(statement.with_for_update()).first() is None:
            raise NotFound("session", id)
        return id

    def _forget_projections(self, kind: ItemKind, ids: Sequence[int]) -> None:
        """Index rows and vectors; a cascade would not reach them."""
        self._index.remove(self._db, kind, ids)
        for chunk in chunks(ids):
            condition = (_EMBEDDINGS.c.kind == kind) & _EMBEDDINGS.c.item_id.in_(chunk)
            self._db.execute(delete(_EMBEDDINGS).where(condition))


def entity_maker(kind: type[Made], names: Sequence[str]) -> Callable[[Sequence[Any]], Made]:
    """What makes an entity of a row whose first values are those of the named fields.

    Straight into the slots: a window of messages is made at every turn of every conversation, and half of its time
    went into the checks and copies that a frozen dataclass makes of what nobody else has.
    """
    setters = [kind.__dict__[name].__set__ for name in names]
    others = [
        (kind.__dict__[field.name].__set__, field.default)
        for field in dataclasses.fields(kind)
        if field.name not in names
    ]

    def make(row: Sequence[Any]) -> Made:
        entity = object.__new__(kind)
        for set_field, value in zip(setters, row):  # noqa: B905 - a row may go on
            set_field(entity, value)
        for set_field, value in others:
            set_field(entity, value)
        return entity

    return make


def with_score(item: Item, hit: Hit, explain: bool) -> Item:
    """A found item as a search returns it."""
    return replace(item, score=hit.score, explanation=hit.explain() if explain else None)
