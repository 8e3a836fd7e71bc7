"""Files of one JSON value per line: told apart from documents by their content, and read line by line."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Any, BinaryIO

from mirai_memory.importers.json_text import ENDS_EARLY, MAX_VALUE, JsonReader, NotJson, NotUtf8, decode

_HEAD = 1 << 16
_LOOKED_AT = 1_000


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Each line with its number; None stands for one that is too long to be read."""
    number = 0
    while raw := file.readline(MAX_VALUE):
        number += 1
        if len(raw) < MAX_VALUE or raw.endswith(b"\n"):
            yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(MAX_VALUE)
        yield number, None


def first_value(file: BinaryIO) -> Any:
    """The first line that is JSON, decoded; None where there is none among the first ones."""
    values = (_value_of(raw or b"") for _, raw in islice(numbered_lines(file), _LOOKED_AT))
    return next((value for value in values if value is not None), None)


def _value_of(raw: bytes) -> Any:
    try:
        return decode(raw.decode("utf-8-sig", "replace"))
    except NotJson:
        return None


def reads_by_line(file: BinaryIO) -> bool:
    """Whether this is JSONL: more than one line, and one of the first is a list or an object by itself."""
    if not _has_a_second_line(file):
        return False
    file.seek(0)
    filled = (raw for _, raw in numbered_lines(file) if raw is None or raw.strip())
    first, rest = next(filled, b""), file.read(_HEAD)
    if first and isinstance(_value_of(first), (dict, list)):
        return True
    if first and first.lstrip(b"\xef\xbb\xbf \t")[:1] == b"[":
        return False
    # A first line that is no JSON may be a damaged line of JSONL, or the beginning of a document over many lines: the
    # latter can be read on past it.
    lines = [line for line in rest.split(b"\n") if line[:1] == b"{"]
    if not any(isinstance(_value_of(line), dict) for line in lines):
        return False
    return first is None or not _begins_a_document(first + rest)


def _has_a_second_line(file: BinaryIO) -> bool:
    """Whether any text follows the first line that has some; a document on one line may be too long to be held."""
    lines_with_text, starts_a_line = 0, True
    while lines_with_text < 2 and (piece := file.readline(_HEAD)):
        lines_with_text += starts_a_line and bool(piece.strip())
        starts_a_line = piece.endswith(b"\n") or (starts_a_line and not piece.strip())
    return lines_with_text == 2


def _begins_a_document(head: bytes) -> bool:
    try:
        JsonReader(BytesIO(head)).value(len(head) + 1)
    except NotJson as error:
        return str(error) == ENDS_EARLY
    except NotUtf8:
        pass
    return True
