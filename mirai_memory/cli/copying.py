"""``copy``: everything, to a database of the same or of the other engine."""

from __future__ import annotations

from typing import Annotated

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import print_json, print_table
from mirai_memory.cli.progress import shown

# Vectors are copied. Those that are still to be made are for the program that will use the copy.
_NO_WORKER = {"memory": {"rag": {"background": False}}}


def copy(
    to: Annotated[str, typer.Option("--to", metavar="PATH|URL", help="The database to fill, which has to be empty.")],
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Copy the memory of all users to another database, and compare both at the end.

    From SQLite to PostgreSQL, back, or between two of a kind. Programs may go on writing to the source; run it again
    when they have ended, and what has changed is moved too. A run that was cut short is gone on with by the next.
    """
    with (
        opened(db, config) as source,
        opened(to, config, write=True, overrides=_NO_WORKER) as target,
        shown("copying") as progress,
    ):
        done = source.copy_to(target, progress=progress)
    if as_json:
        print_json(done.to_dict())
        return
    rows = [(name, f"{count:,}", f"{done.written[name]:,}", done.checksums[name]) for name, count in done.rows.items()]
    print_table(["table", "rows", "written", "checksum, here and there"], rows)
    say(f"{done.target} holds what {done.source} held when this began")
