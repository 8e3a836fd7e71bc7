"""What an importer is: it finds conversations in a file and turns them into messages; it stores nothing itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mirai_memory import _checks
from mirai_memory.entities import Knowledge, Message, Task, UserPreferences
from mirai_memory.errors import InvalidInput

# A broken file of a million lines must not become a report of a million lines; the count stays exact.
MAX_LISTED_FAULTS = 100

T = TypeVar("T")


class SourceError(Exception):
    """The source could not be read on, here; what has been read of this conversation cannot be stored."""


@dataclass(frozen=True, slots=True)
class ImportFault:
    """Something that could not be read or stored, and where it stands."""

    place: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"place": self.place, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Record:
    """A task, a fact or preferences, stored or refused by itself; or why there is none."""

    place: str
    value: Task | Knowledge | UserPreferences | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDraft:
    """A session to be: ``messages`` reads its messages, once, and gives them the session id; ``tasks`` likewise.

    ``user_id`` is the owner that the source names; None: that of the memory.
    """

    external_id: str
    metadata: dict[str, Any]
    messages: Callable[[str], Iterator[Message]]
    tasks: Callable[[str], Iterator[Record]] | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is stored whole or not at all. With faults it is not stored; its sessions are then not read.

    ``records`` belong to no session: they share the transaction, and each is stored or refused by itself.
    """

    place: str
    sessions: list[SessionDraft] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    faults: list[ImportFault] = field(default_factory=list)
    fault_count: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an importer may need besides the file.

    ``timezone`` is that of times without one (None: the machine's); ``user_id`` the only owner wanted from a source
    that has owners (None: everybody).
    """

    timezone: tzinfo | None = None
    user_id: str | None = None


class Importer(Protocol):
    """One format. Conversations are handed out one at a time and used before the next is asked for."""

    name: str
    # Whether the source says whose each conversation is; its importer takes the memory of everybody.
    has_owners: bool

    def detect(self, path: Path) -> bool:
        """Whether the file's content, not its name, is of this format."""

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        """The file's conversations, in order, in bounded memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did. Reports add up; at most ``MAX_LISTED_FAULTS`` faults are listed, all are counted.

    ``messages_left_out`` are no faults: hidden or empty ones, and those of branches that were abandoned. Neither are
    ``rows_erased``, which are older than their owner's erasure, and stayed out.
    """

    files: int = 0
    conversations: int = 0
    sessions: int = 0
    messages_added: int = 0
    messages_already_there: int = 0
    messages_left_out: int = 0
    tasks_added: int = 0
    tasks_already_there: int = 0
    facts_added: int = 0
    facts_already_there: int = 0
    preferences_saved: int = 0
    preferences_already_there: int = 0
    rows_erased: int = 0
    conversations_refused: int = 0
    fault_count: int = 0
    faults: tuple[ImportFault, ...] = ()

    def __add__(self, other: ImportReport) -> ImportReport:
        values = {item.name: getattr(self, item.name) + getattr(other, item.name) for item in dataclasses.fields(self)}
        values["faults"] = values["faults"][:MAX_LISTED_FAULTS]
        return ImportReport(**values)

    def to_dict(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {**values, "faults": [fault.to_dict() for fault in self.faults]}


class FaultList:
    """Faults being gathered: all counted, the first ones kept."""

    def __init__(self) -> None:
        self.count = 0
        self.listed: list[ImportFault] = []

    def add(self, place: str, reason: str) -> None:
        self.count += 1
        if len(self.listed) < MAX_LISTED_FAULTS:
            self.listed.append(ImportFault(place, reason))


def refused(place: str, reason: str) -> Conversation:
    """A conversation of which nothing can be stored."""
    return Conversation(place=place, faults=[ImportFault(place, reason)], fault_count=1)


def conversation_of(
    place: str,
    *,
    external_id: str,
    metadata: dict[str, Any],
    entries: Callable[[], Iterator[tuple[str, T]]],
    fields: Callable[[T], dict[str, Any] | None],
    faults: FaultList | None = None,
    since: datetime | None = None,
    left_out: int = 0,
    empty: bool = False,
    user_id: str | None = None,
    tasks: Callable[[str], Iterator[Record]] | None = None,
) -> Conversation:
    """One session: gone through once, so that its faults are known before a transaction opens, and again to be stored.

    ``entries`` reads (place, entry) from the beginning; ``fields`` makes an entry the arguments of a Message, without
    its session, or None where it is to be left out. A message without a time has that of the one before it, the first
    one ``since``. ``empty``: a session without messages is stored too.
    """
    faults = faults or FaultList()
    kept = 0
    try:
        external_id = _checks.name("external_id", external_id)
        for where, entry in entries():
            try:
                wanted = fields(entry) is not None
            except InvalidInput as error:
                faults.add(", ".join(filter(None, [place, where])), str(error))
            else:
                kept, left_out = kept + wanted, left_out + (not wanted)
    except (InvalidInput, SourceError) as error:
        faults.add(place, str(error))

    def messages(session_id: str) -> Iterator[Message]:
        latest = since
        for _, entry in entries():
            found = fields(entry)
            if found is not None:
                latest = found.pop("timestamp", None) or latest
                yield Message(session_id=session_id, timestamp=latest, **found)

    draft = SessionDraft(external_id=external_id, metadata=metadata, messages=messages, tasks=tasks, user_id=user_id)
    return Conversation(
        place=place,
        sessions=[draft] if kept or empty else [],
        faults=faults.listed,
        fault_count=faults.count,
        left_out=left_out,
    )
