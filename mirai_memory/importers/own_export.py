"""A file of ``export_user``: not conversations of another program, but all of one owner, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mirai_memory.errors import InvalidInput
from mirai_memory.importers.base import Conversation, ImportFault, ImportReport, Options, refused
from mirai_memory.importers.json_text import NotJson, decode
from mirai_memory.manager import MemoryManager
from mirai_memory.scoped import UserMemory
from mirai_memory.transfer import FORMAT, UserImport

_LONGEST_HEADER = 1 << 14


class OwnExport:
    """The format that this package writes itself; the memory reads it, not an importer."""

    name = FORMAT
    has_owners = True

    def detect(self, path: Path) -> bool:
        head = _header(path)
        return head.get("type") == "header" and head.get("format") == FORMAT

    def conversations(self, path: Path, options: Options) -> Iterator[Conversation]:
        yield refused("", "is taken in as a whole, by import_user")


def owner_of(path: Path) -> str | None:
    """Whose the file is, as its first line has it."""
    owner = _header(path).get("user_id")
    return owner if isinstance(owner, str) else None


def _header(path: Path) -> dict[str, Any]:
    """The first line, if it is an object; a longer one is no header."""
    with path.open("rb") as file:
        raw = file.readline(_LONGEST_HEADER)
    try:
        value = decode(raw.decode())
    except (NotJson, UnicodeDecodeError):
        value = None
    return value if isinstance(value, dict) else {}


def store(
    memory: MemoryManager | UserMemory, path: Path, *, dry_run: bool, progress: Callable[[int], object]
) -> ImportReport:
    """``progress`` is called with the number of rows since it was called last."""
    seen = 0

    def told(done: int, total: int) -> None:
        nonlocal seen
        progress(done - seen)
        seen = done

    try:
        done = memory.import_user(path, dry_run=dry_run, progress=told)
    except InvalidInput as error:
        fault = ImportFault("", str(error).removeprefix("source: "))
        return ImportReport(conversations_refused=1, fault_count=1, faults=(fault,))
    return _report(done)


def _report(done: UserImport) -> ImportReport:
    faults = [ImportFault(f"line {item.line}, {item.kind}", item.reason) for item in done.conflicts]
    return ImportReport(
        conversations=done.sessions_added,
        sessions=done.sessions_added + done.sessions_there,
        messages_added=done.messages_added,
        messages_already_there=done.messages_there,
        tasks_added=done.tasks_added,
        tasks_already_there=done.tasks_there,
        facts_added=done.facts_added,
        facts_already_there=done.facts_there,
        preferences_saved=done.preferences_added,
        preferences_already_there=done.preferences_there,
        rows_erased=done.erased,
        fault_count=done.conflict_count,
        faults=tuple(faults),
    )
