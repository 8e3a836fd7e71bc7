"""``logs``: what a log of model calls adds up to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mirai_memory._log_summary import summarize, with_rotated
from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, examples
from mirai_memory.cli.output import print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Read the logs.")

_COLUMNS = ["model", "calls", "errors", "tokens in", "tokens out", "p50 ms", "p95 ms"]


@app.command(epilog=examples("logs summary /tmp/mirai.log --rotated"))
def summary(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log of JSON lines.")],
    rotated: Annotated[bool, typer.Option("--rotated", help="Also FILE.1, FILE.2 and so on.")] = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print calls, errors, tokens and latencies of each model."""
    try:
        found = summarize(with_rotated(file) if rotated else [file]).to_dict()
    except OSError as error:
        say(f"error: {file}: {error.strerror}")
        raise typer.Exit(FAILED) from None
    if as_json:
        print_json(found)
    elif found["models"]:
        print_table(_COLUMNS, [_row(model) for model in found["models"]])
    else:
        say("no model calls in this log")
    if found["bad_lines"]:
        say(f"{found['bad_lines']} of {found['lines']} lines are no records and were left out")


def _row(model: dict[str, Any]) -> list[str]:
    return ["-" if value is None else str(value) for value in model.values()]
