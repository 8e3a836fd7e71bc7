"""Reading JSON piece by piece: a file of any size, one value in memory at a time.

The values come from Python's own decoder, so that text is exact: a streaming parser tried here turned lone surrogates
into question marks, refused integers of more than 64 bits, and needed memory quadratic in the depth of nesting.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_CHUNK = 1 << 16
# A list or object longer than this is walked, not held. A single value may be as long as MAX_VALUE.
WHOLE = 1 << 20
MAX_VALUE = 1 << 24

ENDS_EARLY = "not JSON: the text ends too early"

_SPACE = re.compile(r"[ \t\n\r]*")
_UNDECODED = re.compile("[\udc80-\udcff]")
# How much of a value may be cut off at the end of what was read before the decoder calls it an error: \\ud83d\\ude00.
_CUT = 12


class NotJson(Exception):
    """The text breaks the rules of JSON: nothing after this place can be trusted."""


class TooLong(Exception):
    """The value is longer than the limit; it has not been consumed."""


class NotUtf8(Exception):
    """The value holds bytes that are no UTF-8; it has been consumed, what follows it can be read."""

    def __init__(self, value: Any) -> None:
        super().__init__("bytes that are no UTF-8")
        self.value = value


def _refuse_constant(name: str) -> Any:
    raise NotJson(f"{name} is no JSON number")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def decode(text: str) -> Any:
    """One JSON value from a text that holds nothing else; raises NotJson."""
    try:
        start = _space_until(text, 0)
        value, end = _decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise NotJson(f"{_broken_rule(error)} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise NotJson(_reason(error)) from None
    if _space_until(text, end) != len(text):
        raise NotJson(f"not JSON: more text after the value, at column {end + 1}")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON nested too deeply"
    return "a JSON number with too many digits"  # the only other ValueError of Python's decoder


def _broken_rule(error: json.JSONDecodeError) -> str:
    return "not JSON: " + error.msg.removesuffix(" at").removesuffix(" starting")


def _space_until(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


class JsonReader:
    """A cursor over the JSON of a file. Callers consume what they are shown before they go on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Bytes that are no UTF-8 become marks in the text, so that they spoil the value they stand in and no other.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._position, self._ended = "", 0, False
        self._line, self._counted = 1, 0

    @property
    def line(self) -> int:
        """The number of the line the cursor stands on."""
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._position = _space_until(self._text, self._position)
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more():
                return ""

    def array(self) -> Iterator[int]:
        """Stand before each element in turn; yields its number, from 1."""
        self._take("[")
        number = 0
        if self.peek() == "]":
            return self._take("]")
        while True:
            number += 1
            yield number
            if self.peek() != ",":
                return self._take("]")
            self._take(",")

    def object(self) -> Iterator[str]:
        """Stand before each value in turn; yields its key."""
        self._take("{")
        if self.peek() == "}":
            return self._take("}")
        while True:
            if self.peek() != '"':
                raise NotJson(self._unexpected("a key"))
            key = self._key()
            self._take(":")
            yield key
            if self.peek() != ",":
                return self._take("}")
            self._take(",")

    def _key(self) -> str:
        try:
            return str(self.value())
        except (NotUtf8, TooLong):
            raise NotJson("a key that is too long, or has bytes that are no UTF-8") from None

    def begins_with_key(self, key: str) -> bool:
        """Whether the first key of the object at the cursor is this one; the cursor stays."""
        opening = re.compile(rf'\{{\s*"{re.escape(key)}"\s*:')
        while len(self._text) - self._position < _CHUNK and self._more():
            pass
        return opening.match(self._text, self._position) is not None

    def value(self, limit: int = MAX_VALUE) -> Any:
        """The value at the cursor, whole. Raises NotJson, or TooLong with the cursor left where it was."""
        self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._ended or not self._is_cut_off(error):
                    raise NotJson(self._broken(error)) from None
            except (ValueError, RecursionError) as error:
                raise NotJson(_reason(error)) from None
            else:
                # "12" may be the beginning of "12e5": two more characters must be in sight.
                if self._ended or end + 2 < len(self._text):
                    return self._consumed(value, end)
            self._widen(limit)

    def _is_cut_off(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip()) - _CUT

    def _consumed(self, value: Any, end: int) -> Any:
        start, self._position = self._position, end
        if _UNDECODED.search(self._text, start, end):
            raise NotUtf8(value)
        return value

    def _widen(self, limit: int) -> None:
        if len(self._text) - self._position > limit:
            raise TooLong
        self._more()

    def _more(self) -> bool:
        if self._ended:
            return False
        self._line = self.line
        held = self._text[self._position :]
        # Doubling keeps the work of decoding a long value again linear in its length.
        data = self._file.read(max(_CHUNK, len(held)))
        self._ended = not data
        self._text = held + self._decoder.decode(data, self._ended)
        self._position = self._counted = 0
        return not self._ended or bool(self._text)

    def _take(self, character: str) -> None:
        if self.peek() != character:
            raise NotJson(self._unexpected(repr(character)))
        self._position += 1

    def _unexpected(self, wanted: str) -> str:
        return ENDS_EARLY if not self.peek() else f"not JSON: {wanted} is missing"

    def _broken(self, error: json.JSONDecodeError) -> str:
        at_the_end = error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())
        self._position = min(error.pos, len(self._text))
        return ENDS_EARLY if at_the_end else _broken_rule(error)
