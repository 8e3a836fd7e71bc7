"""What a line of the file holds, checked field by field: the values of a row, or InvalidInput.

The rules are those of what is handed to the memory by its users. A message names the field and the rule, never content.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from mirai_memory import _checks
from mirai_memory.config import MemorySettings
from mirai_memory.entities import Knowledge, Message, Task, UserPreferences
from mirai_memory.errors import InvalidInput
from mirai_memory.services import knowledge, message_values, preferences, tasks, vectors
from mirai_memory.services.embeddings import GIVEN, content_hash
from mirai_memory.transfer import form

Fields = dict[str, Any]
_LONGEST_TIME = 64  # characters
_FINISHED = tasks.FINISHED


def _clock() -> datetime:
    return datetime.now(UTC)  # asked for by nothing: every message of the file has its time


def _known(fields: Fields, names: Collection[str], needed: Collection[str]) -> None:
    if not fields.keys() <= {"type", *names}:
        raise InvalidInput("line", f"has a field that version {form.VERSION} of the format does not know")
    for name in needed:
        if fields.get(name) is None:
            raise InvalidInput(name, "is missing")


def moment(field: str, value: Any) -> datetime:
    """A time as text, with its zone."""
    parsed = None
    if isinstance(value, str) and len(value) <= _LONGEST_TIME:
        with suppress(ValueError):  # not as the cause: it repeats the text
            parsed = datetime.fromisoformat(value)
    if parsed is None:
        raise InvalidInput(field, "must be a time such as 2026-01-31T12:00:00+00:00")
    return _checks.moment(field, parsed)


def _times(fields: Fields, *names: str) -> Fields:
    return {name: None if fields.get(name) is None else moment(name, fields[name]) for name in names}


def header(fields: Fields) -> Fields:
    """Whose the file is and when it was made. Raises InvalidInput for another format, or a newer version of it."""
    if fields.get("type") != "header" or fields.get("format") != form.FORMAT:
        raise InvalidInput("format", f"must be {form.FORMAT}: this is no export of one owner")
    version = _checks.integer("version", fields.get("version"), least=1)
    if version > form.VERSION:
        raise InvalidInput("version", f"{version} is newer than {form.VERSION}, which is known here; upgrade first")
    _known(fields, form.HEADER, form.HEADER[:4])
    _checks.optional_text("written_by", fields.get("written_by"), limit=_checks.MAX_NAME)
    owner = _checks.owner(fields["user_id"])
    return {"user_id": owner, "exported_at": moment("exported_at", fields["exported_at"])}


def preferences_values(fields: Fields, owner: str, settings: MemorySettings) -> Fields:
    _known(fields, form.PREFERENCES, ("version", "updated_at"))
    version = _checks.integer("version", fields["version"], least=1)
    liked = {name: fields[name] for name in preferences.CHANGEABLE if fields.get(name) is not None}
    checked = preferences.checked(UserPreferences(user_id=owner, **liked), settings)
    values = {name: getattr(checked, name) for name in preferences.CHANGEABLE}
    return {**values, "version": version, **_times(fields, "updated_at")}


def session(fields: Fields, owner: str, settings: MemorySettings) -> Fields:
    _known(fields, form.SESSION, ("id", "created_at", "last_active", "next_position"))
    limit = settings.max_content_chars
    counts = ("summarized_through", "summary_tokens", "summary_source_tokens", "learned_through")
    return {
        "id": _checks.name("id", fields["id"]),
        "user_id": owner,
        "external_id": _checks.optional_name("external_id", fields.get("external_id")),
        "agent_id": _checks.optional_name("agent_id", fields.get("agent_id")),
        "next_position": _checks.integer("next_position", fields["next_position"], least=1),
        "summary": _checks.optional_text("summary", fields.get("summary"), limit=limit),
        "summary_method": _checks.optional_text("summary_method", fields.get("summary_method"), limit=limit),
        "metadata": _checks.json_object("metadata", fields.get("metadata", {}), limit=limit),
        **_times(fields, "created_at", "last_active"),
        **{name: _checks.optional_integer(name, fields.get(name)) for name in counts},
    }


def message(fields: Fields, owner: str, settings: MemorySettings) -> Fields:
    _known(fields, form.MESSAGE, ("session", "position", "timestamp"))
    position = _checks.integer("position", fields["position"], least=1)
    group_start = _checks.optional_integer("group_start", fields.get("group_start"), least=1) or position
    if group_start > position:
        raise InvalidInput("group_start", "comes after the position")
    placed = ("session", "position", "group_start", "timestamp")
    given = {name: fields[name] for name in form.MESSAGE if name not in placed and name in fields}
    said = Message(session_id=fields["session"], timestamp=moment("timestamp", fields["timestamp"]), **given)
    values = message_values.checked(said, settings, _clock)
    return {**values, "user_id": owner, "position": position, "group_start": group_start}


def task(fields: Fields, owner: str, settings: MemorySettings) -> Fields:
    _known(fields, form.TASK, ("description", "status", "created_at"))
    times = _times(fields, "created_at", "completed_at")
    given = {
        name: fields[name] for name in ("description", "status", "result", "metadata", "client_id") if name in fields
    }
    tasks.checked(Task(session_id=fields.get("session"), **given, **times), settings)
    if fields["status"] in _FINISHED and times["completed_at"] is None:
        raise InvalidInput("completed_at", "is missing")
    optional = {name: fields.get(name) for name in ("result", "client_id")}
    about = {"session_id": fields.get("session"), "user_id": owner, "metadata": fields.get("metadata", {})}
    return {**about, **optional, **times, "description": fields["description"], "status": fields["status"]}


def fact(fields: Fields, owner: str, settings: MemorySettings) -> Fields:
    """Beside the row's values: ``id``, its number in the file; ``superseded_by``, that of another; and its vectors."""
    _known(fields, form.FACT, ("id", "key", "value", "created_at", "updated_at", "valid_from"))
    times = _times(fields, "created_at", "valid_from", "valid_to", "expires_at")
    names = ("category", "key", "value", "source", "source_kind", "confidence", "metadata")
    given = {name: fields[name] for name in names if name in fields}
    values = knowledge.checked(Knowledge(**given, **times), settings)
    number = _checks.integer("id", fields["id"], least=1)
    later = _checks.optional_integer("superseded_by", fields.get("superseded_by"), least=1)
    if later == number:
        raise InvalidInput("superseded_by", "is the fact itself")
    if later is not None and fields.get("superseded_at") is None:
        raise InvalidInput("superseded_at", "is missing")
    return {
        **values,
        **_times(fields, "updated_at", "superseded_at"),
        "user_id": owner,
        "id": number,
        "superseded_by": later,
        "message": _place(fields.get("message")),
        "vectors": _vectors(fields.get("vectors", []), values["value"]),
    }


def _place(value: Any) -> tuple[str, int] | None:
    """The message that a fact was learned from."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"session", "position"}:
        raise InvalidInput("message", "must be an object of session and position")
    return _checks.name("message", value["session"]), _checks.integer("message", value["position"], least=1)


def _vectors(value: Any, text: str) -> list[Fields]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInput("vectors", "must be a list of objects")
    rows = [_vector(item, text) for item in value]
    if len({row["model"] for row in rows}) < len(rows):
        raise InvalidInput("vectors", "must be of one model each")
    return rows


def _vector(item: Fields, text: str) -> Fields:
    if item.keys() != {"model", "float16"}:
        raise InvalidInput("vectors", "must each have model and float16")
    packed = b""
    if isinstance(item["float16"], str):
        with suppress(ValueError):
            packed = base64.b64decode(item["float16"], validate=True)
    if not packed or len(packed) % 2 or not all(map(math.isfinite, vectors.unpack(packed))):
        raise InvalidInput("vectors", "must hold finite numbers as float16, in base64")
    model = _checks.name("vectors", item["model"])
    hash = GIVEN + content_hash(text)
    dim = len(packed) // 2
    return {"kind": "knowledge", "model": model, "dim": dim, "vector": packed, "content_hash": hash, "status": "ready"}
