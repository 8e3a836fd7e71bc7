"""The place of a SQLite file: room on its disk, and who else may read it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from mirai_memory.health.probe import Probe
from mirai_memory.health.report import Finding, Skip, error, megabytes, ok, warning

# A write needs room for its pages twice, in the WAL and in the file; an upgrade or a backup for a copy of the file.
FULL, SCARCE = 10_000_000, 100_000_000


def disk(probe: Probe) -> Finding:
    path = _file(probe)
    folder = next((folder for folder in path.parents if folder.is_dir()), path.parent)
    free = shutil.disk_usage(folder).free
    size = path.stat().st_size if path.is_file() else 0
    detail = f"{megabytes(free)} free at {folder}"
    advice = "make room there; a full disk makes every write fail"
    if free < FULL:
        return error(detail, advice)
    if free < SCARCE:
        return warning(detail, advice)
    if free < size:
        return warning(f"{detail}, less than the database takes", "make room there for a copy: a backup needs it")
    return ok(detail)


def permissions(probe: Probe) -> Finding:
    path = _file(probe)
    if os.name != "posix":
        raise Skip("only POSIX systems say it in the mode of a file")
    if not path.is_file():
        raise Skip("there is no file yet")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(f"others than its owner may read or write it: mode {mode:04o}", f"chmod 600 {path}")
    return ok(f"mode {mode:04o}")


def _file(probe: Probe) -> Path:
    if probe.path is None:
        raise Skip("in memory" if probe.in_memory else "the server's own business")
    return probe.path
