"""Recalled text inside of a conversation: it came out of the memory, and is not learned again.

A context is often pasted into a message, or stored with the turn that it was made for. What our rendering writes can be
told from what people write: tags around lines of JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from mirai_memory import _render

__all__ = ["MARK", "without_recalled"]

MARK = "[recalled from memory]"

_TAGS = "preferences|tasks|summary|facts|recalled|history|untrusted"
# Other words may stand before an opening tag, and behind a closing one.
_OPENS = re.compile(rf"<(?:{_TAGS})(?: [^<>]{{0,200}})?>[ \t]*\Z")
_CLOSES = re.compile(rf"\s*</(?:{_TAGS})>")
_QUOTED = re.compile(r"[ \t]*(?:>[ \t]?)*")  # as mail and Markdown quote
# The lines by themselves, without their tags: the names that each has, and those that it may have.
_SHAPES = (
    ({"value", "category", "source"}, {"key", "value", "category", "source", "from", "confidence", "since"}),
    ({"from", "date", "text"}, {"from", "date", "text", "source"}),
)


def without_recalled(text: str) -> str:
    """The text with a mark for each part that was rendered from the memory; "" where it is made of nothing else."""
    if '"' not in text:
        return text  # no JSON in it
    kept: list[str] = []
    for head in (_render._HEAD, _render._UNTRUSTED_HEAD):
        text = text.replace(head, MARK)
    for part in _parts(text.split("\n")):
        if part != MARK or kept[-1:] != [MARK]:
            kept.append(part)
    said = "\n".join(kept)
    return said if said.replace(MARK, "").strip() else ""


def _parts(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line, opening = lines[at], _OPENS.search(lines[at])
        end = _end(lines, at + 1) if opening else at + 1
        if opening is None or end == at + 1:
            yield MARK if _is_ours(_unquoted(line)) else line
            at += 1
            continue
        if line[: opening.start()].strip(" \t>"):
            yield line[: opening.start()]
        yield MARK
        at = end
        closing = _CLOSES.match(_unquoted(lines[at])) if at < len(lines) else None
        if closing is not None:
            lines[at] = _unquoted(lines[at])[closing.end() :]
            at += not lines[at].strip()


def _end(lines: list[str], at: int) -> int:
    """Behind the lines of a fence; the last of them may have been cut off."""
    while at < len(lines) and (_unquoted(lines[at]).startswith('{"') or isinstance(_value(lines[at]), str)):
        at += 1
    return at


def _unquoted(line: str) -> str:
    quoted = _QUOTED.match(line)
    return line[quoted.end() :] if quoted else line


def _value(line: str) -> object:
    """What a line of JSON says; None where it is none."""
    bare = _unquoted(line)
    if not bare.startswith(('{"', '"')):
        return None
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        return None


def _is_ours(line: str) -> bool:
    if line.strip() == MARK:
        return True
    value = _value(line)
    return isinstance(value, dict) and any(must <= value.keys() <= may for must, may in _SHAPES)
