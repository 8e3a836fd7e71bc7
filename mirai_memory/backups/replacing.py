"""One file in another's place: nobody else may have the old one open, and it is kept under a new name."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import URL

from mirai_memory import _files, schema
from mirai_memory.chroma_opening import beside
from mirai_memory.database import Database, open_database
from mirai_memory.database.engine import Options, driver_error
from mirai_memory.errors import Busy, Corrupt, SchemaTooNew, StorageError
from mirai_memory.search.chroma_link import throw_away
from mirai_memory.unit_of_work import is_open

_REPLACED = ".replaced-"  # then the time of it
_PATIENCE_MS = 1_000  # for somebody who is only just closing it


def refuse_unless_replaceable(target: Path) -> None:
    """Raise where the name is not that of a file, or where this process has it open."""
    if target.is_symlink():
        raise StorageError(f"{target} is a link, which is not followed; name the file itself")
    if os.path.lexists(target) and not target.is_file():
        raise StorageError(f"{target} is no regular file; name another")
    if is_open(target):
        raise Busy(f"{target} is open in this process; close its memory, then restore. Nothing was changed")


def replace(target: Path, new: Path, now: datetime) -> Path | None:
    """Put ``new`` where ``target`` is; the old file under its new name, or None where there was none.

    Raises Busy where somebody else has the old one open, ForeignDatabase where it is no memory: it stays as it is then.
    """
    refuse_unless_replaceable(target)
    with _files.translated(target, "it was restored"):
        if not target.exists():
            _set_companions_aside(target, _free_name(target, now))
            os.replace(new, target)
            _files.sync_folder(target.parent)
            _drop_vectors_beside(target)
            return None
        with _alone(target):
            kept = _free_name(target, now)
            _set_companions_aside(target, kept)
            _keep(target, kept)
            os.replace(new, target)
            _files.sync_folder(target.parent)
            _drop_vectors_beside(target)
        return kept


def _drop_vectors_beside(target: Path) -> None:
    """What Chroma has is of the file that was there, whose numbers the new one gives to other rows."""
    if beside(target).is_dir():
        throw_away(beside(target))


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Inside, no other connection has the file, nor gets it. Of one that is damaged nobody can tell."""
    database = open_database(URL.create("sqlite", database=str(target)), Options(busy_timeout_ms=_PATIENCE_MS))
    connection = None
    try:
        try:
            _read_version(database)
            connection = database.engine.connect()
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            # Each connection to a WAL file holds a lock on it that this switch cannot take while it is held. It brings
            # home what the log still holds, too: the old file is kept whole.
            driver.execute("PRAGMA journal_mode=DELETE").fetchall()
            driver.execute("BEGIN EXCLUSIVE")
        except (Corrupt, SchemaTooNew):
            pass  # a damaged file is what one restores for
        except Exception as error:
            ours = database.translated(error)
            if isinstance(ours, Busy):
                raise Busy(
                    f"{target} is open in another program; end that first, and restore then. Nothing was changed"
                ) from driver_error(error)
            if not isinstance(ours, Corrupt):
                raise ours from driver_error(error)
        if os.name == "nt":  # pragma: no cover - written for Windows, where an open file keeps its name; not run there
            _close(database, connection)
            connection = None
        yield
    finally:
        _close(database, connection)


def _read_version(database: Database) -> None:
    with database.begin(write=False) as db:
        schema.read_version(db, "")


def _close(database: Database, connection: object) -> None:
    if connection is not None:
        connection.close()  # type: ignore[attr-defined]
    database.dispose()


def _free_name(target: Path, now: datetime) -> Path:
    name = f"{target.name}{_REPLACED}{now:%Y%m%dT%H%M%SZ}"
    number = 1
    kept = target.with_name(name)
    while any(os.path.lexists(f"{kept}{ending}") for ending in ("", *_files.COMPANIONS)):
        number += 1
        kept = target.with_name(f"{name}-{number}")
    return kept


def replaced_files(target: Path) -> list[Path]:
    """The files that ``replace`` has put aside for this one, the oldest first. Raises OSError."""
    beside = (path for path in target.parent.iterdir() if path.name.startswith(f"{target.name}{_REPLACED}"))
    return sorted(path for path in beside if not path.name.endswith(_files.COMPANIONS))


def _set_companions_aside(target: Path, kept: Path) -> None:
    """What a crash has left beside the old file belongs to it: beside the new one it would be written into that."""
    for ending in ("-wal", "-journal"):
        if os.path.lexists(f"{target}{ending}"):
            os.rename(f"{target}{ending}", f"{kept}{ending}")
    if os.path.lexists(f"{target}-shm"):
        os.unlink(f"{target}-shm")


def _keep(target: Path, kept: Path) -> None:
    try:
        os.link(target, kept, follow_symlinks=False)  # so that at no moment there is no file
    except (OSError, NotImplementedError):
        os.rename(target, kept)
