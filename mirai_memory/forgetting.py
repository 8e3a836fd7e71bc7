"""Forgetting an owner: every row, then what the engine keeps of deleted rows, then the log that all of it went through.

The erasure is recorded first (``erasures``): a backup taken meanwhile, or a process that dies half-way, brings nothing
back. Each batch is a transaction of its own, and nothing that is left at any moment is wrong; calling again goes on.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mirai_memory import erasures
from mirai_memory._time import Clock, utc_now
from mirai_memory.backups.automatic import found_backups
from mirai_memory.backups.replacing import replaced_files
from mirai_memory.chroma_opening import beside
from mirai_memory.config import LongTermSettings
from mirai_memory.database import Database, sqlite_path
from mirai_memory.database.engine import Compaction, Remains
from mirai_memory.errors import Busy, ReadOnly, StorageError
from mirai_memory.logging import logger
from mirai_memory.retention import Pace
from mirai_memory.search import ItemKind
from mirai_memory.search.chroma_link import throw_away
from mirai_memory.unit_of_work import Store, UnitOfWork

if TYPE_CHECKING:
    from mirai_memory.chroma_feeding import ChromaFeeder

State = Literal["done", "pending", "planned"]
Progress = Callable[[int, int], object]

_KINDS: tuple[ItemKind, ...] = ("message", "knowledge")
_STRAYS = 500
# How long readers of the log are waited for, a moment at a time: between two, others write.
_PATIENCE = 3.0
_PAUSE = 0.05
_NAMED = 3
_AS_ASKED = "the files were not written anew, as was asked"
_HELD = "{} may still read what was there before; end that, then call forget_user again"
_READER = "another connection still reads an older state of the database; end it, then call forget_user again"
_CHROMA_SERVER = "Chroma: its server has dropped the owner's vectors, and keeps their bytes until it compacts its file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What became of an owner, in numbers and times; no content is in it.

    ``done``: no byte of the owner's is left in the files of SQLite, no row on a server; what that keeps for a while,
    and which statements end it, is in ``remains``, and in words in ``note``. ``vacuumed``: its tables whose dead rows
    VACUUM has taken. ``pending``: all rows are gone, but for ``reason`` the files may still have bytes of them;
    ``forget_user`` again ends it. ``planned``: nothing was changed, the numbers are what would go. ``unlinked_facts``
    are facts shared by all that no longer name the message they were learned from. ``backups`` are files of the folder
    of backups that are older than the erasure, and files that a restore has replaced; restoring one leaves the owner
    out, its bytes stay until it is deleted. ``recorded``: a restore and an import will know of it.
    """

    user_id: str
    state: State
    reason: str | None
    started_at: datetime
    finished_at: datetime
    sessions: int = 0
    messages: int = 0
    summaries: int = 0
    tasks: int = 0
    knowledge: int = 0
    preferences: int = 0
    embeddings: int = 0
    unlinked_facts: int = 0
    recorded: bool = False
    backups: tuple[str, ...] = ()
    note: str | None = None
    vacuumed: tuple[str, ...] = ()
    remains: tuple[Remains, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows went, or would go."""
        return self.sessions + self.messages + self.tasks + self.knowledge + self.preferences + self.embeddings

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        times = {"started_at": self.started_at.isoformat(), "finished_at": self.finished_at.isoformat()}
        found = dataclasses.asdict(self)
        remains = [{**place, "statements": list(place["statements"])} for place in found["remains"]]
        lists = {"backups": list(self.backups), "vacuumed": list(self.vacuumed), "remains": remains}
        return {**found, **times, **lists}


class Forgetter:
    """Forgets owners of one database."""

    def __init__(
        self, database: Database, store: Store, settings: LongTermSettings, clock: Clock, chroma: ChromaFeeder | None
    ) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._clock = clock
        self._chroma = chroma
        self._path = sqlite_path(database.url)

    def plan(self, user_id: str) -> Erasure:
        """What would go."""
        at = self._clock()
        counts = self._store.read(lambda uow: uow.maintenance.erasing.counts(user_id))
        return self._receipt(user_id, counts, at, at, "planned", None, Compaction())

    def forget(self, user_id: str, *, compact: bool, progress: Progress | None) -> Erasure:
        """Delete all that the owner has, and with ``compact`` what the engine keeps of it."""
        if self._database.options.read_only:
            raise ReadOnly("this memory was opened read-only")
        # Before anything is recorded, so that a memory that cannot be used says so.
        total = self._store.read(lambda uow: uow.maintenance.erasing.counts(user_id)).total()
        started = self._clock()
        self._record(user_id, started)
        gone, emptied = self._delete_rows(user_id, started, total, progress)
        if emptied > started:
            self._record(user_id, emptied)  # what came while others were deleted is gone too, but may be in a backup
        reason, compaction = self.drop_leftovers() if compact else (_AS_ASKED, Compaction())
        reason = self._forget_in_chroma(compact=compact) or reason
        state: State = "done" if reason is None else "pending"
        logger.info("forget: {} messages of {} sessions, {} facts deleted; {}", *_told(gone), state)
        return self._receipt(user_id, gone, started, self._clock(), state, reason, compaction)

    def _record(self, user_id: str, at: datetime) -> None:
        if self._path is not None:
            erasures.record(self._path, user_id, at)

    def _delete_rows(
        self, user_id: str, started: datetime, total: int, progress: Progress | None
    ) -> tuple[Counter[str], datetime]:
        """What went, and when there was nothing left."""
        gone = self._pass(user_id, lambda count: progress and progress(count, max(count, total)))
        gone += self._strays(user_id)
        while True:
            emptied = max(self._clock(), started)
            batch = self._pass(user_id, None)  # what others have stored for the owner meanwhile
            if not batch:
                return gone, emptied
            gone += batch

    def _pass(self, user_id: str, told: Callable[[int], object] | None) -> Counter[str]:
        """Delete everything that is there now; what went."""
        gone: Counter[str] = Counter()
        facts = self._store.read(lambda uow: uow.maintenance.erasing.linked_facts(user_id))
        if facts:
            gone += self._store.write(lambda uow: uow.maintenance.erasing.unlink(facts))
        pace = Pace()
        erase: Callable[[UnitOfWork, int], Counter[str]] = lambda uow, rows: uow.maintenance.erasing.erase(  # noqa: E731
            user_id, rows=rows
        )
        while batch := self._store.write(pace.timed(erase)):
            gone += batch
            if told is not None:
                told(gone.total())
        return gone

    def _strays(self, user_id: str) -> Counter[str]:
        gone: Counter[str] = Counter()
        while ids := self._store.read(lambda uow: uow.maintenance.erasing.stray_messages(user_id, rows=_STRAYS)):
            gone += self._store.write(lambda uow: uow.maintenance.erasing.erase_messages(ids))
        return gone

    def drop_leftovers(self) -> tuple[str | None, Compaction]:
        """Have the engine let go of every deleted row; why it could not, or None, and what it did."""
        self._store.drop_cached()
        done = Compaction()
        try:
            if self._store.read(lambda uow: uow.maintenance.erasing.has_leftovers()):
                for kind in _KINDS:
                    self._merge(kind)
                done = self._store.outside(self._database.dialect.compact)
                if done.held_by:
                    return _HELD.format(" and ".join(done.held_by[:_NAMED])), done
                self._store.write(lambda uow: uow.maintenance.erasing.no_leftovers())
            return None if self._log_is_empty() else _READER, done
        except (Busy, StorageError) as error:
            return f"{error}; then call forget_user again", done

    def _forget_in_chroma(self, *, compact: bool) -> str | None:
        """Have Chroma let go of what belongs to nobody any more; why it could not, or None."""
        if self._chroma is not None:
            return self._chroma.forget(compact=compact)
        folder = None if self._path is None else beside(self._path)
        if folder is None or not folder.is_dir():
            return None
        # From a time when it was used. What is of use to nobody goes as a whole.
        return None if throw_away(folder) else f"{folder.name}, where Chroma has vectors, is in use by another process"

    def _merge(self, kind: ItemKind) -> None:
        begin = True
        while self._store.write(lambda uow: uow.maintenance.merge_index(kind, begin=begin)):  # noqa: B023
            begin = False

    def _log_is_empty(self) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while not self._store.outside(self._database.dialect.truncate_log):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def _receipt(
        self,
        user_id: str,
        counts: Counter[str],
        started: datetime,
        now: datetime,
        state: State,
        reason: str | None,
        done: Compaction,
    ) -> Erasure:
        counted = {name: counts[name] for name in counts if name != "index_rows"}
        remains: tuple[Remains, ...] = ()
        with suppress(Busy, StorageError):  # what went is told even where the server went too
            remains = self._store.read(lambda uow: self._database.dialect.remains(uow.db, done))
        return Erasure(
            user_id=user_id,
            state=state,
            reason=reason,
            started_at=started,
            finished_at=now,
            recorded=self._path is not None and state != "planned",
            backups=() if self._path is None else _older(self._path, self._settings, started),
            note=self._note(remains),
            vacuumed=done.swept,
            remains=remains,
            **counted,
        )

    def _note(self, remains: Sequence[Remains]) -> str | None:
        notes = [f"{place.place}: {place.advice}" for place in remains]
        if self._chroma is not None and self._chroma.is_at_server:
            notes.append(_CHROMA_SERVER)
        return ". ".join(notes) or None


def _older(path: Path, settings: LongTermSettings, at: datetime) -> tuple[str, ...]:
    """Copies that still have the owner, by name: backups, the oldest first, and what restores have replaced."""
    now = utc_now()
    with suppress(OSError):
        found = found_backups(path, settings)
        # A backup of the future was made while the clock was wrong.
        made = [copy.path.name for copy in reversed(found) if copy.made_at <= at or copy.made_at > now]
        return (*made, *(copy.name for copy in replaced_files(path)))
    return ()


def _told(gone: Counter[str]) -> tuple[int, int, int]:
    return gone["messages"], gone["sessions"], gone["knowledge"]
