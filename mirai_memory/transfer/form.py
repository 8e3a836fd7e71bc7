"""The form of the file: what its lines are called, what they hold, and how a row becomes one.

A line is a JSON object with a ``type``. What is null is left out, and metadata that is empty. Where one line names
another, it names a session by its id, a message by its session and position, a fact by a number.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

FORMAT = "mirai-memory"
VERSION = 1

# In the order in which they stand in the file; messages follow their session.
ORDER = {"header": 0, "preferences": 1, "session": 2, "message": 2, "task": 3, "fact": 4, "end": 5}
# What is counted in the end line, by the type of line.
COUNTED = {
    "preferences": "preferences",
    "session": "sessions",
    "message": "messages",
    "task": "tasks",
    "fact": "facts",
}

HEADER = ("format", "version", "user_id", "exported_at", "written_by")
PREFERENCES = (
    "coding_style",
    "communication_tone",
    "favorite_tools",
    "project_context",
    "metadata",
    "version",
    "updated_at",
)
SESSION = (
    "id",
    "external_id",
    "agent_id",
    "created_at",
    "last_active",
    "next_position",
    "summary",
    "summarized_through",
    "summary_method",
    "summary_tokens",
    "summary_source_tokens",
    "learned_through",
    "metadata",
)
MESSAGE = (
    "session",
    "position",
    "group_start",
    "kind",
    "role",
    "name",
    "content",
    "tool_calls",
    "tool_call_id",
    "parts",
    "payload",
    "timestamp",
    "tokens",
    "model",
    "metadata",
    "client_id",
)
TASK = ("session", "description", "status", "result", "created_at", "completed_at", "metadata", "client_id")
FACT = (
    "id",
    "category",
    "key",
    "value",
    "source",
    "source_kind",
    "confidence",
    "created_at",
    "updated_at",
    "valid_from",
    "valid_to",
    "superseded_at",
    "superseded_by",
    "expires_at",
    "message",
    "metadata",
    "vectors",
)
END = (*COUNTED.values(), "sha256")

Record = Mapping[str, Any]


def line(kind: str, values: Record, names: Sequence[str]) -> bytes:
    """One line of the file."""
    record = {"type": kind}
    record.update((name, _json_ready(values[name])) for name in names if _says_something(name, values[name]))
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _says_something(name: str, value: Any) -> bool:
    return value is not None and not (name == "metadata" and value == {})


def _json_ready(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def preferences_line(row: Any) -> bytes:
    return line("preferences", row._mapping, PREFERENCES)


def session_line(row: Any) -> bytes:
    return line("session", row._mapping, SESSION)


def message_line(row: Any) -> bytes:
    values = dict(row._mapping)
    values["session"] = values["session_id"]
    if values["group_start"] == values["position"]:
        values["group_start"] = None
    if values["kind"] == "chat":
        values["kind"] = None
    return line("message", values, MESSAGE)


def task_line(row: Any) -> bytes:
    return line("task", {**row._mapping, "session": row.session_id}, TASK)


def fact_line(row: Any, vectors: Sequence[Any]) -> bytes:
    values = dict(row._mapping)
    place = {"session": values["message_session"], "position": values["message_position"]}
    values["message"] = place if values["message_session"] is not None else None
    packed = [{"model": item.model, "float16": base64.b64encode(item.vector).decode()} for item in vectors]
    return line("fact", {**values, "vectors": packed or None}, FACT)
