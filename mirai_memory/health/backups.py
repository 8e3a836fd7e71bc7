"""Backups: how old the newest one is, and whether there is a place for the next."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from mirai_memory._time import utc_now
from mirai_memory.backups import Found, folder_of, found_backups
from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, Skip, megabytes, ok, warning

# One is made at the first opening of a day: a memory that is opened less often has older ones, and one that is open
# for days makes none meanwhile.
_OLD = timedelta(days=8)


def backups(probe: Probe) -> Finding:
    path, settings = probe.path, probe.settings.memory.long_term
    if path is None:
        raise Skip("in memory" if probe.in_memory else "the server's own business: pg_dump")
    folder = folder_of(path, settings)
    found = found_backups(path, settings)
    if not settings.backup_enabled:
        off = "switched off: memory.long_term.backup_enabled is false"
        return ok(f"{off}; {_kept(found, folder)}" if found else off)
    obstacle = _obstacle(folder)
    if obstacle is not None:
        return warning(
            f"{folder} {obstacle}", "allow writing there, or name another folder in memory.long_term.backup_dir"
        )
    if not found:
        return ok("none yet; the first is made when a memory of more than a day is opened")
    age = _now(probe) - found[0].made_at
    if age > _OLD:
        return warning(f"the newest is {age.days} days old", f"make one: {probe.command('backup')}")
    return ok(_kept(found, folder))


def _kept(found: list[Found], folder: Path) -> str:
    return (
        f"the newest is of {found[0].made_at:%Y-%m-%d %H:%M} UTC, {megabytes(found[0].size)}; {len(found)} in {folder}"
    )


def _now(probe: Probe) -> datetime:
    return utc_now() if probe.manager is None else probe.manager._clock()


def _obstacle(folder: Path) -> str | None:
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if not there.is_dir():
        return "is no folder" if there == folder else f"cannot be made: {there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else "may not be written"
