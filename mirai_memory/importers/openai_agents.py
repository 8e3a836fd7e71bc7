"""A session file of the OpenAI Agents SDK (SQLite): items in the order in which they were added.

Items that are messages become chat messages; calls, their outputs, reasoning and all others are kept as items, exactly.
The session keeps its name, so that an application goes on with it under the same one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from mirai_memory import _checks
from mirai_memory.errors import InvalidInput
from mirai_memory.importers import sqlite_source as source
from mirai_memory.importers.base import Conversation, Options, SourceError, conversation_of, refused
from mirai_memory.importers.json_text import MAX_VALUE
from mirai_memory.importers.openai_message import message_fields

_EXPECTED = {
    "agent_sessions": ("session_id", "created_at", "updated_at"),
    "agent_messages": ("id", "session_id", "message_data", "created_at"),
}
_INDEX = "SELECT CAST(session_id AS TEXT), id FROM agent_messages WHERE session_id IS NOT NULL"
_SESSIONS = """
    SELECT r.session, s.created_at, s.updated_at
    FROM (SELECT session, min(place) AS first FROM by_session GROUP BY session) r
    LEFT JOIN agent_sessions s ON s.session_id = r.session ORDER BY r.first
"""
_MESSAGES = """
    SELECT m.id, m.message_data, m.created_at
    FROM by_session r CROSS JOIN agent_messages m ON m.id = r.place WHERE r.session = ? ORDER BY r.place
"""
_TEXTS = frozenset({"text", "input_text", "output_text"})


class OpenAIAgents:
    """The importer of the SDK's session files."""

    name = "openai-agents"
    has_owners = False

    def detect(self, path: Path) -> bool:
        return "agent_messages" in (source.tables(path) or ())

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        place = ""
        try:
            with source.opened(path) as connection:
                if wrong := source.missing(connection, _EXPECTED):
                    yield from (refused(f"table {table}", reason) for table, reason in wrong.items())
                    return
                source.index_rows(connection, _INDEX)
                for row in source.rows(connection, _SESSIONS):
                    place = f"session {source.listed(row[0])}"
                    yield _conversation(connection, place, *row)
        except SourceError as error:
            yield refused(f"after {place}" if place else "", str(error))


def _conversation(connection: sqlite3.Connection, place: str, id: Any, created: Any, updated: Any) -> Conversation:
    try:
        name = source.text("session_id", id)
        # SQLite's CURRENT_TIMESTAMP is UTC.
        times = {"created_at": source.moment("created_at", created, UTC)}
        times["updated_at"] = source.moment("updated_at", updated, UTC)
    except InvalidInput as error:
        return refused(place, str(error))
    return conversation_of(
        place,
        external_id=name or "",
        metadata={"source": "openai-agents", **{key: value.isoformat() for key, value in times.items() if value}},
        entries=lambda: ((f"item {row[0]}", row) for row in source.rows(connection, _MESSAGES, id.decode())),
        fields=_fields,
        since=times["created_at"],
    )


def _fields(row: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments of a Message, without its session. Raises InvalidInput."""
    item = source.json_value("message_data", row[1])
    if not isinstance(item, dict):
        raise InvalidInput("message_data", "must be an object of JSON")
    if item.get("__enc__"):
        raise InvalidInput("message_data", "is encrypted; write the session with its key to a plain one first")
    common = {"timestamp": source.moment("created_at", row[2], UTC), "client_id": f"openai-agents:{row[0]}"}
    if item.get("type", "message") != "message" or "role" not in item or "content" not in item:
        return {"kind": "item", "payload": _checks.json_object("payload", item, limit=MAX_VALUE), **common}
    content, lost = _content(item["content"])
    about = {key: value for key, value in item.items() if key not in ("role", "content", "type") and value is not None}
    metadata = {**about, **({"content": item["content"]} if lost else {})}
    return {**message_fields({"role": item["role"], "content": content, "metadata": metadata}, row[0]), **common}


def _content(content: Any) -> tuple[Any, bool]:
    """The content as the chat API has it, and whether the SDK's says more."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content, False
    parts = [_part(part) for part in content]
    more = any(value for part in content for key, value in part.items() if key not in ("type", "text"))
    if all(part.get("type") == "text" for part in parts):
        texts = [part.get("text") for part in parts]
        return "\n".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else content, more
    return parts, True


def _part(part: dict[str, Any]) -> dict[str, Any]:
    kind, url = part.get("type"), part.get("image_url")
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(url, str):
        return {"type": "image_url", "image_url": {"url": url}}
    return part
