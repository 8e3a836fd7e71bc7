"""``verify`` and ``repair``: what is wrong with what is stored, and putting right what can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, Yes, go_ahead_or_exit, opened
from mirai_memory.cli.output import print_json, print_table
from mirai_memory.cli.progress import shown

if TYPE_CHECKING:
    from mirai_memory.verification import Fault


def verify(user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False) -> None:
    """Look for faults in all that is stored, of all users; exit code 1 where there are any. Nothing is changed."""
    with opened(db, config) as memory, shown("looking") as progress:
        report = memory.verify(progress=progress)
    if as_json:
        print_json(report.to_dict())
    else:
        print_table(["check", "faults"], [(check.name, _count(check, report.unread)) for check in report.checks])
    for fault in report.faults:
        say(f"{fault.name}: {fault.count:,} {fault.meaning}; {fault.advice}")
    if not report.ok:
        raise typer.Exit(FAILED)


def _count(check: Fault, unread: Sequence[str]) -> str:
    return "not readable" if check.name in unread else f"{check.count:,}"


def repair(
    yes: Yes = False, user: User = DEFAULT_USER, db: Db = None, config: Config = None, as_json: Json = False
) -> None:
    """Make indexes, counters and links right again, of all users; what somebody said is never changed.

    Looks first, prints what is wrong, and asks. Exit code 1 where something is left that cannot be mended.
    """
    with opened(db, config) as memory:
        with shown("looking") as progress:
            found = memory.verify(progress=progress)
        if not found.ok:
            say("found, and to be mended as far as that goes:")
            for fault in found.faults:
                say(f"{fault.name}: {fault.count:,} {fault.meaning}; {fault.advice}")
            go_ahead_or_exit(yes)
        with shown("mending") as progress:
            done = memory.repair(progress=progress)
    if as_json:
        print_json(done.to_dict())
    elif done.mended:
        print_table(["mended", "faults"], [(name, f"{count:,}") for name, count in done.mended.items()])
    for fault in done.left:
        say(f"error: {fault.name}: {fault.count:,} left, {fault.meaning}; {fault.advice}")
    if not done.ok:
        raise typer.Exit(FAILED)
    say("done" if done.mended else "nothing to mend")
