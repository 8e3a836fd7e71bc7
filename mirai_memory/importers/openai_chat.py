"""OpenAI-format messages in JSON and JSONL: one conversation or many, in the shapes that ``openai_layout`` lists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.entities import Message
from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import Conversation, FaultList, Options, SessionDraft
from mirai_memory.importers.openai_layout import Entry, entries
from mirai_memory.importers.openai_message import given_id, message_fields

_IDS = ("id", "conversation_id", "session_id")
_INSTRUCTIONS = frozenset({"system", "developer"})
_LOOKED_AT = 50


class OpenAIChat:
    """The importer of OpenAI-format messages."""

    name = "openai"
    has_owners = False

    def detect(self, path: Path) -> bool:
        found = islice(entries(path), _LOOKED_AT)
        return any(entry.message is not None and "role" in entry.message for entry in found)

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        # The file is read twice, side by side: to learn a conversation's id, which may stand after its messages, and
        # all its faults; and to hand its messages out. So it is checked before a transaction opens, and never held.
        outlines, bodies = (groupby(entries(path), key=attrgetter("conversation")) for _ in range(2))
        for (number, outline), (_, body) in zip(outlines, bodies, strict=False):
            yield _conversation(path, number, outline, body)


def _conversation(path: Path, number: int, outline: Iterable[Entry], body: Iterable[Entry]) -> Conversation:
    faults = FaultList()
    about: dict[str, Any] = {}
    where, opening = "", None
    for entry in outline:
        where = entry.where
        about.update(entry.about or {})
        if entry.message is not None:
            opening = _opening(opening, entry.message)
        _check(entry, faults)
    sessions = [_session(path, number, about, opening, body, faults, where)] if opening is not None else []
    return Conversation(
        place=where, sessions=[item for item in sessions if item], faults=faults.listed, fault_count=faults.count
    )


def _check(entry: Entry, faults: FaultList) -> None:
    if entry.fault is not None:
        faults.add(entry.place, entry.fault)
    elif entry.message is not None:
        try:
            message_fields(entry.message, entry.number)
        except InvalidInput as error:
            faults.add(entry.place, str(error))


def _opening(known: dict[str, Any] | None, message: dict[str, Any]) -> dict[str, Any]:
    # Conversations of one application begin with the same instructions; what tells them apart comes after.
    return message if known is None or known.get("role") in _INSTRUCTIONS else known


def _session(
    path: Path,
    number: int,
    about: dict[str, Any],
    opening: dict[str, Any],
    body: Iterable[Entry],
    faults: FaultList,
    where: str,
) -> SessionDraft | None:
    try:
        return SessionDraft(
            external_id=_external_id(path, number, about, opening),
            metadata=_metadata(about),
            messages=lambda session_id: _messages(session_id, body),
        )
    except InvalidInput as error:
        faults.add(where, str(error))
        return None


def _external_id(path: Path, number: int, about: dict[str, Any], opening: dict[str, Any]) -> str:
    for field in _IDS:
        if given := given_id(field, about.get(field)):
            return given
    digest = hashlib.sha256(json.dumps(opening, sort_keys=True).encode()).hexdigest()
    return f"openai:{path.name[:200]}:{number}:{digest[:12]}"


def _metadata(about: dict[str, Any]) -> dict[str, Any]:
    own = _checks.json_object("metadata", about.get("metadata") or {}, limit=1 << 30)
    rest = {key: value for key, value in about.items() if key not in ("metadata", *_IDS) and value is not None}
    return {**_checks.json_object("conversation", rest, limit=1 << 30), **own}


def _messages(session_id: str, body: Iterable[Entry]) -> Iterator[Message]:
    for entry in body:
        if entry.fault is not None:
            raise InvalidInput("file", "changed while it was read")
        if entry.message is not None:
            yield Message(session_id=session_id, **message_fields(entry.message, entry.number))
