"""``eval`` and ``reindex``: how well is found, and the vectors it is found by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import print_json, print_table, printable

if TYPE_CHECKING:
    from mirai_memory.evaluation import Evaluation, Question


def eval_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Questions, one JSON object per line.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="KEY=VALUE",
            help="A setting of a second run to compare with, such as memory.rag.embedder=none; may be given again.",
        ),
    ] = None,
    misses: Annotated[int, typer.Option("--misses", min=0, metavar="N", help="List N questions without a find.")] = 0,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Score the memory on questions whose answers you know: recall, rank of the first find, latency.

    A line is {"query": "...", "texts": ["..."]}, or with "ids" and "kind" ("messages" or "knowledge").
    """
    from mirai_memory.evaluation import read_questions

    other = _settings_of(against or [])
    try:
        questions = read_questions(file)
    except OSError as error:
        say(f"error: {file}: {error.strerror}")
        raise typer.Exit(FAILED) from None
    runs = {"as configured": _run(questions, user, db, config, {})}
    if other:
        runs[" ".join(against or [])] = _run(questions, user, db, config, other)
    if as_json:
        print_json({name: run.to_dict() for name, run in runs.items()})
        return
    _print(runs)
    for query in next(iter(runs.values())).missed[:misses]:
        print(f"  {printable(query)}")


def _run(
    questions: list[Question], user: str, db: str | None, config: Path | None, other: dict[str, Any]
) -> Evaluation:
    from mirai_memory.evaluation import evaluate

    with opened(db, config, overrides=other) as memory:
        return evaluate(memory.for_user(user), questions)


def _print(runs: dict[str, Evaluation]) -> None:
    first = next(iter(runs.values()))
    measures = [
        ("questions", [str(run.questions) for run in runs.values()]),
        *((f"recall@{depth} %", [f"{run.recall[depth]:.1f}" for run in runs.values()]) for depth in first.recall),
        ("MRR %", [f"{run.mrr:.1f}" for run in runs.values()]),
        ("p50 ms", [f"{run.p50_ms:.1f}" for run in runs.values()]),
        ("p95 ms", [f"{run.p95_ms:.1f}" for run in runs.values()]),
        ("nothing found", [str(len(run.missed)) for run in runs.values()]),
    ]
    print_table(["measure", *runs], [(name, *values) for name, values in measures])


def _settings_of(assignments: list[str]) -> dict[str, Any]:
    """Nested overrides from KEY=VALUE; what the values may be is for the settings to say."""
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        *sections, leaf = key.split(".")
        if not equals or not sections or not all((*sections, leaf)):
            raise typer.BadParameter(f"{assignment!r} is not KEY=VALUE", param_hint="--against")
        section = overrides
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise typer.BadParameter(f"{assignment!r} stands below another one", param_hint="--against")
        try:
            section[leaf] = json.loads(value)
        except ValueError:
            section[leaf] = value
    return overrides


def reindex(
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Keep the vectors of the embedder that was configured before.")
    ] = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
) -> None:
    """Make the vectors that are missing, for all users; searches and writes go on meanwhile."""
    with opened(db, config) as memory:
        if memory.embedding_model is None:
            say("there is no embedder: memory.rag.embedder is none, or the extra mirai-memory[embeddings] is missing")
            return
        made = memory.reindex(keep_old=keep_old, progress=_shown)
    say(f"{made:,} vectors made")


def _shown(made: int, wanted: int) -> None:
    say(f"{made:,} of {made + wanted:,} vectors made")
