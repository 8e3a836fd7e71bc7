"""The options that commands share, the memory that they open, and the question that some ask first."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli import PROGRAM
from mirai_memory.cli.failures import FAILED, say

if TYPE_CHECKING:
    from mirai_memory import MemoryManager, Settings

DEFAULT_USER = "default"

User = Annotated[
    str, typer.Option("--user", envvar="MIRAI_USER", metavar="NAME", help="Whose memory.", rich_help_panel="Memory")
]
Db = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="PATH|URL", help="The database; default: from the settings.", rich_help_panel="Memory"
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The settings; default: $MIRAI_CONFIG or mirai.yaml.", rich_help_panel="Memory"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]


@contextmanager
def opened(
    db: str | None, config: Path | None, *, write: bool = False, overrides: dict[str, Any] | None = None
) -> Iterator[MemoryManager]:
    """The memory that the options name. To read, it must exist: a mistyped path makes no empty database."""
    from mirai_memory import MemoryManager, load_settings
    from mirai_memory.database import resolve_url
    from mirai_memory.database.urls import sqlite_path

    settings = load_settings(config, **(overrides or {}))
    url = resolve_url(db, settings)
    path = None if write else sqlite_path(url)
    # Opened as every caller does, so that an older file is upgraded and found in; unless it may not be written.
    read_only = path is not None and not (
        path.is_file() and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    )
    with logged(settings), MemoryManager(url, settings=settings, read_only=read_only) as memory:
        yield memory


@contextmanager
def logged(settings: Settings) -> Iterator[None]:
    """Our records go to the file that ``monitoring.logs`` names, and not to the terminal among a command's words."""
    from mirai_memory.logging import configure_logging, logger

    with suppress(ValueError):  # removed before
        logger.remove(0)  # loguru's own sink, which prints to stderr
    with configure_logging(settings):
        yield


def go_ahead_or_exit(yes: bool) -> None:
    """Leave with nothing changed, unless ``yes``, or somebody at a terminal says so."""
    if yes or (sys.stdin.isatty() and typer.confirm("Go ahead?", err=True)):
        return
    say("error: nothing was changed; --yes goes ahead without asking")
    raise typer.Exit(FAILED)


def examples(*commands: str) -> str:
    """The last lines of a command's help."""
    # In a help text an empty line is what breaks a line.
    return "\n\n".join(["Example:" if len(commands) == 1 else "Examples:", *(f"{PROGRAM} {line}" for line in commands)])
