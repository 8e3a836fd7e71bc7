"""The deliberate faults: what each breaks, in which words of which file, and the tests that must notice.

A fault is a replacement of text, not a diff. A diff carries line numbers and neighbours, and goes stale, or is applied
in the wrong place, when anything near it is edited. A replacement holds for as long as its own words stand in the file
exactly once, and where they do not, it says so.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement. ``old`` stands exactly once in the file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Fault:
    """``promise`` is the number of the promise that it breaks, 0 for a rule beside them; ``tests`` must all fail.

    ``error`` names the exception that may end them besides a failed assertion and the package's own errors.
    """

    name: str
    promise: int
    what: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    error: str | None


def load() -> list[Fault]:
    """All faults, file by file."""
    return [fault for file in sorted(FOLDER.glob("*.toml")) for fault in _in_file(file)]


def _in_file(file: Path) -> Iterator[Fault]:
    table = tomllib.loads(file.read_text("utf-8"))
    for fault in table["fault"]:
        edits = (_edit(fault), *map(_edit, fault.get("also", ())))
        yield Fault(fault["name"], table["promise"], fault["what"], edits, tuple(fault["tests"]), fault.get("error"))


def _edit(values: dict[str, Any]) -> Edit:
    return Edit(values["file"], values["old"], values["new"])


def apply(fault: Fault, root: Path) -> None:
    """Put the fault into the tree at ``root``. Raises ValueError where it does not fit."""
    for edit in fault.edits:
        path = root / edit.file
        text = path.read_text("utf-8")
        if text.count(edit.old) != 1:
            raise ValueError(f"{edit.file} holds the replaced text {text.count(edit.old)} times, not once")
        path.write_text(text.replace(edit.old, edit.new), "utf-8")


def problems(fault: Fault, root: Path) -> list[str]:
    """Why the fault cannot be tried on the tree at ``root``: it is stale, no Python any more, or names no test."""
    texts: dict[str, str] = {}
    found = []
    for edit in fault.edits:
        text = texts.get(edit.file) or (root / edit.file).read_text("utf-8")
        if text.count(edit.old) != 1:
            found.append(f"{edit.file} holds the replaced text {text.count(edit.old)} times, not once")
        texts[edit.file] = text.replace(edit.old, edit.new)
    for file, text in texts.items():
        try:
            ast.parse(text)
        except SyntaxError as error:
            found.append(f"{file} would be no Python: line {error.lineno}: {error.msg}")
    return found + [f"there is no test {test}" for test in fault.tests if not _is_defined(test, root)]


def _is_defined(test: str, root: Path) -> bool:
    """By a look at the sources: to collect the tests would take longer than to try a fault."""
    file, _, rest = test.partition("::")
    function = rest.partition("[")[0].rpartition("::")[2]
    sources = [root / file]
    if rest.count("::"):  # of a class, which may have it from the contract
        sources += (root / "mirai_memory" / "testing" / "contract").glob("*.py")
    definition = re.compile(rf"^ *(async )?def {re.escape(function)}\(", re.MULTILINE)
    return any(path.is_file() and definition.search(path.read_text("utf-8")) for path in sources)
