"""``cleanup``: what is kept no longer goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, DryRun, Json, User, Yes, go_ahead_or_exit, opened
from mirai_memory.cli.output import print_json, print_table, when
from mirai_memory.cli.progress import shown

if TYPE_CHECKING:
    from mirai_memory.retention import Cleanup


def cleanup(
    days: Annotated[
        float | None,
        typer.Option("--days", min=0, metavar="N", help="Sessions unused for N days; default: from the settings."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Delete the sessions of all users that nobody used for long, and facts that have expired.

    Prints the plan and asks; then how many rows of each table went. Others can write meanwhile, and what was cut short
    is taken up by the next run.
    """
    with opened(db, config) as memory:
        plan = memory.cleanup(days, dry_run=True)
        if dry_run or not _rows(plan):
            return _print(plan, as_json=as_json)
        _say_plan(plan)
        go_ahead_or_exit(yes)
        with shown("deleting") as progress:
            done = memory.cleanup(days, progress=progress)
    return _print(done, as_json=as_json)


def _rows(plan: Cleanup) -> dict[str, int]:
    names = ("sessions", "messages", "tasks", "knowledge", "embeddings")
    return {name: count for name in names if (count := getattr(plan, name))}


def _say_plan(plan: Cleanup) -> None:
    say(f"to be deleted, unused since {when(plan.before)} or expired:")
    for name, count in _rows(plan).items():
        say(f"{count:,} of {name}")


def _print(done: Cleanup, *, as_json: bool) -> None:
    if as_json:
        print_json(done.to_dict())
        return
    rows = _rows(done)
    if rows:
        heading = "to be deleted" if done.dry_run else "deleted"
        print_table(["table", heading], [(name, f"{count:,}") for name, count in rows.items()])
    say("dry run: nothing was changed" if done.dry_run and rows else "nothing to delete" if not rows else "done")
