"""``health``: is everything there that the memory needs, and is the memory whole?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User
from mirai_memory.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mirai_memory.health import Health


def health(
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=86_400, metavar="SECONDS", help="For each check.")
    ] = 10,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check surroundings, settings, database, word index and disk; exit code 1 where something is broken.

    Nothing is made, changed or repaired, and nothing is logged. A warning is no failure.
    """
    from mirai_memory.health import check_health

    found = check_health(None, db, config=config, timeout_s=timeout)
    if as_json:
        print_json(found.to_dict())
    else:
        print_table(["check", "status", "detail"], _rows(found))
        say(_summary(found))
    if not found.ok:
        raise typer.Exit(FAILED)


def _rows(found: Health) -> list[tuple[str, str, str]]:
    """A row for each check, and below a bad one what to do about it."""
    rows: list[tuple[str, str, str]] = []
    for check in found.checks:
        rows.append((check.name, check.status, check.detail))
        if check.advice:
            rows.append(("", "", f"-> {check.advice}"))
    return rows


def _summary(found: Health) -> str:
    counts = Counter(check.status for check in found.checks)
    parts = [f"{count} {name}{'s' * (count != 1)}" for name in ("error", "warning") if (count := counts[name])]
    parts += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    return ("well" if found.ok else "not well") + (f": {', '.join(parts)}" if parts else "")
