"""Facts as they were true and as they were believed: what holds at a moment, and reading by it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, or_, select

from mirai_memory import _checks
from mirai_memory.database.chunks import chunks
from mirai_memory.entities import SOURCE_KINDS, Knowledge, SourceKind
from mirai_memory.errors import ConfigurationError
from mirai_memory.models import EmbeddingRow, KnowledgeRow
from mirai_memory.services import vectors
from mirai_memory.services.base import Service
from mirai_memory.services.embeddings import GIVEN

KNOWLEDGE = KnowledgeRow.table()
EMBEDDINGS = EmbeddingRow.table()
SHARED = ""  # how the owner of facts that belong to all is stored
KEY = ("user_id", "category", "key")  # of one current value
LATER = KNOWLEDGE.alias("later")
_SUCCESSOR = KNOWLEDGE.alias("successor")


def is_open() -> list[ColumnElement[bool]]:
    return [KNOWLEDGE.c.superseded_at.is_(None), KNOWLEDGE.c.valid_to.is_(None)]


def true_at(moment: datetime) -> list[ColumnElement[bool]]:
    return [
        KNOWLEDGE.c.valid_from <= moment,
        or_(KNOWLEDGE.c.valid_to.is_(None), KNOWLEDGE.c.valid_to > moment),
    ]


def not_expired(now: datetime) -> ColumnElement[bool]:
    return or_(KNOWLEDGE.c.expires_at.is_(None), KNOWLEDGE.c.expires_at > now)


def believed(true: datetime, known: datetime) -> list[ColumnElement[bool]]:
    """Recorded by ``known``, and not replaced by then by a later value that was already true at ``true``.

    A value is replaced from when its successor is true, not from when that was learned: the fact that somebody moved
    in May, learned in June, leaves the old address true for April. One that was merged into a fact of another key is
    replaced by that one, from when they were merged.
    """
    same = [LATER.c[name] == KNOWLEDGE.c[name] for name in KEY]
    was_open = or_(LATER.c.valid_to.is_(None), LATER.c.superseded_at.is_not(None))
    replaced = exists().where(
        *same, was_open, LATER.c.id > KNOWLEDGE.c.id, LATER.c.created_at <= known, LATER.c.valid_from <= true
    )
    merged = and_(
        KNOWLEDGE.c.superseded_at <= known,
        exists().where(
            _SUCCESSOR.c.id == KNOWLEDGE.c.superseded_by, of_another_key(_SUCCESSOR), _SUCCESSOR.c.valid_from <= true
        ),
    )
    # What nothing has superseded is asked no further: nearly every row.
    return [KNOWLEDGE.c.created_at <= known, or_(KNOWLEDGE.c.superseded_at.is_(None), ~or_(replaced, merged))]


def of_another_key(other: Any) -> ColumnElement[bool]:
    return or_(other.c.category != KNOWLEDGE.c.category, other.c.key != KNOWLEDGE.c.key)


def named(
    *,
    key: str | None = None,
    category: str | None = None,
    source: str | None = None,
    source_kind: SourceKind | None = None,
) -> list[ColumnElement[bool]]:
    """What a caller asks for by name. Raises InvalidInput."""
    conditions: list[ColumnElement[bool]] = []
    if key is not None:
        conditions.append(KNOWLEDGE.c.key == _checks.name("key", key))
    if category is not None:
        conditions.append(KNOWLEDGE.c.category == _checks.name("category", category, limit=_checks.MAX_CATEGORY))
    if source is not None:
        conditions.append(KNOWLEDGE.c.source == _checks.text("source", source, limit=_checks.MAX_LABEL))
    if source_kind is not None:
        conditions.append(KNOWLEDGE.c.source_kind == _checks.one_of("source_kind", source_kind, SOURCE_KINDS))
    return conditions


class FactTimes(Service):
    """Reading: what is, what was, and everything that a key has been."""

    def page(
        self,
        category: str | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
        as_of: datetime | None = None,
        known_at: datetime | None = None,
        with_embedding: bool = False,
        limit: int,
        after: int | None = None,
    ) -> list[Knowledge]:
        """One page in order of id: what is true and believed now, or was ``as_of`` and ``known_at`` then."""
        statement = select(KNOWLEDGE).where(*named(category=category, key=key)).order_by(KNOWLEDGE.c.id)
        if after is not None:
            statement = statement.where(KNOWLEDGE.c.id > _checks.after(after))
        now = self._now()
        true = now if as_of is None else _checks.moment("as_of", as_of)
        known = now if known_at is None else _checks.moment("known_at", known_at)
        statement = statement.where(*true_at(true), *believed(true, known), not_expired(now))
        rows = sorted(self._of_each_owner(statement, user_id, limit), key=lambda row: row.id)[:limit]
        found = [self._fact(row) for row in rows]
        return self._with_vectors(found) if with_embedding else found

    def newest(self, limit: int) -> list[Knowledge]:
        """The current facts that were stored last, newest first."""
        now = self._now()
        statement = select(KNOWLEDGE).where(*true_at(now), *believed(now, now), not_expired(now))
        rows = self._of_each_owner(statement.order_by(KNOWLEDGE.c.id.desc()), None, limit)
        return [self._fact(row) for row in sorted(rows, key=lambda row: -row.id)[:limit]]

    def history(self, key: str, *, category: str, user_id: str | None = None) -> list[Knowledge]:
        """Every value the key has had, oldest first: superseded, closed, expired and current."""
        statement = select(KNOWLEDGE).where(
            self._visible(user_id),
            KNOWLEDGE.c.category == _checks.name("category", category, limit=_checks.MAX_CATEGORY),
            KNOWLEDGE.c.key == _checks.name("key", key),
        )
        return [self._fact(row) for row in self._db.execute(statement.order_by(KNOWLEDGE.c.id))]

    def _of_each_owner(self, statement: Select[Any], user_id: str | None, limit: int) -> list[Row[Any]]:
        """Rows of each visible owner, at most ``limit`` of each: asked for both at once, the engine would sort all."""
        owners = self._visible_owners(user_id)
        own = (statement.where(KNOWLEDGE.c.user_id == owner).limit(limit) for owner in owners)
        return [row for wanted in own for row in self._db.execute(wanted)]

    def _visible(self, user_id: str | None) -> ColumnElement[bool]:
        """Shared facts, and those of the owner: of the named one, or of the one this unit of work is bound to."""
        return KNOWLEDGE.c.user_id.in_(self._visible_owners(user_id))

    def _visible_owners(self, user_id: str | None) -> list[str]:
        if not self._settings.long_term.enabled:
            return []
        if self._owner is None and user_id is None:
            return [SHARED]
        return [self._owner_of(user_id), SHARED]

    def _with_vectors(self, found: list[Knowledge]) -> list[Knowledge]:
        stored: dict[int, Row[Any]] = {}
        for chunk in chunks([item.id for item in found]):
            ready = (EMBEDDINGS.c.kind == "knowledge") & (EMBEDDINGS.c.status == "ready")
            statement = select(EMBEDDINGS).where(ready, EMBEDDINGS.c.item_id.in_(chunk))
            # The last one counts: the given one, else the newest.
            statement = statement.order_by(EMBEDDINGS.c.content_hash.startswith(GIVEN), EMBEDDINGS.c.id)
            stored.update((row.item_id, row) for row in self._db.execute(statement))
        return [
            replace(item, embedding=vectors.unpack(row.vector), embedding_model=row.model)
            if item.id is not None and (row := stored.get(item.id)) is not None
            else item
            for item in found
        ]

    def _check_enabled(self) -> None:
        if not self._settings.long_term.enabled:
            raise ConfigurationError("memory.long_term.enabled is false: facts are not kept")

    def _fact(self, row: Row[Any]) -> Knowledge:
        values = dict(row._mapping)
        if values["user_id"] == SHARED:
            values["user_id"] = None
            if self._owner is not None:
                values["message_id"] = None  # it may be anybody's, and would tell that it exists
        return Knowledge(**values)
