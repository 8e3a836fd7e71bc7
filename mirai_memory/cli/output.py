"""Printing: with colours on a terminal, plain text into pipes and files. Stored text never steers the terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from mirai_memory import Message

_READABLE = 24  # columns of a terminal that a text needs
_GAP = 3  # between two columns of a table
_STYLES = {"user": "bold cyan", "assistant": "bold green", "tool": "yellow", "system": "magenta"}


def on_terminal() -> bool:
    """Whether somebody reads along: lines are wrapped and texts shortened for them."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    # Without a colour system there are no escape codes at all, bold ones included.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(stderr=stderr, color_system=colours, markup=False, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # What would steer a terminal is inside of strings only, where its escape means the same.
    print("".join(c if c.isprintable() or c in "\n" or _joins(c) else json.dumps(c)[1:-1] for c in text))


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or change its state."""
    return "".join(c if c.isprintable() or c in "\n\t" or _joins(c) else "\ufffd" for c in text.replace("\r\n", "\n"))


def _joins(character: str) -> bool:
    return character in "\u200c\u200d\xa0\u3000\u2009\u202f"  # inside of words and emoji, between number and unit


def shortened(text: str, length: int) -> str:
    """The text on one line, cut at ``length``."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def when(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if moment else "-"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under their headings; on a terminal the last column wraps, and where it has no room it goes below."""
    cells = [[printable(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    if not on_terminal():
        _print_aligned([list(columns), *cells])
        return
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table

    out = console()
    taken = sum(max(map(cell_len, column)) + _GAP for column in list(zip(columns, *cells, strict=True))[:-1])
    if taken + _READABLE > out.width:
        for *short, text in cells:
            print_block([(words, "bold") for words in short], text)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in cells:
        table.add_row(*row)
    out.print(table)


def _print_aligned(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_block(heading: Sequence[tuple[str, str]], text: str, note: str = "") -> None:
    """A heading of (words, style), a text below it, indented, and a note."""
    if not on_terminal():
        print("  ".join(printable(words) for words, _ in heading if words))
        for line in [*printable(text).splitlines(), *([note] if note else [])]:
            print(f"    {line}".rstrip())
        return
    from rich.padding import Padding
    from rich.text import Text

    blocks: list[RenderableType] = [Text("  ").join(Text(printable(words), style) for words, style in heading if words)]
    for words, style in ((text, ""), (note, "dim")):
        if words:
            blocks.append(Padding(Text(printable(words), style), (0, 0, 0, 4)))
    console().print(*blocks, sep="\n")


def print_message(message: Message) -> None:
    """A message of a conversation, with the calls it makes."""
    who = message.name or message.role or message.kind
    role = message.role if message.role and message.role != who else ""
    heading = [(when(message.timestamp), "dim"), (who, _STYLES.get(message.role or "", "bold")), (role, "dim")]
    print_block(heading, "\n".join(filter(None, [message.content, *map(_call, message.tool_calls or [])])))


def _call(call: dict[str, Any]) -> str:
    function = call.get("function")
    if not isinstance(function, dict):
        return f"-> {call.get('type', 'call')}"
    return f"-> {function.get('name')}({function.get('arguments') or ''})"
