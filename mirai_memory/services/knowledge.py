"""Facts: one current value for each (owner, category, key), every earlier one kept."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, case, delete, func, or_, select, update

from mirai_memory import _checks
from mirai_memory._render import HASHED_KEY
from mirai_memory.config import MemorySettings
from mirai_memory.database.chunks import chunks
from mirai_memory.database.hot import BulkInsert
from mirai_memory.entities import ON_CONFLICT, SOURCE_KINDS, Knowledge, OnConflict, SourceKind
from mirai_memory.errors import Conflict, InvalidInput, NotFound
from mirai_memory.models import MessageRow
from mirai_memory.search import Entry, Hit, Query, Scope
from mirai_memory.search.terms import knowledge_terms
from mirai_memory.services import vectors
from mirai_memory.services.base import with_score
from mirai_memory.services.duplicates import Duplicates
from mirai_memory.services.embeddings import GIVEN, Embeddings, Wanted, content_hash, fact_text
from mirai_memory.services.fact_changes import FactChanges
from mirai_memory.services.fact_times import KEY, KNOWLEDGE, SHARED, believed, is_open, named, not_expired, true_at

MESSAGES = MessageRow.table()
_DELETED = KNOWLEDGE.alias("deleted")
_INSERT = BulkInsert(KNOWLEDGE)
_INSERTED = 1_000  # facts of one statement


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked fact as its row's values, the terms it is found by, and its vector's row, if it has one."""

    values: dict[str, Any]
    terms: list[str]
    vector: dict[str, Any] | None

    @property
    def text(self) -> str:
        """What is embedded."""
        return fact_text(self.values["key"], self.values["value"])

    def with_vector(self, model: str, numbers: Sequence[float]) -> Prepared:
        """The fact with a vector that our embedder has made of its text."""
        return replace(self, vector=_vector_row(model, numbers, content_hash(self.text)))


def prepare(knowledge: Knowledge, settings: MemorySettings) -> Prepared:
    """Check a fact. Raises InvalidInput."""
    if not isinstance(knowledge, Knowledge):
        raise InvalidInput("knowledge", f"must be Knowledge, not {type(knowledge).__name__}")
    values = checked(knowledge, settings)
    return Prepared(values, knowledge_terms(values["key"], values["value"]), _vector(knowledge, values["value"]))


def checked(knowledge: Knowledge, settings: MemorySettings) -> dict[str, Any]:
    """The values of the fact's row that its caller may give. Raises InvalidInput."""
    limit = settings.max_content_chars
    value = _checks.text("value", knowledge.value, limit=limit)
    key = default_key(value) if knowledge.key is None else _checks.name("key", knowledge.key)
    values = {
        "user_id": _checks.optional_owner(knowledge.user_id),
        "category": _checks.name("category", knowledge.category, limit=_checks.MAX_CATEGORY),
        "key": key,
        "value": value,
        "source": _checks.optional_text("source", knowledge.source, limit=_checks.MAX_LABEL),
        "source_kind": _checks.one_of("source_kind", knowledge.source_kind, SOURCE_KINDS),
        "confidence": _checks.number("confidence", knowledge.confidence, least=0.0, most=1.0),
        "created_at": _checks.optional_moment("created_at", knowledge.created_at),
        "valid_from": _checks.optional_moment("valid_from", knowledge.valid_from),
        "valid_to": _checks.optional_moment("valid_to", knowledge.valid_to),
        "expires_at": _checks.optional_moment("expires_at", knowledge.expires_at),
        "message_id": None if knowledge.message_id is None else _checks.row_id("message_id", knowledge.message_id),
        "metadata": _checks.json_object("metadata", knowledge.metadata, limit=limit),
    }
    if knowledge.valid_from and knowledge.valid_to and knowledge.valid_to < knowledge.valid_from:
        raise InvalidInput("valid_to", "is before valid_from")
    return values


def _vector(knowledge: Knowledge, value: str) -> dict[str, Any] | None:
    if knowledge.embedding is None:
        return None
    numbers = _checks.vector("embedding", knowledge.embedding)
    model = _checks.name("embedding_model", knowledge.embedding_model)
    return _vector_row(model, numbers, GIVEN + content_hash(value))


def _vector_row(model: str, numbers: Sequence[float], hash: str) -> dict[str, Any]:
    return {
        "kind": "knowledge",
        "model": model,
        "dim": len(numbers),
        "vector": vectors.pack(numbers),
        "content_hash": hash,
        "status": "ready",
    }


def _policy(on_conflict: Any) -> OnConflict | None:
    return None if on_conflict is None else _checks.one_of("on_conflict", on_conflict, ON_CONFLICT)


def default_key(value: str) -> str:
    """The key of a fact that was given none: the same text is the same fact."""
    return HASHED_KEY + hashlib.sha256(value.encode()).hexdigest()[:32]


class KnowledgeBase(Duplicates, FactChanges):
    def add(self, knowledge: Knowledge, *, on_conflict: OnConflict | None = None) -> int:
        return self.add_prepared(prepare(knowledge, self._settings), on_conflict)

    def add_many(self, items: Sequence[Knowledge], *, on_conflict: OnConflict | None = None) -> list[int]:
        return self.add_all_prepared([prepare(item, self._settings) for item in items], on_conflict)

    def add_all_prepared(self, prepared: Sequence[Prepared], on_conflict: OnConflict | None = None) -> list[int]:
        """As ``add_prepared`` for each in order; those that replace nothing go in many at a time."""
        self._check_enabled()
        _policy(on_conflict)  # also where nothing is in its way
        now = self._now()
        completed = [self._completed(item, now) for item in prepared]
        self._hold_facts({item.values["user_id"] for item in completed})
        self._check_messages(completed)
        ids: list[int] = []
        for is_new, items in groupby(self._with_news(completed), key=itemgetter(0)):
            facts = [item for _, item in items]
            if is_new:
                ids += (id for chunk in chunks(facts, _INSERTED) for id in self._insert_all(chunk))
            else:
                ids += (self._add(item, on_conflict) for item in facts)
        return ids

    def _with_news(self, prepared: Sequence[Prepared]) -> Iterator[tuple[bool, Prepared]]:
        """Each fact, and whether it stands beside whatever is there: it is closed, or the first of its key."""
        taken = self._open_keys(prepared)
        for item in prepared:
            key = tuple(item.values[name] for name in KEY)
            yield item.values["valid_to"] is not None or key not in taken, item
            if item.values["valid_to"] is None:
                taken.add(key)

    def _open_keys(self, prepared: Sequence[Prepared]) -> set[tuple[Any, ...]]:
        """The keys of these facts that hold a value."""
        wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
        for item in prepared:
            wanted[item.values["user_id"], item.values["category"]].append(item.values["key"])
        found: set[tuple[Any, ...]] = set()
        for (owner, category), keys in wanted.items():
            same = and_(KNOWLEDGE.c.user_id == owner, KNOWLEDGE.c.category == category, *is_open())
            for chunk in chunks(keys):
                rows = self._db.execute(select(KNOWLEDGE.c.key).where(same, KNOWLEDGE.c.key.in_(chunk)))
                found.update((owner, category, key) for key in rows.scalars())
        return found

    def add_prepared(self, prepared: Prepared, on_conflict: OnConflict | None = None) -> int:
        """Store a fact; the id of the row that now holds the current value."""
        self._check_enabled()
        completed = self._completed(prepared, self._now())
        self._hold_facts({completed.values["user_id"]})
        self._check_messages([completed])
        return self._add(completed, on_conflict)

    def _hold_facts(self, owners: set[str]) -> None:
        self._index.hold(self._db, "knowledge", owners)

    def _completed(self, prepared: Prepared, now: datetime) -> Prepared:
        """With what the caller left open: the owner and the times."""
        values = {**prepared.values, "user_id": self._fact_owner(prepared.values["user_id"])}
        values["created_at"] = values["created_at"] or now
        values["updated_at"] = now
        values["valid_from"] = values["valid_from"] or min(values["created_at"], values["valid_to"] or now)
        return replace(prepared, values=values)

    def _add(self, prepared: Prepared, on_conflict: OnConflict | None) -> int:
        policy = _policy(on_conflict)
        values, now = prepared.values, prepared.values["updated_at"]
        if values["valid_to"] is not None:
            return self._insert(prepared)  # closed: it stands beside the open one
        current = self._open_row(values)
        if current is None:
            return self._insert(prepared)
        expired = current.expires_at is not None and current.expires_at <= now
        same = bool(current.value == values["value"])
        # The same value, but true already and not only later, is more than was known.
        if same and not expired and not values["valid_from"] <= now < current.valid_from:
            return self._refresh(current, prepared)
        policy = policy or self._settings.long_term.policy(values["category"])
        if not expired and not same:
            if policy == "reject":
                raise Conflict("knowledge", current.id, "this key holds another value, and the policy is 'reject'")
            if policy == "keep_higher_confidence" and values["confidence"] < current.confidence:
                return int(current.id)
        return self._supersede(current, prepared)

    def _fact_owner(self, user_id: str | None) -> str:
        if self._owner is None and user_id is None:
            return SHARED
        return self._owner_of(user_id)

    def _check_messages(self, prepared: Sequence[Prepared]) -> None:
        """A link may not lead to another owner's message; a shared fact may have been learned from anybody."""
        linked = {item.values["message_id"]: None for item in prepared if item.values["message_id"] is not None}
        owners: dict[int, str] = {}
        for chunk in chunks(list(linked)):
            statement = self._own(select(MESSAGES.c.id, MESSAGES.c.user_id), MESSAGES.c.user_id)
            owners.update((row.id, row.user_id) for row in self._db.execute(statement.where(MESSAGES.c.id.in_(chunk))))
        for item in prepared:
            message_id = item.values["message_id"]
            if message_id is not None and item.values["user_id"] not in (SHARED, owners.get(message_id)):
                raise NotFound("message", message_id)
            if message_id is not None and message_id not in owners:
                raise NotFound("message", message_id)

    def _open_row(self, values: dict[str, Any]) -> Row[Any] | None:
        same = [KNOWLEDGE.c[name] == values[name] for name in KEY]
        # Looked for before it is held: a row that is held may be superseded by the time the hold is granted, and the
        # statement that waited does not see its successor.
        while (id := self._db.execute(select(KNOWLEDGE.c.id).where(*same, *is_open())).scalar()) is not None:
            held = select(KNOWLEDGE).where(KNOWLEDGE.c.id == id, *is_open()).with_for_update()
            row = self._db.execute(held).one_or_none()
            if row is not None:
                return row
        return None

    def _insert(self, prepared: Prepared) -> int:
        return self._insert_all([prepared])[0]

    def _insert_all(self, prepared: Sequence[Prepared]) -> list[int]:
        """Rows, index rows and vectors; ids in the order given."""
        ids = _INSERT.ids(self._db, [item.values for item in prepared])
        stored = list(zip(ids, prepared, strict=True))
        is_open = [(id, item) for id, item in stored if item.values["valid_to"] is None]
        if is_open:
            entries = [Entry(id, item.values["user_id"], item.terms) for id, item in is_open]
            self._index.add(self._db, "knowledge", entries)
        Embeddings(self._work).want(
            "knowledge",
            [
                Wanted(id, item.values["user_id"], item.text)
                for id, item in is_open
                if item.vector is None or item.vector["model"] != self._work.model
            ],
        )
        self._store_vectors(stored)
        return ids

    def _store_vectors(self, stored: Sequence[tuple[int, Prepared]]) -> None:
        rows = [{**item.vector, "item_id": id, "user_id": item.values["user_id"]} for id, item in stored if item.vector]
        if rows:
            Embeddings(self._work).put("knowledge", rows)

    def _refresh(self, current: Row[Any], prepared: Prepared) -> int:
        """The same value again: it is newer, as sure as the surer of the two, and lives as long as said last."""
        fresh = {
            "updated_at": prepared.values["updated_at"],
            "confidence": max(current.confidence, prepared.values["confidence"]),
            "expires_at": prepared.values["expires_at"],
        }
        self._db.execute(update(KNOWLEDGE).where(KNOWLEDGE.c.id == current.id).values(fresh))
        if prepared.vector is not None:
            vector = {**prepared.vector, "item_id": current.id, "user_id": current.user_id}
            Embeddings(self._work).replace(vector)
        return int(current.id)

    def _supersede(self, current: Row[Any], prepared: Prepared) -> int:
        # The old row is closed first: only one may be open at any moment.
        old = update(KNOWLEDGE).where(KNOWLEDGE.c.id == current.id)
        now = prepared.values["updated_at"]
        self._db.execute(old.values(superseded_at=now))
        if prepared.values["valid_from"] <= now:
            self._forget_projections("knowledge", [current.id])  # else it is true, and found, until then
        id = self._insert(prepared)
        self._db.execute(old.values(superseded_by=id))
        return id

    def search(
        self,
        query: Query | str,
        *,
        limit: int,
        user_id: str | None = None,
        category: str | None = None,
        source_kind: SourceKind | None = None,
        min_confidence: float = 0.0,
        explain: bool = False,
    ) -> list[Knowledge]:
        """The best matches among current facts, best first."""
        owner = SHARED if self._owner is None and user_id is None else self._owner_of(user_id)
        narrow = named(category=category, source_kind=source_kind)
        if _checks.number("min_confidence", min_confidence, least=0.0, most=1.0):
            narrow.append(KNOWLEDGE.c.confidence >= min_confidence)
        now = self._now()
        # Hidden from the engine's planner, which would read all facts of an owner rather than the few ids asked for.
        visible = func.coalesce(KNOWLEDGE.c.user_id, "").in_(self._visible_owners(user_id))
        always = [*true_at(now), *believed(now, now), not_expired(now), visible]
        scope = Scope.of(owner, shared=True)
        shared = not self._work.writing
        hits = self._index.knowledge(
            self._db, Query.of(query), scope, limit=limit, narrow=narrow, always=always, shared=shared
        )
        return self._found(hits, always, explain)

    def _found(self, hits: Sequence[Hit], conditions: list[ColumnElement[bool]], explain: bool) -> list[Knowledge]:
        rows: dict[int, Row[Any]] = {}
        for chunk in chunks([hit.id for hit in hits]):
            statement = select(KNOWLEDGE).where(KNOWLEDGE.c.id.in_(chunk), *conditions)
            rows.update((row.id, row) for row in self._db.execute(statement))
        return [with_score(self._fact(rows[hit.id]), hit, explain) for hit in hits if hit.id in rows]

    def delete(
        self,
        knowledge_id: int | None = None,
        *,
        key: str | None = None,
        category: str | None = None,
        source: str | None = None,
        source_kind: SourceKind | None = None,
        user_id: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Delete the row of that id, or every row (earlier values too) that meets all conditions; how many."""
        self._check_enabled()
        conditions = named(key=key, category=category, source=source, source_kind=source_kind)
        if knowledge_id is not None:
            conditions.append(KNOWLEDGE.c.id == _checks.row_id("knowledge_id", knowledge_id))
        if not conditions:
            raise InvalidInput("delete_knowledge", "needs an id, key, category, source or source_kind")
        if self._owner is not None or user_id is not None or knowledge_id is None:
            owner = SHARED if self._owner is None and user_id is None else self._owner_of(user_id)
            conditions.append(KNOWLEDGE.c.user_id == owner)
        self._hold_facts(set(self._db.execute(select(KNOWLEDGE.c.user_id).where(*conditions).distinct()).scalars()))
        # Held: of two that delete the same rows, the second finds none, and counts nothing down twice.
        ids = list(self._db.execute(select(KNOWLEDGE.c.id).where(*conditions).with_for_update()).scalars())
        if knowledge_id is not None and not ids:
            raise NotFound("knowledge", knowledge_id)
        return len(ids) if dry_run else self._delete(ids)

    def _delete(self, ids: list[int]) -> int:
        self._forget_projections("knowledge", ids)
        gone = 0
        for chunk in chunks(ids):
            self._end_earlier(chunk)
            gone += self._db.execute(delete(KNOWLEDGE).where(KNOWLEDGE.c.id.in_(chunk))).rowcount
        return gone

    def _end_earlier(self, ids: Sequence[int]) -> None:
        """A deleted fact does not give its place back: what it hid stays true only until it came."""
        hiding = _Hiding(self._db.execute(_HIDES.where(KNOWLEDGE.c.id.in_(ids))).all())
        ends = []
        for (owner, category), keys in hiding.keys.items():
            same = and_(KNOWLEDGE.c.user_id == owner, KNOWLEDGE.c.category == category)
            for chunk in chunks(sorted(keys)):
                earlier = _HIDDEN.where(same, KNOWLEDGE.c.key.in_(chunk), KNOWLEDGE.c.id < hiding.last)
                for row in self._db.execute(earlier):
                    came = hiding.since(row)
                    if came is not None and (row.valid_to is None or max(row.valid_from, came) < row.valid_to):
                        ends.append({"fact": row.id, "until": max(row.valid_from, came)})
        if ends:
            self._db.execute(_ENDED, ends)
        # The later of the two times: SQLite calls it max, PostgreSQL greatest.
        came_then = select(_DELETED.c.valid_from).where(_DELETED.c.id == KNOWLEDGE.c.superseded_by).scalar_subquery()
        until = case((KNOWLEDGE.c.valid_from > came_then, KNOWLEDGE.c.valid_from), else_=came_then)
        merged = and_(KNOWLEDGE.c.superseded_by.in_(ids), KNOWLEDGE.c.valid_to.is_(None))
        self._db.execute(update(KNOWLEDGE).where(merged).values(valid_to=until))


class _Hiding:
    """Deleted values, and from when each has hidden the ones before it of its key."""

    def __init__(self, deleted: Sequence[Row[Any]]) -> None:
        self.last = max((row.id for row in deleted), default=0)
        self.keys: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._times: dict[tuple[str, str, str], list[tuple[int, datetime]]] = defaultdict(list)
        for row in sorted(deleted, key=lambda row: -row.id):
            times = self._times[row.user_id, row.category, row.key]
            times.append((-row.id, min(row.valid_from, times[-1][1]) if times else row.valid_from))
            self.keys[row.user_id, row.category].add(row.key)

    def since(self, row: Row[Any]) -> datetime | None:
        """The earliest time of those that came after this one."""
        times = self._times[row.user_id, row.category, row.key]
        after = bisect_left(times, -row.id, key=itemgetter(0))
        return times[after - 1][1] if after else None


_PLACED = [KNOWLEDGE.c[name] for name in ("id", *KEY, "valid_from", "valid_to")]
_HIDES = select(*_PLACED).where(or_(KNOWLEDGE.c.valid_to.is_(None), KNOWLEDGE.c.superseded_at.is_not(None)))
_HIDDEN = select(*_PLACED).where(KNOWLEDGE.c.superseded_at.is_not(None))
_ENDED = update(KNOWLEDGE).where(KNOWLEDGE.c.id == bindparam("fact")).values(valid_to=bindparam("until"))
