"""One OpenAI-format message as the fields of ours. Rules are checked here, so that each fault has its place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mirai_memory import _checks
from mirai_memory.entities import ROLES
from mirai_memory.errors import InvalidInput

_TIMES = ("timestamp", "created_at", "created", "create_time")
_OURS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "tokens", "model", "metadata", "id"})
_CONSUMED = _OURS | frozenset(_TIMES) | {"function_call"}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
# How long a text may be is a setting of the memory that receives it; what was read from a file has a bound already.
_ANY_LENGTH = 1 << 30


def message_fields(raw: dict[str, Any], number: int) -> dict[str, Any]:
    """The keyword arguments of a Message, without its session; raises InvalidInput.

    What the format has and the message has not (a refusal, annotations) is kept in ``metadata``.
    """
    content, parts = _content(raw.get("content"))
    return {
        "role": _role(raw),
        "content": content,
        "parts": parts,
        "name": _checks.optional_text("name", raw.get("name"), limit=_ANY_LENGTH),
        "tool_calls": _tool_calls(raw, number),
        "tool_call_id": _tool_call_id(raw, number),
        "timestamp": _timestamp(raw),
        "tokens": _checks.optional_integer("tokens", raw.get("tokens")),
        "model": _checks.optional_text("model", raw.get("model"), limit=_ANY_LENGTH),
        "metadata": _metadata(raw),
        "client_id": _client_id(raw.get("id"), number),
    }


def given_id(field: str, value: Any) -> str | None:
    """An id of the file's own: a string or a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(_checks.integer(field, value, least=-_checks.MAX_INTEGER))
    return _checks.optional_name(field, value or None)


def _client_id(value: Any, number: int) -> str:
    # "#" keeps the places apart from ids of the file's own that happen to be small numbers.
    return given_id("id", value) or f"#{number}"


def _role(raw: dict[str, Any]) -> str:
    if "role" not in raw:
        raise InvalidInput("role", "is missing")
    return "tool" if raw["role"] == "function" else _checks.one_of("role", raw["role"], ROLES)


def _content(value: Any) -> tuple[str, list[dict[str, Any]] | None]:
    if value is None:
        return "", None
    if isinstance(value, str):
        return _checks.text("content", value, limit=_ANY_LENGTH), None
    if not isinstance(value, list):
        raise InvalidInput("content", f"must be a string, null or a list of parts, not {type(value).__name__}")
    parts = _checks.optional_json_objects("content", value, limit=_ANY_LENGTH) or []
    texts = [part.get("text") for part in parts if part.get("type") in _TEXT_PARTS]
    if not all(isinstance(item, str) for item in texts):
        raise InvalidInput("content", "the text of a text part must be a string")
    return "\n".join(str(item) for item in texts), parts


def _tool_calls(raw: dict[str, Any], number: int) -> list[dict[str, Any]] | None:
    calls = raw.get("tool_calls")
    if calls is None and raw.get("function_call") is not None:
        # The call of old, which had no id: its result stands right after it.
        calls = [{"id": _old_call(number), "type": "function", "function": raw["function_call"]}]
    return _checks.optional_json_objects("tool_calls", calls, limit=_ANY_LENGTH)


def _tool_call_id(raw: dict[str, Any], number: int) -> str | None:
    if raw["role"] == "function" and raw.get("tool_call_id") is None:
        return _old_call(number - 1)
    return _checks.optional_text("tool_call_id", raw.get("tool_call_id"), limit=_ANY_LENGTH)


def _old_call(number: int) -> str:
    return f"function_call_{number}"


def _timestamp(raw: dict[str, Any]) -> datetime | None:
    for field in _TIMES:
        value = raw.get(field)
        if value is not None:
            return moment(field, value)
    return None


def moment(field: str, value: Any) -> datetime:
    """A time as files have it, in UTC: seconds since 1970, or ISO 8601 with its zone. Raises InvalidInput."""
    if isinstance(value, str):
        try:
            return _checks.moment(field, datetime.fromisoformat(value))
        except InvalidInput:
            raise InvalidInput(field, "has no time zone, or is outside the years 1 to 9999 in UTC") from None
        except ValueError:
            raise InvalidInput(field, "is no ISO 8601 time") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(field, "must be seconds since 1970 or an ISO 8601 time with its zone")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(field, "must be seconds since 1970 (these may be milliseconds)") from None


def _metadata(raw: dict[str, Any]) -> dict[str, Any]:
    metadata = _checks.json_object("metadata", raw.get("metadata") or {}, limit=_ANY_LENGTH)
    extra = {key: value for key, value in raw.items() if key not in _CONSUMED and value is not None}
    return _checks.json_object("message", {**extra, **metadata}, limit=_ANY_LENGTH)
