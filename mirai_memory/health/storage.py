"""The database itself: can it be reached, read, written, and is it whole?"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mirai_memory import schema
from mirai_memory.database import display
from mirai_memory.errors import Busy, ReadOnly, StorageError
from mirai_memory.health import postgres, sqlite
from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, Skip, error, megabytes, ok, warning


def database(probe: Probe) -> Finding:
    if probe.in_memory and probe.manager is None:
        raise Skip("an in-memory database exists in the program that opened it only")
    path, size = probe.path, ""
    if path is not None:
        fault = _why_no_file(path, probe)
        if fault is not None:
            return fault
        size = f", {megabytes(path.stat().st_size)}"
    try:
        if probe.manager is not None:
            with probe.manager._store.transaction(write=False):
                pass  # the program's own way in works too; a memory that was closed says so
        with probe.begin() as db:
            db.exec_driver_sql("SELECT count(*) FROM sqlite_master" if probe.on_sqlite else "SELECT 1")
    except (Busy, StorageError) as fault:
        return _why_not_read(fault, probe)
    return ok(f"{display(probe.url)}{size}")


def _why_not_read(fault: Busy | StorageError, probe: Probe) -> Finding:
    place = display(probe.url)
    if probe.on_sqlite and isinstance(fault, Busy):
        return error(f"{place} is locked by another connection", "find the program that keeps it locked, and end it")
    if probe.on_sqlite and isinstance(fault, ReadOnly):
        return _why_not_read_without_writing(place, probe)
    detail, _, advice = str(fault).partition("; ")
    ask = "look at the disk" if probe.on_sqlite else "are host, port, database, user and password right, and is it up?"
    return error(f"{place}: {detail}", advice or ask)


def _why_not_read_without_writing(place: str, probe: Probe) -> Finding:
    if os.path.exists(f"{probe.path}-journal"):
        advice = f"open it once for writing, which takes that write back: {probe.command('db current')}"
        return error(f"{place} was left in the middle of a write by a crash", advice)
    return error(
        f"{place} cannot be read in a folder that may not be written: SQLite keeps an index beside it",
        "allow writing to the folder, or copy the file to another one",
    )


def _why_no_file(path: Path, probe: Probe) -> Finding | None:
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        advice = f"check the path; if it is to be new, the first use makes it, or: {probe.command('db upgrade')}"
        return error(f"{path} does not exist", advice)
    if stat.S_ISDIR(state.st_mode):
        return error(f"{path} is a folder", "name a file in it")
    if not stat.S_ISREG(state.st_mode):
        return error(f"{path} is no regular file", "name a file")
    return None


def engine(probe: Probe) -> Finding:
    if probe.on_sqlite:
        return sqlite.engine(several=not probe.in_memory)
    probe.require("database")
    with probe.begin() as db:
        return postgres.engine(db)


def schema_revision(probe: Probe) -> Finding:
    with probe.begin() as db:
        revision = probe.revision(db)
    if revision == schema.HEAD_REVISION:
        return ok(f"revision {revision}")
    upgrade = probe.command("db upgrade")
    if revision is None:
        return error(
            "there are no tables in it yet",
            f"restore a backup where something should be in it, else: {upgrade}",
        )
    detail = f"revision {revision}, and this version needs {schema.HEAD_REVISION}"
    if probe.on_sqlite and not sqlite.is_read_only(probe.path):
        return warning(detail, f"the next opening upgrades it; or now: {upgrade}")
    return error(detail, upgrade)


def writing(probe: Probe) -> Finding:
    if probe.manager is not None and probe.manager._database.options.read_only:
        raise Skip("this memory was opened read-only")
    if probe.in_memory:
        return ok("in memory")
    if probe.on_sqlite:
        return sqlite.writing(probe)
    with probe.begin() as db:
        return postgres.writing(db)


def integrity(probe: Probe) -> Finding:
    with probe.begin() as db:
        return sqlite.integrity(db) if probe.on_sqlite else postgres.integrity(db)


def connections(probe: Probe) -> Finding:
    _require_server(probe)
    with probe.begin() as db:
        return postgres.connections(db, probe.settings.memory.pool_size)


def clock(probe: Probe) -> Finding:
    _require_server(probe)
    with probe.begin() as db:
        return postgres.clock(db)


def tables(probe: Probe) -> Finding:
    _require_server(probe)
    with probe.begin() as db:
        return postgres.tables(db, probe.settings.memory.schema_)


def _require_server(probe: Probe) -> None:
    if probe.on_sqlite:
        raise Skip("a server's matter; this is SQLite")
