"""Messages before they are stored: checked, and made into what a row and an index want."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mirai_memory import _checks
from mirai_memory._time import Clock
from mirai_memory.config import MemorySettings
from mirai_memory.entities import MESSAGE_KINDS, ROLES, Message
from mirai_memory.errors import InvalidInput
from mirai_memory.search import Entry, Place
from mirai_memory.search.terms import message_place, message_terms


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked message as its row's values, and what it is found by: all that needs no lock."""

    values: dict[str, Any]
    terms: list[str] | None
    place: Place | None  # without its position, which is taken with the lock

    def entry(self, id: int, owner: str, position: int) -> Entry | None:
        """What is indexed of the stored message."""
        if self.terms is None or self.place is None:
            return None
        return Entry(id, owner, self.terms, replace(self.place, position=position))


def prepare(message: Message, settings: MemorySettings, clock: Clock) -> Prepared:
    """Check a message. Raises InvalidInput."""
    if not isinstance(message, Message):
        raise InvalidInput("message", f"must be a Message, not {type(message).__name__}")
    values = checked(message, settings, clock)
    if message.kind != "chat":
        return Prepared(values, None, None)
    content, name, timestamp = values["content"], values["name"], values["timestamp"]
    place = message_place(content, name, message.role, timestamp, message.session_id, 0)
    return Prepared(values, message_terms(content, name, timestamp), place)


def checked(message: Message, settings: MemorySettings, clock: Clock) -> dict[str, Any]:
    """The values of the message's row, all but its owner's and its place. Raises InvalidInput."""
    limit = settings.max_content_chars
    timestamp = _checks.moment("timestamp", clock() if message.timestamp is None else message.timestamp)
    values = {
        "session_id": _checks.name("session_id", message.session_id),
        "user_id": _checks.optional_owner(message.user_id),
        "kind": _checks.one_of("kind", message.kind, MESSAGE_KINDS),
        "role": None if message.role is None else _checks.one_of("role", message.role, ROLES),
        "name": _checks.optional_text("name", message.name, limit=_checks.MAX_LABEL),
        "content": _checks.text("content", message.content, limit=limit),
        "tool_calls": _checks.optional_json_objects("tool_calls", message.tool_calls, limit=limit),
        "tool_call_id": _checks.optional_text("tool_call_id", message.tool_call_id, limit=_checks.MAX_LABEL),
        "parts": _checks.optional_json_objects("parts", message.parts, limit=limit),
        "payload": _checks.optional_json_object("payload", message.payload, limit=limit),
        "timestamp": timestamp,
        "tokens": _checks.optional_integer("tokens", message.tokens),
        "model": _checks.optional_text("model", message.model, limit=_checks.MAX_LABEL),
        "metadata": _checks.json_object("metadata", message.metadata, limit=limit),
        "client_id": _checks.optional_name("client_id", message.client_id),
    }
    _check_shape(message)
    return values


def _check_shape(message: Message) -> None:
    """What the parts of a message mean together."""
    if message.kind == "chat" and message.role is None:
        raise InvalidInput("role", f"must be one of {', '.join(ROLES)}")
    if message.kind == "chat" and message.payload is not None:
        raise InvalidInput("payload", "is for messages of kind 'item'")
    if message.kind == "item" and message.payload is None:
        raise InvalidInput("payload", "is missing: a message of kind 'item' is its payload")
    if message.tool_calls is not None and message.role != "assistant":
        raise InvalidInput("tool_calls", "are made by the role 'assistant' only")
    if message.tool_call_id is not None and message.role != "tool":
        raise InvalidInput("tool_call_id", "is for the role 'tool' only")
    ids = [call.get("id") for call in message.tool_calls or ()]
    if not all(isinstance(id, str) and id for id in ids) or len(set(ids)) < len(ids):
        raise InvalidInput("tool_calls", "must each have an 'id' of their own, a non-empty string")
