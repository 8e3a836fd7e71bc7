"""Statements of the hot paths, run on SQLite's own connection.

SQLAlchemy takes 50 to 100 µs to execute a statement and to hand out its result, several times what SQLite takes for a
small one. A hot statement is built from the models like any other, compiled once, and then given to the driver. On
PostgreSQL, where a round trip costs more than that, it is executed as usual.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Delete, Dialect, Insert, Select, Table, TextClause, Update, bindparam, func, insert, select
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from mirai_memory.database.engine import Db

Values = Mapping[str, Any]
Statement = Select[Any] | Insert | Update | Delete | TextClause


class HotStatement:
    """A statement that names its values, none of which is a list. Values are turned by the types of their columns."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._compiled: _Compiled | None = None

    def tuples(self, db: Db, values: Values) -> list[Any]:
        """What it returns, as the driver has it: for numbers and texts."""
        if not _on_sqlite(db):
            return [tuple(row) for row in db.execute(self._statement, values)]
        return self._for(db.dialect).run(db, values)

    def rows(self, db: Db, values: Values) -> Sequence[Any]:
        """The rows of a SELECT: named tuples, values turned by the types of their columns."""
        if not _on_sqlite(db):
            return db.execute(self._statement, values).all()
        compiled = self._for(db.dialect)
        return [compiled.row(values) for values in compiled.run(db, values)]

    def many(self, db: Db, rows: Sequence[Values]) -> None:
        """Run it for each of the rows; nothing is returned."""
        if not _on_sqlite(db):
            db.execute(self._statement, rows)
        else:
            self._for(db.dialect).run_many(db, rows)

    def _for(self, dialect: Dialect) -> _Compiled:
        # All our SQLite engines are set up alike, so what one of them compiled serves the others.
        if self._compiled is None:
            self._compiled = _Compiled(self._statement, dialect)
        return self._compiled


def _result_processor(type: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    turn = type.dialect_impl(dialect).result_processor(dialect, None)
    if turn is None or not isinstance(type, JSON):
        return turn
    # Nearly all metadata is empty.
    return lambda value: {} if value == "{}" else turn(value)


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
    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._sql = str(compiled)
        # A value that nobody names, such as the OFFSET that goes with every LIMIT, is the bind's own.
        self._binds = [
            (name, bind.value, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
            for bind in (compiled.binds[name],)
        ]
        columns = list(statement.selected_columns) if isinstance(statement, Select) else []
        turns = [_result_processor(column.type, dialect) for column in columns]
        self._turns = [(place, turn) for place, turn in enumerate(turns) if turn]
        row_type: Any = namedtuple("Row", [column.name for column in columns])  # type: ignore[misc]
        self._row = row_type

    def run(self, db: Db, values: Values) -> list[Any]:
        rows: list[Any] = _driver(db).execute(self._sql, self._parameters(values)).fetchall()
        return rows

    def run_many(self, db: Db, rows: Sequence[Values]) -> None:
        _driver(db).executemany(self._sql, map(self._parameters, rows))

    def row(self, values: Sequence[Any]) -> Any:
        turned = list(values)
        for place, turn in self._turns:
            if turned[place] is not None:
                turned[place] = turn(turned[place])
        return self._row(*turned)

    def _parameters(self, values: Values) -> list[Any]:
        return [
            values.get(name, default) if turn is None else turn(values.get(name, default))
            for name, default, turn in self._binds
        ]


def _driver(db: Db) -> Any:
    return db.connection.driver_connection
