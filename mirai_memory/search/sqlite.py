"""Word search on SQLite: the postings are FTS5's."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, bindparam, insert, literal_column, select, text

from mirai_memory.database import Db
from mirai_memory.database.engine import driver_of
from mirai_memory.database.hot import HotStatement
from mirai_memory.search.base import ItemKind
from mirai_memory.search.postings import WORDS, PostingsIndex

_COUNT_IN = HotStatement(
    text(
        "INSERT INTO word_scopes (kind, user_id, item_count, term_count) VALUES (:kind, :user_id, :items, :terms) "
        "ON CONFLICT (kind, user_id) DO UPDATE SET item_count = item_count + excluded.item_count, "
        "term_count = term_count + excluded.term_count RETURNING id"
    )
)
_INSERT = {
    kind: HotStatement(insert(words).values(rowid=bindparam("id"), terms=bindparam("terms")))
    for kind, words in WORDS.items()
}


# Pages that one step of a merge writes: few enough for others to write in between.
_PAGES = 200
# Items whose postings are summed up together: a sum for each would be large for a million of them.
_BUCKET = 64


class SQLiteIndex(PostingsIndex):
    """The ``SearchIndex`` of a SQLite file."""

    def _count_in(self, db: Db, kind: ItemKind, user_id: str, items: int, terms: int) -> int:
        counts = {"kind": kind, "user_id": user_id, "items": items, "terms": terms}
        return int(_COUNT_IN.tuples(db, counts)[0][0])

    def _insert(self, db: Db, kind: ItemKind, rows: list[dict[str, Any]]) -> None:
        _INSERT[kind].many(db, rows)

    def _matches(self, kind: ItemKind) -> ColumnElement[bool]:
        return literal_column(WORDS[kind].name).op("MATCH")(bindparam("query", type_=Text))

    def _query(self, term: str, suffixes: Sequence[str]) -> str:
        # A quoted string is one token, whatever it holds, and a term has no quotes: the analyser makes letters,
        # digits and marks only. So nothing that a user writes is query syntax.
        return " OR ".join(f'"{term}{suffix}"' for suffix in suffixes) if suffixes else f'"{term}@"*'

    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        # FTS5 deletes by writing that a word is gone; the word itself stays in older parts until they are merged. In
        # one go ("optimize") that would hold the write lock for as long as the whole index takes.
        name = WORDS[kind].name
        driver = driver_of(db)
        before = driver.total_changes
        step = f"INSERT INTO {name}({name}, rank) VALUES ('merge', ?)"  # noqa: S608 - a name of ours
        driver.execute(step, [-_PAGES if begin else _PAGES])
        return bool(begin or driver.total_changes - before >= 2)  # less is FTS5's word for "nothing to do"

    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        words = WORDS[kind]
        rows = db.execute(select(words.c.rowid, words.c.terms))
        wanted = _summed((id, token) for id, terms in rows for token in set((terms or "").split()))
        try:
            found = _summed(_postings(db, words.name))
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            return set(db.execute(select(words.c.rowid)).scalars())  # none can be read
        buckets = {bucket for bucket in wanted.keys() | found.keys() if wanted.get(bucket) != found.get(bucket)}
        return self._wrong_in(db, kind, buckets) if buckets else set()

    def _wrong_in(self, db: Db, kind: ItemKind, buckets: set[int]) -> set[int]:
        words = WORDS[kind]
        wanted: dict[int, set[str]] = defaultdict(set)
        found: dict[int, set[str]] = defaultdict(set)
        for id, terms in db.execute(select(words.c.rowid, words.c.terms)):
            if id // _BUCKET in buckets:
                wanted[id].update((terms or "").split())
        for id, token in _postings(db, words.name):
            if id // _BUCKET in buckets:
                found[id].add(token)
        return {id for id in wanted.keys() | found.keys() if wanted.get(id) != found.get(id)}

    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        name = WORDS[kind].name
        db.exec_driver_sql(f"INSERT INTO {name}({name}) VALUES ('rebuild')")  # noqa: S608 - a name of ours


def _postings(db: Db, name: str) -> Iterator[tuple[int, str]]:
    """Every (item, token) that the engine would find. Nothing of it is in the file: the table is a temporary view."""
    # FTS5's own check ("integrity-check") is a write: it would need the write lock, and a file that may be written.
    view = f"mirai_postings_of_{name}"
    db.exec_driver_sql(f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.{view} USING fts5vocab(main, {name}, instance)")
    driver = driver_of(db)
    cursor = driver.execute(f"SELECT doc, term FROM temp.{view}")  # noqa: S608 - a name of ours
    try:
        yield from cursor
    finally:
        cursor.close()


def _summed(postings: Iterable[tuple[int, str]]) -> dict[int, int]:
    """A sum for each bucket of items that any other set of tokens would not have."""
    sums: dict[int, int] = defaultdict(int)
    for posting in postings:
        sums[posting[0] // _BUCKET] += hash(posting)
    return sums
