"""Importing a file: its format found, its conversations stored one transaction each, what failed reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mirai_memory.entities import Message
from mirai_memory.errors import Conflict, InvalidInput, MiraiMemoryError
from mirai_memory.importers.base import Conversation, FaultList, Importer, ImportReport, SessionDraft
from mirai_memory.importers.locomo import LoCoMo
from mirai_memory.importers.openai_chat import OpenAIChat
from mirai_memory.importers.openai_layout import entries
from mirai_memory.scoped import UserMemory
from mirai_memory.unit_of_work import UnitOfWork

# In this order they are asked: the more particular format first.
FORMATS: dict[str, Importer] = {importer.name: importer for importer in (LoCoMo(), OpenAIChat())}
_CHUNK = 500

Progress = Callable[[int], None]


def import_file(
    memory: UserMemory,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Import one file for the owner of ``memory``; a conversation that cannot be stored whole is not stored at all.

    A second run adds only what is new. ``progress`` is called with the number of messages gone through since it was
    called last. What is wrong with the file is in the report; a failing database raises StorageError or Busy.
    """
    run = _Run(memory, Path(path), progress or (lambda messages: None))
    try:
        run.work(format)
    except MiraiMemoryError:
        raise  # a StorageError is an OSError too, and no fault of the file
    except OSError as error:
        run.note(error.strerror or type(error).__name__)
    return run.report()


class _Run:
    """One file on its way into the memory."""

    def __init__(self, memory: UserMemory, path: Path, progress: Progress) -> None:
        self._memory, self._path, self._progress = memory, path, progress
        self._done, self._faults = ImportReport(files=1), FaultList()

    def report(self) -> ImportReport:
        return self._done + ImportReport(fault_count=self._faults.count, faults=tuple(self._faults.listed))

    def note(self, reason: str, place: str = "") -> None:
        name = os.fsencode(self._path).decode("utf-8", "replace")
        self._faults.add(f"{name}, {place}" if place else name, reason)

    def work(self, format: str | None) -> None:
        importer = FORMATS[format] if format else _detected(self._path)
        if importer is None:
            self.note(_unknown(self._path))
        else:
            for conversation in importer.conversations(self._path):
                self._take(conversation)

    def _take(self, conversation: Conversation) -> None:
        if not conversation.fault_count:
            try:
                self._done += self._store(conversation)
                return
            except _Refused as error:
                self.note(error.reason, ", ".join(filter(None, [conversation.place, error.place])))
            except (InvalidInput, Conflict) as error:
                self.note(str(error), conversation.place)
        for fault in conversation.faults:
            self.note(fault.reason, fault.place)
        self._faults.count += conversation.fault_count - len(conversation.faults)
        self._done += ImportReport(conversations_refused=1)

    def _store(self, conversation: Conversation) -> ImportReport:
        if not conversation.sessions:
            return ImportReport()
        stored = ImportReport(conversations=1)
        with self._memory.unit_of_work() as uow:
            for draft in conversation.sessions:
                stored += self._store_session(uow, draft)
        return stored

    def _store_session(self, uow: UnitOfWork, draft: SessionDraft) -> ImportReport:
        session = uow.sessions.ensure(
            external_id=draft.external_id, user_id=self._memory.user_id, metadata=draft.metadata
        )
        seen, messages = 0, draft.messages(session.id)
        while chunk := list(islice(messages, _CHUNK)):
            self._add(uow, chunk, seen)
            seen += len(chunk)
            self._progress(len(chunk))
        after = uow.sessions.get(session.id)
        added = (after.message_count if after else 0) - session.message_count
        return ImportReport(sessions=1, messages_added=added, messages_already_there=seen - added)

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


class _Refused(Exception):
    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason


def _detected(path: Path) -> Importer | None:
    return next((importer for importer in FORMATS.values() if importer.detect(path)), None)


def _unknown(path: Path) -> str:
    """Why nothing can be made of a file: the first thing in it that could not be read says most."""
    first: Iterator[str] = (entry.fault for entry in islice(entries(path), 1) if entry.fault)
    reason = "the file is empty" if not path.stat().st_size else next(first, "no messages found in it")
    return f"{reason} (formats: {', '.join(FORMATS)})"
