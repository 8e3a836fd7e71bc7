"""What is wrong with what is stored: each fault counted, by a statement or by a walk over the rows in batches.

Counts are of the rows of one transaction. What a function here counts, its neighbour in ``mending`` puts right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, func, not_, or_, select
from sqlalchemy import exists as any_row

from mirai_memory.models import EmbeddingRow, KnowledgeRow, MessageRow, SessionRow, TaskRow
from mirai_memory.search import ItemKind, audit
from mirai_memory.search.postings import SCOPES
from mirai_memory.services.base import Service
from mirai_memory.services.embeddings import GIVEN, content_hash, fact_text, message_text

EMBEDDINGS = EmbeddingRow.table()
KNOWLEDGE = KnowledgeRow.table()
MESSAGES = MessageRow.table()
SESSIONS = SessionRow.table()
TASKS = TaskRow.table()

KINDS: tuple[ItemKind, ...] = ("message", "knowledge")
SUCCESSOR = KNOWLEDGE.alias("successor")
_OTHER = KNOWLEDGE.alias("other")
_EARLIER = MESSAGES.alias("earlier")
_BATCH = 2_000
# A vector, its text and the row it belongs to; texts may be long.
_VECTORS = 200
_TOLD = 1_000  # items between two calls of a progress

# References that lead nowhere. Of the first two the row itself has nowhere to be; the others only lose a link.
HOMELESS_MESSAGES = ~any_row().where(SESSIONS.c.id == MESSAGES.c.session_id)
HOMELESS_TASKS = and_(TASKS.c.session_id.is_not(None), ~any_row().where(SESSIONS.c.id == TASKS.c.session_id))
LOST_SOURCE = and_(KNOWLEDGE.c.message_id.is_not(None), ~any_row().where(MESSAGES.c.id == KNOWLEDGE.c.message_id))
LOST_SUCCESSOR = and_(
    KNOWLEDGE.c.superseded_by.is_not(None), ~any_row().where(SUCCESSOR.c.id == KNOWLEDGE.c.superseded_by)
)

OWN_MESSAGES = select(func.count()).where(MESSAGES.c.session_id == SESSIONS.c.id).scalar_subquery()
WRONG_COUNT = SESSIONS.c.message_count != OWN_MESSAGES
LAST_POSITION = select(func.max(MESSAGES.c.position)).where(MESSAGES.c.session_id == SESSIONS.c.id).scalar_subquery()
PASSED_POSITION = SESSIONS.c.next_position <= LAST_POSITION
WRONG_GROUP = or_(MESSAGES.c.group_start < 1, MESSAGES.c.group_start > MESSAGES.c.position)

# A value is replaced by a later one of the same key, or merged into one of another key that was there by then.
_SAME_KEY = and_(*(SUCCESSOR.c[name] == KNOWLEDGE.c[name] for name in ("user_id", "category", "key")))
_MERGED = and_(
    SUCCESSOR.c.user_id == KNOWLEDGE.c.user_id,
    not_(_SAME_KEY),
    SUCCESSOR.c.created_at <= KNOWLEDGE.c.superseded_at,
    SUCCESSOR.c.updated_at >= KNOWLEDGE.c.superseded_at,
)
WRONG_SUCCESSOR = and_(
    KNOWLEDGE.c.superseded_by.is_not(None),
    any_row().where(
        SUCCESSOR.c.id == KNOWLEDGE.c.superseded_by,
        not_(or_(and_(_SAME_KEY, SUCCESSOR.c.id > KNOWLEDGE.c.id), _MERGED)),
    ),
)
UNDATED = and_(KNOWLEDGE.c.superseded_by.is_not(None), KNOWLEDGE.c.superseded_at.is_(None))
UNENDED = and_(
    KNOWLEDGE.c.superseded_by.is_(None), KNOWLEDGE.c.superseded_at.is_not(None), KNOWLEDGE.c.valid_to.is_(None)
)
_IS_OPEN = and_(KNOWLEDGE.c.superseded_at.is_(None), KNOWLEDGE.c.valid_to.is_(None))
# Of two current values of one key, the older.
SECOND_OPEN = and_(
    _IS_OPEN,
    any_row().where(
        _OTHER.c.user_id == KNOWLEDGE.c.user_id,
        _OTHER.c.category == KNOWLEDGE.c.category,
        _OTHER.c.key == KNOWLEDGE.c.key,
        _OTHER.c.superseded_at.is_(None),
        _OTHER.c.valid_to.is_(None),
        _OTHER.c.id > KNOWLEDGE.c.id,
    ),
)
# Searches pass the vectors of a scope over while it has counted none.
UNCOUNTED_VECTORS = and_(
    SCOPES.c.vectors == 0,
    any_row().where(
        EMBEDDINGS.c.user_id == SCOPES.c.user_id, EMBEDDINGS.c.kind == SCOPES.c.kind, EMBEDDINGS.c.status == "ready"
    ),
)
_ITEMS = {"message": MESSAGES, "knowledge": KNOWLEDGE}
ORPHANED_VECTORS = or_(
    *(
        and_(EMBEDDINGS.c.kind == kind, ~any_row().where(items.c.id == EMBEDDINGS.c.item_id))
        for kind, items in _ITEMS.items()
    )
)


class Tally:
    """What scopes should count."""

    def __init__(self) -> None:
        self.items: Counter[int] = Counter()
        self.terms: Counter[int] = Counter()

    def add(self, item: audit.Compared) -> None:
        if item.scope is not None:
            self.items[item.scope] += 1
            self.terms[item.scope] += len(item.entry.terms)


class Verification(Service):
    def foreign_keys(self) -> int:
        return (
            self._count(MESSAGES, HOMELESS_MESSAGES)
            + self._count(TASKS, HOMELESS_TASKS)
            + self._count(KNOWLEDGE, LOST_SOURCE)
            + self._count(KNOWLEDGE, LOST_SUCCESSOR)
        )

    def session_counts(self) -> int:
        return self._count(SESSIONS, WRONG_COUNT)

    def positions(self) -> int:
        """Sessions whose next place is taken, messages with no place or group, and those not in order of their ids."""
        return (
            self._count(SESSIONS, PASSED_POSITION)
            + self._count(MESSAGES, or_(MESSAGES.c.position < 1, WRONG_GROUP))
            + self.out_of_order()
        )

    def out_of_order(self) -> int:
        """Messages whose id is lower than that of the one before them: pages of a session are cut by ids."""
        before = func.lag(MESSAGES.c.id).over(partition_by=MESSAGES.c.session_id, order_by=MESSAGES.c.position)
        pairs = select(MESSAGES.c.id, before.label("before")).subquery()
        return self._number(select(func.count()).select_from(pairs).where(pairs.c.id < pairs.c.before))

    def owners(self) -> int:
        """Messages and tasks that are not their session's owner's, facts learned from another owner's message."""
        of_session = any_row().where(SESSIONS.c.id == MESSAGES.c.session_id, SESSIONS.c.user_id != MESSAGES.c.user_id)
        of_task = any_row().where(SESSIONS.c.id == TASKS.c.session_id, SESSIONS.c.user_id != TASKS.c.user_id)
        of_fact = any_row().where(MESSAGES.c.id == KNOWLEDGE.c.message_id, MESSAGES.c.user_id != KNOWLEDGE.c.user_id)
        foreign = and_(KNOWLEDGE.c.user_id != "", KNOWLEDGE.c.message_id.is_not(None), of_fact)
        return self._count(MESSAGES, of_session) + self._count(TASKS, of_task) + self._count(KNOWLEDGE, foreign)

    def supersession(self) -> int:
        return self._count(KNOWLEDGE, or_(WRONG_SUCCESSOR, UNDATED, UNENDED, SECOND_OPEN))

    def index(self, progress: Callable[[int, int], object] | None = None) -> Counter[str]:
        """Of the word index: rows that are wrong or missing, places, and scopes that count wrongly.

        Every text is analysed again, which is most of the work: ``progress(done, total)`` is called with items.
        """
        found: Counter[str] = Counter()
        done, total = 0, sum(audit.item_count(self._db, kind) for kind in KINDS)
        for kind in KINDS:
            wanted = Tally()
            wrong = set()
            for item in audit.all_compared(self._db, kind):
                done += 1
                if progress is not None and (done % _TOLD == 0 or done == total):
                    progress(done, max(done, total))  # values that are not current yet come on top
                if not item.words_right:
                    wrong.add(item.entry.id)
                found["word_places"] += not item.place_right
                wanted.add(item)
            found["word_counts"] += sum(1 for _ in self.wrong_scopes(kind, wanted))
            found["word_index"] += len(wrong | self._index.wrong_postings(self._db, kind))
        return found

    def wrong_scopes(self, kind: ItemKind, wanted: Tally) -> Iterator[Any]:
        scopes = select(SCOPES.c.id, SCOPES.c.item_count, SCOPES.c.term_count).where(SCOPES.c.kind == kind)
        for scope in self._db.execute(scopes):
            if (scope.item_count, scope.term_count) != (wanted.items[scope.id], wanted.terms[scope.id]):
                yield scope

    def vectors(self) -> int:
        """Vectors that are not of their text, their owner, their size; and scopes that know of none."""
        wrong = sum(1 for _ in self.wrong_vectors())
        return wrong + self._count(SCOPES, UNCOUNTED_VECTORS)

    def wrong_vectors(self, ids: Sequence[int] | None = None) -> Iterator[Row[Any]]:
        """All that are wrong, or those of these few that are."""
        for kind in KINDS:
            last = 0
            some = _vector_rows(kind) if ids is None else _vector_rows(kind).where(EMBEDDINGS.c.id.in_(ids))
            while rows := self._db.execute(some.where(EMBEDDINGS.c.id > last)).all():
                yield from (row for row in rows if not _is_right(kind, row))
                last = rows[-1].id

    def orphans(self) -> int:
        """Rows derived from items that are gone."""
        derived = [*(audit.orphaned_words(kind) for kind in KINDS), audit.orphaned_places()]
        counted = sum(self._number(select(func.count()).select_from(found.subquery())) for found in derived)
        return counted + self._count(EMBEDDINGS, ORPHANED_VECTORS)

    def _count(self, table: Any, condition: ColumnElement[bool]) -> int:
        return self._number(select(func.count()).select_from(table).where(condition))

    def _number(self, statement: Select[Any]) -> int:
        return int(self._db.execute(statement).scalar_one())


def _vector_rows(kind: ItemKind) -> Select[Any]:
    items = MESSAGES if kind == "message" else KNOWLEDGE
    texts = [MESSAGES.c.content, MESSAGES.c.name] if kind == "message" else [KNOWLEDGE.c.key, KNOWLEDGE.c.value]
    joined = EMBEDDINGS.join(items, (EMBEDDINGS.c.kind == kind) & (items.c.id == EMBEDDINGS.c.item_id))
    statement = select(*EMBEDDINGS.c, items.c.user_id.label("owner"), *texts).select_from(joined)
    return statement.order_by(EMBEDDINGS.c.id).limit(_VECTORS)


def _is_right(kind: ItemKind, row: Row[Any]) -> bool:
    if row.user_id != row.owner:
        return False
    text = message_text(row.content, row.name) if kind == "message" else fact_text(row.key, row.value)
    given = GIVEN + content_hash(row.value) if kind == "knowledge" else None
    if row.content_hash not in (content_hash(text), given):
        return False
    if row.status != "ready":
        return True
    import numpy as np

    vector = row.vector or b""
    return len(vector) == 2 * row.dim and bool(np.isfinite(np.frombuffer(vector, dtype="<f2")).all())
