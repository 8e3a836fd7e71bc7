"""A record as one line: the configured fields, redacted, with nothing in them that ends a line or moves a cursor."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from mirai_memory._redaction import HIDDEN, names_a_secret, redact, secret_values

if TYPE_CHECKING:
    from loguru import Record

_BARE = frozenset({"timestamp", "level", "module", "message"})  # in text these stand without their names
_QUOTED = ' ="'  # would make one value look like two
# Control characters, and what other programs take for the end of a line or for a change of direction.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def values(record: Record, exception: str, fields: Sequence[str]) -> dict[str, Any]:
    """The fields in their order; what the record has not is None. Fields of no fixed meaning come from its extras.

    The text of an exception follows the message, and its class is the ``error_code`` unless one was bound.
    """
    extra = record["extra"]
    secrets = secret_values(extra)
    raised = record["exception"]
    message = f"{record['message']}\n{exception}".rstrip() if exception else record["message"]
    found: dict[str, Any] = {"error_code": raised.type.__name__ if raised and raised.type else None}
    found.update((name, value) for name, value in extra.items() if value is not None)
    found.update(
        timestamp=record["time"].astimezone(UTC).isoformat(timespec="microseconds"),
        level=record["level"].name,
        module=record["name"],
        message=message,
    )
    return {name: _plain(name, found.get(name), secrets) for name in fields}


def _plain(name: str, value: Any, secrets: Sequence[str]) -> str | int | float | None:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # JSON has no other
    if names_a_secret(name):
        return HIDDEN
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return redact(text, secrets)


def as_json(values: Mapping[str, Any]) -> bytes:
    line = json.dumps(values, ensure_ascii=False)
    # Whatever is escaped here, lone surrogates by the encoding, is inside of strings, where JSON reads it the same.
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", line).encode("utf-8", "backslashreplace") + b"\n"


def as_text(values: Mapping[str, Any]) -> bytes:
    line = " ".join(_word(name, value) for name, value in values.items() if value is not None)
    escaped = _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), line)
    return escaped.encode("utf-8", "backslashreplace") + b"\n"


def _word(name: str, value: Any) -> str:
    if name in _BARE:
        return str(value)
    text = str(value)
    quoted = not text or any(character in text for character in _QUOTED)
    return f"{name}={json.dumps(text, ensure_ascii=False) if quoted else text}"
