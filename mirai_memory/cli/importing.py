"""``import``: conversations of other formats into the memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import console, print_json, printable

if TYPE_CHECKING:
    from mirai_memory import MemoryManager
    from mirai_memory.importers import ImportReport, Progress

_EVERY = 5.0  # seconds between two lines of progress where there is no terminal

Format = Literal["first-version", "openai-agents", "langchain", "mirai-memory", "chatgpt", "claude", "locomo", "openai"]


def _zone(name: str | None) -> tzinfo | None:
    from zoneinfo import ZoneInfo

    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise typer.BadParameter(f"{name!r} is no time zone; names are like Europe/Berlin or UTC") from None


def import_(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSON, JSONL or SQLite files.")],
    format: Annotated[Format | None, typer.Option("--format", help="Default: told by the content.")] = None,
    timezone: Annotated[
        str | None,
        typer.Option("--timezone", metavar="NAME", help="Of times without a zone; default: this machine's."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, store nothing.")] = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Import conversations from other programs. Importing a file again adds only what is new in it.

    openai: messages of the OpenAI API (JSON, JSONL). chatgpt, claude: conversations.json of a data export.
    openai-agents: a session file of the Agents SDK. langchain: a chat history in SQLite. locomo: LoCoMo samples.

    first-version: the database of the first version. It names the owners, which are kept; --user takes one of them
    alone, without the facts shared by all.

    mirai-memory: a file of the command export. It is stored whole or not at all, for the owner that it names; --user
    refuses it if that is another one.

    A conversation is stored whole or not at all; what could not be read is listed, and the exit code is then 1.
    """
    zone = _zone(timezone)
    _check_files(files, db, config)
    given = context.get_parameter_source("user")
    chosen = given is not None and given.name == "COMMANDLINE"
    with _memory(db, config, dry_run) as memory, _shown_progress() as progress:
        options: dict[str, Any] = {"timezone": zone, "dry_run": dry_run, "progress": progress}
        total = _import_all(memory, files, format, user if chosen else None, user, options)
    if as_json:
        print_json({**total.to_dict(), "dry_run": dry_run})
    else:
        print_report(total)
    if dry_run:
        say("dry run: nothing was stored")
    if total.fault_count:
        say(f"error: {total.fault_count} fault{'s' * (total.fault_count > 1)}; what is listed was not imported")
        raise typer.Exit(FAILED)


def _check_files(files: list[Path], db: str | None, config: Path | None) -> None:
    """None of them may be the database that is imported into, which is told before anything is opened."""
    from mirai_memory import load_settings
    from mirai_memory.database import resolve_url
    from mirai_memory.database.urls import sqlite_path

    target = sqlite_path(resolve_url(db, load_settings(config)))
    for file in files:
        if target is not None and target.exists() and file.exists() and file.samefile(target):
            raise typer.BadParameter(f"{file} is the database to import into; name another one with --db")


@contextmanager
def _memory(db: str | None, config: Path | None, dry_run: bool) -> Iterator[MemoryManager]:
    """The memory to import into. For a dry run one that is missing is not made: an empty one serves."""
    from mirai_memory import load_settings
    from mirai_memory.database import resolve_url
    from mirai_memory.database.urls import sqlite_path

    path = sqlite_path(resolve_url(db, load_settings(config))) if dry_run else None
    place = ":memory:" if path is not None and not path.exists() else db
    # What is old already is summarised when it is asked for, or when its conversation goes on; not in our way.
    unasked = {"memory": {"short_term": {"auto_summarize": False}}}
    with opened(place, config, write=True, overrides=unasked) as memory:
        yield memory


def _import_all(
    memory: MemoryManager,
    files: list[Path],
    format: Format | None,
    only: str | None,
    user: str,
    options: dict[str, Any],
) -> ImportReport:
    """``only`` is the owner that was asked for, ``user`` the one of files that name none."""
    from mirai_memory.importers import FORMATS, ImportFault, ImportReport, detect_format, import_file
    from mirai_memory.importers.own_export import owner_of
    from mirai_memory.transfer import FORMAT

    total = ImportReport()
    for file in files:
        found = format or detect_format(file)
        everybody = found is not None and FORMATS[found].has_owners
        if everybody and only is None and user != DEFAULT_USER:
            say(f"{file} names its owners, who are kept; to take one of them alone, give --user")
        elif everybody and only is not None and found != FORMAT:
            say(f"of {file} only what belongs to {only!r} is taken, without the facts shared by all")
        whose = memory if everybody and only is None else memory.for_user(user)
        if found == FORMAT and only is not None:
            if owner_of(file) != only:
                fault = ImportFault(str(file), f"is an export of another owner than {only!r}")
                total += ImportReport(files=1, conversations_refused=1, fault_count=1, faults=(fault,))
                continue
            whose = memory  # whose sessions keep their ids
        total += import_file(whose, file, format=found, **options)
    return total


def print_report(report: ImportReport) -> None:
    print(f"conversations  {report.conversations} imported, {report.conversations_refused} refused")
    print(f"sessions       {report.sessions}")
    hidden = f", {report.messages_left_out} left out" if report.messages_left_out else ""
    print(f"messages       {report.messages_added} added, {report.messages_already_there} already there{hidden}")
    for name, added, there in (
        ("tasks", report.tasks_added, report.tasks_already_there),
        ("facts", report.facts_added, report.facts_already_there),
        ("preferences", report.preferences_saved, report.preferences_already_there),
    ):
        if added or there:
            print(f"{name:<14} {added} added, {there} already there")
    if report.rows_erased:
        print(f"forgotten      {report.rows_erased} rows of an owner who was forgotten since were not brought back")
    for fault in report.faults:
        print(f"  {printable(fault.place)}: {printable(fault.reason)}")
    if report.fault_count > len(report.faults):
        print(f"  and {report.fault_count - len(report.faults)} more")


@contextmanager
def _shown_progress() -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield _line_by_line()
        return
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield _counted(lambda words: bar.update(task, description=words))


def _line_by_line() -> Progress:
    last = time.monotonic()

    def show(words: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            say(words)

    return _counted(show)


def _counted(show: Callable[[str], object]) -> Progress:
    """Messages gone through so far, and how many in a second."""
    seen, start = 0, time.monotonic()

    def progress(messages: int) -> None:
        nonlocal seen
        seen += messages
        rate = seen / max(time.monotonic() - start, 0.001)
        show(f"{seen:,} messages so far, {rate:,.0f}/s")

    return progress
