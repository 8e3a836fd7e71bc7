"""The shapes in which OpenAI-format messages are kept in files, read as one flat stream of entries.

JSON: a list of messages; an object with ``messages``; a list of such objects or of lists of messages; an object with
``conversations``. JSONL: one message per line (one conversation), or one conversation per line.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mirai_memory.importers.json_lines import first_value, numbered_lines, reads_by_line
from mirai_memory.importers.json_text import MAX_VALUE, WHOLE, JsonReader, NotJson, NotUtf8, TooLong, decode

_MEBIBYTES = MAX_VALUE >> 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message as it stands in the file, what is known about its conversation, or something unreadable."""

    conversation: int
    where: str
    place: str
    number: int = 0
    message: dict[str, Any] | None = None
    about: dict[str, Any] | None = None
    fault: str | None = None


def entries(path: Path) -> Iterator[Entry]:
    """Everything in the file; the entries of one conversation stand together, in order."""
    with path.open("rb") as file:
        by_line = reads_by_line(file)
        file.seek(0)
        yield from _Lines(file).entries() if by_line else _Document(file).entries()


class _Shape:
    """Numbering and naming of what is found; ``_open`` while inside a conversation."""

    def __init__(self) -> None:
        self._conversation, self._open, self._loose = 0, False, False

    def _begin(self) -> None:
        self._conversation, self._open = self._conversation + 1, True

    def _end(self) -> None:
        self._open = False

    def _where(self) -> str:
        """The place of the conversation; "" where it is the whole file."""
        raise NotImplementedError

    def _place(self, number: int) -> str:
        raise NotImplementedError

    def _entry(self, number: int = 0, **found: Any) -> Entry:
        return Entry(
            conversation=self._conversation, where=self._where(), place=self._place(number), number=number, **found
        )

    def _message(self, value: Any, number: int) -> Entry:
        if not isinstance(value, dict):
            return self._fault(f"a message must be an object, not {_json_type(value)}", number)
        return self._entry(number, message=value)

    def _fault(self, reason: str, number: int = 0) -> Entry:
        if not self._open:  # between two conversations: it must not spoil the one before
            self._begin()
            self._end()
        return self._entry(number, fault=reason)

    def _conversation_of(self, value: dict[str, Any] | list[Any]) -> Iterator[Entry]:
        about = {} if isinstance(value, list) else {key: item for key, item in value.items() if key != "messages"}
        messages = value if isinstance(value, list) else value["messages"]
        self._begin()
        yield self._entry(about=about)
        if isinstance(messages, list):
            yield from (self._message(message, number) for number, message in enumerate(messages, 1))
        else:
            yield self._fault(f"messages must be a list, not {_json_type(messages)}")
        self._end()


class _Lines(_Shape):
    """JSONL. The first line that can be read tells whether lines are messages or conversations."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._line = file, 0

    def _where(self) -> str:
        return "" if self._loose else f"line {self._line}"

    def _place(self, number: int) -> str:
        return f"line {self._line}" + (f", message {number}" if number and not self._loose else "")

    def entries(self) -> Iterator[Entry]:
        self._loose = not _is_conversation(first_value(self._file))
        self._file.seek(0)
        for number, (value, fault) in enumerate(self._values(), 1):
            if self._loose:
                yield from self._loose_line(value, fault, number)
            elif fault is None and _is_conversation(value):
                yield from self._conversation_of(value)
            else:
                yield self._fault(fault or "a conversation must be a list, or an object with messages")

    def _loose_line(self, value: Any, fault: str | None, number: int) -> Iterator[Entry]:
        if not self._open:
            self._begin()
        yield self._message(value, number) if fault is None else self._fault(fault, number)

    def _values(self) -> Iterator[tuple[Any, str | None]]:
        for number, raw in numbered_lines(self._file):
            self._line = number
            if raw is None:
                yield None, f"the line is longer than {_MEBIBYTES} MiB"
                continue
            try:
                text = raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
                if text.strip():
                    yield decode(text), None
            except UnicodeDecodeError as error:
                yield None, f"a byte that is no UTF-8, at byte {error.start + 1} of the line"
            except NotJson as error:
                yield None, str(error)


class _Document(_Shape):
    """JSON. What is too long to be held is walked; several texts in one file are read one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._reader = JsonReader(file)

    def _where(self) -> str:
        return "" if self._loose else f"conversation {self._conversation}"

    def _place(self, number: int) -> str:
        parts = (self._where(), f"message {number}" if number else "", f"line {self._reader.line}")
        return ", ".join(filter(None, parts))

    def entries(self) -> Iterator[Entry]:
        try:
            while character := self._reader.peek():
                if character not in "[{":
                    raise NotJson("neither a list nor an object of JSON")
                yield from self._list() if character == "[" else self._walk()
                self._end()
        except NotJson as error:
            yield self._fault(str(error))

    def _list(self) -> Iterator[Entry]:
        """A list of conversations, or of the messages of one: its first element tells."""
        for number in self._reader.array():
            if self._loose:
                yield self._held_message(number)
                continue
            yield from self._element(first=number == 1)
            self._open = self._loose
        self._loose = False

    def _element(self, *, first: bool) -> Iterator[Entry]:
        """What stands at the cursor; ``_loose`` tells whether it opened a list of messages."""
        try:
            value = self._reader.value(WHOLE)
        except TooLong:
            yield from self._walk(first=first)
        except NotUtf8 as error:
            self._begin()
            self._loose = first and not _is_conversation(error.value)
            yield self._fault(str(error), int(self._loose))
        else:
            if _is_conversation(value):
                yield from self._conversation_of(value)
            else:
                yield self._first_message(value, first)

    def _first_message(self, value: Any, first: bool) -> Entry:
        self._begin()
        self._loose = first
        return self._message(value, 1)

    def _walk(self, *, first: bool = False) -> Iterator[Entry]:
        """The same for what is too long to be held: part by part."""
        if self._reader.peek() == "[":
            yield from self._messages()
            return
        fields: dict[str, Any] = {}
        streamed = ""
        for key in self._reader.object():
            if key in ("messages", "conversations") and self._reader.peek() == "[":
                streamed = key
                yield from self._messages() if key == "messages" else self._list()
            else:
                fields[key] = yield from self._leaf()
        if streamed == "messages":
            yield self._entry(about=fields)
        elif not streamed:
            yield self._first_message(fields, first)

    def _messages(self) -> Iterator[Entry]:
        self._begin()
        for number in self._reader.array():
            yield self._held_message(number)

    def _held_message(self, number: int) -> Entry:
        try:
            return self._message(self._reader.value(), number)
        except NotUtf8 as error:
            return self._fault(str(error), number)
        except TooLong:
            raise NotJson(f"a message of more than {_MEBIBYTES} MiB") from None

    def _leaf(self) -> Generator[Entry, None, Any]:
        try:
            return self._reader.value()
        except NotUtf8 as error:
            yield self._fault(str(error))
        except TooLong:
            raise NotJson(f"a value of more than {_MEBIBYTES} MiB") from None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and "messages" in value and "role" not in value)


def _json_type(value: Any) -> str:
    names = {bool: "a boolean", str: "a string", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number")
