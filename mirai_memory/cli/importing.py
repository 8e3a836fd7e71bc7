"""``import``: conversations of other formats into the memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import console, print_json, printable

if TYPE_CHECKING:
    from mirai_memory.importers import ImportReport, Progress

_EVERY = 5.0  # seconds between two lines of progress where there is no terminal

Format = Literal["openai", "locomo"]


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSON or JSONL files.")],
    format: Annotated[Format | None, typer.Option("--format", help="Default: told by the content.")] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Import conversations: OpenAI-format messages (JSON, JSONL) or LoCoMo files.

    A conversation is stored whole or not at all. Importing a file again adds only what is new in it.
    """
    from mirai_memory.importers import ImportReport, import_file

    total = ImportReport()
    with opened(db, config, write=True) as memory, _shown_progress() as progress:
        for file in files:
            total += import_file(memory.for_user(user), file, format=format, progress=progress)
    if as_json:
        print_json(total.to_dict())
    else:
        print_report(total)
    if total.fault_count:
        say(f"error: {total.fault_count} fault{'s' * (total.fault_count > 1)}; what is listed was not imported")
        raise typer.Exit(FAILED)


def print_report(report: ImportReport) -> None:
    print(f"conversations  {report.conversations} imported, {report.conversations_refused} refused")
    print(f"sessions       {report.sessions}")
    print(f"messages       {report.messages_added} added, {report.messages_already_there} already there")
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

    columns = SpinnerColumn(), TextColumn("{task.completed:,} messages"), TimeElapsedColumn()
    with Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("import", total=None)
        yield lambda messages: bar.advance(task, messages)


def _line_by_line() -> Progress:
    seen, last = 0, time.monotonic()

    def progress(messages: int) -> None:
        nonlocal seen, last
        seen += messages
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            say(f"{seen:,} messages so far")

    return progress
