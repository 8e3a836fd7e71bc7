"""Word search on PostgreSQL: the postings are a GIN index over ``tsvector``s that hold the same tokens as SQLite's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    MetaData,
    Table,
    Text,
    bindparam,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY, TSVECTOR, Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningInsert

from mirai_memory.database import Db, vector_tables
from mirai_memory.database.chunks import chunks
from mirai_memory.search.base import ItemKind, Place
from mirai_memory.search.postings import ITEMS, PLACES, SCOPES, WORDS, PostingsIndex, place_values, tokens_of

# A tsvector holds at most 1 MB of lexemes; what a longer text has beyond that is not found by words.
_MAX_LEXEME_BYTES = 900_000
# Of a longer text the lexemes have to be counted, with the number of its scope.
_MAX_APPENDED = 50_000
_PLACE = ("session", "speaker", "cues", "length", "time")
_BATCH = 500  # rows that are compared at once

_MORE = MetaData()
_ROWS = {
    kind: Table(words.name, _MORE, Column("rowid", BigInteger), Column("terms", Text), Column("lexemes", TSVECTOR))
    for kind, words in WORDS.items()
}
_INSERT = {
    kind: insert(rows).values(
        rowid=bindparam("id"),
        terms=bindparam("terms"),
        lexemes=func.array_to_tsvector(bindparam("tokens", type_=ARRAY(Text))),
    )
    for kind, rows in _ROWS.items()
}


def _counted_in(new: Insert) -> ReturningInsert[Any]:
    counts = {
        "item_count": SCOPES.c.item_count + new.excluded.item_count,
        "term_count": SCOPES.c.term_count + new.excluded.term_count,
    }
    return new.on_conflict_do_update(index_elements=["kind", "user_id"], set_=counts).returning(SCOPES.c.id)


_COUNT_IN = _counted_in(
    upsert(SCOPES).values(
        kind=bindparam("new_kind"),
        user_id=bindparam("new_user_id"),
        item_count=bindparam("new_items"),
        term_count=bindparam("new_terms"),
    )
)
# In place of the number of a scope that is not known yet. The analyser makes letters, digits and marks only.
_SCOPE = "\x01"
_SCOPES_OF = (
    select(SCOPES.c.id)
    .where(SCOPES.c.kind == bindparam("of_kind"))
    .order_by(SCOPES.c.user_id)
    .with_for_update(of=SCOPES)
)
_HOLD = _SCOPES_OF.where(SCOPES.c.user_id.in_(bindparam("owners", expanding=True)))


class PostgresIndex(PostingsIndex):
    """The ``SearchIndex`` of a PostgreSQL schema."""

    def _count_in(self, db: Db, kind: ItemKind, user_id: str, items: int, terms: int) -> int:
        counts = {"new_kind": kind, "new_user_id": user_id, "new_items": items, "new_terms": terms}
        return int(db.execute(_COUNT_IN, counts).scalar_one())

    def _insert(self, db: Db, kind: ItemKind, rows: list[dict[str, Any]]) -> None:
        db.execute(_INSERT[kind], [{**row, "tokens": _distinct(row["terms"])} for row in rows])

    def append_parts(self, stored: CTE) -> list[CTE]:
        number: Any = bindparam("index_length", type_=BigInteger)
        new = select(literal("message"), stored.c.user_id, literal(1, BigInteger), number)
        scope = _counted_in(upsert(SCOPES).from_select(["kind", "user_id", "item_count", "term_count"], new)).cte(
            "scope"
        )
        words, places = _ROWS["message"], PLACES
        terms, tokens = (
            func.replace(bindparam(name, type_=Text), _SCOPE, cast(scope.c.id, Text))
            for name in ("index_terms", "index_tokens")
        )
        row = select(stored.c.id, terms, func.array_to_tsvector(func.string_to_array(tokens, " "))).select_from(stored)
        known = [bindparam(f"index_{name}", type_=places.c[name].type) for name in _PLACE]
        place = select(scope.c.id, stored.c.id, stored.c.position, *known).select_from(stored)
        return [
            scope,
            insert(words).from_select(["rowid", "terms", "lexemes"], row.join(scope, true())).cte("indexed"),
            insert(places).from_select(["scope", "id", "position", *_PLACE], place.join(scope, true())).cte("placed"),
        ]

    def append_values(self, terms: Sequence[str], place: Place) -> dict[str, Any] | None:
        marked = tokens_of(terms, _SCOPE)
        tokens = list(dict.fromkeys(marked.split()))
        if len(marked) > _MAX_APPENDED:
            return None
        values = {f"index_{name}": value for name, value in place_values(place, len(terms)).items()}
        return values | {"index_terms": marked, "index_tokens": " ".join(tokens)}

    def _matches(self, kind: ItemKind) -> ColumnElement[bool]:
        return literal_column("lexemes", TSVECTOR).op("@@")(cast(bindparam("query", type_=Text), TSQUERY))

    def _query(self, term: str, suffixes: Sequence[str]) -> str:
        # Quoted, a lexeme is taken as it is; a term has neither quotes nor backslashes.
        return " | ".join(f"'{term}{suffix}'" for suffix in suffixes) if suffixes else f"'{term}@':*"

    def vectors_stored(self, db: Db, rows: Sequence[Mapping[str, Any]]) -> None:
        vector_tables.store(db, rows)

    def remove(self, db: Db, kind: ItemKind, ids: Sequence[int]) -> None:
        # Held first: whoever writes words or vectors of an item holds it, and a statement that had to wait for them
        # does not see what has taken the place of a row that it waited for. Owners before items, as ``hold`` says.
        items, ordered = ITEMS[kind], list(chunks(sorted(ids)))
        for chunk in ordered:
            theirs = SCOPES.c.user_id.in_(select(items.c.user_id).where(items.c.id.in_(chunk)))
            db.execute(_SCOPES_OF.where(theirs), {"of_kind": kind})
        for chunk in ordered:
            db.execute(select(items.c.id).where(items.c.id.in_(chunk)).order_by(items.c.id).with_for_update())
        super().remove(db, kind, ids)

    def hold(self, db: Db, kind: ItemKind, owners: Collection[str]) -> None:
        db.execute(_HOLD, {"of_kind": kind, "owners": sorted(owners)})

    def merge(self, db: Db, kind: ItemKind, *, begin: bool) -> bool:
        return False  # the server's VACUUM does it

    def wrong_postings(self, db: Db, kind: ItemKind) -> set[int]:
        return {row["id"] for wrong in _wrong(db, kind) for row in wrong}

    def mend_postings(self, db: Db, kind: ItemKind) -> None:
        rows = _ROWS[kind]
        anew = update(rows).where(rows.c.rowid == bindparam("id"))
        tokens = func.array_to_tsvector(bindparam("tokens", type_=ARRAY(Text)))
        for wrong in _wrong(db, kind):
            if wrong:
                db.execute(anew.values(lexemes=tokens), wrong)


def _wrong(db: Db, kind: ItemKind) -> Iterator[list[dict[str, Any]]]:
    """Rows whose lexemes are not their tokens, with those, batch by batch."""
    rows = _ROWS[kind]
    lexemes = func.tsvector_to_array(rows.c.lexemes, type_=ARRAY(Text))
    statement = select(rows.c.rowid, rows.c.terms, lexemes.label("found")).order_by(rows.c.rowid).limit(_BATCH)
    last = 0
    while batch := db.execute(statement.where(rows.c.rowid > last)).all():
        tokens = {row.rowid: _distinct(row.terms) for row in batch}
        wrong = [row.rowid for row in batch if set(row.found) != set(tokens[row.rowid])]
        yield [{"id": id, "tokens": tokens[id]} for id in wrong]
        last = batch[-1].rowid


def _distinct(tokens: str) -> list[str]:
    kept, size = [], 0
    for token in dict.fromkeys(tokens.split()):
        size += len(token.encode()) + 4
        if size > _MAX_LEXEME_BYTES:
            break
        kept.append(token)
    return kept
