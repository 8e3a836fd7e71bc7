"""Facts that say the same under different keys: what is compared to find them, and joining two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, select, update

from mirai_memory import _checks
from mirai_memory.database.chunks import chunks
from mirai_memory.entities import Knowledge
from mirai_memory.errors import InvalidInput, NotFound
from mirai_memory.search.layout import Floats
from mirai_memory.search.likeness import NEWEST
from mirai_memory.search.postings import WORDS
from mirai_memory.services.fact_times import (
    EMBEDDINGS,
    KNOWLEDGE,
    SHARED,
    FactTimes,
    believed,
    is_open,
    not_expired,
    true_at,
)

_HELD = 2_000
_WORDS = WORDS["knowledge"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Facts side by side: ids in order, a digest of each value, its words as numbers; and by model some vectors."""

    ids: list[int] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    words: list[frozenset[int]] = field(default_factory=list)
    vectors: dict[str, tuple[list[int], Floats]] = field(default_factory=dict)


class Duplicates(FactTimes):
    def compared(self) -> Compared:
        """The current facts of the owner whose unit of work this is, else the shared ones."""
        compared = Compared()
        if not self._settings.long_term.enabled:
            return compared
        numbers: dict[str, int] = {}
        columns = (KNOWLEDGE.c.id, KNOWLEDGE.c.value, _WORDS.c.terms)
        joined = KNOWLEDGE.join(_WORDS, _WORDS.c.rowid == KNOWLEDGE.c.id)
        statement = select(*columns).select_from(joined).where(self._of_scope(), *self._current())
        with self._db.execute(statement.order_by(KNOWLEDGE.c.id), execution_options={"yield_per": _HELD}) as rows:
            for row in rows:
                compared.ids.append(row.id)
                compared.values.append(hashlib.blake2b(row.value.encode(), digest_size=16).digest())
                # The first token is the scope's.
                terms = {token.partition("@")[0] for token in row.terms.split()[1:]}
                compared.words.append(frozenset(numbers.setdefault(term, len(numbers)) for term in terms))
        self._add_vectors(compared)
        return compared

    def _add_vectors(self, compared: Compared) -> None:
        owner = SHARED if self._owner is None else self._owner
        own = (EMBEDDINGS.c.user_id == owner, EMBEDDINGS.c.kind == "knowledge", EMBEDDINGS.c.status == "ready")
        held = set(compared.ids)
        for model in self._db.execute(select(EMBEDDINGS.c.model).where(*own).distinct()).scalars().all():
            columns = (EMBEDDINGS.c.item_id, EMBEDDINGS.c.dim, EMBEDDINGS.c.vector)
            newest = select(*columns).where(*own, EMBEDDINGS.c.model == model).order_by(EMBEDDINGS.c.item_id.desc())
            rows = [row for row in self._db.execute(newest.limit(NEWEST)) if row.item_id in held]
            same = [row for row in reversed(rows) if row.dim == rows[0].dim]
            if len(same) > 1:
                compared.vectors[model] = ([row.item_id for row in same], _matrix(same))

    def _of_scope(self) -> ColumnElement[bool]:
        return KNOWLEDGE.c.user_id == (SHARED if self._owner is None else self._owner)

    def _current(self) -> list[ColumnElement[bool]]:
        now = self._now()
        return [*is_open(), *true_at(now), *believed(now, now), not_expired(now)]

    def still_current(self, ids: Sequence[int]) -> dict[int, Knowledge]:
        """Those of the facts that are there and current, by id."""
        found: dict[int, Knowledge] = {}
        for chunk in chunks(ids):
            rows = select(KNOWLEDGE).where(KNOWLEDGE.c.id.in_(chunk), self._of_scope(), *self._current())
            found.update((row.id, self._fact(row)) for row in self._db.execute(rows))
        return found

    def merge(self, keep: int, drop: int) -> Knowledge:
        """Have ``keep`` take the place of ``drop``; ``keep`` as it is then."""
        self._check_enabled()
        names = {_checks.row_id("keep", keep): "keep", _checks.row_id("drop", drop): "drop"}
        if len(names) < 2:
            raise InvalidInput("drop", "is the fact to keep")
        own = self._own(select(KNOWLEDGE), KNOWLEDGE.c.user_id).where(KNOWLEDGE.c.id.in_(names))
        self._index.hold(self._db, "knowledge", {row.user_id for row in self._db.execute(own)})
        rows = {row.id: row for row in self._db.execute(own.order_by(KNOWLEDGE.c.id).with_for_update())}
        now = self._now()
        for id, name in names.items():
            if id not in rows:
                raise NotFound("knowledge", id)
            if not _is_current(rows[id], now):
                raise InvalidInput(name, "is no current fact: only those can be merged")
        if rows[keep].user_id != rows[drop].user_id:
            raise InvalidInput("drop", "has another owner than the fact to keep")
        self._forget_projections("knowledge", [drop])
        replaced = {"superseded_at": now, "superseded_by": keep}
        self._db.execute(update(KNOWLEDGE).where(KNOWLEDGE.c.id == drop).values(replaced))
        kept = {"updated_at": now, "confidence": max(rows[keep].confidence, rows[drop].confidence)}
        self._db.execute(update(KNOWLEDGE).where(KNOWLEDGE.c.id == keep).values(kept))
        return self._fact(self._db.execute(select(KNOWLEDGE).where(KNOWLEDGE.c.id == keep)).one())


def _is_current(row: Row[Any], now: Any) -> bool:
    is_open = row.superseded_at is None and row.valid_to is None
    begun = row.valid_from <= now and row.created_at <= now
    return bool(is_open and begun and (row.expires_at is None or row.expires_at > now))


def _matrix(rows: Sequence[Row[Any]]) -> Floats:
    packed = b"".join(row.vector for row in rows)
    values = np.frombuffer(packed, dtype="<f2").reshape(len(rows), -1).astype(np.float32)
    lengths = np.sqrt(np.vecdot(values, values))
    return np.asarray(values / np.maximum(lengths, 1e-30)[:, None], dtype=np.float32)
