"""Putting right what ``verification`` counts: found in a transaction that reads, changed in a short one that writes.

What is derived is made anew from the rows; a counter is counted; a link that leads nowhere goes, as it would have gone
with the row it named. What somebody said is never changed, moved or deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, case, delete, select, update

from mirai_memory.database.chunks import chunks
from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, SessionRow
from mirai_memory.search import ItemKind, audit
from mirai_memory.search.postings import PLACES, SCOPES, WORDS
from mirai_memory.services import verification as faults
from mirai_memory.services.embeddings import GIVEN, Embeddings, Wanted, fact_text, message_text
from mirai_memory.services.verification import SUCCESSOR, Tally, Verification

EMBEDDINGS = EmbeddingRow.table()
KNOWLEDGE = KnowledgeRow.table()
MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()

ROWS = 200  # of one transaction that writes
FOUND = 5_000  # of one that looks for them
_NEXT = KNOWLEDGE.alias("next")


@dataclass(frozen=True, slots=True)
class Fix:
    """Rows that are wrong, and what of them is changed."""

    table: Table
    wrong: ColumnElement[bool]
    values: Mapping[str, Any]


def _replaced_at() -> Any:
    return select(SUCCESSOR.c.created_at).where(SUCCESSOR.c.id == KNOWLEDGE.c.superseded_by).scalar_subquery()


def _true_until() -> Any:
    """The later of two times: SQLite calls it max, PostgreSQL greatest."""
    later = KNOWLEDGE.c.valid_from > KNOWLEDGE.c.superseded_at
    return case((later, KNOWLEDGE.c.valid_from), else_=KNOWLEDGE.c.superseded_at)


def _replaced_by_newer() -> dict[str, Any]:
    same = [_NEXT.c[name] == KNOWLEDGE.c[name] for name in ("user_id", "category", "key")]
    is_open = [_NEXT.c.superseded_at.is_(None), _NEXT.c.valid_to.is_(None)]
    newer = select(_NEXT.c.id).where(*same, *is_open, _NEXT.c.id > KNOWLEDGE.c.id).order_by(_NEXT.c.id).limit(1)
    created = newer.with_only_columns(_NEXT.c.created_at)
    return {"superseded_by": newer.scalar_subquery(), "superseded_at": created.scalar_subquery()}


# By the fault that they mend, in the order in which one leads to the next.
FIXES: dict[str, tuple[Fix, ...]] = {
    "foreign_keys": (
        Fix(KNOWLEDGE, faults.LOST_SOURCE, {"message_id": None}),
        # A value that was replaced by one that is gone was true until it was replaced.
        Fix(KNOWLEDGE, faults.LOST_SUCCESSOR, {"superseded_by": None}),
        Fix(KNOWLEDGE, faults.UNENDED, {"valid_to": _true_until()}),
    ),
    "session_counts": (Fix(SESSIONS, faults.WRONG_COUNT, {"message_count": faults.OWN_MESSAGES}),),
    "positions": (
        Fix(SESSIONS, faults.PASSED_POSITION, {"next_position": faults.LAST_POSITION + 1}),
        Fix(MESSAGES, faults.WRONG_GROUP, {"group_start": MESSAGES.c.position}),
    ),
    "supersession": (
        Fix(KNOWLEDGE, faults.WRONG_SUCCESSOR, {"superseded_by": None}),
        Fix(KNOWLEDGE, faults.UNDATED, {"superseded_at": _replaced_at()}),
        Fix(KNOWLEDGE, faults.UNENDED, {"valid_to": _true_until()}),
        Fix(KNOWLEDGE, faults.SECOND_OPEN, _replaced_by_newer()),
    ),
    "vectors": (Fix(SCOPES, faults.UNCOUNTED_VECTORS, {"vectors": SCOPES.c.vectors + 1}),),
}


class Mending(Verification):
    def wrong_ids(self, fix: Fix) -> list[Any]:
        return list(self._db.execute(select(fix.table.c.id).where(fix.wrong).limit(FOUND)).scalars())

    def apply(self, fix: Fix, ids: Sequence[Any]) -> int:
        """Change those of the rows that are still wrong; how many."""
        still = fix.table.c.id.in_(ids) & fix.wrong
        return self._db.execute(update(fix.table).where(still).values(**fix.values)).rowcount

    def wrong_items(self, kind: ItemKind, after: int) -> tuple[int | None, int]:
        """Of the next batch of items: the last id, None at the end; and how many have wrong rows in the index."""
        batch = audit.compared(self._db, kind, after)
        return (batch[-1].entry.id if batch else None), sum(not _is_right(item) for item in batch)

    def mend_items(self, kind: ItemKind, after: int) -> None:
        """Write the wrong rows of that batch anew."""
        batch = audit.compared(self._db, kind, after)
        self._index.mend(self._db, kind, [item.entry for item in batch if not _is_right(item)])

    def has_wrong_postings(self, kind: ItemKind) -> bool:
        return bool(self._index.wrong_postings(self._db, kind))

    def mend_postings(self, kind: ItemKind) -> None:
        """In one transaction: the engine has no smaller step."""
        self._index.mend_postings(self._db, kind)

    def count_differences(self, kind: ItemKind) -> dict[int, tuple[int, int]]:
        """By how much each scope counts wrongly: items, terms. What others write meanwhile does not change it."""
        wanted = Tally()
        for item in audit.all_compared(self._db, kind):
            wanted.add(item)
        return {
            scope.id: (wanted.items[scope.id] - scope.item_count, wanted.terms[scope.id] - scope.term_count)
            for scope in self.wrong_scopes(kind, wanted)
        }

    def adjust_counts(self, differences: Sequence[tuple[int, tuple[int, int]]]) -> None:
        for scope, (items, terms) in differences:
            counts = {"item_count": SCOPES.c.item_count + items, "term_count": SCOPES.c.term_count + terms}
            changed = update(SCOPES).where(SCOPES.c.id == scope)
            self._db.execute(changed.values(**counts, removals=SCOPES.c.removals + 1))

    def wrong_vector_ids(self) -> list[int]:
        return [row.id for row in islice(self.wrong_vectors(), FOUND)]

    def mend_vectors(self, ids: Sequence[int]) -> int:
        """Those of the vectors that are still wrong go, and are wanted again where the embedder at hand makes such."""
        wrong = list(self.wrong_vectors(ids))
        for row in wrong:
            for owner in sorted({row.user_id, row.owner}):
                self._index.vectors_gone(self._db, row.kind, owner)
            self._db.execute(delete(EMBEDDINGS).where(EMBEDDINGS.c.id == row.id))
            if row.model == self._work.model and not row.content_hash.startswith(GIVEN):
                Embeddings(self._work).want(row.kind, [Wanted(row.item_id, row.owner, _text(row))])
        return len(wrong)

    def orphaned_words(self, kind: ItemKind) -> list[int]:
        return list(self._db.execute(audit.orphaned_words(kind).limit(FOUND)).scalars())

    def remove_words(self, kind: ItemKind, ids: Sequence[int]) -> int:
        words = WORDS[kind]
        still = self._db.execute(audit.orphaned_words(kind).where(words.c.rowid.in_(ids))).scalars().all()
        self._db.execute(delete(words).where(words.c.rowid.in_(still)))
        return len(still)

    def orphaned_places(self) -> list[tuple[int, int]]:
        return [(scope, id) for scope, id in self._db.execute(audit.orphaned_places().limit(FOUND))]

    def remove_places(self, places: Sequence[tuple[int, int]]) -> int:
        gone = 0
        for scope, id in places:
            here = (PLACES.c.scope == scope) & (PLACES.c.id == id)
            if self._db.execute(audit.orphaned_places().where(here)).first():
                gone += self._db.execute(delete(PLACES).where(here)).rowcount
        # What searches keep of these scopes is read anew, in every process.
        for chunk in chunks(sorted({scope for scope, _ in places})):
            self._db.execute(update(SCOPES).where(SCOPES.c.id.in_(chunk)).values(removals=SCOPES.c.removals + 1))
        return gone

    def orphaned_vectors(self) -> list[int]:
        return list(self._db.execute(select(EMBEDDINGS.c.id).where(faults.ORPHANED_VECTORS).limit(FOUND)).scalars())

    def remove_vectors(self, ids: Sequence[int]) -> int:
        for chunk in chunks(ids):
            Embeddings(self._work)._drop(EMBEDDINGS.c.id.in_(chunk) & faults.ORPHANED_VECTORS)
        return len(ids)


def _is_right(item: audit.Compared) -> bool:
    return item.words_right and item.place_right


def _text(row: Row[Any]) -> str:
    return message_text(row.content, row.name) if row.kind == "message" else fact_text(row.key, row.value)
