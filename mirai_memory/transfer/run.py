"""Exporting and importing one owner: the file opened, the doors opened, the erasures asked."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from mirai_memory import erasures
from mirai_memory.config import MemorySettings
from mirai_memory.errors import InvalidInput
from mirai_memory.services.incoming import Record, Tally
from mirai_memory.transfer.reading import Reader
from mirai_memory.transfer.reports import ImportConflict, UserExport, UserImport
from mirai_memory.transfer.writing import Progress, target_file, write
from mirai_memory.unit_of_work import Store, UnitOfWork, is_open

Source = str | os.PathLike[str] | BinaryIO
_EVERY = 1_000  # records between two calls of ``progress``


def export_user(store: Store, at: datetime, user_id: str, target: Source, *, progress: Progress | None) -> UserExport:
    """Read in one transaction that is bound to the owner."""
    with target_file(target) as file:
        return store.read(lambda uow: write(uow.exports, file, user_id, at, progress), owner=user_id)


def import_user(
    store: Store,
    settings: MemorySettings,
    source: Source,
    *,
    database: Path | None,
    owner: str | None,
    include_erased: bool,
    dry_run: bool,
    progress: Progress | None,
) -> UserImport:
    """``database`` is the file that the erasures lie beside, if there is one."""
    with _source_file(source) as file:
        reader = Reader(file, settings)
        for _ in reader.records():
            pass  # all of it is checked before anything is written
        if owner is not None and reader.user_id != owner:
            raise InvalidInput("line 1", "user_id: is not the owner that this memory is bound to")
        erased = None if include_erased or database is None else erasures.erased(database, reader.user_id)
        return _store(store, reader, owner, erased, dry_run, progress)


def _store(
    store: Store, reader: Reader, owner: str | None, erased: datetime | None, dry_run: bool, progress: Progress | None
) -> UserImport:
    exported_at = reader.exported_at
    assert exported_at is not None

    def is_old(moment: datetime) -> bool:
        # Times of rows are what callers say they are; what was exported before the erasure is older whatever it says.
        return erased is not None and min(moment, exported_at) <= erased

    def take(uow: UnitOfWork) -> Tally:
        # The whole file once more, in one transaction. Had it changed, the end line would tell, and nothing would stay.
        records = _told(reader, progress)
        tally = uow.imports.store(reader.user_id, records, reader.facts, is_old)
        if dry_run:
            raise _Undo(tally)
        return tally

    try:
        tally = store.write(take, owner=owner)
    except _Undo as undone:
        tally = undone.tally
    conflicts = tuple(ImportConflict(*conflict) for conflict in tally.conflicts)
    return UserImport(user_id=reader.user_id, exported_at=exported_at, conflicts=conflicts, **tally.counts)


def _told(reader: Reader, progress: Progress | None) -> Iterator[Record]:
    total, whose = reader.lines - 2, (reader.user_id, reader.exported_at)
    for done, record in enumerate(reader.records(), 1):
        if (reader.user_id, reader.exported_at) != whose:
            raise InvalidInput("line 1", "is another one than before: the file was changed meanwhile")
        yield record
        if progress is not None and (done % _EVERY == 0 or done == total):
            progress(done, total)


class _Undo(Exception):
    """The end of a dry run."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally


@contextmanager
def _source_file(source: Any) -> Iterator[BinaryIO]:
    """The open file to read, which can be gone through twice."""
    if isinstance(source, (str, os.PathLike)):
        with _opened(Path(source)) as file:
            yield file
    elif not callable(getattr(source, "readline", None)) or isinstance(source, io.TextIOBase):
        raise InvalidInput("source", "must be a path, or a file that is opened for reading in binary mode")
    elif _can_seek(source):
        yield source
    else:
        with tempfile.TemporaryFile() as copy:  # without a name, for nobody else
            shutil.copyfileobj(source, copy)
            copy.seek(0)
            yield copy


def _can_seek(file: Any) -> bool:
    return bool(getattr(file, "seekable", lambda: False)())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    reason, file = "", None
    try:
        # Told before it is opened: a pipe would wait for its writer, and a database would lose its locks when closed.
        if not stat.S_ISREG(os.stat(path).st_mode):
            reason = "is no regular file"
        elif is_open(path):
            reason = "is the file of a memory that is open; an export is wanted"
        else:
            file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        reason = f"cannot be read: {error.strerror or type(error).__name__}"
    except ValueError:
        reason = "has a NUL, or a lone surrogate"
    if file is None:
        raise InvalidInput("source", reason)
    with file:
        yield file
