"""``backup``, ``restore`` and ``drill``: copies of the memory, brought back, and tried out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirai_memory.cli.failures import FAILED, say
from mirai_memory.cli.options import DEFAULT_USER, Config, Db, Json, User, Yes, go_ahead_or_exit, logged, opened
from mirai_memory.cli.output import print_json, when
from mirai_memory.cli.progress import shown

if TYPE_CHECKING:
    from sqlalchemy import URL

    from mirai_memory import Settings
    from mirai_memory.backups import Drill, Restored
    from mirai_memory.backups.calls import Callback

_MEGABYTE = 1_000_000
_NOUNS = {"sessions": "session", "messages": "message", "knowledge": "fact", "tasks": "task"}


def backup(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="A new file, or a folder; default: a dated file in the backup folder."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Copy the whole memory, of all users, to a file; programs may go on using it meanwhile.

    The copy is checked before it gets its name: what is there is whole. PostgreSQL has pg_dump for this.
    """
    with opened(db, config) as memory, shown("backing up, MB") as progress:
        made = memory.backup(path, overwrite=overwrite, progress=_in_megabytes(progress))
    if as_json:
        print_json(made.to_dict())
        return
    print(made.path)
    say(f"{made.size / _MEGABYTE:,.1f} MB in {made.seconds:.1f} s: {_counted(made.rows)}")


def restore(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="The backup to restore.")],
    yes: Yes = False,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Make the database what a backup holds. Prints the plan, and asks where there is a database already.

    The backup is checked first; the file that it replaces is kept beside it. Programs that use the database have to
    be ended before. Users who were forgotten since the backup stay forgotten. PostgreSQL has pg_restore for this.
    """
    from mirai_memory._time import utc_now
    from mirai_memory.backups import calls
    from mirai_memory.database import display, sqlite_path

    settings, url = _database(db, config)
    target = sqlite_path(url)
    if target is not None and target.exists():
        say(f"{target} is to become what {backup} holds; the present file is kept beside it")
        go_ahead_or_exit(yes)
    with logged(settings), shown("restoring, MB") as progress:
        done = calls.bring_back(url, backup, display(url), utc_now, progress=_in_megabytes(progress))
    if as_json:
        print_json(done.to_dict())
        return
    print(done.path)
    _say_where_from(done)
    if done.kept is not None:
        say(f"the file that was there is now {done.kept}")


def drill(
    backup: Annotated[
        Path | None, typer.Argument(metavar="[BACKUP]", help="The backup; default: the newest one.")
    ] = None,
    user: User = DEFAULT_USER,
    db: Db = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Restore a backup into a passing folder, and search it; exit code 1 where not all is found again.

    Nothing is changed: it shows that a restore would work, on this machine, with this version, and how long it takes.
    """
    from mirai_memory._time import utc_now
    from mirai_memory.backups import calls

    settings, url = _database(db, config)
    with logged(settings), shown("restoring, MB") as progress:
        done = calls.try_out(url, settings.memory.long_term, backup, utc_now, progress=_in_megabytes(progress))
    if as_json:
        print_json(done.to_dict())
    else:
        print(done.backup)
        _say_where_from(done)
        say(f"{done.found} of {done.asked} texts found again by their words")
    if not done.ok:
        say("error: the backup can be restored, but not all that was looked for was found in it")
        raise typer.Exit(FAILED)


def _database(db: str | None, config: Path | None) -> tuple[Settings, URL]:
    from mirai_memory import load_settings
    from mirai_memory.database import resolve_url

    settings = load_settings(config)
    return settings, resolve_url(db, settings)


def _in_megabytes(progress: Callback | None) -> Callback | None:
    return None if progress is None else lambda done, total: progress(done // _MEGABYTE, total // _MEGABYTE)


def _say_where_from(done: Restored | Drill) -> None:
    made = f"of {_moment(done.made_at)}" if done.made_at else "of a time that is not known"
    say(f"restored in {done.seconds:.1f} s from a backup {made}: {_counted(done.rows)}")
    if not done.sealed:
        say("it was made by other means, and has no checksum: its structure was checked, and not each byte")
    if done.upgraded_from is not None:
        say(f"its schema was at revision {done.upgraded_from}, and was upgraded to {done.revision}")
    if done.erased:
        say(f"users in it who were forgotten since, and whose rows were left out: {done.erased}")


def _counted(rows: Mapping[str, int]) -> str:
    found = {noun: rows.get(table, 0) for table, noun in _NOUNS.items()}
    return ", ".join(f"{count:,} {noun}{'s' * (count != 1)}" for noun, count in found.items())


def _moment(moment: datetime) -> str:
    return f"{when(moment)} UTC"
