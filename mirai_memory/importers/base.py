"""What an importer is: it finds conversations in a file and turns them into messages; it stores nothing itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mirai_memory.entities import Message

# A broken file of a million lines must not become a report of a million lines; the count stays exact.
MAX_LISTED_FAULTS = 100


@dataclass(frozen=True, slots=True)
class ImportFault:
    """Something that could not be read or stored, and where it stands."""

    place: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"place": self.place, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDraft:
    """A session to be: ``messages`` reads its messages, once, and gives them the session id."""

    external_id: str
    metadata: dict[str, Any]
    messages: Callable[[str], Iterator[Message]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What is stored whole or not at all. With faults it is not stored; its sessions are then not read."""

    place: str
    sessions: list[SessionDraft] = field(default_factory=list)
    faults: list[ImportFault] = field(default_factory=list)
    fault_count: int = 0


class Importer(Protocol):
    """One format. Conversations are handed out one at a time and used before the next is asked for."""

    name: str

    def detect(self, path: Path) -> bool:
        """Whether the file's content, not its name, is of this format."""

    def conversations(self, path: Path) -> Iterator[Conversation]:
        """The file's conversations, in order, in bounded memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did. Reports add up; at most ``MAX_LISTED_FAULTS`` faults are listed, all are counted."""

    files: int = 0
    conversations: int = 0
    sessions: int = 0
    messages_added: int = 0
    messages_already_there: int = 0
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
