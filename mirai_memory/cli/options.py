"""The options that commands share, and the memory that they open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mirai_memory import MemoryManager

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


@contextmanager
def opened(db: str | None, config: Path | None, *, write: bool = False) -> Iterator[MemoryManager]:
    """The memory that the options name. To read, it must exist: a mistyped path makes no empty database."""
    from mirai_memory import MemoryManager, load_settings
    from mirai_memory.database import resolve_url
    from mirai_memory.database.urls import sqlite_path

    settings = load_settings(config)
    url = resolve_url(db, settings)
    path = None if write else sqlite_path(url)
    # Opened as every caller does, so that an older file is upgraded and found in; unless it may not be written.
    read_only = path is not None and not (
        path.is_file() and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    )
    with MemoryManager(url, settings=settings, read_only=read_only) as memory:
        yield memory
