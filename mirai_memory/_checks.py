"""The rules a value must keep before any SQL sees it. Each check returns the value to use or raises InvalidInput.

A message names the field and the rule; of a text it tells the length and the offset of the fault, never the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from numbers import Real
from typing import Any, TypeVar

from mirai_memory.errors import InvalidInput

# PostgreSQL refuses B-tree entries over 2,704 bytes; the widest unique index is (user_id, category, key), and a
# character takes up to four bytes: 4 * (255 + 100 + 255) fits.
MAX_NAME = 255
MAX_CATEGORY = 100
MAX_LABEL = 2_000
MAX_INTEGER = 2**63 - 1
_MAX_JSON_DEPTH = 100
_MAX_FLOAT16 = 65_504

T = TypeVar("T")


def text(field: str, value: Any, *, limit: int) -> str:
    """A string that both engines store and return unchanged, at most ``limit`` characters long."""
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be a string, not {type(value).__name__}")
    if len(value) > limit:
        raise InvalidInput(field, f"has {len(value)} characters, the limit is {limit}")
    surrogate = None if value.isascii() else _surrogate_at(value)
    if surrogate is not None:
        raise InvalidInput(field, f"has a lone surrogate at offset {surrogate} of {len(value)} characters")
    nul = value.find("\x00")
    if nul >= 0:
        raise InvalidInput(field, f"has a NUL at offset {nul} of {len(value)} characters")
    # The member of an enum is formatted as its name, by which a fact would then be found, instead of as its text.
    return value if type(value) is str else str.__str__(value)


def _surrogate_at(value: str) -> int | None:
    # The offset is carried out of the except block: the UnicodeEncodeError holds the whole text and must not become
    # the context of the error that we raise.
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def optional_text(field: str, value: Any, *, limit: int) -> str | None:
    return None if value is None else text(field, value, limit=limit)


def name(field: str, value: Any, *, limit: int = MAX_NAME) -> str:
    """A non-empty string short enough for an index: owners, ids given by callers, categories, keys."""
    checked = text(field, value, limit=limit)
    if not checked:
        raise InvalidInput(field, "must not be empty")
    return checked


def optional_name(field: str, value: Any, *, limit: int = MAX_NAME) -> str | None:
    return None if value is None else name(field, value, limit=limit)


def owner(value: Any) -> str:
    """The opaque owner of memories."""
    return name("user_id", value)


def optional_owner(value: Any) -> str | None:
    return None if value is None else owner(value)


def one_of(field: str, value: Any, allowed: Sequence[T]) -> T:
    for candidate in allowed:
        if isinstance(value, str) and value == candidate:
            return candidate
    shown = f", not {value!r}" if isinstance(value, str) and len(value) <= 40 and value.isidentifier() else ""
    raise InvalidInput(field, f"must be one of {', '.join(map(str, allowed))}{shown}")


def integer(field: str, value: Any, *, least: int = 0) -> int:
    """An integer that a 64-bit column holds."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(field, f"must be an integer, not {type(value).__name__}")
    if not least <= value <= MAX_INTEGER:
        raise InvalidInput(field, f"must be between {least} and {MAX_INTEGER}")
    return int(value)


def optional_integer(field: str, value: Any, *, least: int = 0) -> int | None:
    return None if value is None else integer(field, value, least=least)


def row_id(field: str, value: Any) -> int:
    """An id to look up. Zero stands for any integer that no row can have, so that it is simply not found."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(field, f"must be an integer, not {type(value).__name__}")
    return int(value) if 0 < value <= MAX_INTEGER else 0


def after(value: Any) -> int:
    """The id after which a page begins; nothing comes after one that is larger than any."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput("after", f"must be an integer, not {type(value).__name__}")
    return int(min(max(value, 0), MAX_INTEGER))


def limit(field: str, value: Any, default: int) -> int:
    """How many at most; None means the default, 0 none at all. The largest leaves room to read one more."""
    return default if value is None else min(integer(field, value), MAX_INTEGER - 1)


def items(field: str, value: Any) -> list[Any]:
    """What a list, a tuple or an iterator holds."""
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, dict)):
        raise InvalidInput(field, f"must be a list, not {type(value).__name__}")
    return list(value)


def period(field: str, value: Any, default: float, unit: str) -> timedelta:
    """A length of time given as a number of ``unit`` ("days", "hours"); None means the default."""
    amount = number(field, default if value is None else value, least=0.0, most=1e15)
    try:
        return timedelta(**{unit: amount})
    except OverflowError:
        pass
    raise InvalidInput(field, f"is too large: {amount:g} {unit}")


def before(field: str, now: Any, span: timedelta) -> datetime:
    """The moment ``span`` before now; the first of all moments where there is none."""
    try:
        return moment("clock", now) - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def number(field: str, value: Any, *, least: float, most: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InvalidInput(field, f"must be a number, not {type(value).__name__}")
    # Comparisons with NaN are false, so it is refused here too.
    if not least <= value <= most:
        raise InvalidInput(field, f"must be between {least:g} and {most:g}")
    return float(value)


def moment(field: str, value: Any) -> datetime:
    """An aware time, in UTC."""
    if not isinstance(value, datetime):
        raise InvalidInput(field, f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidInput(field, "must have a time zone: use datetime.now(UTC) or .replace(tzinfo=...)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        pass
    raise InvalidInput(field, "is outside the years 1 to 9999 in UTC")


def optional_moment(field: str, value: Any) -> datetime | None:
    return None if value is None else moment(field, value)


def json_object(field: str, value: Any, *, limit: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(field, f"must be a dict, not {type(value).__name__}")
    return _json(field, value, limit) if value else {}


def optional_json_object(field: str, value: Any, *, limit: int) -> dict[str, Any] | None:
    return None if value is None else json_object(field, value, limit=limit)


def optional_json_objects(field: str, value: Any, *, limit: int) -> list[dict[str, Any]] | None:
    """A list of dicts, or None."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidInput(field, "must be a list of dicts")
    return _json(field, value, limit)


def texts(field: str, value: Any, *, limit: int) -> list[str]:
    if not isinstance(value, list):
        raise InvalidInput(field, f"must be a list of strings, not {type(value).__name__}")
    for index, item in enumerate(value):
        text(f"{field}[{index}]", item, limit=limit)
    if sum(map(len, value)) > limit:
        raise InvalidInput(field, f"has more than {limit} characters in all")
    return list(value)


def vector(field: str, value: Any) -> list[float]:
    """A caller's own embedding: finite numbers that float16 can hold."""
    # What nearly all are, at a tenth of the price: no number is larger than the length of the vector.
    if type(value) is list and set(map(type, value)) == {float} and math.hypot(*value) <= _MAX_FLOAT16:
        return list(value)
    # NumPy's own numbers are Real; a text or a dict would be read by its characters or keys.
    given = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict)) else []
    try:
        numbers = [float(item) for item in given if isinstance(item, Real) and not _is_truth_value(item)]
    except OverflowError:
        numbers = []
    if not given or len(numbers) < len(given):
        raise InvalidInput(field, "must be a non-empty sequence of numbers")
    if not all(abs(item) <= _MAX_FLOAT16 for item in numbers):
        raise InvalidInput(field, "must hold finite numbers of at most 65504 (the float16 range)")
    return numbers


def _is_truth_value(value: Any) -> bool:
    return isinstance(value, bool)


def _json(field: str, value: T, limit: int) -> T:
    _walk(field, value, depth=0, above=set(), budget=[limit])
    size = len(json.dumps(value, ensure_ascii=False))
    if size > limit:
        raise InvalidInput(field, f"has {size} characters as JSON, the limit is {limit}")
    return value


def _walk(field: str, value: Any, *, depth: int, above: set[int], budget: list[int]) -> None:
    """Refuse what would not come back from JSON as it went in; the budget stops a value that shares its parts."""
    budget[0] -= 1 + (len(value) if isinstance(value, str) else 0)
    if budget[0] < 0:
        raise InvalidInput(field, "holds more values than the content limit allows")
    if isinstance(value, str):
        text(field, value, limit=len(value))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(field, "holds a NaN or an infinity, which JSON has not")
    elif isinstance(value, int) or value is None:
        # int() of a longer text is refused by Python itself (sys.set_int_max_str_digits): it could not be read back.
        if isinstance(value, int) and value.bit_length() > 4_000:
            raise InvalidInput(field, "holds an integer of more than 4,000 bits")
    elif isinstance(value, (dict, list)):
        if id(value) in above or depth >= _MAX_JSON_DEPTH:
            raise InvalidInput(field, f"contains itself or is nested deeper than {_MAX_JSON_DEPTH} levels")
        above.add(id(value))
        for part in _parts(field, value):
            _walk(field, part, depth=depth + 1, above=above, budget=budget)
        above.discard(id(value))
    else:
        raise InvalidInput(field, f"holds a {type(value).__name__}, which JSON has not")


def _parts(field: str, value: dict[Any, Any] | list[Any]) -> Iterable[Any]:
    if isinstance(value, list):
        return value
    for key in value:
        if not isinstance(key, str):
            raise InvalidInput(field, f"has a key that is a {type(key).__name__}; JSON keys are strings")
        text(field, key, limit=len(key))
    return value.values()
