"""``knowledge duplicates`` and ``knowledge merge``: facts that may say the same, and making one of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import (
    DEFAULT_USER,
    Config,
    Db,
    DryRun,
    Json,
    Limit,
    User,
    Yes,
    go_ahead_or_exit,
    opened,
)
from mirai_memory.cli.output import print_block, print_json

if TYPE_CHECKING:
    from mirai_memory import Duplicate, Knowledge


def duplicates(
    limit: Limit = 20,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, metavar="SHARE", help="How similar two facts are at least.")
    ] = 0.5,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Print pairs of a user's current facts that may say the same, the most similar first. Nothing is changed."""
    with opened(db, config) as memory:
        found = memory.for_user(user).find_duplicates(limit=limit, threshold=threshold)
    if as_json:
        print_json([pair.to_dict() for pair in found])
        return
    for pair in found:
        _print_pair(pair)
    more = "; 'mirai-memory knowledge merge KEEP DROP' makes one of two" if found else ""
    say(f"{len(found)} pairs for user {user}{more}")


def _print_pair(pair: Duplicate) -> None:
    heading = [(f"{pair.similarity:.2f}", "bold cyan"), (", ".join(pair.reasons), "dim")]
    print_block(heading, "\n".join(map(_line, (pair.first, pair.second))))


def _line(fact: Knowledge) -> str:
    key = "" if fact.key is None or fact.key.startswith("sha256:") else f"/{fact.key}"
    return f"id {fact.id}  {fact.category}{key}: {' '.join(fact.value.split())}"


def merge(
    keep: Annotated[int, typer.Argument(metavar="KEEP", min=1, help="The id of the fact that stays.")],
    drop: Annotated[int, typer.Argument(metavar="DROP", min=1, help="The id of the one whose place it takes.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make one fact of two of a user that say the same: KEEP takes the place of DROP. Prints the plan and asks.

    DROP is found no more; 'knowledge history' still tells it.
    """
    with opened(db, config) as memory:
        mine = memory.for_user(user)
        facts = mine.run(lambda uow: uow.knowledge.still_current([keep, drop]))
        for id in (keep, drop):
            if id not in facts:
                say(f"error: no current fact {id} of user {user}; 'mirai-memory knowledge list' lists them")
                raise typer.Exit(FAILED)
        say(f"to be kept in {memory.url}: {_line(facts[keep])}")
        say(f"its place is taken:  {_line(facts[drop])}")
        if dry_run:
            return
        go_ahead_or_exit(yes)
        kept = mine.merge_knowledge(keep, drop)
    if as_json:
        print_json(kept.to_dict())
    say("merged")
