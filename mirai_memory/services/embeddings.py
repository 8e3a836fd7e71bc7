"""Vectors of messages and facts: wanted in the transaction that stores the text, filled in later.

A wanted vector is a row with status "pending". Whoever has computed it replaces that row by a "ready" one, unless the
text has changed or gone meanwhile: then the row is another one, or none, and the vector is thrown away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from mirai_memory._render import HASHED_KEY
from mirai_memory.database.chunks import chunks
from mirai_memory.database.engine import lift_time_limit
from mirai_memory.database.hot import HotStatement
from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow
from mirai_memory.search import ItemKind
from mirai_memory.services.base import Service

# More of a text than this is not embedded: models read a few hundred words, and a vector of a book says nothing.
EMBEDDED_CHARACTERS = 8_000

# In front of the hash of a text whose vector the caller has given: what it was made of is not known, so it serves no
# other text, and it is not ours to replace.
GIVEN = "given:"

EMBEDDINGS = EmbeddingRow.table()
MESSAGES = MessageRow.table()
KNOWLEDGE = KnowledgeRow.table()

_KINDS: tuple[ItemKind, ...] = ("knowledge", "message")
_COLUMNS = ("kind", "item_id", "user_id", "model", "dim", "vector", "content_hash", "status")
_INSERT = HotStatement(insert(EMBEDDINGS).values({name: bindparam(name) for name in _COLUMNS}))
# Spelled out: the engine looks a condition up in a partial index only where it reads it, not where it is bound.
_IS_PENDING = EMBEDDINGS.c.status == literal_column("'pending'")
_WANTED = (
    select(*(EMBEDDINGS.c[name] for name in ("id", "kind", "item_id", "user_id", "content_hash")))
    # Hidden from the engine's planner, which would read all vectors of the model rather than the few pending ones.
    .where(_IS_PENDING, func.coalesce(EMBEDDINGS.c.model, "") == bindparam("model_name"))
    .order_by(EMBEDDINGS.c.id)
    .limit(bindparam("most"))
)
_PENDING = HotStatement(_WANTED)
_PENDING_OF_OWNER = HotStatement(_WANTED.where(EMBEDDINGS.c.user_id.in_([bindparam("owner"), literal_column("''")])))
_IS_CURRENT = and_(KNOWLEDGE.c.superseded_at.is_(None), KNOWLEDGE.c.valid_to.is_(None))


@dataclass(frozen=True, slots=True)
class Pending:
    """A vector that is wanted: the row that says so, and the text."""

    id: int
    kind: ItemKind
    item_id: int
    user_id: str
    content_hash: str
    text: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """An item whose vector is wanted."""

    item_id: int
    user_id: str
    text: str


def message_text(content: str, name: str | None) -> str:
    """Who said it belongs to it, where the speaker has a name: a point of recall in talks of two people."""
    return (f"{name}: {content}" if name else content)[:EMBEDDED_CHARACTERS]


def fact_text(key: str, value: str) -> str:
    """The key says what the value is of."""
    return (value if key.startswith(HASHED_KEY) else f"{key}: {value}")[:EMBEDDED_CHARACTERS]


def content_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class PendingVectors(Service):
    def exist(self) -> bool:
        """Whether vectors of the embedder's are still to be made: of the owner's items, or of everybody's facts."""
        values = {"model_name": self._work.model, "owner": self._work.owner or "", "most": 1}
        return bool(_PENDING_OF_OWNER.tuples(self._db, values))


class Embeddings(Service):
    def want(self, kind: ItemKind, items: Iterable[Wanted]) -> None:
        """Have vectors made of these new items, where there is an embedder."""
        model = self._work.model
        if model is None:
            return
        rows = [
            {
                "kind": kind,
                "item_id": item.item_id,
                "user_id": item.user_id,
                "model": model,
                "dim": 0,
                "vector": None,
                "content_hash": content_hash(item.text),
                "status": "pending",
            }
            for item in items
        ]
        if rows:
            _INSERT.many(self._db, rows)

    def put(self, kind: ItemKind, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store vectors that are made, as rows; there must be none of the same model yet."""
        for user_id in sorted({row["user_id"] for row in rows}):
            # Before the rows are written: the ids of one owner's vectors are then committed in their order.
            self._index.vectors_changed(self._db, kind, user_id)
        _INSERT.many(self._db, rows)
        self._index.vectors_stored(self._db, rows)

    def replace(self, row: Mapping[str, Any]) -> None:
        """Store a vector of an item that may have one of the model. The same one stays, and a given one before ours."""
        same = and_(*(EMBEDDINGS.c[name] == row[name] for name in ("kind", "item_id", "model")))
        stored = self._db.execute(select(EMBEDDINGS).where(same)).one_or_none()
        if stored is not None:
            is_given = stored.content_hash.startswith(GIVEN)
            if stored.vector == row["vector"] or (is_given and not row["content_hash"].startswith(GIVEN)):
                return
            self._index.vectors_gone(self._db, row["kind"], row["user_id"])
            self._db.execute(delete(EMBEDDINGS).where(same))
        self.put(row["kind"], [row])

    def pending(self, model: str, *, limit: int, owner: str | None = None) -> list[Pending]:
        """The next wanted vectors of the model in order of id: of the owner and of all, or (None) of everybody."""
        values = {"model_name": model, "owner": owner, "most": limit}
        rows = (_PENDING if owner is None else _PENDING_OF_OWNER).rows(self._db, values)
        if not rows:
            return []
        texts = self._texts([(row.kind, row.item_id) for row in rows])
        return [
            Pending(row.id, row.kind, row.item_id, row.user_id, row.content_hash, texts[row.kind, row.item_id])
            for row in rows
            if (row.kind, row.item_id) in texts
        ]

    def _texts(self, items: Sequence[tuple[ItemKind, int]]) -> dict[tuple[ItemKind, int], str]:
        texts: dict[tuple[ItemKind, int], str] = {}
        messages = select(MESSAGES.c.id, MESSAGES.c.content, MESSAGES.c.name)
        for chunk in chunks([id for kind, id in items if kind == "message"]):
            for row in self._db.execute(messages.where(MESSAGES.c.id.in_(chunk))):
                texts["message", row.id] = message_text(row.content, row.name)
        facts = select(KNOWLEDGE.c.id, KNOWLEDGE.c.key, KNOWLEDGE.c.value)
        for chunk in chunks([id for kind, id in items if kind == "knowledge"]):
            for row in self._db.execute(facts.where(KNOWLEDGE.c.id.in_(chunk))):
                texts["knowledge", row.id] = fact_text(row.key, row.value)
        return texts

    def known(self, model: str, hashes: Sequence[str], dim: int) -> dict[str, bytes]:
        """Vectors that were made of the same texts before, by the hash of the text."""
        found: dict[str, bytes] = {}
        same = and_(EMBEDDINGS.c.model == model, EMBEDDINGS.c.status == "ready", EMBEDDINGS.c.dim == dim)
        for chunk in chunks(hashes):
            statement = select(EMBEDDINGS.c.content_hash, EMBEDDINGS.c.vector)
            for row in self._db.execute(statement.where(same, EMBEDDINGS.c.content_hash.in_(chunk))):
                found[row.content_hash] = row.vector
        return found

    def store(self, model: str, dim: int, vectors: Sequence[tuple[Pending, bytes]]) -> int:
        """Replace pending rows by ready ones; how many were still wanted."""
        for kind in _KINDS:
            self._hold(kind, [item for item, _ in vectors if item.kind == kind])
        wanted = self._take([item.id for item, _ in vectors])
        for kind in _KINDS:
            rows = [
                _ready(item, model, dim, vector) for item, vector in vectors if item.id in wanted and item.kind == kind
            ]
            if rows:
                self.put(kind, rows)
        return len(wanted)

    def _hold(self, kind: ItemKind, wanted: Sequence[Pending]) -> None:
        """Nobody deletes these items until the transaction ends: whoever waited to would not see their new vectors."""
        if not wanted:
            return
        self._index.hold(self._db, kind, {item.user_id for item in wanted})
        items = MESSAGES if kind == "message" else KNOWLEDGE
        for chunk in chunks(sorted(item.item_id for item in wanted)):
            there = select(items.c.id).where(items.c.id.in_(chunk)).order_by(items.c.id)
            self._db.execute(there.with_for_update(read=True, key_share=True))

    def _take(self, ids: Sequence[int]) -> set[int]:
        """Delete these pending rows; those that were still there."""
        taken: set[int] = set()
        for chunk in chunks(ids):
            pending = delete(EMBEDDINGS).where(EMBEDDINGS.c.id.in_(chunk), _IS_PENDING)
            taken.update(self._db.execute(pending.returning(EMBEDDINGS.c.id)).scalars())
        return taken

    def give_up(self, items: Sequence[Pending]) -> None:
        """The embedder refuses these texts; ``want_again`` has them tried once more."""
        for chunk in chunks([item.id for item in items]):
            condition = and_(EMBEDDINGS.c.id.in_(chunk), _IS_PENDING)
            self._db.execute(update(EMBEDDINGS).where(condition).values(status="failed"))

    def want_again(self, model: str, dim: int) -> None:
        """Have vectors made that have failed; those of another dimension than the model has now go, and are missing."""
        ours = EMBEDDINGS.c.model == model
        self._db.execute(update(EMBEDDINGS).where(ours, EMBEDDINGS.c.status == "failed").values(status="pending"))
        self._drop(and_(ours, EMBEDDINGS.c.status == "ready", EMBEDDINGS.c.dim != dim))

    def want_missing(self, model: str, kind: ItemKind, *, after: int, limit: int) -> int | None:
        """Want the vectors of a batch of items that have none of the model; the last id looked at, None at the end."""
        lift_time_limit(self._db)  # it may pass over any number of items that have one
        items = MESSAGES if kind == "message" else KNOWLEDGE
        statement = select(items).where(items.c.id > after, _is_embedded(kind)).order_by(items.c.id).limit(limit)
        # Held, so that none is deleted whose vector is then wanted for ever.
        held = self._without_vector(statement, model, kind).with_for_update(read=True, key_share=True)
        rows = self._db.execute(held).all()
        self.want(
            kind,
            [Wanted(row.id, row.user_id, _text(kind, row)) for row in rows],
        )
        return int(rows[-1].id) if rows else None

    @staticmethod
    def _without_vector(statement: Select[Any], model: str, kind: ItemKind) -> Select[Any]:
        items = MESSAGES if kind == "message" else KNOWLEDGE
        there = exists().where(
            EMBEDDINGS.c.kind == kind, EMBEDDINGS.c.item_id == items.c.id, EMBEDDINGS.c.model == model
        )
        return statement.where(~there)

    def retire(self, model: str, *, limit: int) -> int:
        """Delete a batch of vectors that other models of ours have made; how many went. Given ones stay."""
        old = and_(EMBEDDINGS.c.model != model, ~EMBEDDINGS.c.content_hash.startswith(GIVEN))
        ids = list(self._db.execute(select(EMBEDDINGS.c.id).where(old).limit(limit)).scalars())
        for chunk in chunks(ids):
            self._drop(EMBEDDINGS.c.id.in_(chunk))
        return len(ids)

    def _drop(self, condition: ColumnElement[bool]) -> None:
        """Delete vectors whose items stay."""
        whose = select(EMBEDDINGS.c.kind, EMBEDDINGS.c.user_id).where(condition).distinct()
        for row in self._db.execute(whose.order_by(EMBEDDINGS.c.kind, EMBEDDINGS.c.user_id)).all():
            self._index.vectors_gone(self._db, row.kind, row.user_id)
        self._db.execute(delete(EMBEDDINGS).where(condition))

    def models(self, kind: ItemKind, owner: str | None, *, dim: int) -> list[str]:
        """Of which models there are vectors of this dimension, of the owner and of all."""
        condition = and_(EMBEDDINGS.c.kind == kind, EMBEDDINGS.c.user_id.in_((owner or "", "")))
        ready = and_(EMBEDDINGS.c.status == "ready", EMBEDDINGS.c.dim == dim)
        return list(self._db.execute(select(EMBEDDINGS.c.model).where(condition, ready).distinct()).scalars())

    def count(self, status: str) -> int:
        statement = select(func.count()).select_from(EMBEDDINGS).where(EMBEDDINGS.c.status == status)
        return int(self._db.execute(statement).scalar_one())


def _is_embedded(kind: ItemKind) -> ColumnElement[bool]:
    return MESSAGES.c.kind == "chat" if kind == "message" else _IS_CURRENT


def _text(kind: ItemKind, row: Row[Any]) -> str:
    return message_text(row.content, row.name) if kind == "message" else fact_text(row.key, row.value)


def _ready(item: Pending, model: str, dim: int, vector: bytes) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "item_id": item.item_id,
        "user_id": item.user_id,
        "model": model,
        "dim": dim,
        "vector": vector,
        "content_hash": item.content_hash,
        "status": "ready",
    }
