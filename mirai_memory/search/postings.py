"""Word search on both engines: the engine finds postings, BM25 over the scope's own documents ranks them.

A row of the index holds tokens ``term@scope``, one for each term of the item and one with the empty term. The owner
is therefore inside the index: the postings that a search reads are its scope's own, whatever others have stored.
What an engine has of ranking itself is not used: it weighs words by everybody's documents and reads every posting of
the commonest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import neg
from typing import Any

from sqlalchemy import (
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
    literal_column,
    select,
    update,
)
from sqlalchemy import bindparam as bind

from mirai_memory.database import Db
from mirai_memory.database.chunks import MOST, chunks
from mirai_memory.database.hot import HotStatement
from mirai_memory.models import KnowledgeRow, MessageRow, StateRow
from mirai_memory.search import bm25
from mirai_memory.search.analyzer import ANALYZER
from mirai_memory.search.base import Entry, Hit, ItemKind, Scope
from mirai_memory.search.terms import knowledge_terms, message_terms

# The newest postings of a term that are looked at. A term with more is too common to decide anything, and reading
# all of it would make the price of a query depend on its words (measured: 6 s for five common words, a million rows).
POSTINGS = 2_000
# Documents that are scored exactly, the best by the weight of the words they hold.
CANDIDATES = 200
# The newest documents of a scope among which the frequency of a common term is counted.
SAMPLE = 5_000
_REBUILD_BATCH = 2_000

_ITEMS: dict[ItemKind, Table] = {"message": MessageRow.table(), "knowledge": KnowledgeRow.table()}
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
)
_STATE = StateRow.table()

_COUNT_OUT = (
    update(SCOPES)
    .where(SCOPES.c.id == bind("scope"))
    .values(item_count=SCOPES.c.item_count - bind("fewer_items"), term_count=SCOPES.c.term_count - bind("fewer_terms"))
)
_ALL_SCOPES = select(SCOPES.c.id, SCOPES.c.item_count, SCOPES.c.term_count).where(SCOPES.c.kind == bind("kind"))
_SOME_SCOPES = _ALL_SCOPES.where(SCOPES.c.user_id.in_(bind("owners", expanding=True)))


def _newest(words: Table) -> Select[Any]:
    return select(words.c.rowid).order_by(words.c.rowid.desc()).limit(bind("most"))


def _read(words: Table) -> Select[Any]:
    return select(words.c.rowid, words.c.terms).where(words.c.rowid.in_(bind("ids", expanding=True)))


_READ = {kind: _read(words) for kind, words in WORDS.items()}


@dataclass(frozen=True, slots=True)
class _Corpus:
    """The scopes that one search reads: their tokens, and what BM25 wants to know of them."""

    suffixes: tuple[str, ...]  # "@12" for each scope; empty where everybody's items are searched
    items: int
    average_length: float

    def marks(self, term: str) -> list[str]:
        """What to look for in a row's tokens to count the term."""
        return [f" {term}{suffix} " for suffix in self.suffixes] or [f" {term}@"]


class PostingsIndex(ABC):
    """A ``SearchIndex`` but for three things that each engine says in its own way."""

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
        for words in (*WORDS.values(), SCOPES):
            db.execute(delete(words))
        total = self._rebuild(db, "message", _messages(db)) + self._rebuild(db, "knowledge", _knowledge(db))
        db.execute(delete(_STATE).where(_STATE.c.name == "analyzer_version"))
        db.execute(insert(_STATE).values(name="analyzer_version", value=ANALYZER))
        return total

    def _rebuild(self, db: Db, kind: ItemKind, batches: Iterable[list[Entry]]) -> int:
        total = 0
        for entries in batches:
            self.add(db, kind, entries)
            total += len(entries)
        return total

    def add(self, db: Db, kind: ItemKind, entries: Sequence[Entry]) -> None:
        by_owner: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            by_owner[entry.user_id].append(entry)
        for user_id, owned in by_owner.items():
            terms = sum(len(entry.terms) for entry in owned)
            scope = self._count_in(db, kind, user_id, len(owned), terms)
            self._insert(db, kind, [{"id": entry.id, "terms": _tokens(entry.terms, scope)} for entry in owned])

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        words = WORDS[kind]
        fewer_items: dict[int, int] = defaultdict(int)
        fewer_terms: dict[int, int] = defaultdict(int)
        for chunk in chunks(ids):
            for row in db.execute(select(words.c.terms).where(words.c.rowid.in_(chunk))):
                scope = int(row.terms[2 : row.terms.index(" ", 2)])
                fewer_items[scope] += 1
                fewer_terms[scope] += _length(row.terms)
            db.execute(delete(words).where(words.c.rowid.in_(chunk)))
        for scope, items in fewer_items.items():
            db.execute(_COUNT_OUT, {"scope": scope, "fewer_items": items, "fewer_terms": fewer_terms[scope]})

    def lexical(
        self,
        db: Db,
        kind: ItemKind,
        terms: Sequence[str],
        scope: Scope,
        *,
        limit: int,
        narrow: Sequence[ColumnElement[bool]] = (),
        always: Sequence[ColumnElement[bool]] = (),
    ) -> list[Hit]:
        corpus = _corpus(db, kind, scope)
        if not corpus.items or not terms or limit < 1:
            return []
        postings = {term: self._postings(db, kind, corpus, term, narrow, POSTINGS) for term in terms}
        weights = self._weights(db, kind, corpus, postings)
        ranked = _by_weight(postings, weights)
        rows = _allowed(db, kind, ranked, always, max(CANDIDATES, limit))  # the postings are narrow already
        # A row is of one scope, so at most one of a term's marks is in it.
        marks = [(mark, weight) for term, weight in weights.items() for mark in corpus.marks(term)]
        hits = [Hit(row.rowid, _score(marks, corpus.average_length, row.terms)) for row in rows]
        # The newer of two equals comes first.
        return sorted(hits, key=lambda hit: (-hit.score, -hit.id))[:limit]

    def _postings(
        self,
        db: Db,
        kind: ItemKind,
        corpus: _Corpus,
        term: str,
        narrow: Sequence[ColumnElement[bool]],
        limit: int,
    ) -> list[int]:
        values = {"query": self._query(term, corpus.suffixes), "most": limit}
        if not narrow:
            return [id for (id,) in self._find[kind].tuples(db, values)]
        items = _ITEMS[kind]
        statement = self._narrowed[kind].join(items, items.c.id == WORDS[kind].c.rowid).where(*narrow)
        return list(db.execute(statement, values).scalars())

    def _weights(self, db: Db, kind: ItemKind, corpus: _Corpus, postings: dict[str, list[int]]) -> dict[str, float]:
        """How much each term says. Of one with more postings than were read, the share among the newest is counted."""
        cut = [term for term, ids in postings.items() if len(ids) >= POSTINGS]
        oldest = self._oldest_of_sample(db, kind, corpus) if cut and corpus.items > SAMPLE else 0
        weights = {}
        for term, ids in postings.items():
            holding = float(len(ids))
            if term in cut:
                holding = max(holding, corpus.items * bisect_right(ids, -oldest, key=neg) / min(SAMPLE, corpus.items))
            weights[term] = bm25.idf(corpus.items, holding)
        return weights

    def _oldest_of_sample(self, db: Db, kind: ItemKind, corpus: _Corpus) -> int:
        """The id that bounds the newest documents of the scope. One row is read for it, not one for each of them."""
        rows = self._nth[kind].tuples(db, {"query": self._query("", corpus.suffixes), "before": SAMPLE - 1})
        return int(rows[0][0]) if rows else 0


def _tokens(terms: Sequence[str], scope: int) -> str:
    """Each token between spaces of its own, so that occurrences can be counted by a plain substring search."""
    return f" @{scope} " + "".join(f" {term}@{scope} " for term in terms)


def _length(tokens: str) -> int:
    return tokens.count("@") - 1


def _corpus(db: Db, kind: ItemKind, scope: Scope) -> _Corpus:
    if scope.owners is None:
        rows = db.execute(_ALL_SCOPES, {"kind": kind}).all()
    else:
        rows = db.execute(_SOME_SCOPES, {"kind": kind, "owners": scope.owners}).all()
    items = sum(row.item_count for row in rows)
    suffixes = () if scope.owners is None else tuple(f"@{row.id}" for row in rows)
    return _Corpus(suffixes, items, max(1.0, sum(row.term_count for row in rows) / max(1, items)))


def _by_weight(postings: dict[str, list[int]], weights: dict[str, float]) -> list[int]:
    total: dict[int, float] = defaultdict(float)
    for term, ids in postings.items():
        weight = weights[term]
        for id in ids:
            total[id] += weight
    # Sorted twice, since a sort keeps the order of equals: a key of both would be a tuple made for each document.
    return sorted(sorted(total, reverse=True), key=total.__getitem__, reverse=True)


def _allowed(
    db: Db, kind: ItemKind, ranked: Sequence[int], conditions: Sequence[ColumnElement[bool]], limit: int
) -> list[Row[Any]]:
    """The index rows of the best items whose own rows meet the conditions."""
    statement = _READ[kind]
    if conditions:
        statement = statement.join(_ITEMS[kind], _ITEMS[kind].c.id == WORDS[kind].c.rowid).where(*conditions)
    rows: list[Row[Any]] = []
    for chunk in chunks(ranked, min(limit, MOST)):
        rows += db.execute(statement, {"ids": chunk}).all()
        if len(rows) >= limit:
            break
    order = {id: place for place, id in enumerate(ranked)}
    return sorted(rows, key=lambda row: order[row.rowid])[:limit]


def _score(marks: Sequence[tuple[str, float]], average_length: float, tokens: str) -> float:
    length, score = _length(tokens), 0.0
    for mark, weight in marks:
        count = tokens.count(mark)
        if count:
            score += weight * bm25.weight(count, length, average_length)
    return score


def _batches(db: Db, kind: ItemKind, condition: ColumnElement[bool]) -> Iterator[Sequence[Row[Any]]]:
    items = _ITEMS[kind]
    last = 0
    while rows := db.execute(
        select(items).where(items.c.id > last, condition).order_by(items.c.id).limit(_REBUILD_BATCH)
    ).all():
        yield rows
        last = rows[-1].id


def _messages(db: Db) -> Iterator[list[Entry]]:
    for rows in _batches(db, "message", literal_column("messages.kind") == "chat"):
        yield [Entry(row.id, row.user_id, message_terms(row.content, row.name, row.timestamp)) for row in rows]


def _knowledge(db: Db) -> Iterator[list[Entry]]:
    items = KnowledgeRow.table()
    for rows in _batches(db, "knowledge", items.c.superseded_at.is_(None) & items.c.valid_to.is_(None)):
        yield [Entry(row.id, row.user_id, knowledge_terms(row.key, row.value)) for row in rows]
