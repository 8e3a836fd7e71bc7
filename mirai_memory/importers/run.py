"""Importing a file: its format found, its conversations stored one transaction each, what failed reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import tzinfo
from itertools import islice
from pathlib import Path
from typing import Any

from mirai_memory.entities import Message
from mirai_memory.errors import Conflict, InvalidInput, MiraiMemoryError
from mirai_memory.importers import own_export, sqlite_source
from mirai_memory.importers.base import (
    Conversation,
    Importer,
    ImportFault,
    ImportReport,
    Options,
    SessionDraft,
    SourceError,
)
from mirai_memory.importers.chatgpt import ChatGPT
from mirai_memory.importers.claude import Claude
from mirai_memory.importers.first_version import FirstVersion
from mirai_memory.importers.langchain import LangChain
from mirai_memory.importers.locomo import LoCoMo
from mirai_memory.importers.openai_agents import OpenAIAgents
from mirai_memory.importers.openai_chat import OpenAIChat
from mirai_memory.importers.openai_layout import entries
from mirai_memory.importers.own_export import OwnExport
from mirai_memory.importers.records import store_all
from mirai_memory.manager import MemoryManager
from mirai_memory.scoped import UserMemory
from mirai_memory.unit_of_work import UnitOfWork

# In this order they are asked: the more particular format first.
FORMATS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        *(FirstVersion(), OpenAIAgents(), LangChain()),
        *(OwnExport(), ChatGPT(), Claude(), LoCoMo(), OpenAIChat()),
    )
}
# What is added at a time: so many messages, or fewer that are long.
_CHUNK, _CHUNK_CHARACTERS = 500, 1 << 21

Progress = Callable[[int], None]


def detect_format(path: str | os.PathLike[str]) -> str | None:
    """The name of the file's format, told by its content; None where it has none of them or cannot be read."""
    try:
        importer = _detected(Path(path))
    except OSError:
        return None
    return importer.name if importer else None


def import_file(
    memory: MemoryManager | UserMemory,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    timezone: tzinfo | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import one file; a conversation that cannot be stored whole is not stored at all.

    A ``UserMemory`` imports for its owner. A ``MemoryManager`` is for formats that name the owners themselves
    ("first-version", "mirai-memory"), which are kept; with a ``UserMemory`` only its owner's rows are taken from those,
    and no shared facts. ``timezone`` is that of times without one (None: the machine's).

    A second run adds only what is new. ``dry_run`` does all of it and takes it back, one transaction after the other.
    ``progress`` is called with the number of messages gone through since it was called last. What is wrong with the
    file is in the report; a failing database raises StorageError or Busy, a file that is the memory's own InvalidInput.
    """
    _check_format(format)
    _check_other_file(memory, Path(path))
    run = _Run(memory, Path(path), timezone, progress or (lambda messages: None), dry_run)
    try:
        run.work(format)
    except MiraiMemoryError:
        raise  # a StorageError is an OSError too, and no fault of the file
    except OSError as error:
        run.note(error.strerror or type(error).__name__)
    return run.report


def _check_format(format: str | None) -> None:
    if format is not None and format not in FORMATS:
        raise InvalidInput("format", f"must be one of {', '.join(FORMATS)}")


def _check_other_file(memory: MemoryManager | UserMemory, path: Path) -> None:
    own = Path(memory.url) if isinstance(memory, MemoryManager) else None
    if own is not None and own.exists() and path.exists() and path.samefile(own):
        raise InvalidInput("path", "is the file of this memory itself; open another one to import it into")


class _Run:
    """One file on its way into the memory."""

    def __init__(
        self,
        memory: MemoryManager | UserMemory,
        path: Path,
        timezone: tzinfo | None,
        progress: Progress,
        dry_run: bool,
    ) -> None:
        self._memory, self._path, self._progress, self._dry_run = memory, path, progress, dry_run
        self._owner = memory.user_id if isinstance(memory, UserMemory) else None
        self._options = Options(timezone=timezone, user_id=self._owner)
        self.report = ImportReport(files=1)

    def note(self, reason: str, place: str = "") -> None:
        self._count(ImportReport(fault_count=1, faults=(ImportFault(place, reason),)))

    def _count(self, done: ImportReport) -> None:
        name = os.fsencode(self._path).decode("utf-8", "replace")
        placed = tuple(
            ImportFault(f"{name}, {fault.place}" if fault.place else name, fault.reason) for fault in done.faults
        )
        self.report += ImportReport(**{**_values(done), "faults": placed})

    def work(self, format: str | None) -> None:
        importer = FORMATS[format] if format else _detected(self._path)
        if importer is None:
            return self.note(_unknown(self._path))
        if importer.name not in _DATABASES and sqlite_source.tables(self._path) is not None:
            return self.note(f"a SQLite database is no {importer.name} file")
        if self._owner is None and not importer.has_owners:
            raise InvalidInput("memory", f"must be one owner's for {importer.name} files: use memory.for_user(user_id)")
        if isinstance(importer, OwnExport):
            return self._count(
                own_export.store(self._memory, self._path, dry_run=self._dry_run, progress=self._progress)
            )
        for conversation in importer.conversations(self._path, self._options):
            self._take(conversation)
        return None

    def _take(self, conversation: Conversation) -> None:
        if not conversation.fault_count:
            try:
                return self._count(self._store(conversation))
            except _Refused as error:
                self.note(error.reason, ", ".join(filter(None, [conversation.place, error.place])))
            except (InvalidInput, Conflict, SourceError) as error:
                self.note(str(error), conversation.place)
        self._count(
            ImportReport(
                conversations_refused=1, fault_count=conversation.fault_count, faults=tuple(conversation.faults)
            )
        )
        return None

    def _store(self, conversation: Conversation) -> ImportReport:
        stored = ImportReport(messages_left_out=conversation.left_out)
        if not (conversation.sessions or conversation.records):
            return stored
        try:
            with self._memory.unit_of_work() as uow:
                for draft in conversation.sessions:
                    stored += self._store_session(uow, draft)
                stored += store_all(uow, conversation.records)
                if self._dry_run:
                    raise _Undo
        except _Undo:
            pass
        return stored + ImportReport(conversations=min(1, len(conversation.sessions)))

    def _store_session(self, uow: UnitOfWork, draft: SessionDraft) -> ImportReport:
        session = uow.sessions.ensure(
            external_id=draft.external_id, user_id=draft.user_id or self._owner, metadata=draft.metadata
        )
        seen = 0
        for chunk in _chunks(draft.messages(session.id)):
            self._add(uow, chunk, seen)
            seen += len(chunk)
            self._progress(len(chunk))
        after = uow.sessions.get(session.id)
        added = (after.message_count if after else 0) - session.message_count
        report = ImportReport(sessions=1, messages_added=added, messages_already_there=seen - added)
        return report + store_all(uow, draft.tasks(session.id), session.id) if draft.tasks else report

    def _add(self, uow: UnitOfWork, chunk: list[Message], seen: int) -> None:
        try:
            uow.messages.add_many(chunk)
        except InvalidInput:
            # Nothing of this transaction stays, so the one at fault can be looked for by adding them singly.
            for number, message in enumerate(chunk, seen + 1):
                try:
                    uow.messages.add(message)
                except InvalidInput as fault:
                    raise _Refused(f"message {number}", str(fault)) from None
            raise


def _chunks(messages: Iterator[Message]) -> Iterator[list[Message]]:
    chunk: list[Message] = []
    size = 0
    for message in messages:
        chunk.append(message)
        beside = (message.parts, message.payload, message.tool_calls, message.metadata)
        size += len(message.content) + sum(len(str(value)) for value in beside if value)
        if len(chunk) == _CHUNK or size > _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Undo(Exception):
    """The end of a transaction of a dry run."""


class _Refused(Exception):
    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason


def _values(report: ImportReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ImportReport.__dataclass_fields__}


def _detected(path: Path) -> Importer | None:
    # A database is asked for its tables only. It may be in use, this memory's own even, and a handle of its file that
    # is opened and closed again would drop the process's locks on it.
    formats = list(FORMATS.values())
    if sqlite_source.tables(path) is not None:
        formats = [importer for importer in formats if importer.name in _DATABASES]
    return next((importer for importer in formats if importer.detect(path)), None)


_DATABASES = frozenset({FirstVersion.name, OpenAIAgents.name, LangChain.name})


def _unknown(path: Path) -> str:
    """Why nothing can be made of a file: the first thing in it that could not be read says most."""
    if not path.stat().st_size:
        reason = "the file is empty"
    elif sqlite_source.tables(path) is not None:
        reason = "a database without the tables of a known format"
    else:
        first: Iterator[str] = (entry.fault for entry in islice(entries(path), 1) if entry.fault)
        reason = next(first, "no messages found in it")
    return f"{reason} (formats: {', '.join(FORMATS)})"
