"""A migration that is killed, or whose disk fails, half-way: the next opening makes it whole, and no row is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disk import FULL, Disk, installed
from work import STEPS, FrozenClock, Rows, do, faults, made_anew, opened, rows, words_of

from mirai_memory import StorageFull, schema

CRASH = Path(__file__).with_name("crash.py")
# Where a migration may begin: where there is no file, at each older schema, at one whose rows were put aside.
STARTS = ["missing", "0001", "0002", "base"]
GOES_DOWN = "goes down"


def _start(folder: Path, start: str) -> Path:
    """A file at that revision with rows in it, closed."""
    folder.mkdir()
    file = folder / "memory.db"
    if start == "missing":
        return file
    clock = FrozenClock()
    with opened(file, clock) as memory:
        for number in range(list(STEPS).index("trim_old_messages")):
            do(memory, clock, number)
    if start != GOES_DOWN:
        schema.downgrade(file, revision=start)
    return file


def _whole(file: Path) -> Rows:
    """The rows after an opening; the index of words must be what the texts make of it."""
    with opened(file):
        pass
    assert schema.current(file) == schema.HEAD_REVISION
    assert faults(file) == []
    found = rows(file)
    anew = words_of(found)
    assert made_anew(file) == anew
    return {name: content for name, content in found.items() if not name.startswith("word_")} | anew


def _operations(file: Path, start: str) -> int:
    """How many operations change the disk when nothing kills it."""
    with installed(Disk()) as disk:
        if start == GOES_DOWN:
            schema.downgrade(file, revision="0001")
        else:
            with opened(file):
                pass
    return sum(operation.kind != "read" for operation in disk.operations)


def _kill_all(tmp_path: Path, start: str, most: int | None) -> None:
    file = _start(tmp_path / "start", start)
    copy = shutil.copytree(file.parent, tmp_path / "reference") / file.name
    operations = _operations(copy, start)
    expected = _whole(copy)
    everywhere = range(1, operations + 1)
    places = everywhere if most is None else random.Random(start).sample(everywhere, most)
    action = "downgrade" if start == GOES_DOWN else "upgrade"
    cases = [{"file": str(tmp_path / str(at) / file.name), "do": action, "at": at} for at in places]
    for case in cases:
        shutil.copytree(file.parent, Path(str(case["file"])).parent)
    said = "".join(f"{json.dumps(case)}\n" for case in cases)
    done = subprocess.run([sys.executable, str(CRASH)], input=said, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        assert json.loads(line)[1], f"{case} was not killed"
        assert _whole(Path(str(case["file"]))) == expected, case


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("start", [*STARTS, GOES_DOWN])
def test_a_migration_killed_anywhere_is_whole_after_the_next_opening(tmp_path: Path, start: str) -> None:
    _kill_all(tmp_path, start, most=5)


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
@pytest.mark.parametrize("start", [*STARTS, GOES_DOWN])
def test_a_migration_killed_before_every_operation(tmp_path: Path, start: str) -> None:
    _kill_all(tmp_path, start, most=None)


@pytest.mark.parametrize("start", STARTS[1:])
def test_a_migration_on_a_full_disk_changes_nothing(tmp_path: Path, start: str) -> None:
    file = _start(tmp_path / "start", start)
    copy = shutil.copytree(file.parent, tmp_path / "reference") / file.name
    expected, operations = (
        _whole(copy),
        _operations(shutil.copytree(file.parent, tmp_path / "counted") / file.name, start),
    )
    before, refused = rows(file), 0
    for at in range(1, operations, max(1, operations // 6)):
        with installed(Disk()) as disk:
            disk.break_at(at, FULL, "write")
            try:
                with opened(file):
                    break  # what is left to write is only the copying of the log, which may wait
            except StorageFull:
                refused += 1
        if (schema.current(file) or "base") == start:
            assert rows(file) == before
    assert refused > 2
    assert _whole(file) == expected
