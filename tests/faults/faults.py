"""The deliberate faults: what each breaks, in which words of which file, and the tests that must notice.

A fault is a replacement of text, not a diff. A diff carries line numbers and neighbours, and goes stale, or is applied
in the wrong place, when anything near it is edited. A replacement holds for as long as its own words stand in the file
exactly once, and where they do not, it says so.

A fault breaks the promise on every engine unless it says otherwise: ``engine`` names the one on which it is a fault at
all, or ``none`` where no database has a part in it, and ``why`` gives the reason. In a file that is one engine's own
both go without saying.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
ENGINES = ("sqlite", "postgres")
# What ends a test of a fault: a failed assertion, pytest.raises that saw nothing, and what the package itself says.
_EXPECTED = frozenset({"builtins.AssertionError", "builtins.Failed", "mirai_memory.errors.MiraiMemoryError"})
# Files whose code only runs for one engine.
_OWN = {
    "sqlite": {"sqlite", "queue", "traces"},
    "postgres": {"postgres", "appending", "catalogue", "migrating", "vacuuming"}
    | {"table_vectors", "vector_making", "vector_tables"},
}


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement. ``old`` stands exactly once in the file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Fault:
    """``promise`` is the number of the promise that it breaks, 0 for a rule beside them; ``tests`` must all fail.

    ``errors`` are the exceptions that may end them besides a failed assertion and the package's own errors; ``engine``
    and ``why`` what the table says of engines.
    """

    name: str
    promise: int
    what: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    errors: tuple[str, ...]
    engine: str | None = None
    why: str | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """Those on which it has to be caught; none where no database has a part in it."""
        if self.engine is not None:
            return tuple(engine for engine in ENGINES if engine == self.engine)
        named = tuple(engine for engine in ENGINES if any(Path(edit.file).stem in _OWN[engine] for edit in self.edits))
        return named or ENGINES


@dataclass(frozen=True, slots=True)
class Case:
    """One of the cases of a test, and the engines that its parameters and fixtures name."""

    test: str
    engines: tuple[str, ...]


def is_expected(errors: Sequence[Sequence[str]], more: Sequence[str]) -> bool:
    """Whether each error, by the names of its class and of those above it, is one that a fault's tests may end by."""
    return all(not _EXPECTED.union(more).isdisjoint(names) for names in errors)


def is_of(case: str, test: str) -> bool:
    """Whether a case is one of the test's, or the very one that is named."""
    return case == test or case.startswith(f"{test}[")


def load() -> list[Fault]:
    """All faults, file by file."""
    return [fault for file in sorted(FOLDER.glob("*.toml")) for fault in _in_file(file)]


def _in_file(file: Path) -> Iterator[Fault]:
    table = tomllib.loads(file.read_text("utf-8"))
    for fault in table["fault"]:
        edits = (_edit(fault), *map(_edit, fault.get("also", ())))
        yield Fault(
            fault["name"],
            table["promise"],
            fault["what"],
            edits,
            tuple(fault["tests"]),
            _names(fault.get("error", ())),
            fault.get("engine"),
            fault.get("why"),
        )


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


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


def stale(fault: Fault, root: Path) -> list[str]:
    """Why the fault cannot be put into the tree at ``root``: the code has moved on, or would be no Python any more."""
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
    return found


def problems(fault: Fault, root: Path, cases: Sequence[Case]) -> list[str]:
    """Why it cannot be tried on the tree at ``root``, whose tests have these cases."""
    found = stale(fault, root)
    if fault.engine not in (None, "none", *ENGINES):
        found.append(f"there is no engine {fault.engine}")
    if (fault.engine is None) != (fault.why is None):
        found.append("engine and why stand together")
    there = {test: [case for case in cases if is_of(case.test, test)] for test in fault.tests}
    missing = [f"there is no test {test}" for test, own in there.items() if not own]
    named = [case.engines for own in there.values() for case in own]
    # A case that names no engine may open what it likes: the run sees on which it was.
    if not missing and all(named):
        found += [
            f"none of its tests is for {engine}" for engine in fault.engines if not any(engine in o for o in named)
        ]
    return found + missing
