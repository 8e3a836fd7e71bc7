"""Checks that are true of SQLite only."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from mirai_memory.database import Db, open_database
from mirai_memory.database.sqlite import OLDEST
from mirai_memory.errors import Busy
from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, counted, error, ok, warning

# SQLite's "WAL-reset bug" (https://sqlite.org/wal.html): since 3.7.0, two connections that write and checkpoint at one
# moment may damage a WAL file, which ours are. Fixed in 3.51.3, and in 3.44.6 and 3.50.7 for those who stay on them.
_WAL_RESET_SINCE, _WAL_RESET_FIXED = (3, 7, 0), (3, 51, 3)
_WAL_RESET_BACKPORTS = ((3, 44, 6), (3, 50, 7))

_MOST_FAULTS = 100  # of each kind that are counted
_LONGEST_FAULT = 200
_RESTORE = "restore a backup, and write no more to this file"


def engine(*, several: bool) -> Finding:
    """Whether this SQLite can hold a memory, and whether it is known to damage one with ``several`` connections."""
    version = sqlite3.sqlite_version_info[:3]
    detail = f"SQLite {sqlite3.sqlite_version}"
    if version < OLDEST:
        return error(detail, "use a Python with SQLite 3.35 or newer")
    if not _has_full_text():
        return error(f"{detail} without FTS5", "use a Python whose SQLite was built with FTS5")
    if several and has_wal_reset_bug(version):
        return warning(
            f"{detail} has the WAL-reset bug, which can damage a file, very rarely, that several connections write",
            "use a Python with SQLite 3.51.3 or newer; until then keep backups",
        )
    return ok(f"{detail} with FTS5")


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    patched = any(version[:2] == fixed[:2] and version >= fixed for fixed in _WAL_RESET_BACKPORTS)
    return _WAL_RESET_SINCE <= version < _WAL_RESET_FIXED and not patched


def _has_full_text() -> bool:
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5(terms)")
        except sqlite3.OperationalError:
            return False
    return True


def is_read_only(path: Path | None) -> bool:
    """Whether the file or its folder, where SQLite puts its own files, may not be written."""
    return path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def writing(probe: Probe) -> Finding:
    """Take the write lock and give it back. Nothing is written."""
    if is_read_only(probe.path):
        advice = "allow writing to the file and its folder, or open the memory with read_only=True"
        return warning(f"{probe.path} or its folder may not be written", advice)
    options = probe.options(read_only=False)
    # The connection that reads is kept open by its pool: else closing this one would tidy up what a crash has left.
    database = open_database(probe.url, options)
    database.queue = None  # whose file would be made; SQLite's own lock is the one that counts
    try:
        with database.begin(write=True):
            pass
    except Exception as fault:
        ours = database.translated(fault)
        if not isinstance(ours, Busy):
            raise ours from None
        detail = f"another connection has held the write lock for {options.busy_timeout_ms / 1000:g} s"
        return warning(detail, "a program may hang in the middle of a write: find it, and end it")
    finally:
        database.dispose()
    return ok("the write lock is free")


def integrity(db: Db) -> Finding:
    """Whether the pages fit together, and every reference has its row."""
    faults = [str(row[0]) for row in db.exec_driver_sql(f"PRAGMA quick_check({_MOST_FAULTS})")]
    if faults != ["ok"]:
        # SQLite names tables, indexes and pages here, never what is in a row.
        first = " ".join(faults[0].split())[:_LONGEST_FAULT]
        return error(f"{counted(len(faults), 'fault')} in the file, the first: {first}", _RESTORE)
    broken = db.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_MOST_FAULTS)
    if broken:
        tables = ", ".join(sorted({f"{row[0]} to {row[2]}" for row in broken}))
        return error(f"{counted(len(broken), 'reference')} to rows that are gone, from {tables}", _RESTORE)
    return ok("pages and references are whole")
