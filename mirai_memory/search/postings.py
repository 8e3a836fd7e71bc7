"""The word index on both engines: the engine keeps and finds postings, everything else is arithmetic elsewhere.

A row of the index holds tokens ``term@scope``, one for each term of the item and one with the empty term. The owner
is therefore inside the index: the postings that a search reads are its scope's own, whatever others have stored.
What an engine has of ranking itself is not used: it weighs words by everybody's documents and reads every posting of
the commonest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import neg
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy import bindparam as bind

from mirai_memory.database import Db
from mirai_memory.database.chunks import MOST, chunks
from mirai_memory.database.hot import HotStatement
from mirai_memory.errors import Corrupt
from mirai_memory.models import KnowledgeRow, MessageRow, StateRow
from mirai_memory.search import bm25, stored
from mirai_memory.search.analyzer import ANALYZER
from mirai_memory.search.base import Entry, ItemKind, Place, Scope

if TYPE_CHECKING:
    from mirai_memory.search.layout import Ints

    Ids = Sequence[int] | Ints

# The newest postings of a term that are looked at. A term with more is too common to decide anything, and reading
# all of it would make the price of a query depend on its words (measured: 6 s for five common words, a million rows).
POSTINGS = 2_000
# The newest documents of a scope among which the frequency of a common term is counted.
SAMPLE = 5_000

ITEMS: dict[ItemKind, Table] = {"message": MessageRow.table(), "knowledge": KnowledgeRow.table()}
# Declared apart from the models: the engine's own statements make these tables. Full Table objects, since only those
# are looked up in the schema that a PostgreSQL engine is bound to.
PROJECTIONS = MetaData()
WORDS: dict[ItemKind, Table] = {
    "message": Table("word_messages", PROJECTIONS, Column("rowid", BigInteger), Column("terms", Text)),
    "knowledge": Table("word_knowledge", PROJECTIONS, Column("rowid", BigInteger), Column("terms", Text)),
}
SCOPES = Table(
    "word_scopes",
    PROJECTIONS,
    Column("id", BigInteger),
    Column("kind", Text),
    Column("user_id", Text),
    Column("item_count", BigInteger),
    Column("term_count", BigInteger),
    Column("removals", BigInteger),
    Column("vectors", BigInteger),
)
PLACES = Table(
    "word_places",
    PROJECTIONS,
    Column("scope", BigInteger),
    Column("id", BigInteger),
    Column("session", BigInteger),
    Column("position", BigInteger),
    Column("speaker", Text),
    Column("cues", BigInteger),
    Column("length", BigInteger),
    Column("time", BigInteger),
)
_STATE = StateRow.table()

_COUNT_OUT = (
    update(SCOPES)
    .where(SCOPES.c.id == bind("scope"))
    .values(
        item_count=SCOPES.c.item_count - bind("fewer_items"),
        term_count=SCOPES.c.term_count - bind("fewer_terms"),
        removals=SCOPES.c.removals + 1,
    )
)
_ONE_SCOPE = (SCOPES.c.kind == bind("scope_kind")) & (SCOPES.c.user_id == bind("scope_owner"))
_COUNT_VECTORS = update(SCOPES).where(_ONE_SCOPE).values(vectors=SCOPES.c.vectors + 1)
_COUNT_VECTORS_OUT = update(SCOPES).where(_ONE_SCOPE).values(removals=SCOPES.c.removals + 1)
_VECTORS_UNKNOWN = update(SCOPES).values(vectors=SCOPES.c.vectors + 1)  # there may be some: a search has to look
_COUNTS = ("id", "user_id", "item_count", "term_count", "removals", "vectors")
_EVERY_SCOPE = select(*(SCOPES.c[name] for name in _COUNTS)).where(SCOPES.c.kind == bind("kind"))
_ALL_SCOPES = HotStatement(_EVERY_SCOPE)
_TWO_SCOPES = HotStatement(_EVERY_SCOPE.where(SCOPES.c.user_id.in_([bind("owner"), bind("other")])))
_ADD_PLACES = HotStatement(insert(PLACES).values({column.name: bind(column.name) for column in PLACES.c}))


def _newest(words: Table) -> Select[Any]:
    return select(words.c.rowid).order_by(words.c.rowid.desc()).limit(bind("most"))


def _read(words: Table) -> Select[Any]:
    return select(words.c.rowid, words.c.terms).where(words.c.rowid.in_(bind("ids", expanding=True)))


_READ = {kind: _read(words) for kind, words in WORDS.items()}


@dataclass(frozen=True, slots=True)
class ScopeCounts:
    """One owner's part of the index: how much is in it, and how often it has changed otherwise than by growing."""

    id: int
    user_id: str
    items: int
    terms: int
    removals: int
    vectors: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """The scopes that one search reads; ``bounded`` unless it reads everybody's."""

    scopes: tuple[ScopeCounts, ...]
    bounded: bool

    @property
    def items(self) -> int:
        return sum(scope.items for scope in self.scopes)

    @property
    def average_length(self) -> float:
        return max(1.0, sum(scope.terms for scope in self.scopes) / max(1, self.items))

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What a token of the scopes ends in; none where everybody's items are searched."""
        return tuple(f"@{scope.id}" for scope in self.scopes) if self.bounded else ()

    def marks(self, term: str) -> list[str]:
        """What to look for in a row's tokens to count the term. A row is of one scope: at most one mark is in it."""
        return [f" {term}{suffix} " for suffix in self.suffixes] or [f" {term}@"]


class PostingsIndex(ABC):
    """The index of words but for what each engine says in its own way."""

    @abstractmethod
    def _count_in(self, db: Db, kind: ItemKind, user_id: str, items: int, terms: int) -> int:
        """Add to the counts of a scope, which is made if it is new; its id."""

    @abstractmethod
    def _insert(self, db: Db, kind: ItemKind, rows: list[dict[str, Any]]) -> None:
        """Store rows of ``id`` and ``terms``."""

    @abstractmethod
    def _matches(self, kind: ItemKind) -> ColumnElement[bool]:
        """Whether an index row meets the query that is bound as ``query``."""

    @abstractmethod
    def _query(self, term: str, suffixes: Sequence[str]) -> str:
        """The query for a term with one of the suffixes, or with any where there are none."""

    @abstractmethod
    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        """A step of bringing the engine's postings in order, so that no deleted one is left; whether there is more."""

    @abstractmethod
    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        """The items whose postings are not those of their tokens."""

    @abstractmethod
    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        """Make the postings anew from the tokens."""

    def __init__(self) -> None:
        # Built once: putting a statement together costs more than running it.
        self._narrowed = {kind: _newest(words).where(self._matches(kind)) for kind, words in WORDS.items()}
        self._find = {kind: HotStatement(statement) for kind, statement in self._narrowed.items()}
        self._nth = {
            kind: HotStatement(statement.limit(1).offset(bind("before"))) for kind, statement in self._narrowed.items()
        }

    def is_current(self, db: Db) -> bool:
        version = select(_STATE.c.value).where(_STATE.c.name == "analyzer_version")
        return db.execute(version).scalar() == ANALYZER

    def rebuild(self, db: Db) -> int:
        for table in (*WORDS.values(), SCOPES, PLACES):
            db.execute(delete(table))
        total = self._add_all(db, "message", stored.messages(db)) + self._add_all(db, "knowledge", stored.knowledge(db))
        db.execute(_VECTORS_UNKNOWN)
        db.execute(delete(_STATE).where(_STATE.c.name == "analyzer_version"))
        db.execute(insert(_STATE).values(name="analyzer_version", value=ANALYZER))
        return total

    def _add_all(self, db: Db, kind: ItemKind, batches: Iterable[list[Entry]]) -> int:
        total = 0
        for entries in batches:
            self.add(db, kind, entries)
            total += len(entries)
        return total

    def add(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        by_owner: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_owner[entry.user_id].append(entry)
        for user_id, owned in sorted(by_owner.items()):  # in one order for everybody, since their counts are held
            terms = sum(len(entry.terms) for entry in owned)
            scope = self._count_in(db, kind, user_id, len(owned), terms)
            self._insert(db, kind, [{"id": entry.id, "terms": tokens_of(entry.terms, scope)} for entry in owned])
            places = [place_row(scope, entry) for entry in owned if entry.place]
            if places:
                _ADD_PLACES.many(db, places)

    def append_values(self, terms: Sequence[str], place: Place) -> dict[str, Any] | None:
        return None

    def append_parts(self, stored: CTE) -> list[CTE]:
        raise NotImplementedError  # the values are asked for first

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        words = WORDS[kind]
        gone: dict[int, list[int]] = defaultdict(list)
        fewer_terms: dict[int, int] = defaultdict(int)
        for chunk in chunks(ids):
            for row in db.execute(select(words).where(words.c.rowid.in_(chunk))):
                scope = _scope(row.terms)
                gone[scope].append(row.rowid)
                fewer_terms[scope] += length(row.terms)
            db.execute(delete(words).where(words.c.rowid.in_(chunk)))
        for scope, removed in sorted(gone.items()):
            db.execute(_COUNT_OUT, {"scope": scope, "fewer_items": len(removed), "fewer_terms": fewer_terms[scope]})
            if kind == "message":
                for chunk in chunks(removed):
                    db.execute(delete(PLACES).where(PLACES.c.scope == scope, PLACES.c.id.in_(chunk)))

    def mend(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        """Write these items' rows anew; what the scopes count is left as it is."""
        words = WORDS[kind]
        for entry in entries:
            scope = self._count_in(db, kind, entry.user_id, 0, 0)
            db.execute(delete(words).where(words.c.rowid == entry.id))
            self._insert(db, kind, [{"id": entry.id, "terms": tokens_of(entry.terms, scope)}])
            if entry.place:
                db.execute(delete(PLACES).where(PLACES.c.scope == scope, PLACES.c.id == entry.id))
                _ADD_PLACES.many(db, [place_row(scope, entry)])
            db.execute(_COUNT_OUT, {"scope": scope, "fewer_items": 0, "fewer_terms": 0})

    def forget(self, db: Db, user_id: str, *, limit: int) -> int:
        """Rows below the owner's scopes that no item led to, then the scopes, which say who that was."""
        gone = 0
        for scope, kind in db.execute(select(SCOPES.c.id, SCOPES.c.kind).where(SCOPES.c.user_id == user_id)).all():
            query = {"query": self._query("", [f"@{scope}"]), "most": limit}
            ids = [id for (id,) in self._find[kind].tuples(db, query)]
            for chunk in chunks(ids):
                db.execute(delete(WORDS[kind]).where(WORDS[kind].c.rowid.in_(chunk)))
            below = PLACES.c.scope == scope
            places = list(db.execute(select(PLACES.c.id).where(below).limit(limit)).scalars())
            for chunk in chunks(places):
                db.execute(delete(PLACES).where(below & PLACES.c.id.in_(chunk)))
            if not ids and not places:
                db.execute(delete(SCOPES).where(SCOPES.c.id == scope))
                gone += 1
            gone += len(ids) + len(places)
        return gone

    def hold(self, db: Db, kind: ItemKind, owners: Collection[str]) -> None:
        """SQLite's writer has everything to itself."""
        return

    def vectors_changed(self, db: Db, kind: ItemKind, user_id: str) -> None:
        db.execute(_COUNT_VECTORS, {"scope_kind": kind, "scope_owner": user_id})

    def vectors_stored(self, db: Db, rows: Sequence[Mapping[str, Any]]) -> None:
        return  # these rows are all there is

    def vectors_gone(self, db: Db, kind: ItemKind, user_id: str) -> None:
        db.execute(_COUNT_VECTORS_OUT, {"scope_kind": kind, "scope_owner": user_id})

    def corpus(self, db: Db, kind: ItemKind, scope: Scope) -> Corpus:
        if scope.owners is None:
            rows = _ALL_SCOPES.tuples(db, {"kind": kind})
        else:
            owners = {"owner": scope.owners[0], "other": scope.owners[-1]}  # there are one or two
            rows = _TWO_SCOPES.tuples(db, {"kind": kind, **owners})
        return Corpus(tuple(ScopeCounts(*row) for row in rows), scope.owners is not None)

    def postings(
        self,
        db: Db,
        kind: ItemKind,
        corpus: Corpus,
        terms: Sequence[str],
        narrow: Sequence[ColumnElement[bool]] = (),
    ) -> dict[str, Ids]:
        """The newest items that hold each of the terms, newest first, at most ``POSTINGS``."""
        queries = [{"query": self._query(term, corpus.suffixes), "most": POSTINGS} for term in terms]
        if not narrow:
            found = self._find[kind].each(db, queries)
            return {term: [id for (id,) in rows] for term, rows in zip(terms, found, strict=True)}
        items = ITEMS[kind]
        statement = self._narrowed[kind].join(items, items.c.id == WORDS[kind].c.rowid).where(*narrow)
        return {term: list(db.execute(statement, query).scalars()) for term, query in zip(terms, queries, strict=True)}

    def tokens(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> dict[int, str]:
        """What the index has of these items."""
        return {id: terms for chunk in chunks(ids) for id, terms in db.execute(_READ[kind], {"ids": chunk})}

    def weights(
        self, db: Db, kind: ItemKind, corpus: Corpus, postings: Mapping[str, Ids], newest: Ids | None = None
    ) -> dict[str, float]:
        """How much each term says. Of one with more postings than were read, the share among the newest is counted.

        ``newest`` are the ``SAMPLE`` newest items of the corpus in order, where they are known.
        """
        cut = [term for term, ids in postings.items() if len(ids) >= POSTINGS]
        oldest = 0
        if cut and corpus.items > SAMPLE:
            oldest = self._oldest_of_sample(db, kind, corpus) if newest is None else int(newest[0])
        weights = {}
        for term, ids in postings.items():
            holding = float(len(ids))
            if term in cut:
                holding = max(holding, corpus.items * bisect_right(ids, -oldest, key=neg) / min(SAMPLE, corpus.items))
            weights[term] = bm25.idf(corpus.items, holding)
        return weights

    def _oldest_of_sample(self, db: Db, kind: ItemKind, corpus: Corpus) -> int:
        """The id that bounds the newest documents of the scope. One row is read for it, not one for each of them."""
        rows = self._nth[kind].tuples(db, {"query": self._query("", corpus.suffixes), "before": SAMPLE - 1})
        return int(rows[0][0]) if rows else 0

    def allowed(
        self, db: Db, kind: ItemKind, ranked: Sequence[int], conditions: Sequence[ColumnElement[bool]], limit: int
    ) -> list[Row[Any]]:
        """The index rows of the first of these items whose own rows meet the conditions, in their order."""
        statement = _READ[kind]
        if conditions:
            statement = statement.join(ITEMS[kind], ITEMS[kind].c.id == WORDS[kind].c.rowid).where(*conditions)
        rows: list[Row[Any]] = []
        for chunk in chunks(ranked, min(limit, MOST)):
            rows += db.execute(statement, {"ids": chunk}).all()
            if len(rows) >= limit:
                break
        order = {id: place for place, id in enumerate(ranked)}
        return sorted(rows, key=lambda row: order[row.rowid])[:limit]


def by_weight(postings: Mapping[str, Ids], weights: Mapping[str, float]) -> list[int]:
    """The items, those first whose terms weigh most together; of equals the newer."""
    total: dict[int, float] = defaultdict(float)
    for term, ids in postings.items():
        weight = weights[term]
        for id in ids:
            total[id] += weight
    # Sorted twice, since a sort keeps the order of equals: a key of both would be a tuple made for each document.
    return sorted(sorted(total, reverse=True), key=total.__getitem__, reverse=True)


def _scope(tokens: str | None) -> int:
    """Whose row of the index it is, as its first token says."""
    number = (tokens or "")[2:].partition(" ")[0]
    if not number.isascii() or not number.isdigit():
        raise Corrupt("the word index is damaged; restore a backup")
    return int(number)


def length(tokens: str) -> int:
    """How many terms a row of the index has."""
    return tokens.count("@") - 1


def tokens_of(terms: Sequence[str], scope: int | str) -> str:
    """Each token between spaces of its own, so that occurrences can be counted by a plain substring search."""
    return f" @{scope} " + "".join(f" {term}@{scope} " for term in terms)


def place_row(scope: int, entry: Entry) -> dict[str, Any]:
    place = entry.place
    assert place is not None
    return {"scope": scope, "id": entry.id, "position": place.position} | place_values(place, len(entry.terms))


def place_values(place: Place, length: int) -> dict[str, Any]:
    """What is known of a place before the message has an id, an owner's scope and a position."""
    return {
        "session": place.session,
        "speaker": place.speaker,
        "cues": place.cues,
        "length": length,
        "time": place.time,
    }
