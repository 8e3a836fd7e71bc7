"""What the façade and the command line ask for, in terms of paths as a caller writes them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from mirai_memory._time import Clock
from mirai_memory.backups.automatic import folder_of, found_backups, new_name
from mirai_memory.backups.copy import back_up
from mirai_memory.backups.drill import drill
from mirai_memory.backups.report import STEPS, Backup, Drill, Progress, Restored, Stage
from mirai_memory.backups.restore import restore
from mirai_memory.config import LongTermSettings
from mirai_memory.database import Database, Db, sqlite_path
from mirai_memory.errors import InvalidInput, NotFound
from mirai_memory.unit_of_work import Store

# Called with how much is done, in bytes, and how much there is to do: each byte is copied, and then checked.
Callback = Callable[[int, int], object]
FilePath = str | os.PathLike[str]


def make(
    store: Store,
    database: Database,
    settings: LongTermSettings,
    clock: Clock,
    path: FilePath | None,
    *,
    overwrite: bool,
    progress: Callback | None,
) -> Backup:
    """A backup at ``path``; in a folder, or in the one of the settings (None), under a name of its own."""
    _refuse_postgres(database.url)

    @contextmanager
    def reading() -> Iterator[Db]:
        with store.transaction(write=False) as uow:
            yield uow.db

    now = clock()
    target = _target(sqlite_path(database.url), settings, path, clock)
    return back_up(database, reading, target, now, overwrite=overwrite, progress=_as_one(progress))


def _target(own: Path | None, settings: LongTermSettings, path: FilePath | None, clock: Clock) -> Path:
    if path is not None:
        chosen = file_path("path", path)
        return chosen / new_name(own or Path("memory.db"), clock(), "manual") if chosen.is_dir() else chosen
    if own is None:
        raise InvalidInput("path", "is needed: a memory that is in no file has no folder of backups")
    return folder_of(own, settings) / new_name(own, clock(), "manual")


def bring_back(
    url: URL, backup: FilePath, target: FilePath, clock: Clock, *, progress: Callback | None = None
) -> Restored:
    """Restore; the erasures of the database at ``url`` count beside those of the target."""
    _refuse_postgres(url)
    own = sqlite_path(url)
    others = () if own is None else (own,)
    return restore(
        file_path("path", backup), file_path("target", target), clock, others=others, progress=_as_one(progress)
    )


def try_out(
    url: URL, settings: LongTermSettings, backup: FilePath | None, clock: Clock, *, progress: Callback | None = None
) -> Drill:
    """A drill with the backup, or (None) with the newest one of the database at ``url``."""
    _refuse_postgres(url)
    own = sqlite_path(url)
    beside = Path(tempfile.gettempdir(), "memory.db") if own is None else own
    chosen = _newest(own, settings) if backup is None else file_path("path", backup)
    return drill(chosen, beside, clock, progress=_as_one(progress))


def _newest(own: Path | None, settings: LongTermSettings) -> Path:
    found = [] if own is None else found_backups(own, settings)
    if not found:
        raise NotFound("backup", "any" if own is None else f"{folder_of(own, settings)}/{own.stem}-*")
    return found[0].path


def file_path(field: str, value: Any) -> Path:
    """The absolute path that the caller means. Raises InvalidInput for what is none."""
    try:
        text = os.fspath(value)
    except TypeError:
        raise InvalidInput(field, f"must be a path, not {type(value).__name__}") from None
    if not isinstance(text, str) or not text or "\x00" in text:
        raise InvalidInput(field, "must be the path of a file, as text")
    try:
        text.encode()
        path = Path(text).expanduser().absolute()
    except (RuntimeError, UnicodeEncodeError):
        path = None  # not raised here, since the error's context would hold the text
    if path is None:
        raise InvalidInput(field, "names no home folder, or has a lone surrogate")
    reason = _impossible(path)
    if reason:
        raise InvalidInput(field, f"cannot be the path of a file: {reason}")
    return path


def _impossible(path: Path) -> str | None:
    """Why no file can have this path; a file that is missing, or may not be seen, is told by whoever opens it."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _refuse_postgres(url: URL) -> None:
    if url.get_backend_name() != "sqlite":
        raise InvalidInput(
            "url",
            "is a server, whose own tools make and restore backups: pg_dump --format=custom --schema=NAME, and "
            "pg_restore; verify() checks what they have brought back",
        )


def _as_one(progress: Callback | None) -> Progress | None:
    """Copying and checking as one piece of work."""
    if progress is None:
        return None
    size = 0

    def told(stage: Stage, done: int, total: int) -> None:
        nonlocal size
        if stage == "copy":
            size = total
            progress(done, 2 * size)
        else:
            progress(size + size * done // STEPS, 2 * size)

    return told
