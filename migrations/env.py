"""How a migration run gets its connection, and what autogenerate may see.

The connection comes from, in this order: ``Config.attributes["connection"]`` (a Connection or an Engine), the
attribute ``url``, ``-x url=...``, the settings. The host's logging is left alone: no ``fileConfig`` here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context
from sqlalchemy import BigInteger, Connection, Engine
from sqlalchemy.types import TypeDecorator

from mirai_memory.database import migrating
from mirai_memory.errors import SchemaError
from mirai_memory.models import Base
from mirai_memory.schema import VERSION_TABLE, is_projection_table, make_place, read_version

config = context.config
DEFAULT_SCHEMA = "mirai_memory"
Steps = Callable[[Any, Any], Any]


def _tell(words: str) -> None:
    """To whoever has asked for it how a migration goes on."""
    told = config.attributes.get("tell")
    if told is not None:
        told(words)


def _wanted() -> tuple[Any, str]:
    """The engine, connection or URL to work on, and the schema (PostgreSQL)."""
    arguments = context.get_x_argument(as_dictionary=True)
    schema = config.attributes.get("schema") or arguments.get("schema")
    given = config.attributes.get("connection") or config.attributes.get("url") or arguments.get("url")
    if given is None or schema is None:
        from mirai_memory.config import load_settings

        settings = load_settings()
        schema = schema or settings.memory.schema_
        if given is None:
            from mirai_memory.database import resolve_url

            given = resolve_url(None, settings)
    return given, migrating.checked_schema(schema or DEFAULT_SCHEMA)


def _include_name(name: str | None, kind: str, parents: Any) -> bool:
    hidden = name is not None and (name == VERSION_TABLE or name.startswith("parked_") or is_projection_table(name))
    return kind != "table" or not hidden


def _render_item(kind: str, item: Any, autogen_context: Any) -> str | bool:
    """Revisions name plain ``sa.*`` types only: they must run unchanged when our own types have moved on."""
    if kind != "type":
        return False
    if isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    if isinstance(item, BigInteger) and "sqlite" in item._variant_mapping:
        return 'sa.BigInteger().with_variant(sa.Integer(), "sqlite")'
    return False


def _options(dialect_name: str, schema: str) -> dict[str, Any]:
    return {
        "target_metadata": Base.metadata,
        "version_table": VERSION_TABLE,
        "version_table_schema": schema if dialect_name == "postgresql" else None,
        "render_as_batch": dialect_name == "sqlite",
        # One transaction for the whole run, on SQLite too: our engine begins its transactions itself, so DDL is
        # rolled back with the rest there, whatever Alembic assumes of the driver.
        "transactional_ddl": True,
        "transaction_per_migration": False,
        "include_name": _include_name,
        "render_item": _render_item,
    }


@contextmanager
def _connection(given: Any) -> Iterator[Connection]:
    if isinstance(given, Connection):
        yield given
    elif isinstance(given, Engine):
        with given.connect() as connection:
            yield connection
    else:
        from mirai_memory.database import migration_engine, resolve_url

        target = resolve_url(given)
        make_place(target)
        engine = migration_engine(target)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()


@contextmanager
def _without_foreign_keys(connection: Connection) -> Iterator[None]:
    """SQLite rebuilds a table to alter it; with foreign keys on, that would delete the children by cascade."""
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys=OFF")  # ignored inside a transaction: must come before BEGIN
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _run_sqlite(connection: Connection) -> None:
    with _without_foreign_keys(connection), context.begin_transaction():
        context.run_migrations()
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise SchemaError(f"the migration would leave {len(broken)} broken references; nothing was changed")


def _run_postgres(connection: Connection, schema: str) -> None:
    dialect = connection.dialect
    before = dialect.default_schema_name
    # Alembic compares the tables of the default schema, which for this run is ours.
    dialect.default_schema_name = schema
    try:
        with context.begin_transaction():
            if context.get_context().opts.get("dont_mutate"):  # a look, which waits for nobody
                connection.exec_driver_sql(f"SET LOCAL search_path TO {migrating.quoted(schema)}")
            else:
                patience = config.attributes.get("patience") or migrating.Patience()
                migrating.begin(connection, schema, patience, _tell)
                if read_version(connection, schema) is None:  # the version table is made ahead of the first step
                    migrating.require_rights(connection, schema)
            context.run_migrations()
    finally:
        dialect.default_schema_name = before


def _told(steps: Steps, before: Callable[[], object]) -> Steps:
    """The steps of a migration, each announced and timed; ``before`` is called ahead of the first."""

    def announced(heads: Any, migration: Any) -> Iterator[Any]:
        for number, step in enumerate(steps(heads, migration)):
            if not number:
                before()
            name = step.info.up_revision_id
            _tell(f"{name} {'begins' if step.is_upgrade else 'is taken back'}: {step.doc}")
            started = time.monotonic()
            yield step
            _tell(f"{name} took {time.monotonic() - started:.1f} s")

    return announced


def _configure(connection: Connection, schema: str) -> None:
    name = connection.dialect.name
    options = _options(name, schema)
    context.configure(connection=connection, **options)
    given = context.get_context().opts

    def require_rights() -> None:
        if name == "postgresql":
            migrating.require_rights(connection, schema)

    # What the steps are is known once it is configured; so it is configured again.
    if not given.get("dont_mutate"):
        context.configure(connection=connection, fn=_told(given["fn"], require_rights), **options)


def run_online() -> None:
    given, schema = _wanted()
    with _connection(given) as connection:
        if connection.in_transaction():
            raise SchemaError("the connection has a transaction open; end it first, a migration is one of its own")
        name = connection.dialect.name
        read_version(connection, schema)  # a stranger's database is refused before anything is made in it
        connection.rollback()
        _configure(connection, schema)
        if name == "sqlite":
            _run_sqlite(connection)
        else:
            _run_postgres(connection, schema)


def run_offline() -> None:
    """``--sql``: the statements on standard output, for an administrator to run."""
    given, schema = _wanted()
    from mirai_memory.database import resolve_url

    url = given.engine.url if isinstance(given, (Engine, Connection)) else resolve_url(given)
    name = url.get_backend_name()
    context.configure(dialect_name=name, literal_binds=True, **_options(name, schema))
    start = context.get_starting_revision_argument()
    with context.begin_transaction():
        if name == "postgresql":
            for statement in migrating.script_head(schema, None if start in (None, "base") else start, VERSION_TABLE):
                context.execute(statement)
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
