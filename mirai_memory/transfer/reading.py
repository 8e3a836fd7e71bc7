"""The file, read line by line in bounded memory: what breaks a rule is refused by the number of its line.

The same checks run both times that a file is read: before anything is written, and while it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from mirai_memory.config import MemorySettings
from mirai_memory.errors import InvalidInput
from mirai_memory.services.incoming import Record
from mirai_memory.transfer import form, values

# What of a longest line is text, in bytes for each character that the settings allow: content whose every character is
# escaped, and four fields of JSON, which are counted as they are written.
_BYTES, _BESIDE = 6 + 4 * 4, 1 << 20
_LONG = 1 << 20  # bytes of a line from which on its values are counted before they are made
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_SHOWN = ", not '"  # an error may repeat a short word, which here is content

_PARSERS: dict[str, Callable[[dict[str, Any], str, MemorySettings], dict[str, Any]]] = {
    "preferences": values.preferences_values,
    "session": values.session,
    "message": values.message,
    "task": values.task,
    "fact": values.fact,
}


def fault(number: int, rule: str) -> InvalidInput:
    return InvalidInput(f"line {number}", rule)


class Reader:
    """An export of one owner in an open file, from where the file stands on."""

    def __init__(self, file: BinaryIO, settings: MemorySettings) -> None:
        self._file, self._settings = file, settings
        self._start = file.tell()
        self._limit = _BYTES * settings.max_content_chars + _BESIDE
        self._facts_at: tuple[int, int] | None = None
        self.user_id = ""
        self.exported_at: datetime | None = None
        self.lines = 0  # of the whole file, once it has been gone through

    def records(self) -> Iterator[Record]:
        """Every line but the first and the last. InvalidInput, which may come last, means that none of them counts."""
        self._file.seek(self._start)
        checks, hashed = _Checks(), hashlib.sha256()
        for number, raw in self._raw(1):
            fields = self._fields(number, raw)
            kind = checks.stage(number, fields)
            if kind == "end":
                checks.end(number, fields, hashed.hexdigest())
                if self._file.read(1):
                    raise fault(number + 1, "follows the end line")
                self.lines = number
                return
            hashed.update(raw)
            if kind == "header":
                self._take_header(number, fields)
                continue
            record = self._record(number, kind, fields)
            checks.record(record)
            if kind == "fact" and checks.counts["fact"] == 1:
                self._facts_at = self._file.tell() - len(raw), number
            yield record
        raise fault(checks.last + 1, "the end line is missing: the file was cut off")

    def facts(self) -> Iterator[Record]:
        """The facts once more, in the middle of ``records``, which goes on where it was."""
        if self._facts_at is None:
            return
        resumed = self._file.tell()
        try:
            position, first = self._facts_at
            self._file.seek(position)
            for number, raw in self._raw(first):
                fields = self._fields(number, raw)
                if fields.get("type") != "fact":
                    return
                yield self._record(number, "fact", fields)
        finally:
            self._file.seek(resumed)

    def _raw(self, first: int) -> Iterator[tuple[int, bytes]]:
        number = first
        while raw := self._file.readline(self._limit + 1):
            if not isinstance(raw, bytes):
                raise InvalidInput("source", "must be opened in binary mode")
            if len(raw) > self._limit:
                raise fault(number, f"is longer than {self._limit} bytes")
            if not raw.endswith(b"\n"):
                raise fault(number, "ends in the middle: the file was cut off")
            yield number, raw
            number += 1

    def _fields(self, number: int, raw: bytes) -> dict[str, Any]:
        reason, value = self._decoded(raw)
        # Raised out here: the decoder's errors hold the whole text, and must not become the context of ours.
        if reason:
            raise fault(number, reason)
        if not isinstance(value, dict):
            raise fault(number, "must be an object of JSON")
        return value

    def _decoded(self, raw: bytes) -> tuple[str, Any]:
        if len(raw) > _LONG and _values(raw) > 4 * self._settings.max_content_chars:
            return "holds more values than the content limit allows", None
        try:
            return "", json.loads(raw.decode(), parse_constant=_refuse)
        except UnicodeDecodeError:
            return "is no UTF-8", None
        except RecursionError:
            return "is JSON that is nested too deeply", None
        except ValueError:
            return "is no JSON", None

    def _take_header(self, number: int, fields: dict[str, Any]) -> None:
        found = self._checked(number, lambda: values.header(fields))
        self.user_id, self.exported_at = found["user_id"], found["exported_at"]

    def _record(self, number: int, kind: str, fields: dict[str, Any]) -> Record:
        parse = _PARSERS[kind]
        return Record(number, kind, self._checked(number, lambda: parse(fields, self.user_id, self._settings)))

    @staticmethod
    def _checked(number: int, parse: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return parse()
        except InvalidInput as error:
            rule = error.rule.partition(_NOT_SHOWN)[0]
            found = fault(number, rule if error.field == "line" else f"{error.field}: {rule}")
        raise found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _values(raw: bytes) -> int:
    """At least as many values as there are in the line: small ones take many times the memory of their text."""
    bare = _STRING.sub(b"", raw)
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{")


def _digest(*parts: str) -> bytes:
    """Sixteen bytes instead of names that may be long; a NUL is in none of them."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


def _number(*parts: str) -> int:
    return int.from_bytes(_digest(*parts)[:8], "big", signed=True)


@dataclass
class _Checks:
    """What the lines must be to each other."""

    last: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(form.COUNTED, 0))
    _reached: int = -1
    # The positions of each session's messages: eight bytes a message, for the links of facts.
    _sessions: dict[str, array[int]] = field(default_factory=dict)
    _external: set[bytes] = field(default_factory=set)
    _session: dict[str, Any] | None = None
    _client_ids: set[bytes] = field(default_factory=set)
    _tasks: set[bytes] = field(default_factory=set)
    # The facts so far: each one's number and eight bytes that stand for its key.
    _facts: array[int] = field(default_factory=lambda: array("q"))
    _keys: array[int] = field(default_factory=lambda: array("q"))
    _open: set[bytes] = field(default_factory=set)
    _awaited: dict[int, int] = field(default_factory=dict)  # facts that others name as their successors, by line

    def stage(self, number: int, fields: dict[str, Any]) -> str:
        """The type of the line, which may not come before what has been."""
        kind = fields.get("type")
        place = form.ORDER.get(kind) if isinstance(kind, str) else None
        if number == 1 and kind != "header":
            raise fault(1, f"is no header of a {form.FORMAT} export")
        if place is None:
            raise fault(number, f"type: must be one of {', '.join(form.ORDER)}")
        if place < self._reached or (place == self._reached and kind in ("header", "preferences")):
            raise fault(number, "stands in the wrong place: header, preferences, sessions, tasks, facts, end")
        self._reached, self.last = place, number
        return str(kind)

    def record(self, record: Record) -> None:
        self.counts[record.kind] += 1
        if record.kind != "preferences":
            getattr(self, f"_check_{record.kind}")(record.line, record.values)

    def _check_session(self, number: int, session: dict[str, Any]) -> None:
        if session["id"] in self._sessions:
            raise fault(number, "id: is that of an earlier session")
        self._once(number, "external_id", self._external, session["external_id"])
        self._sessions[session["id"]] = array("q")
        self._session, self._client_ids = session, set()

    def _check_message(self, number: int, message: dict[str, Any]) -> None:
        if self._session is None or message["session_id"] != self._session["id"]:
            raise fault(number, "session: is not the one before it")
        positions = self._sessions[message["session_id"]]
        if positions and message["position"] <= positions[-1]:
            raise fault(number, "position: must be larger than that of the message before")
        if message["position"] >= self._session["next_position"]:
            raise fault(number, "position: must be smaller than the session's next_position")
        self._once(number, "client_id", self._client_ids, message["client_id"])
        positions.append(message["position"])

    def _check_task(self, number: int, task: dict[str, Any]) -> None:
        if task["session_id"] is not None and task["session_id"] not in self._sessions:
            raise fault(number, "session: is none of this file")
        self._once(number, "client_id", self._tasks, task["client_id"])

    def _check_fact(self, number: int, fact: dict[str, Any]) -> None:
        if self._facts and fact["id"] <= self._facts[-1]:
            raise fault(number, "id: must be larger than that of the fact before")
        self._facts.append(fact["id"])
        self._keys.append(_number(fact["category"], fact["key"]))
        if fact["superseded_at"] is None and fact["valid_to"] is None:
            self._once(number, "key", self._open, f"{fact['category']}\0{fact['key']}", "has two open values")
        self._awaited.pop(fact["id"], None)
        if fact["superseded_by"] is not None:
            self._check_successor(number, fact["superseded_by"])
        if fact["message"] is not None and not self._is_there(*fact["message"]):
            raise fault(number, "message: is none of this file")

    def _check_successor(self, number: int, successor: int) -> None:
        """Of the same key it comes later; a fact that was merged into one of another key may come after that."""
        if successor > self._facts[-1]:
            self._awaited[successor] = number
            return
        place = bisect_left(self._facts, successor)
        if self._facts[place] != successor:
            raise fault(number, "superseded_by: is none of this file")
        if self._keys[place] == self._keys[-1]:
            raise fault(number, "superseded_by: must be larger than its own id, where the key is the same")

    def _is_there(self, session: str, position: int) -> bool:
        positions = self._sessions.get(session, array("q"))
        place = bisect_left(positions, position)
        return place < len(positions) and positions[place] == position

    @staticmethod
    def _once(
        number: int, name: str, seen: set[bytes], value: str | None, rule: str = "is that of an earlier line"
    ) -> None:
        if value is not None:
            digest = _digest(value)
            if digest in seen:
                raise fault(number, f"{name}: {rule}")
            seen.add(digest)

    def end(self, number: int, fields: dict[str, Any], sha256: str) -> None:
        """What can be told only when all is read. Nothing may follow."""
        for line in self._awaited.values():
            raise fault(line, "superseded_by: is none of this file")
        given = {name: fields.get(name) for name in form.END}
        counted = {form.COUNTED[kind]: count for kind, count in self.counts.items()}
        if fields.keys() - {"type", *form.END} or given != {**counted, "sha256": sha256}:
            raise fault(number, "counts or sha256 differ from what was read: the file was changed, or is damaged")
