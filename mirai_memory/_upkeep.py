"""Upkeep of a whole memory, every owner's: what ``MemoryManager`` has beyond the work with single items."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import BinaryIO

from mirai_memory import _checks
from mirai_memory._facade import Facade
from mirai_memory.backups import Backup, DailyBackup, Drill, Restored
from mirai_memory.backups import calls as backups
from mirai_memory.config import Settings
from mirai_memory.copying import Copied, copy_memory
from mirai_memory.database.urls import sqlite_path
from mirai_memory.errors import InvalidInput
from mirai_memory.forgetting import Erasure
from mirai_memory.retention import Cleanup, clean_up
from mirai_memory.retention import Progress as Callback
from mirai_memory.traces import Traces, checked_words, search_traces
from mirai_memory.transfer import UserExport, UserImport
from mirai_memory.transfer import run as transfer
from mirai_memory.verification import Repair, Verification, repair, verify


class Upkeep(Facade):
    """Methods that look at everything, or put it in order; ``UserMemory`` has none of them."""

    _daily: DailyBackup
    _all_settings: Settings

    # Retention

    def cleanup_old_sessions(self, days: float | None = None, *, dry_run: bool = False) -> int:
        """Delete sessions unused for ``days`` (None: ``memory.long_term.retention_days``); how many.

        Facts that have expired go too. As ``cleanup``, which tells more.
        """
        return self._cleaned_up(days, dry_run, None).sessions

    def cleanup(self, days: float | None = None, *, dry_run: bool = False, progress: Callback | None = None) -> Cleanup:
        """Delete sessions unused for ``days`` (None: ``memory.long_term.retention_days``) and facts that have expired.

        What went, by table. In small transactions, so that other writers are not kept waiting; one that was cut short
        is taken up by the next. ``dry_run`` only counts. ``progress(done, total)`` is called with rows after each
        batch. Raises InvalidInput, ReadOnly.
        """
        return self._cleaned_up(days, dry_run, progress)

    def _cleaned_up(self, days: float | None, dry_run: bool, progress: Callback | None) -> Cleanup:
        span = _checks.period("days", days, self._settings.long_term.retention_days, "days")
        before = _checks.before("days", self._clock(), span)
        return clean_up(self._store, before, dry_run=dry_run, progress=progress)

    # Faults

    def verify(self, *, progress: Callback | None = None) -> Verification:
        """Look for faults in all that is stored and in all that is derived from it; each kind has a name and a count.

        Everything is read, in bounded memory, and nothing is changed. Others write meanwhile. Raises what any read
        raises; a file that is damaged is told in the report. ``progress(done, total)`` is called with texts.
        """
        return verify(self._database, self._store, progress=progress)

    def repair(self, *, progress: Callback | None = None) -> Repair:
        """Make indexes, counters and links right again, and say what cannot be mended; what is right stays untouched.

        In small transactions, but for words that the engine itself has lost: those take one. Vectors that were wrong
        are wanted again. Looks before and after: ``progress(done, total)`` is called with texts, from the start each
        time. Raises ReadOnly, Busy, StorageError.
        """
        return repair(self._database, self._store, progress=progress)

    # Forgetting

    def forget_user(
        self, user_id: str, *, dry_run: bool = False, compact: bool = True, progress: Callback | None = None
    ) -> Erasure:
        """Delete everything of the owner, so that no byte is left of it in the files of SQLite; a receipt in numbers.

        Rows, index, vectors and summaries go in small transactions, then the files are written anew, which keeps
        other writers waiting for about as long as a copy of the database takes: with ``compact=False`` that is left
        to the next call, whoever is forgotten then, and the receipt says ``pending``. So it does where another
        connection still reads an older state. A call that was cut short, or that is pending, is ended by the next.
        ``dry_run`` only counts. ``progress(done, total)`` is called with rows. Raises ReadOnly, Busy, StorageError.
        """
        owner = _checks.owner(user_id)
        return self._forget(owner, dry_run=dry_run, compact=compact, progress=progress)

    def verify_forgotten(self, user_id: str, words: Sequence[str] = ()) -> Traces:
        """Look for the owner's id and for words that only this owner has used, wherever the memory writes.

        In the raw bytes of the database, of the files beside it and of the log, by a process of its own, or in every
        row of a server. Not in backups. Where a log's fields have the ``user_id``, it may be found there. Raises
        InvalidInput, StorageError.
        """
        owner, wanted = _checks.owner(user_id), checked_words(words)
        return search_traces(self._database, self._store, self._all_settings, owner, wanted)

    # Backups

    def backup(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
        progress: Callback | None = None,
    ) -> Backup:
        """Copy the whole memory, as it is at one moment, to a new file of mode 0600; others go on writing meanwhile.

        ``path`` None, or a folder, means a dated name in ``memory.long_term.backup_dir``, or in that folder. The copy
        is checked (pages, references, words, tables, numbers of rows), sealed with its checksum and synced before it
        has its name. ``progress(done, total)`` is called with bytes; what it raises ends the work. Raises Conflict for
        a file that is there already, unless ``overwrite``; StorageError and its kin, ForeignDatabase where the file has
        triggers, views or tables that are not ours, InvalidInput on PostgreSQL, which has pg_dump.
        """
        if path is None:
            self._daily.give_up()  # this one takes its place
        long_term = self._settings.long_term
        return backups.make(
            self._store, self._database, long_term, self._clock, path, overwrite=overwrite, progress=progress
        )

    def restore_backup(
        self, path: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Callback | None = None
    ) -> Restored:
        """Make the SQLite file ``target`` what the backup at ``path`` holds; the file it replaces is kept beside it.

        The backup is checked first, and one of an older schema is upgraded. Owners who were forgotten since, in this
        memory or in ``target``, stay forgotten. A memory cannot be restored while it is open: for this one use
        ``mirai-memory restore``. Raises Corrupt, ForeignDatabase, SchemaTooNew, NotFound, Busy where the target is
        open, StorageError and its kin, InvalidInput on PostgreSQL, which has pg_restore; nothing is changed then.
        """
        return backups.bring_back(self._database.url, path, target, self._clock, progress=progress)

    def drill_backup(self, path: str | os.PathLike[str] | None = None, *, progress: Callback | None = None) -> Drill:
        """Restore a backup (None: the newest one) into a passing folder, and look for some of its texts; how it went.

        All of ``restore_backup`` is done but the last step; ``ok`` when every text that was looked for was found.
        Raises what ``restore_backup`` raises for a backup that is of no use.
        """
        return backups.try_out(self._database.url, self._settings.long_term, path, self._clock, progress=progress)

    def copy_to(self, other: Upkeep, *, progress: Callback | None = None) -> Copied:
        """Make ``other``, a memory of either engine that is empty, hold exactly what this one holds; ids stay.

        Read at one moment, while others go on writing here; nobody may use the other meanwhile. Rows and checksums of
        every table are compared on both sides at the end. Cut short, it is gone on with by the next call; called again
        later it moves what has changed here since. ``progress(done, total)`` is called with rows. Raises Conflict for
        a memory that holds something else, or was used since it was copied; InvalidInput for this memory itself;
        StorageError and its kin.
        """
        if not isinstance(other, Upkeep):
            raise InvalidInput("other", f"must be a MemoryManager, not {type(other).__name__}")
        with other._vectorizer.paused() if other._vectorizer is not None else nullcontext():
            done = copy_memory(self._store, self._database, other._store, other._database, progress=progress)
        other._want_vectors()
        return done

    # One owner, out and in

    def export_user(
        self, user_id: str, target: str | os.PathLike[str] | BinaryIO, *, progress: Callback | None = None
    ) -> UserExport:
        """Write all of the owner's own, from one moment, to a new file or to one that is open in binary mode.

        Sessions, messages, preferences, tasks, facts with all their values, vectors that were given; not the shared
        facts, nor what can be made anew. A file that is named is mode 0600, and is there only when it is whole.
        ``progress(done, total)`` is called with rows, inside of the transaction. Raises InvalidInput for a file that is
        there already, StorageError.
        """
        owner = _checks.owner(user_id)
        return transfer.export_user(self._store, self._clock(), owner, target, progress=progress)

    def import_user(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        include_erased: bool = False,
        dry_run: bool = False,
        progress: Callback | None = None,
    ) -> UserImport:
        """Take in a file of ``export_user``, for the owner that it names: all that is new in it, or nothing.

        The whole file is checked first, and stored in one transaction. What is here already stays as it is, and what is
        here otherwise is a conflict in the report, so that a second import changes nothing. What is older than an
        erasure of the owner stays out, unless ``include_erased``. ``dry_run`` takes everything back.
        ``progress(done, total)`` is called with rows, inside of the transaction. Raises InvalidInput, which names the
        line, for a file that is damaged, cut off, or breaks a rule.
        """
        done = transfer.import_user(
            self._store,
            self._settings,
            source,
            database=sqlite_path(self._database.url),
            owner=None,
            include_erased=include_erased,
            dry_run=dry_run,
            progress=progress,
        )
        self._want_vectors()
        return done
