"""``db vectors``: the tables of vectors that pgvector searches, made, dropped, looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, Yes, examples, go_ahead_or_exit, logged
from mirai_memory.cli.output import print_json, print_table
from mirai_memory.cli.progress import shown

if TYPE_CHECKING:
    from mirai_memory import Settings

app = typer.Typer(no_args_is_help=True, help="PostgreSQL: search large scopes by pgvector.")

_MEGABYTE = 1_000_000
Model = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Of this model only, by the name that status prints.")
]


def _target(db: str | None, settings: Settings) -> dict[str, Any]:
    from mirai_memory.database import resolve_url

    return {"url": resolve_url(db, settings), "schema": settings.memory.schema_}


@app.command(epilog=examples("db vectors enable", "db vectors enable --model text-embedding-3-large --dim 3072"))
def enable(
    model: Model = None,
    dim: Annotated[int | None, typer.Option("--dim", min=1, metavar="N", help="Its dimension.")] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Make, fill and index a table of vectors for each model that has some. Others may go on writing."""
    from mirai_memory import load_settings, vector_tables

    if (model is None) != (dim is None):
        raise typer.BadParameter("--model and --dim go together")
    settings = load_settings(config)
    target = _target(db, settings)
    with logged(settings):
        models = [] if model is None or dim is None else [(model, dim)]
        before = vector_tables.status(**target)
        if not models and not before.models:
            models = _of_settings(settings)
        with shown("vectors") as progress:
            done = vector_tables.enable(**target, models=models, progress=progress)
        for name, size in done:
            say(f"large scopes are searched by pgvector for the vectors of {name}, dimension {size}")
        if not done:
            say("nothing to do: no vectors are stored, and the settings name no embedder; --model and --dim name one")
        others = ", ".join(f"{name}, dimension {size}" for name, size in before.stored)
        if others and model is not None and (model, dim) not in before.stored:
            say(f"no vector is stored of {model}, dimension {dim}; there are those of {others}")


def _of_settings(settings: Settings) -> list[tuple[str, int]]:
    from mirai_memory.embeddings import open_embedder

    embedder = open_embedder(settings)
    return [] if embedder is None else [(embedder.name, embedder.dim)]


@app.command(epilog=examples("db vectors disable", "db vectors disable --yes"))
def disable(
    model: Model = None, yes: Yes = False, user: User = DEFAULT_USER, db: Db = None, config: Config = None
) -> None:
    """Drop the tables; the vectors themselves stay, and are searched exactly. Prints the plan and asks."""
    from mirai_memory import load_settings, vector_tables

    settings = load_settings(config)
    target = _target(db, settings)
    with logged(settings):
        there = [table for table in vector_tables.status(**target).tables if model in (None, table.model)]
        if not there:
            say("there is no such table")
            return
        for table in there:
            vectors = f"{table.vectors:,} vector{'s' * (table.vectors != 1)}"
            say(f"to be dropped: {table.table}, {vectors} of {table.model}, dimension {table.dim}")
        go_ahead_or_exit(yes)
        vector_tables.disable(**target, models=[table.model for table in there])
        say("dropped; the vectors are searched exactly")


@app.command(epilog=examples("db vectors status", "db vectors status --json"))
def status(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Print what pgvector there is, and the tables."""
    from mirai_memory import load_settings, vector_tables

    settings = load_settings(config)
    with logged(settings):
        found = vector_tables.status(**_target(db, settings))
    if as_json:
        print_json(found.to_dict())
        return
    say(f"pgvector: {found.installed or 'not in this database'}; on the server: {found.available or 'none'}")
    rows: list[tuple[Any, ...]] = [
        (t.dim, t.vectors, t.missing, f"{t.size_bytes / _MEGABYTE:.1f} MB", "yes" if t.ready else "no", t.model)
        for t in found.tables
    ]
    rows += [(dim, "-", "-", "-", "no table", model) for model, dim in found.without_table]
    print_table(["dimension", "vectors", "missing", "size", "searched", "model"], rows)
