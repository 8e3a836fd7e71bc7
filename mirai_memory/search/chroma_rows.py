"""What is read of the rows for Chroma: they are the truth, and Chroma holds no more of them than ids and vectors.

The ids of one owner's vectors are committed in ascending order, and a new vector is a new row: what Chroma lacks of a
scope are the rows behind the last one that it has.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, func, insert, select
from sqlalchemy import bindparam as bind

from mirai_memory.database import Db
from mirai_memory.database.chunks import chunks
from mirai_memory.database.hot import HotStatement
from mirai_memory.models import EmbeddingRow, StateRow
from mirai_memory.search.base import ItemKind
from mirai_memory.search.layout import Floats, Ints
from mirai_memory.search.postings import ITEMS, SCOPES, ScopeCounts
from mirai_memory.search.vectors import unpacked

_ROWS = EmbeddingRow.table()
_OF_SCOPE = (
    (_ROWS.c.user_id == bind("owner"))
    & (_ROWS.c.model == bind("name"))
    & (_ROWS.c.kind == bind("of"))
    & (_ROWS.c.status == "ready")
    & (_ROWS.c.dim == bind("size"))
)
_VECTORS = select(_ROWS.c.id, _ROWS.c.item_id, _ROWS.c.vector).where(_OF_SCOPE)
_AFTER = HotStatement(_VECTORS.where(_ROWS.c.id > bind("after")).order_by(_ROWS.c.id).limit(bind("most")))
_IDS = HotStatement(select(_ROWS.c.id).where(_OF_SCOPE).order_by(_ROWS.c.id))
_STATE = StateRow.table()
_NUMBER = "chroma"
_COUNTS = [SCOPES.c[name] for name in ("id", "user_id", "item_count", "term_count", "removals", "vectors")]


@dataclass(frozen=True, slots=True)
class Collection:
    """The vectors of one owner's messages or facts, of one model and dimension."""

    kind: ItemKind
    scope: int
    user_id: str
    model: str
    dim: int

    def name(self, prefix: str) -> str:
        """Tells neither owner nor model."""
        model = hashlib.sha256(self.model.encode()).hexdigest()[:12]
        return f"{prefix}{self.scope}-{model}-{self.dim}"

    @property
    def values(self) -> dict[str, Any]:
        return {"owner": self.user_id, "name": self.model, "of": self.kind, "size": self.dim}


@dataclass(frozen=True, eq=False)
class Read:
    """Rows of vectors: their ids, whose they are, and the vectors with length 1."""

    rows: Ints
    items: Ints
    values: Floats

    @classmethod
    def of(cls, found: Sequence[Any], size: int) -> Read:
        if not found:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, size), np.float32))
        ids, items, packed = zip(*found, strict=True)
        return cls(np.array(ids, dtype=np.int64), np.array(items, dtype=np.int64), unpacked(packed, size))

    def with_more(self, other: Read) -> Read:
        """Both, each row once."""
        new = ~np.isin(other.rows, self.rows)
        return Read(
            np.concatenate([self.rows, other.rows[new]]),
            np.concatenate([self.items, other.items[new]]),
            np.concatenate([self.values, other.values[new]]),
        )


def prefix(db: Db, apart: str) -> str | None:
    """What the names of this memory's collections begin with; None where it has none yet."""
    number = db.execute(select(_STATE.c.value).where(_STATE.c.name == _NUMBER)).scalar()
    return None if number is None else f"mirai-{hashlib.sha256(f'{number} {apart}'.encode()).hexdigest()[:16]}-"


def give_number(db: Db) -> None:
    """Give the memory a number of its own, unless it has one."""
    if db.execute(select(_STATE.c.value).where(_STATE.c.name == _NUMBER)).first() is None:
        db.execute(insert(_STATE).values(name=_NUMBER, value=uuid.uuid4().hex))


def scope_of(prefix: str, name: str) -> int:
    """The number of the scope in the name of a collection."""
    return int(name.removeprefix(prefix).partition("-")[0])


def after(db: Db, collection: Collection, last: int, most: int) -> Read:
    """The rows behind this id, the first of them."""
    return Read.of(_AFTER.tuples(db, {**collection.values, "after": last, "most": most}), collection.dim)


def with_ids(db: Db, collection: Collection, ids: Sequence[int], narrow: Sequence[ColumnElement[bool]] = ()) -> Read:
    """Those of the rows that are the collection's, and whose items meet the conditions."""
    statement = _narrowed(collection, narrow)
    found: list[Any] = []
    for chunk in chunks(ids):
        found += db.execute(statement.where(_ROWS.c.id.in_(chunk)), collection.values).all()
    return Read.of(found, collection.dim)


def meeting(db: Db, collection: Collection, narrow: Sequence[ColumnElement[bool]], most: int) -> Read:
    """Rows whose items meet the conditions, at most so many."""
    return Read.of(db.execute(_narrowed(collection, narrow).limit(most), collection.values).all(), collection.dim)


def _narrowed(collection: Collection, narrow: Sequence[ColumnElement[bool]]) -> Any:
    items = ITEMS[collection.kind]
    return _VECTORS.join(items, items.c.id == _ROWS.c.item_id).where(*narrow) if narrow else _VECTORS


def ids(db: Db, collection: Collection) -> Ints:
    return np.array([id for (id,) in _IDS.tuples(db, collection.values)], dtype=np.int64)


def owner_of(db: Db, row: int) -> tuple[str, str, str] | None:
    """Whose vector of which kind and model the row is; None where it is gone."""
    found = db.execute(select(_ROWS.c.kind, _ROWS.c.user_id, _ROWS.c.model).where(_ROWS.c.id == row)).first()
    return None if found is None else (found.kind, found.user_id, found.model)


def scopes(db: Db, least: int) -> list[tuple[ItemKind, ScopeCounts]]:
    """Every scope of so many items that may have vectors."""
    large = (SCOPES.c.item_count >= least) & (SCOPES.c.vectors > 0)
    return [(kind, ScopeCounts(*counts)) for kind, *counts in db.execute(select(SCOPES.c.kind, *_COUNTS).where(large))]


def scope(db: Db, id: int) -> ScopeCounts | None:
    found = db.execute(select(*_COUNTS).where(SCOPES.c.id == id)).first()
    return None if found is None else ScopeCounts(*found)


def collections(db: Db, kind: ItemKind, counts: ScopeCounts) -> list[tuple[Collection, int]]:
    """The collections that the scope's vectors make up, and how many vectors each has."""
    ours = (_ROWS.c.user_id == counts.user_id) & (_ROWS.c.kind == kind) & (_ROWS.c.status == "ready")
    statement = select(_ROWS.c.model, _ROWS.c.dim, func.count()).where(ours).group_by(_ROWS.c.model, _ROWS.c.dim)
    found = db.execute(statement).all()
    return [(Collection(kind, counts.id, counts.user_id, model, dim), number) for model, dim, number in found]


def wanted(db: Db, least: int) -> int:
    """How many vectors the scopes of so many items have."""
    total = 0
    for kind, counts in scopes(db, least):
        total += sum(number for _, number in collections(db, kind, counts))
    return total
