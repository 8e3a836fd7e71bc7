"""``db``: the schema of a database, upgraded, taken back, looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli import vectors
from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, Yes, examples, go_ahead_or_exit, logged
from mirai_memory.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mirai_memory.schema import Revision

LockTimeout = Annotated[
    float, typer.Option(min=0, max=86_400, metavar="SECONDS", help="How long to wait for others, in all.")
]
StatementTimeout = Annotated[
    float, typer.Option(min=0, max=1_000_000, metavar="SECONDS", help="How long one statement may take; 0: for ever.")
]

app = typer.Typer(no_args_is_help=True, help="Upgrade and inspect the schema of a database.")
app.add_typer(vectors.app, name="vectors")


@contextmanager
def _target(db: str | None, config: Path | None) -> Iterator[dict[str, Any]]:
    """The database as the schema functions take it; what they do is logged."""
    from mirai_memory import load_settings
    from mirai_memory.database import resolve_url

    settings = load_settings(config)
    url = resolve_url(db, settings)
    with logged(settings):
        yield {"url": url, "schema": settings.memory.schema_}


def _backup_first(config: Path | None) -> Any:
    """What makes a backup before the tables are changed, where the settings want one."""
    from mirai_memory import load_settings
    from mirai_memory._time import utc_now
    from mirai_memory.backups import before_change

    return partial(before_change, settings=load_settings(config).memory.long_term, clock=utc_now)


def _patience(lock_timeout: float, statement_timeout: float) -> Any:
    from mirai_memory.database.migrating import Patience

    return Patience(lock_s=lock_timeout, statement_s=statement_timeout)


@app.command(epilog=examples("db upgrade --db memory.db", "db upgrade 0001:head --sql --db postgresql://host/database"))
def upgrade(
    revision: Annotated[str, typer.Argument(help='Where to; with --sql also from where: "0001:head".')] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, and connect to nothing.")] = False,
    lock_timeout: LockTimeout = 120.0,
    statement_timeout: StatementTimeout = 0.0,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Bring the database to the newest schema; a new SQLite file is made.

    One transaction: cut short, it has changed nothing. On a server one upgrade of a schema runs at a time, and a table
    that others use is waited for by moments only, in which they wait too.
    """
    from mirai_memory import schema

    with _target(db, config) as target:
        if sql:
            start, _, wanted = revision.rpartition(":")
            print(schema.script(**target, revision=wanted or "head", start=start or None), end="")
            return
        patience = _patience(lock_timeout, statement_timeout)
        schema.upgrade(**target, revision=revision, before=_backup_first(config), patience=patience, tell=say)
        say(f"the database is at revision {schema.current(**target) or 'none'}")


@app.command(
    epilog=examples("db downgrade 0001", "db downgrade base --yes"),
    context_settings={"ignore_unknown_options": True},  # "-1" is a revision
)
def downgrade(
    revision: Annotated[str, typer.Argument(help='Where to: "0001", "-1", "base".')],
    yes: Yes = False,
    lock_timeout: LockTimeout = 120.0,
    statement_timeout: StatementTimeout = 0.0,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Take the schema back. Prints the plan and asks."""
    from mirai_memory import schema

    with _target(db, config) as target:
        steps = _steps_back(schema.history(), schema.current(**target), revision)
        if not steps:
            say("nothing to undo")
            return
        say(f"to be undone in {_display(target)}:")
        for step in steps:
            say(f"{step.id} {step.doc}")
        if steps[-1].id == schema.history()[0].id:
            say("its rows stay parked inside the database: no command finds them until an upgrade takes them back")
        go_ahead_or_exit(yes)
        patience = _patience(lock_timeout, statement_timeout)
        schema.downgrade(**target, revision=revision, before=_backup_first(config), patience=patience, tell=say)
        say(f"the database is at revision {schema.current(**target) or 'none'}")


def _display(target: dict[str, Any]) -> str:
    from mirai_memory.database.urls import display

    return display(target["url"])


def _steps_back(history: list[Revision], current: str | None, wanted: str) -> list[Revision]:
    """The revisions that go, the latest first."""
    ids = [revision.id for revision in history]
    done = ids.index(current) + 1 if current in ids else 0
    if wanted == "base":
        kept = 0
    elif wanted.startswith("-") and wanted[1:].isdecimal():
        kept = done + int(wanted)
    elif wanted in ids:
        kept = ids.index(wanted) + 1
    else:
        raise typer.BadParameter(f"is none of {', '.join(['base', *ids])}", param_hint="REVISION")
    if kept < 0:
        raise typer.BadParameter(f"goes back further than {done} steps", param_hint="REVISION")
    return history[kept:done][::-1]


@app.command(epilog=examples("db current --json"))
def current(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Print the revision of the database."""
    from mirai_memory import schema

    with _target(db, config) as target:
        found = schema.current(**target)
    if as_json:
        print_json({"revision": found, "head": schema.HEAD_REVISION})
    else:
        print(found or "none")


@app.command(epilog=examples("db check --json"))
def check(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Compare the tables of the database with the models; exit code 1 where they differ."""
    from mirai_memory import schema

    with _target(db, config) as target:
        differences = schema.check(**target)
    if as_json:
        print_json(differences)
    else:
        print("\n".join(differences) or "no differences")
    if differences:
        raise typer.Exit(FAILED)


@app.command(epilog=examples("db history --json"))
def history(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """List the revisions of the schema, oldest first."""
    from mirai_memory import schema

    revisions = schema.history()
    if as_json:
        print_json([{"id": revision.id, "doc": revision.doc} for revision in revisions])
    else:
        print_table(["revision", "what it does"], [(revision.id, revision.doc) for revision in revisions])
