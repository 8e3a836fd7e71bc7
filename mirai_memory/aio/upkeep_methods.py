"""Upkeep for asyncio: methods that only hand a call on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import BinaryIO

from mirai_memory._upkeep import Upkeep
from mirai_memory.aio.facade import AsyncFacade
from mirai_memory.backups import Backup, Drill, Restored
from mirai_memory.copying import Copied
from mirai_memory.forgetting import Erasure
from mirai_memory.manager import MemoryManager
from mirai_memory.retention import Cleanup
from mirai_memory.retention import Progress as Callback
from mirai_memory.traces import Traces
from mirai_memory.transfer import UserExport, UserImport
from mirai_memory.verification import Repair, Verification


class UpkeepMethods(AsyncFacade[MemoryManager]):
    """Those that look at everything, or put it in order."""

    # Made by tests/aio/test_methods.py --write

    async def cleanup_old_sessions(self, days: float | None = None, *, dry_run: bool = False) -> int:
        """Delete sessions unused for ``days`` (None: ``memory.long_term.retention_days``); how many.

        Facts that have expired go too. As ``cleanup``, which tells more.
        """
        return await self._slow(lambda memory: memory.cleanup_old_sessions(days, dry_run=dry_run))

    async def cleanup(
        self, days: float | None = None, *, dry_run: bool = False, progress: Callback | None = None
    ) -> Cleanup:
        """Delete sessions unused for ``days`` (None: ``memory.long_term.retention_days``) and facts that have expired.

        What went, by table. In small transactions, so that other writers are not kept waiting; one that was cut short
        is taken up by the next. ``dry_run`` only counts. ``progress(done, total)`` is called with rows after each
        batch. Raises InvalidInput, ReadOnly.
        """
        return await self._slow(lambda memory: memory.cleanup(days, dry_run=dry_run, progress=progress))

    async def verify(self, *, progress: Callback | None = None) -> Verification:
        """Look for faults in all that is stored and in all that is derived from it; each kind has a name and a count.

        Everything is read, in bounded memory, and nothing is changed. Others write meanwhile. Raises what any read
        raises; a file that is damaged is told in the report. ``progress(done, total)`` is called with texts.
        """
        return await self._slow(lambda memory: memory.verify(progress=progress))

    async def repair(self, *, progress: Callback | None = None) -> Repair:
        """Make indexes, counters and links right again, and say what cannot be mended; what is right stays untouched.

        In small transactions, but for words that the engine itself has lost: those take one. Vectors that were wrong
        are wanted again. Looks before and after: ``progress(done, total)`` is called with texts, from the start each
        time. Raises ReadOnly, Busy, StorageError.
        """
        return await self._slow(lambda memory: memory.repair(progress=progress))

    async def forget_user(
        self, user_id: str, *, dry_run: bool = False, compact: bool = True, progress: Callback | None = None
    ) -> Erasure:
        """Delete everything of the owner, so that no byte is left of it in the files of SQLite; a receipt in numbers.

        Rows, index, vectors and summaries go in small transactions, then the files are written anew, which keeps
        other writers waiting for about as long as a copy of the database takes: with ``compact=False`` that is left
        to the next call, whoever is forgotten then, and the receipt says ``pending``. So it does where another
        connection still reads an older state. A call that was cut short, or that is pending, is ended by the next.
        ``dry_run`` only counts. ``progress(done, total)`` is called with rows. Raises ReadOnly, Busy, StorageError.
        """
        return await self._slow(
            lambda memory: memory.forget_user(user_id, dry_run=dry_run, compact=compact, progress=progress)
        )

    async def verify_forgotten(self, user_id: str, words: Sequence[str] = ()) -> Traces:
        """Look for the owner's id and for words that only this owner has used, wherever the memory writes.

        In the raw bytes of the database, of the files beside it and of the log, by a process of its own, or in every
        row of a server. Not in backups. Where a log's fields have the ``user_id``, it may be found there. Raises
        InvalidInput, StorageError.
        """
        return await self._slow(lambda memory: memory.verify_forgotten(user_id, words))

    async def backup(
        self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False, progress: Callback | None = None
    ) -> Backup:
        """Copy the whole memory, as it is at one moment, to a new file of mode 0600; others go on writing meanwhile.

        ``path`` None, or a folder, means a dated name in ``memory.long_term.backup_dir``, or in that folder. The copy
        is checked (pages, references, words, tables, numbers of rows), sealed with its checksum and synced before it
        has its name. ``progress(done, total)`` is called with bytes; what it raises ends the work. Raises Conflict for
        a file that is there already, unless ``overwrite``; StorageError and its kin, ForeignDatabase where the file has
        triggers, views or tables that are not ours, InvalidInput on PostgreSQL, which has pg_dump.
        """
        return await self._slow(lambda memory: memory.backup(path, overwrite=overwrite, progress=progress))

    async def restore_backup(
        self, path: str | os.PathLike[str], target: str | os.PathLike[str], *, progress: Callback | None = None
    ) -> Restored:
        """Make the SQLite file ``target`` what the backup at ``path`` holds; the file it replaces is kept beside it.

        The backup is checked first, and one of an older schema is upgraded. Owners who were forgotten since, in this
        memory or in ``target``, stay forgotten. A memory cannot be restored while it is open: for this one use
        ``mirai-memory restore``. Raises Corrupt, ForeignDatabase, SchemaTooNew, NotFound, Busy where the target is
        open, StorageError and its kin, InvalidInput on PostgreSQL, which has pg_restore; nothing is changed then.
        """
        return await self._slow(lambda memory: memory.restore_backup(path, target, progress=progress))

    async def drill_backup(
        self, path: str | os.PathLike[str] | None = None, *, progress: Callback | None = None
    ) -> Drill:
        """Restore a backup (None: the newest one) into a passing folder, and look for some of its texts; how it went.

        All of ``restore_backup`` is done but the last step; ``ok`` when every text that was looked for was found.
        Raises what ``restore_backup`` raises for a backup that is of no use.
        """
        return await self._slow(lambda memory: memory.drill_backup(path, progress=progress))

    async def copy_to(self, other: Upkeep, *, progress: Callback | None = None) -> Copied:
        """Make ``other``, a memory of either engine that is empty, hold exactly what this one holds; ids stay.

        Read at one moment, while others go on writing here; nobody may use the other meanwhile. Rows and checksums of
        every table are compared on both sides at the end. Cut short, it is gone on with by the next call; called again
        later it moves what has changed here since. ``progress(done, total)`` is called with rows. Raises Conflict for
        a memory that holds something else, or was used since it was copied; InvalidInput for this memory itself;
        StorageError and its kin.
        """
        return await self._slow(lambda memory: memory.copy_to(other, progress=progress))

    async def export_user(
        self, user_id: str, target: str | os.PathLike[str] | BinaryIO, *, progress: Callback | None = None
    ) -> UserExport:
        """Write all of the owner's own, from one moment, to a new file or to one that is open in binary mode.

        Sessions, messages, preferences, tasks, facts with all their values, vectors that were given; not the shared
        facts, nor what can be made anew. A file that is named is mode 0600, and is there only when it is whole.
        ``progress(done, total)`` is called with rows, inside of the transaction. Raises InvalidInput for a file that is
        there already, StorageError.
        """
        return await self._slow(lambda memory: memory.export_user(user_id, target, progress=progress))

    async def import_user(
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
        return await self._slow(
            lambda memory: memory.import_user(source, include_erased=include_erased, dry_run=dry_run, progress=progress)
        )
