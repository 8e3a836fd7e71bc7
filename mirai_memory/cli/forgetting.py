"""``forget``: an owner goes, with everything that is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, DryRun, Json, User, Yes, go_ahead_or_exit, opened
from mirai_memory.cli.output import print_json, print_table
from mirai_memory.cli.progress import shown

if TYPE_CHECKING:
    from mirai_memory.forgetting import Erasure

_NAMES = ("sessions", "messages", "summaries", "tasks", "knowledge", "preferences", "embeddings", "unlinked_facts")


def forget(
    later: Annotated[
        bool, typer.Option("--later", help="Delete rows now; leave it to the next run to write the files anew.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Delete everything of the user, so that no byte of it is left in the database's files.

    Prints the plan and asks; then a receipt, without content. Exit code 1 where it says "pending": the rows are gone,
    and running it again ends it. What was cut short is taken up by the next run.
    """
    with opened(db, config) as memory:
        plan = memory.forget_user(user, dry_run=True)
        if not dry_run:
            _say_plan(plan)
            go_ahead_or_exit(yes)
            with shown("deleting") as progress:
                plan = memory.forget_user(user, compact=not later, progress=progress)
    _print(plan, as_json=as_json)
    if plan.state == "pending":
        say(f"error: pending: {plan.reason}")
        raise typer.Exit(FAILED)


def _say_plan(plan: Erasure) -> None:
    say(f"to be deleted for ever, everything of user {plan.user_id}:")
    for name, count in _counts(plan):
        say(f"{count} of {name}")


def _counts(erasure: Erasure) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), f"{count:,}") for name in _NAMES if (count := getattr(erasure, name))]


def _print(done: Erasure, *, as_json: bool) -> None:
    if as_json:
        print_json(done.to_dict())
        return
    if rows := _counts(done):
        print_table(["what", "to be deleted" if done.state == "planned" else "deleted"], rows)
    if done.backups:
        say(f"{len(done.backups)} backups are older and still have the user's bytes; to be gone there too, delete:")
        for name in done.backups:
            say(name)
    for place in done.remains:
        say(f"{place.place}: {place.advice}")
        for statement in place.statements if place.place == "pages" else ():
            say(f"    {statement}")
    say("dry run: nothing was changed" if done.state == "planned" else done.state)
