"""The schema's version: read when a database is opened, changed by the migrations.

``migrations/`` is the only source of the schema. It stands beside the package in a checkout and inside it in a wheel.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Column, Connection, MetaData, Table, inspect, select, text

from mirai_memory._locks import file_lock
from mirai_memory.database import migrating
from mirai_memory.database.engine import Database, Options, dialect_of, driver_error, open_database
from mirai_memory.database.migrating import Patience, Tell
from mirai_memory.database.urls import display, resolve_url, sqlite_path
from mirai_memory.errors import (
    Busy,
    ConfigurationError,
    ForeignDatabase,
    MiraiMemoryError,
    SchemaError,
    SchemaOutOfDate,
    SchemaTooNew,
    StorageError,
)

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")
HEAD_REVISION = "0003"
VERSION_TABLE = "mirai_memory_version"
DEFAULT_SCHEMA = "mirai_memory"
_VERSIONS = Table(VERSION_TABLE, MetaData(), Column("version_num"))
# Tables of the first version, which had neither migrations nor a version.
_FIRST_VERSION = frozenset({"sessions", "messages", "user_preferences", "tasks", "knowledge"})
_PATIENCE = Patience()  # a migration of a large file takes this long on another process's turn
# Called with the database and its revision (None: its tables are parked) before its tables are changed.
BeforeChange = Callable[[Database, str | None], object]


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema's history: its id ("0001") and the first line of its description."""

    id: str
    doc: str


def is_projection_table(name: str) -> bool:
    """Whether a table is an index of one engine, made by statements of its own and no part of the models."""
    return name.startswith(("word_", "mirai_vec_", "sqlite_"))


def script_location() -> Path:
    """The folder of the migrations: inside an installed package, beside it in a checkout or editable install."""
    here = Path(__file__).resolve().parent
    for candidate in (here / "_migrations", here.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise SchemaError("the migration scripts are not installed; reinstall mirai-memory")


def ensure_current(database: Database, before: BeforeChange | None = None) -> None:
    """Leave with the schema at head: SQLite is upgraded, PostgreSQL is refused with the command to run.

    ``before`` is called first where tables that exist will be changed.

    Raises SchemaTooNew, SchemaOutOfDate, ForeignDatabase or Corrupt, with the database untouched.
    """
    path = sqlite_path(database.url)
    if path is not None:
        _check_place(path, read_only=database.options.read_only)
    if path is not None and not path.exists():
        version: str | None = None
    else:
        version = _read_version(database)
    if version == HEAD_REVISION:
        _use_wal(database)
        return
    if database.url.get_backend_name() == "postgresql":
        raise SchemaOutOfDate(
            f"the database is at revision {version or 'none'}, this package needs {HEAD_REVISION}; "
            f"run: mirai-memory db upgrade --db '{display(database.url)}'"
        )
    if database.options.read_only:
        raise SchemaOutOfDate(f"the database is at revision {version or 'none'}; open it once for writing to upgrade")
    _upgrade_sqlite(database, path, before)
    _use_wal(database)


def _use_wal(database: Database) -> None:
    # Not before the version is known: a stranger's file is left as it is, its journal mode included.
    if sqlite_path(database.url) is None or database.options.read_only:
        return
    from mirai_memory.database.sqlite import switch_to_wal

    try:
        switch_to_wal(database.engine, wait=database.options.busy_timeout_ms / 1000)
    except Exception as error:
        raise database.translated(error) from driver_error(error)


def _check_place(path: Path, *, read_only: bool) -> None:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # too long a name, a folder that may not be looked into
        raise StorageError(f"{path} cannot be looked at: {error.strerror}") from error
    if is_folder:
        raise StorageError(f"{path} is a folder; name a file in it")
    if read_only:
        if not exists:
            raise StorageError(f"{path} does not exist")
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the folder {path.parent} cannot be made: {error.strerror}") from error


def _upgrade_sqlite(database: Database, path: Path | None, before: BeforeChange | None) -> None:
    if path is None:
        assert database.turn is not None
        with database.turn, database.engine.connect() as connection:
            _run("upgrade", "head", connection=connection)
        return
    with _locked(path, _PATIENCE):
        _create_private(path)
        # Another process may have migrated the file while this one waited for the lock.
        version = _read_version(database)
        if version != HEAD_REVISION:
            if before is not None:
                before(database, version)
            _run("upgrade", "head", url=database.url)


@contextmanager
def _locked(path: Path, patience: Patience) -> Iterator[None]:
    try:
        with file_lock(path.with_name(path.name + ".lock"), wait=patience.lock_s):
            yield
    except OSError as error:
        if isinstance(error, MiraiMemoryError):
            raise
        raise StorageError(f"the lock file beside {path} cannot be made: {error.strerror}") from error


def make_place(url: URL) -> None:
    """The folder and the empty file of a SQLite URL, where they are missing."""
    path = sqlite_path(url)
    if path is not None:
        _check_place(path, read_only=False)
        _create_private(path)


def _create_private(path: Path) -> None:
    """An empty file that only its owner can read, where there is none; its text is nobody else's business."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


def _read_version(database: Database) -> str | None:
    """The revision of a database that is ours; None where it is empty or emptied. Raises for any other."""
    return _looked(database, lambda connection: read_version(connection, database.options.schema))


def _looked(database: Database, look: Callable[[Connection], T]) -> T:
    try:
        with database.begin(write=False) as connection:
            return look(connection)
    except Exception as error:
        ours = database.translated(error)
        if ours is error:
            raise
        raise ours from driver_error(error)


def read_version(connection: Connection, schema: str) -> str | None:
    """The revision of an open database; None where it is empty. Raises ForeignDatabase, SchemaTooNew."""
    on_sqlite = connection.dialect.name == "sqlite"
    tables = _tables(connection, None if on_sqlite else schema)
    if VERSION_TABLE in tables:
        place = {"schema_translate_map": {None: None if on_sqlite else schema}}
        return _known_version(connection.execute(select(_VERSIONS), execution_options=place).scalars().all())
    if not tables:
        return None
    if tables >= _FIRST_VERSION:
        raise ForeignDatabase(
            "this database was made by the first version; it is left as it is. "
            "Run: mirai-memory import OLD --db NEW, or name another file"
        )
    raise ForeignDatabase("this database belongs to something else; it was not touched. Name another file or schema")


def _tables(connection: Connection, schema: str | None) -> set[str]:
    if schema is None:
        # Every object counts as a sign that the file is somebody's; views and triggers too.
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
        return set(names.scalars())
    return set(inspect(connection).get_table_names(schema=schema))


def _known_version(versions: Any) -> str | None:
    if not versions:
        return None
    if len(versions) == 1 and str(versions[0]) in {f"{n:04d}" for n in range(1, int(HEAD_REVISION) + 1)}:
        return str(versions[0])
    raise SchemaTooNew(
        f"the database is at revision {', '.join(map(str, versions))[:40]}, which this package does not know "
        f"(it knows up to {HEAD_REVISION}); upgrade mirai-memory. Nothing was changed"
    )


# The commands, as the command line and the tests call them.


def upgrade(
    url: str | os.PathLike[str] | URL,
    *,
    revision: str = "head",
    schema: str = DEFAULT_SCHEMA,
    before: BeforeChange | None = None,
    patience: Patience = _PATIENCE,
    tell: Tell | None = None,
) -> None:
    """Bring a database to ``revision``; a new SQLite file is made. Safe to run in several processes at once.

    ``before`` is called first with a SQLite database that will be changed; ``tell`` with words on how it goes on. It is
    one transaction: cut short, it has changed nothing. Raises Busy where others are in the way for longer than
    ``patience`` says, StorageError where the role may not do it, with the statement for an administrator.
    """
    _change("upgrade", url, revision, schema, before, patience, tell)


def downgrade(
    url: str | os.PathLike[str] | URL,
    *,
    revision: str,
    schema: str = DEFAULT_SCHEMA,
    before: BeforeChange | None = None,
    patience: Patience = _PATIENCE,
    tell: Tell | None = None,
) -> None:
    """Take a database back to ``revision`` ("0001", "-1", "base"); rows are kept for the next upgrade.

    The arguments, and what it raises, are those of ``upgrade``.
    """
    _change("downgrade", url, revision, schema, before, patience, tell)


def _change(
    command: str,
    url: str | os.PathLike[str] | URL,
    revision: str,
    schema: str,
    before: BeforeChange | None,
    patience: Patience,
    tell: Tell | None,
) -> None:
    target = resolve_url(url)
    path = sqlite_path(target)
    database = open_database(target, Options(schema=migrating.checked_schema(schema)))
    try:
        if path is None:
            _read_version(database)
            _run_patiently(command, revision, database, patience, tell)
            return
        _check_place(path, read_only=False)
        if path.exists():
            _read_version(database)  # refuse before the lock file is made
        with _locked(path, patience):
            _create_private(path)
            version = _read_version(database)
            if before is not None and not (command == "upgrade" and version == HEAD_REVISION):
                before(database, version)
            _run(command, revision, url=target, tell=tell)
    finally:
        database.dispose()


def _run_patiently(command: str, revision: str, database: Database, patience: Patience, tell: Tell | None) -> None:
    """Run the migration anew each time it has let go of what others were using, until time is up."""
    deadline = time.monotonic() + patience.lock_s
    schema = database.options.schema
    while True:
        left = replace(patience, lock_s=max(0.0, deadline - time.monotonic()))
        try:
            return _run(command, revision, url=database.url, schema=schema, patience=left, tell=tell)
        except Busy as error:
            if getattr(error.__cause__, "sqlstate", None) != migrating.LOCK_NOT_AVAILABLE:
                raise
            who = _looked(database, lambda db: migrating.users_of(db, schema))
            if time.monotonic() >= deadline:
                late = f"{who} did not let go of the tables within {patience.lock_s:g} s; nothing was changed"
                raise Busy(f"{late}. End that, or give more time: --lock-timeout SECONDS") from error.__cause__
        if tell is not None:
            tell(f"{who} is in the way; trying again")
        time.sleep(min(random.uniform(0.5, 1) * migrating.TABLE_WAIT_S, max(0.0, deadline - time.monotonic())))


def script(
    url: str | os.PathLike[str] | URL, *, revision: str = "head", schema: str = DEFAULT_SCHEMA, start: str | None = None
) -> str:
    """The statements of an upgrade from ``start`` (None: from nothing) as SQL text; the database is not looked at."""
    written = io.StringIO()
    asked = revision if start is None else f"{start}:{revision}"
    _run("upgrade", asked, written, url=resolve_url(url), schema=migrating.checked_schema(schema))
    return written.getvalue()


def current(url: str | os.PathLike[str] | URL, *, schema: str = DEFAULT_SCHEMA) -> str | None:
    """The revision a database is at; None where it has none. Makes nothing."""
    target = resolve_url(url)
    path = sqlite_path(target)
    if path is not None:
        _check_place(path, read_only=True)
    # A connection that may not write leaves -wal and -shm beside a WAL file: only where it must be one.
    read_only = path is not None and not os.access(path, os.W_OK)
    database = open_database(target, Options(schema=schema, read_only=read_only))
    try:
        return _read_version(database)
    finally:
        database.dispose()


def check(url: str | os.PathLike[str] | URL, *, schema: str = DEFAULT_SCHEMA) -> list[str]:
    """How the tables of a database differ from the models, a line each; an empty list means: not at all."""
    version = current(url, schema=schema)
    if version != HEAD_REVISION:
        return [f"revision {version or 'none'} is not {HEAD_REVISION}"]
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    differences: list[str] = []

    def compare(_revision: Any, context: Any) -> list[Any]:
        from alembic.autogenerate import compare_metadata

        differences.extend(str(item) for item in compare_metadata(context, context.opts["target_metadata"]))
        return []

    config = _config(url=resolve_url(url), schema=schema)
    with EnvironmentContext(config, ScriptDirectory.from_config(config), fn=compare, dont_mutate=True):
        ScriptDirectory.from_config(config).run_env()
    return differences


def history() -> list[Revision]:
    """Every revision, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    found = [Revision(script.revision, script.doc.splitlines()[0]) for script in scripts.walk_revisions()]
    return found[::-1]


def _config(written: io.StringIO | None = None, **attributes: Any) -> Config:
    # Importing Alembic costs 0.3 s: only where there is something to do.
    from alembic.config import Config

    config = Config(output_buffer=written)
    # The parser of the configuration reads "%" as a reference: it has to be doubled in a path.
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(attributes)
    return config


def _run(command: str, revision: str, written: io.StringIO | None = None, **attributes: Any) -> None:
    """``written``: where the statements go instead of to the database."""
    from alembic import command as commands
    from alembic.util import CommandError

    config = _config(written, **({"schema": DEFAULT_SCHEMA} | attributes))
    try:
        getattr(commands, command)(config, revision, sql=written is not None)
    except CommandError as error:
        raise ConfigurationError(f"db {command} {revision}: {error}") from error
    except MiraiMemoryError:
        raise
    except Exception as error:
        url = attributes.get("url")
        ours = dialect_of(url).translate(driver_error(error)) if url is not None else None
        if ours is None:
            raise
        raise ours from driver_error(error)
