"""``export``: all of one owner into a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, opened
from mirai_memory.cli.output import print_json
from mirai_memory.cli.progress import shown

if TYPE_CHECKING:
    from mirai_memory.transfer import UserExport

_STDOUT = "-"


def export(
    names: Annotated[
        list[str], typer.Argument(metavar="[USER] FILE", help="Whose memory, and a new file; - is stdout.")
    ],
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write all that is known of one user to a new file: one JSON object per line.

    Sessions, messages, preferences, tasks, facts with all their values, and vectors that were given; not the facts
    shared by all. The command import takes it in again, here or elsewhere.
    """
    if len(names) > 2:
        raise typer.BadParameter("one user and one file, or only a file", param_hint="[USER] FILE")
    owner, name = names[0] if len(names) == 2 else user, names[-1]
    if name == _STDOUT and as_json:
        raise typer.BadParameter("the file itself goes to stdout; leave one of them out", param_hint="--json")
    with opened(db, config) as memory, shown("exporting") as progress:
        target = sys.stdout.buffer if name == _STDOUT else Path(name)
        done = memory.export_user(owner, target, progress=progress)
    if as_json:
        print_json(done.to_dict())
    elif name == _STDOUT:
        say(_summary(done))
    else:
        print(_summary(done))


def _summary(done: UserExport) -> str:
    rows = ", ".join(f"{getattr(done, name):,} {name}" for name in ("sessions", "messages", "tasks", "facts"))
    return f"{done.user_id}: {rows}, {'' if done.preferences else 'no '}preferences; {done.bytes:,} bytes"
