"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from mirai_memory._version import __version__
from mirai_memory.cli import PROGRAM, db, demo, importing, reading
from mirai_memory.cli.failures import Group

app = typer.Typer(
    cls=Group,
    name=PROGRAM,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Long-term memory for AI agents: conversations, preferences, tasks and facts, found again by their words.

    Times are UTC. Exit codes: 0 fine, 1 failed, 2 usage, 3 configuration, 4 database unavailable.
    """


app.command("demo")(demo.demo)
app.command("import")(importing.import_)
app.command("recall")(reading.recall)
app.command("history")(reading.history)
app.command("sessions")(reading.sessions)
app.command("stats")(reading.stats)
app.add_typer(db.app, name="db")
