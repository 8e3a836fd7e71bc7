"""Statements of the hot paths, run on the driver's own connection.

SQLAlchemy takes 50 to 100 µs to execute a statement and to hand out its result, several times what SQLite takes for a
small one, and as long as a server on the same machine. A hot statement is built from the models like any other,
compiled once for each engine (on PostgreSQL for each schema), and then given to the driver.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Delete,
    Dialect,
    Insert,
    Select,
    Table,
    TextClause,
    Update,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.sql.compiler import SQLCompiler

from mirai_memory.database.chunks import chunks
from mirai_memory.database.engine import Db, at_once, driver_of

Values = Mapping[str, Any]
# The longest list of a ``HotLookup``: a power of two, and fewer than any engine takes (``chunks.MOST``).
_LOOKED_UP: Final = 512
Statement = Select[Any] | Insert | Update | Delete | TextClause


class HotStatement:
    """A statement that names its values, none of which is a list. Values are turned by the types of their columns."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._compiled: dict[str | None, _Compiled] = {}

    def tuples(self, db: Db, values: Values) -> list[Any]:
        """What it returns, as the driver has it: for numbers and texts."""
        return self._for(db).run(db, values)

    def each(self, db: Db, several: Sequence[Values]) -> list[list[Any]]:
        """``tuples`` of each of several values; a server is waited for once."""
        return self._for(db).run_each(db, several)

    def rows(self, db: Db, values: Values) -> Sequence[Any]:
        """The rows of a SELECT: named tuples, values turned by the types of their columns."""
        compiled = self._for(db)
        return [compiled.row(values) for values in compiled.run(db, values)]

    def many(self, db: Db, rows: Sequence[Values]) -> None:
        """Run it for each of the rows; nothing is returned."""
        self._for(db).run_many(db, rows)

    def _for(self, db: Db) -> _Compiled:
        # All our engines of a kind are set up alike, so what one of them compiled serves the others.
        schema = None if _on_sqlite(db) else db.get_execution_options()["schema_translate_map"][None]
        compiled = self._compiled.get(schema)
        if compiled is None:
            compiled = self._compiled[schema] = _Compiled(self._statement, db.dialect, schema)
        return compiled


class HotLookup:
    """A SELECT of the rows whose ``column`` has one of some values: a hot statement for each length of the list.

    Lengths are powers of two; what is missing is the last value again.
    """

    def __init__(self, select: Select[Any], column: ColumnElement[Any]) -> None:
        self._select, self._column = select, column
        self._of_length: dict[int, HotStatement] = {}

    def rows(self, db: Db, wanted: Sequence[Any], values: Values) -> list[Any]:
        """In no order. ``values`` are for what else the SELECT names."""
        return [row for chunk in chunks(wanted, _LOOKED_UP) for row in self._some(db, chunk, values)]

    def _some(self, db: Db, wanted: Sequence[Any], values: Values) -> Sequence[Any]:
        length = 1 << (len(wanted) - 1).bit_length()
        named = {f"wanted_{place}": wanted[min(place, len(wanted) - 1)] for place in range(length)}
        statement = self._of_length.get(length)
        if statement is None:
            one_of = self._column.in_([bindparam(name, type_=self._column.type) for name in named])
            statement = self._of_length[length] = HotStatement(self._select.where(one_of))
        return statement.rows(db, {**values, **named})


class BulkInsert:
    """An INSERT of many rows into a table whose ``id`` only grows, and the ids they were given."""

    def __init__(self, table: Table) -> None:
        names = [column.name for column in table.c if column.name != "id"]
        self._insert = HotStatement(insert(table).values({name: bindparam(name) for name in names}))
        self._last = HotStatement(select(func.coalesce(func.max(table.c.id), 0)))
        self._since = HotStatement(select(table.c.id).where(table.c.id > bindparam("last")).order_by(table.c.id))
        self._returning = insert(table).returning(table.c.id, sort_by_parameter_order=True)

    def ids(self, db: Db, rows: Sequence[Values]) -> list[int]:
        """Insert the rows; their ids in the same order."""
        if not _on_sqlite(db):
            return [int(id) for id in db.execute(self._returning, rows).scalars()]
        # SQLAlchemy would insert row by row, since SQLite promises no order of what it returns. But nobody else writes
        # in this transaction: whatever is new is ours, in the order of its ids.
        [(last,)] = self._last.tuples(db, {})
        self._insert.many(db, rows)
        return [id for (id,) in self._since.tuples(db, {"last": last})]


def _on_sqlite(db: Db) -> bool:
    return db.dialect.name == "sqlite"


class _Compiled:
    def __init__(self, statement: Statement, dialect: Dialect, schema: str | None) -> None:
        places: dict[str, Any] = (
            {} if schema is None else {"schema_translate_map": {None: schema}, "render_schema_translate": True}
        )
        compiled = statement.compile(dialect=dialect, **places)
        assert isinstance(compiled, SQLCompiler)
        self._sql = str(compiled)
        self._positional = compiled.positional
        names = compiled.positiontup if compiled.positional else list(compiled.binds)
        # A value that nobody names, such as the OFFSET that goes with every LIMIT, is the bind's own.
        self._binds = [
            (name, bind.value, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for name in names or ()
            for bind in (compiled.binds[name],)
        ]
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        turns = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._turns = [(place, turn) for place, turn in enumerate(turns) if turn]
        row_type: Any = namedtuple("Row", [column.name for column in columns])  # type: ignore[misc]
        self._row = row_type

    def run(self, db: Db, values: Values) -> list[Any]:
        rows: list[Any] = driver_of(db).execute(self._sql, self._parameters(values)).fetchall()
        return rows

    def run_each(self, db: Db, several: Sequence[Values]) -> list[list[Any]]:
        if len(several) < 2 or _on_sqlite(db):
            return [self.run(db, values) for values in several]
        driver = driver_of(db)
        with at_once(db):
            found = [driver.execute(self._sql, self._parameters(values)) for values in several]
        return [cursor.fetchall() for cursor in found]

    def run_many(self, db: Db, rows: Sequence[Values]) -> None:
        driver_of(db).cursor().executemany(self._sql, list(map(self._parameters, rows)))

    def row(self, values: Sequence[Any]) -> Any:
        turned = list(values)
        for place, turn in self._turns:
            if turned[place] is not None:
                turned[place] = turn(turned[place])
        return self._row(*turned)

    def _parameters(self, values: Values) -> Any:
        if self._positional:
            return [
                values.get(name, default) if turn is None else turn(values.get(name, default))
                for name, default, turn in self._binds
            ]
        return {
            name: values.get(name, default) if turn is None else turn(values.get(name, default))
            for name, default, turn in self._binds
        }
