"""Exports of chat services: a JSON list of conversations, each an object of which one member holds its messages.

That member is walked, so that a conversation may be of any size; an element of it is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import FaultList
from mirai_memory.importers.json_text import MAX_VALUE, WHOLE, JsonReader, NotJson, NotUtf8, TooLong

_LOOKED_AT = 20
_WRAPPER = "conversations"

# What is done with an element of the member: its key, or its number, and its value.
Keep = Callable[[Any, Any], None]


@dataclass
class Exported:
    """A conversation as it stands in the file, without the member that ``Keep`` has been given."""

    place: str
    about: dict[str, Any] = field(default_factory=dict)
    faults: FaultList = field(default_factory=FaultList)

    def text(self, name: str) -> str | None:
        value = self.about.get(name)
        return value if isinstance(value, str) and value else None

    def metadata(self, *without: str) -> dict[str, Any]:
        """What the file says about the conversation, but for nothings."""
        return {
            key: value
            for key, value in self.about.items()
            if key not in without and (value or value is False) and isinstance(value, (str, int, float, list, dict))
        }


def is_export(path: Path, member: str, opening: str) -> bool:
    """Whether one of the first conversations has the member, a list ("[") or an object ("{")."""
    with path.open("rb") as file:
        reader = JsonReader(file)
        try:
            return any(_has(reader, member, opening) for _ in islice(_each(reader), _LOOKED_AT))
        except (NotJson, NotUtf8, TooLong):
            return False


def _has(reader: JsonReader, member: str, opening: str) -> bool:
    if reader.peek() != "{":
        reader.value(WHOLE)
        return False
    for key in reader.object():
        if key == member and reader.peek() == opening:
            return True
        reader.value(WHOLE)
    return False


def exported(path: Path, member: str, opening: str, begin: Callable[[], None], keep: Keep) -> Iterator[Exported]:
    """Every conversation, in order; ``begin`` is called before each, ``keep`` with each element of its member.

    What ``keep`` raises InvalidInput for is a fault of the conversation.
    """
    number = 0
    with path.open("rb") as file:
        reader = JsonReader(file)
        try:
            for _ in _each(reader):
                number += 1
                begin()
                yield _conversation(reader, f"conversation {number}", member, opening, keep)
            if reader.peek():
                raise NotJson("not JSON: more text after the end")
        except NotJson as error:
            broken = Exported(f"after conversation {number - 1}, line {reader.line}" if number else "")
            broken.faults.add(broken.place, str(error))
            yield broken


def _each(reader: JsonReader) -> Iterator[None]:
    """Stand before each conversation: of a list, of an object with a list of them, or the only one there is."""
    if reader.peek() == "{":
        if reader.begins_with_key(_WRAPPER):
            for key in reader.object():
                yield from _each(reader) if key == _WRAPPER else _skipped(reader)
        else:
            yield
    elif reader.peek() == "[":
        yield from (None for _ in reader.array())
    else:
        raise NotJson("neither a list nor an object of JSON")


def _skipped(reader: JsonReader) -> Iterator[None]:
    _held(reader)
    return iter(())


def _conversation(reader: JsonReader, place: str, member: str, opening: str, keep: Keep) -> Exported:
    found, seen = Exported(place), False
    if reader.peek() != "{":
        _held(reader)
        found.faults.add(place, "a conversation must be an object")
        return found
    for key in reader.object():
        if key == member and reader.peek() == opening:
            seen = True
            for inner in reader.object() if opening == "{" else reader.array():
                _element(reader, found, inner, keep)
            continue
        value = _held(reader)
        if isinstance(value, NotUtf8):
            found.faults.add(place, f"{key}: {value}")
        else:
            found.about[key] = value
    if not seen:
        found.faults.add(place, f"{member} is missing")
    return found


def _element(reader: JsonReader, found: Exported, inner: Any, keep: Keep) -> None:
    where = f"{found.place}, message {inner}"
    value = _held(reader)
    if isinstance(value, NotUtf8):
        found.faults.add(where, str(value))
        return
    try:
        keep(inner, value)
    except InvalidInput as error:
        found.faults.add(where, str(error))


def _held(reader: JsonReader) -> Any:
    try:
        return reader.value()
    except NotUtf8 as error:
        return error
    except TooLong:
        raise NotJson(f"a value of more than {MAX_VALUE >> 20} MiB") from None
