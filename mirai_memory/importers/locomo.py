"""LoCoMo files: long chats of two people over many sessions, in one JSON list of samples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.entities import Message
from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import Conversation, FaultList, Options, SessionDraft, refused
from mirai_memory.importers.json_text import MAX_VALUE, JsonReader, NotJson, NotUtf8, TooLong

_SESSION = re.compile(r"session_(\d{1,6})")
# Month names are spelt out: strptime would expect those of the process's locale.
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_WHEN = re.compile(rf"(\d{{1,2}}):(\d{{2}})\s*([ap])m\s+on\s+(\d{{1,2}})\s+({_MONTHS}),?\s+(\d{{4}})", re.IGNORECASE)
_ANY_LENGTH = MAX_VALUE


class LoCoMo:
    """The importer of LoCoMo samples: each is stored whole, one session per session, the turns as user messages."""

    name = "locomo"
    has_owners = False

    def detect(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return _is_sample(next(_samples(file), (0, None, None))[1])
        except NotJson:
            return False

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        number = 0
        with path.open("rb") as file:
            try:
                for number, sample, fault in _samples(file):
                    yield refused(f"sample {number}", fault) if fault else _conversation(path, number, sample)
            except NotJson as error:
                yield refused(f"after sample {number}", str(error))


def _samples(file: Any) -> Iterator[tuple[int, Any, str | None]]:
    reader = JsonReader(file)
    for number in reader.array():
        try:
            yield number, reader.value(), None
        except NotUtf8 as error:
            yield number, error.value, str(error)
        except TooLong:
            raise NotJson(f"a sample of more than {MAX_VALUE >> 20} MiB") from None
    if reader.peek():
        raise NotJson("not JSON: more text after the list")


def _is_sample(value: Any) -> bool:
    conversation = value.get("conversation") if isinstance(value, dict) else None
    return isinstance(conversation, dict) and any(_SESSION.match(key) for key in conversation)


def _conversation(path: Path, number: int, sample: Any) -> Conversation:
    place, faults = f"sample {number}", FaultList()
    sessions: list[SessionDraft] = []
    try:
        sample_id = _checks.name("sample_id", _member(sample, "sample_id"), limit=200)
        chat = _member(sample, "conversation")
        if not isinstance(chat, dict):
            raise InvalidInput("conversation", f"must be an object, not {type(chat).__name__}")
        sessions = [item for key in _session_keys(chat) if (item := _session(path, sample_id, chat, key, faults))]
    except InvalidInput as error:
        faults.add(place, str(error))
    return Conversation(place=place, sessions=sessions, faults=faults.listed, fault_count=faults.count)


def _member(value: Any, key: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise InvalidInput(key, "is missing")
    return value[key]


def _session_keys(chat: dict[str, Any]) -> list[str]:
    keys = [key for key, turns in chat.items() if _SESSION.fullmatch(key) and turns]
    return sorted(keys, key=lambda key: int(key.removeprefix("session_")))


def _session(path: Path, sample_id: str, chat: dict[str, Any], key: str, faults: FaultList) -> SessionDraft | None:
    place = f"sample {sample_id}, {key}"
    try:
        when, turns = _moment(key, chat.get(f"{key}_date_time")), chat[key]
        if not isinstance(turns, list):
            raise InvalidInput(key, f"must be a list of turns, not {type(turns).__name__}")
    except InvalidInput as error:
        faults.add(place, str(error))
        return None
    turn_fields = [
        item for index, turn in enumerate(turns, 1) if (item := _turn(turn, when, f"{place}, turn {index}", faults))
    ]
    speakers = " and ".join(str(chat[name]) for name in ("speaker_a", "speaker_b") if chat.get(name))
    return SessionDraft(
        external_id=f"locomo:{sample_id}:{key}",
        metadata={"source": path.name, "title": f"{speakers or sample_id}, {key.replace('_', ' ')}"},
        messages=lambda session_id: (Message(session_id=session_id, role="user", **item) for item in turn_fields),
    )


def _turn(turn: Any, when: datetime, place: str, faults: FaultList) -> dict[str, Any] | None:
    try:
        dia_id = _checks.name("dia_id", _member(turn, "dia_id"))
        caption = _checks.optional_text("blip_caption", turn.get("blip_caption"), limit=_ANY_LENGTH)
        text = _checks.text("text", _member(turn, "text"), limit=_ANY_LENGTH)
        return {
            "name": _checks.name("speaker", _member(turn, "speaker")),
            "content": text + (f" [shared image: {caption}]" if caption else ""),
            "timestamp": when,
            "metadata": {"dia_id": dia_id},
            "client_id": dia_id,
        }
    except InvalidInput as error:
        faults.add(place, str(error))
        return None


def _moment(key: str, value: Any) -> datetime:
    match = _WHEN.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise InvalidInput(f"{key}_date_time", 'must read like "1:56 pm on 8 May, 2023"')
    month = _MONTHS.split("|").index(match[5].lower()) + 1
    hour = int(match[1]) % 12 + (12 if match[3].lower() == "p" else 0)
    try:
        return datetime(int(match[6]), month, int(match[4]), hour, int(match[2]), tzinfo=UTC)
    except ValueError:
        raise InvalidInput(f"{key}_date_time", "is no date of the calendar") from None
