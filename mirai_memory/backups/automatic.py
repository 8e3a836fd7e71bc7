"""Backups that nobody asks for: daily, when a memory is opened, and before its tables are changed.

They never keep a program from starting: what goes wrong is a warning in the log, and one of ``health()``. The daily one
is made in a thread; ``close`` and the end of the program let it end, for a while.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import func, select, union_all

from mirai_memory import _files
from mirai_memory._locks import file_lock
from mirai_memory._time import Clock
from mirai_memory.backups.copy import back_up
from mirai_memory.backups.report import Backup, Stage
from mirai_memory.config import LongTermSettings
from mirai_memory.database import Database, Db, sqlite_path
from mirai_memory.errors import Busy
from mirai_memory.logging import logger
from mirai_memory.models import KnowledgeRow, PreferencesRow, SessionRow, TaskRow
from mirai_memory.unit_of_work import Store, UnitOfWork

Reason = Literal["daily", "upgrade", "manual"]
_DAY = timedelta(days=1)
_LONGEST_GOODBYE = 60.0  # seconds that close() waits for a daily backup; it is made once a day
_TRIES = 3  # a fork or a manual backup ends one that is under way, which then begins again
_STAMP = "%Y%m%dT%H%M%S"
_NAME = re.compile(
    r"(?P<stem>.+)-(?P<stamp>\d{8}T\d{6})(?P<ms>\d{3})Z-(?P<reason>daily|upgrade|manual)-(?P<of>[0-9a-f]{6})\.db"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A backup in the folder of backups, as its name tells it."""

    path: Path
    made_at: datetime
    reason: str
    size: int


def folder_of(database: Path, settings: LongTermSettings) -> Path:
    """Where backups of the file go."""
    return database.parent / "backups" if settings.backup_dir is None else Path(os.path.abspath(settings.backup_dir))


def new_name(database: Path, made_at: datetime, reason: Reason) -> str:
    """A name that sorts by time, and tells of which file it is: several may share a folder, and a name."""
    moment = made_at.astimezone(UTC)
    return f"{database.stem}-{moment:{_STAMP}}{moment.microsecond // 1000:03}Z-{reason}-{_mark(database)}.db"


def _mark(database: Path) -> str:
    return hashlib.blake2b(os.fsencode(os.path.abspath(database)), digest_size=3).hexdigest()


def found_backups(database: Path, settings: LongTermSettings) -> list[Found]:
    """The backups of the file in its folder of backups, made by hand or not, the newest first. Raises OSError."""
    found = []
    try:
        with os.scandir(folder_of(database, settings)) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None or match["stem"] != database.stem or match["of"] != _mark(database):
                    continue
                if entry.is_file(follow_symlinks=False):
                    made_at = datetime.strptime(match["stamp"], _STAMP).replace(tzinfo=UTC)
                    made_at += timedelta(milliseconds=int(match["ms"]))
                    size = entry.stat(follow_symlinks=False).st_size
                    found.append(Found(Path(entry.path), made_at, match["reason"], size))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda backup: (backup.made_at, backup.path), reverse=True)


def prune(database: Path, settings: LongTermSettings) -> int:
    """Delete the oldest that were made unasked, so that ``backup_keep`` are left; how many went."""
    made = [backup for backup in found_backups(database, settings) if backup.reason != "manual"]
    for backup in made[settings.backup_keep :]:
        os.unlink(backup.path)
    return len(made[settings.backup_keep :])


def before_change(database: Database, revision: str | None, settings: LongTermSettings, clock: Clock) -> None:
    """A backup of a database whose tables are about to be changed, unless it is empty. Warns, and never raises."""
    path = sqlite_path(database.url)
    if path is None or revision is None or not settings.backup_enabled:
        return

    def reading() -> AbstractContextManager[Db]:
        return database.begin(write=False)

    try:
        with reading() as db:
            if _oldest(db) is None:
                return
        made = back_up(database, reading, _target(path, settings, clock, "upgrade"), clock())
        _log(made, prune(path, settings))
    except Exception as error:
        logger.warning("no backup before the tables are changed: {}", _told(error))


def _target(path: Path, settings: LongTermSettings, clock: Clock, reason: Reason) -> Path:
    return folder_of(path, settings) / new_name(path, clock(), reason)


def _log(made: Backup, pruned: int) -> None:
    logger.info("backup made: {} bytes in {:.1f} s, {} old ones deleted", made.size, made.seconds, pruned)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, OSError | ValueError | RuntimeError) else type(error).__name__


def _oldest(db: Db) -> datetime | None:
    """When the first thing was stored; None where nothing is. By indexes, a row of each table."""
    sessions, knowledge, tasks = SessionRow.table(), KnowledgeRow.table(), TaskRow.table()
    likes = PreferencesRow.table()
    times = union_all(
        select(sessions.c.created_at.label("at"))
        .order_by(sessions.c.created_at, sessions.c.id)
        .limit(1)
        .subquery()
        .select(),
        select(knowledge.c.created_at.label("at")).order_by(knowledge.c.id).limit(1).subquery().select(),
        select(tasks.c.created_at.label("at")).order_by(tasks.c.id).limit(1).subquery().select(),
        select(likes.c.updated_at.label("at")).limit(1).subquery().select(),
    ).subquery()
    found: datetime | None = db.execute(select(func.min(times.c.at, type_=sessions.c.created_at.type))).scalar()
    return found


class DailyBackup:
    """The backup that an opening may begin."""

    def __init__(self, store: Store, database: Database, settings: LongTermSettings, clock: Clock) -> None:
        self._store = store
        self._database = database
        self._settings = settings
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._unwanted = False

    def begin_if_due(self) -> None:
        """Start it, where the last one is a day old. A look into a folder, and at most one small query."""
        path = sqlite_path(self._database.url)
        if path is None or not self._settings.backup_enabled or self._database.options.read_only:
            return
        try:
            if not self._is_due(path):
                return
            self._thread = threading.Thread(target=self._run, args=(path,), name="mirai-memory-backup", daemon=True)
            self._thread.start()
        except Exception as error:
            logger.warning("no daily backup: {}", _told(error))
            return
        _under_way.add(self)

    def _is_due(self, path: Path) -> bool:
        now = self._clock()
        # One of the future was made while the clock was wrong.
        newest = next((b.made_at for b in found_backups(path, self._settings) if b.made_at <= now + _DAY), None)
        if newest is None:
            newest = self._store.read(lambda uow: _oldest(uow.db))
        return newest is not None and now - newest >= _DAY

    def _run(self, path: Path) -> None:
        try:
            folder = folder_of(path, self._settings)
            _files.make_folder(folder)
            with file_lock(folder / f".{path.name}.lock", wait=0):
                if self._is_due(path):  # of several processes that were opened at once, one makes it
                    self._make(path)
        except Busy:
            logger.debug("another process makes the daily backup")
        except _Unwanted:
            logger.warning(
                "the daily backup was given up: the memory was closed, or the program ended, before it was made"
            )
        except Exception as error:
            logger.warning("no daily backup: {}", _told(error))

    def _make(self, path: Path) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                target = _target(path, self._settings, self._clock, "daily")
                made = back_up(self._database, self._reading, target, self._clock(), progress=self._stepped)
                _log(made, prune(path, self._settings))
                return
            except _Unwanted:
                if self._unwanted or attempt == _TRIES:
                    raise

    @contextmanager
    def _reading(self) -> Iterator[Db]:
        with self._store.transaction(write=False) as uow:
            yield _db(uow)

    def _stepped(self, stage: Stage, done: int, total: int) -> None:
        if self._unwanted or (stage == "copy" and self._store.is_waited_for):
            raise _Unwanted

    def give_up(self) -> None:
        """Let it end as soon as it can; nobody waits."""
        self._unwanted = True

    def finish(self, wait_s: float = _LONGEST_GOODBYE) -> None:
        """Let what is under way end; after ``wait_s`` give it up."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join(wait_s)
        self._unwanted = True
        _under_way.discard(self)


class _Unwanted(Exception):
    """Raised in the midst of a copy that has to end."""


def _db(uow: UnitOfWork) -> Db:
    return uow.db


_under_way: weakref.WeakSet[DailyBackup] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    """A program that closes nothing has its daily backup as well."""
    for daily in list(_under_way):
        daily.finish()
