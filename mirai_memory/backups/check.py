"""Whether a file is a memory, and whole: what a copy has to pass before it gets its name, or takes another's place.

A file may come from a stranger. So its list of objects is read first, and nothing that it brings along is run: no view,
no trigger, no table or index that is not exactly as the migrations make it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import URL, func, select

from mirai_memory import schema
from mirai_memory.backups.objects import FINGERPRINTS, fingerprint, objects, strangers
from mirai_memory.backups.report import STEPS, Contents, Progress
from mirai_memory.database import Database, Db, open_database
from mirai_memory.database.engine import Options, driver_error
from mirai_memory.errors import Corrupt, ForeignDatabase
from mirai_memory.models import Base

T = TypeVar("T")

_MOST_FAULTS = 100
_LONGEST_FAULT = 200
# The table in which FTS5 keeps what was indexed is read, and never the index itself: one that was forged can crash the
# engine.
_ITEMS = {"messages": "kind = 'chat'", "knowledge": "superseded_at IS NULL AND valid_to IS NULL"}
_TEXTS = "SELECT count(*) FROM {items} AS i WHERE {indexed}"
_WORDS = "SELECT count(*) FROM word_{items}_content"
# One join for both faults: to look for what is missing on either side takes twice as long.
_BOTH = "SELECT count(*) FROM word_{items}_content AS w JOIN {items} AS i ON i.id = w.id WHERE {indexed}"


def sqlite_database(path: Path, *, read_only: bool = False) -> Database:
    """Engines for a file that nobody else uses; it is synced by hand, once it is as it shall be."""
    options = Options(read_only=read_only, synchronous="normal")
    return open_database(URL.create("sqlite", database=str(path)), options)


@contextmanager
def begun(database: Database) -> Iterator[Db]:
    """A transaction that only reads; what the driver says is raised as our own errors."""
    try:
        with database.begin(write=False) as db:
            yield db
    except Exception as error:
        ours = database.translated(error)
        if ours is error:
            raise
        raise ours from driver_error(error)


def contents(db: Db) -> Contents:
    """The revision and the number of rows of each table. Raises ForeignDatabase, SchemaTooNew, Corrupt."""
    revision = schema.read_version(db, "")
    if revision is None:
        raise ForeignDatabase("there is no memory in this file: its tables are missing. Name another one")
    tables = set(db.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    counted = [table for table in Base.metadata.sorted_tables if table.name in tables]
    return Contents(
        revision,
        {table.name: int(db.execute(select(func.count()).select_from(table)).scalar_one()) for table in counted},
    )


def require_ours(db: Db, name: Path) -> str:
    """The revision of a file whose objects are those of a memory, all of them and no other. Raises ForeignDatabase."""
    found = objects(db)
    for kind, called in found:
        if kind not in ("table", "index"):
            raise ForeignDatabase(
                f"{name} has a {kind} {called[:100]!r}, which no memory has: it could run by itself. Where it is your "
                "own, drop it, and make the backup again"
            )
    revision = schema.read_version(db, "")
    if revision is None:
        raise ForeignDatabase(f"{name} holds no memory: its tables are missing")
    if fingerprint(found) != FINGERPRINTS[revision]:
        strange = ", ".join(repr(other[:100]) for other in strangers(found)[:5])
        reason = f"{strange} is nothing of a memory's" if strange else "a table or an index has been altered"
        raise ForeignDatabase(f"{name} is not as revision {revision} makes it: {reason}")
    return revision


def check(path: Path, *, name: Path, expected: Contents | None = None, progress: Progress | None = None) -> Contents:
    """What is in the file, which is whole in every respect. Raises Corrupt, ForeignDatabase, SchemaTooNew.

    ``name`` is what an error calls it, which is another file where ``path`` is a passing copy.

    Pages and indexes are looked at in a thread of their own beside references and words: both read all of the file.
    """
    try:
        return _checked(path, name, expected, _Steps(progress))
    except Corrupt as error:
        if str(name) in str(error):
            raise
        raise Corrupt(f"{name} is damaged: the engine cannot read all of it; take another backup") from error


def _checked(path: Path, name: Path, expected: Contents | None, steps: _Steps) -> Contents:
    database = sqlite_database(path, read_only=True)
    try:
        with begun(database) as db:
            revision = require_ours(db, name)
        steps.done()
        pages = Beside(lambda: _check_pages(path, name))
        try:
            found = _check_rows(database, name, revision, expected, steps)
        finally:
            pages.wait()
        pages.result()
        steps.done()
    finally:
        database.dispose()
    return found


def _check_rows(database: Database, name: Path, revision: str, expected: Contents | None, steps: _Steps) -> Contents:
    with begun(database) as db:
        found = contents(db)
        if expected is not None and found != expected:
            raise Corrupt(f"{name} does not hold what was copied into it; try again, and look at the disk")
        steps.done()
        _check_references(db, name)
        steps.done()
        if revision >= "0002" and _is_indexed(db):
            _check_words(db, name)
        steps.done()
        return found


class _Steps:
    """Told as they are done."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._number = progress, 0

    def done(self) -> None:
        self._number += 1
        if self._progress is not None:
            self._progress("check", self._number, STEPS)


def _check_pages(path: Path, name: Path) -> None:
    database = sqlite_database(path, read_only=True)
    try:
        with begun(database) as db:
            faults = [str(row[0]) for row in db.exec_driver_sql(f"PRAGMA integrity_check({_MOST_FAULTS})")]
    finally:
        database.dispose()
    if faults != ["ok"]:
        # SQLite names tables, indexes and pages here, never what is in a row.
        first = " ".join(faults[0].split())[:_LONGEST_FAULT]
        raise Corrupt(f"{name} is damaged: {len(faults)} faults, the first: {first}")


def _check_references(db: Db, name: Path) -> None:
    broken = db.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_MOST_FAULTS)
    if broken:
        tables = ", ".join(sorted({f"{row[0]} to {row[2]}" for row in broken}))
        raise Corrupt(f"{name} is damaged: references to rows that are gone, from {tables}")


def _is_indexed(db: Db) -> bool:
    """Whether the words are there: after an upgrade the next opening makes them."""
    return bool(db.exec_driver_sql("SELECT count(*) FROM memory_state WHERE name = 'analyzer_version'").scalar())


def _check_words(db: Db, name: Path) -> None:
    for items, indexed in _ITEMS.items():
        texts, words, both = (
            int(db.exec_driver_sql(statement.format(items=items, indexed=indexed)).scalar_one())
            for statement in (_TEXTS, _WORDS, _BOTH)
        )
        for count, fault in ((texts - both, "not in the word index"), (words - both, "gone but still in it")):
            if count:
                raise Corrupt(f"{name} is damaged: {count} of {items} are {fault}")


class Beside(Generic[T]):
    """A call in a thread of its own, which keeps nothing from ending, the process included."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mirai-memory-check", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def wait(self) -> None:
        self._thread.join()

    def result(self) -> T:
        """What the call returned or raised, once it has ended."""
        self.wait()
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value
