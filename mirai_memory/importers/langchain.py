"""LangChain's chat history in SQLite: the table ``message_store``, one message a row, as JSON.

The session keeps its name, so that an application goes on with it under the same one. The table knows no times.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.errors import InvalidInput
from mirai_memory.importers import sqlite_source as source
from mirai_memory.importers.base import Conversation, Options, SourceError, conversation_of, refused
from mirai_memory.importers.json_text import MAX_VALUE
from mirai_memory.importers.openai_message import message_fields

_EXPECTED = {"message_store": ("id", "session_id", "message")}
_INDEX = "SELECT CAST(session_id AS TEXT), id FROM message_store WHERE session_id IS NOT NULL"
_SESSIONS = "SELECT session FROM by_session GROUP BY session ORDER BY min(place)"
_MESSAGES = """
    SELECT m.id, m.message
    FROM by_session r CROSS JOIN message_store m ON m.id = r.place WHERE r.session = ? ORDER BY r.place
"""
_NAMELESS = "SELECT id FROM message_store WHERE session_id IS NULL"
_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "function",
}
# A piece of a streamed message has the name of its class.
_CHUNK = "messagechunk"
_USED = frozenset({"content", "type", "name", "id", "role", "tool_calls", "tool_call_id", "example"})


class LangChain:
    """The importer of LangChain's chat history."""

    name = "langchain"
    has_owners = False

    def detect(self, path: Path) -> bool:
        return _EXPECTED.keys() <= (source.tables(path) or {}).keys()

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        place = ""
        try:
            with source.opened(path) as connection:
                if wrong := source.missing(connection, _EXPECTED):
                    yield from (refused(f"table {table}", reason) for table, reason in wrong.items())
                    return
                source.index_rows(connection, _INDEX)
                for (session,) in source.rows(connection, _SESSIONS):
                    place = f"session {source.listed(session)}"
                    yield _conversation(connection, place, session)
                for (id,) in source.rows(connection, _NAMELESS):
                    yield refused(f"message {id}", "session_id is missing")
        except SourceError as error:
            yield refused(f"after {place}" if place else "", str(error))


def _conversation(connection: sqlite3.Connection, place: str, session: bytes) -> Conversation:
    try:
        name = source.text("session_id", session) or ""
    except InvalidInput as error:
        return refused(place, str(error))
    return conversation_of(
        place,
        external_id=name,
        metadata={"source": "langchain"},
        entries=lambda: _entries(connection, name),
        fields=_fields,
    )


def _entries(connection: sqlite3.Connection, session: str) -> Iterator[tuple[str, tuple[int, int, Any]]]:
    # Numbered, because a function's result of old names no call: it answers the message before it.
    for number, (id, message) in enumerate(source.rows(connection, _MESSAGES, session), 1):
        yield f"message {id}", (id, number, message)


def _fields(row: tuple[int, int, Any]) -> dict[str, Any] | None:
    """The arguments of a Message, without its session; None for an order to remove one. Raises InvalidInput."""
    id, number, text = row
    message = source.json_value("message", text)
    data = message.get("data") if isinstance(message, dict) else None
    if not isinstance(data, dict):
        raise InvalidInput("message", 'must be an object of JSON with "type" and "data"')
    kind = str(message.get("type", "")).lower().removesuffix(_CHUNK)
    if kind == "remove":
        return None
    role = _ROLES.get(str(data.get("role", "")).lower() if kind == "chat" else kind)
    if role is None:
        raise InvalidInput("type", f"must be one of {', '.join(_ROLES)} or chat with one of these roles")
    more = _object(data, "additional_kwargs")
    raw = {
        "role": role,
        "content": _content(data.get("content")),
        "name": data.get("name"),
        "tool_calls": _tool_calls(data, more, id) if role == "assistant" else None,
        "tool_call_id": data.get("tool_call_id"),
        "function_call": more.get("function_call") if role == "assistant" else None,
        "model": _model(_object(data, "response_metadata")),
        "tokens": _object(data, "usage_metadata").get("output_tokens"),
        "metadata": _metadata(data, more),
    }
    return {**message_fields(raw, number), "client_id": f"langchain:{id}"}


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidInput(name, "must be an object")
    return value


def _content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]


def _tool_calls(data: dict[str, Any], more: dict[str, Any], id: int) -> list[dict[str, Any]] | None:
    """The calls in OpenAI's shape; those whose arguments the model broke keep them as they are."""
    calls = [*_list(data, "tool_calls"), *_list(data, "invalid_tool_calls")]
    if not calls:
        return _list(more, "tool_calls") or None  # written before LangChain had a shape of its own
    return [_call(call, f"call_{id}_{number}") for number, call in enumerate(calls, 1)]


def _list(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = data.get(name) or []
    return _checks.optional_json_objects(name, value, limit=MAX_VALUE) or []


def _call(call: dict[str, Any], own_id: str) -> dict[str, Any]:
    args = call.get("args")
    arguments = args if isinstance(args, str) else json.dumps(args or {}, ensure_ascii=False)
    name = _checks.text("tool_calls", call.get("name") or "", limit=MAX_VALUE)
    function = {"name": name, "arguments": _checks.text("tool_calls", arguments, limit=MAX_VALUE)}
    return {"id": call.get("id") or own_id, "type": "function", "function": function}


def _model(response: dict[str, Any]) -> str | None:
    name = response.get("model_name") or response.get("model")
    return name if isinstance(name, str) else None


def _metadata(data: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in data.items() if key not in _USED and value}
    extra = {key: value for key, value in more.items() if key not in ("tool_calls", "function_call") and value}
    rest.pop("additional_kwargs", None)
    rest |= {"additional_kwargs": extra} if extra else {}
    return rest | ({"id": data["id"]} if data.get("id") else {})
