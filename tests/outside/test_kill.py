"""``kill -9``, before any operation of the disk: what was acknowledged is there once, and nothing is there by half."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from disk import Disk, installed
from work import STEPS, FrozenClock, Rows, do, faults, made_anew, opened, rows, words_of
from writer import states

from mirai_memory import MemoryManager
from mirai_memory.testing import FakeEmbedder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

CRASH, WRITER = (Path(__file__).with_name(name) for name in ("crash.py", "writer.py"))
GUARD = 600


@dataclass(frozen=True)
class Story:
    """What the steps make of a file, and what each of them costs: all that happens without a fault."""

    folders: list[Path]  # the files before each step, as after a power cut
    rows: list[Rows]  # before each step, and after the last
    operations: list[int]  # that change the disk, for opening, the step and closing


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    place = tmp_path_factory.mktemp("story")
    folders, states, operations = [], [], []
    clock = FrozenClock()
    with installed(Disk(keep_synced=True)) as disk, opened(place / "memory.db", clock) as memory:
        for number in range(len(STEPS)):
            folders.append(place / str(number))
            disk.after_power_cut(place / "memory.db", folders[-1])
            states.append(rows(place / "memory.db"))
            do(memory, clock, number)
        states.append(rows(place / "memory.db"))
    for number, folder in enumerate(folders):
        with installed(Disk()) as disk:
            copy = shutil.copytree(folder, place / f"{number} counted")
            with opened(copy / "memory.db", clock) as memory:
                do(memory, clock, number)
        operations.append(sum(operation.kind != "read" for operation in disk.operations))
    return Story(folders, states, operations)


def crashes(cases: list[dict[str, Any]]) -> Iterator[tuple[bool, bool]]:
    """For each case whether it was acknowledged, and whether it was killed."""
    said = "".join(f"{json.dumps(case)}\n" for case in cases)
    done = subprocess.run(
        [sys.executable, str(CRASH)], input=said, capture_output=True, text=True, timeout=GUARD, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases)
    yield from answers  # type: ignore[misc]


def _places(operations: int, most: int | None) -> list[int]:
    """Before which operations to kill: all, or some that are near the commit, near the end, and anywhere."""
    everywhere = range(1, operations + 1)
    return list(everywhere) if most is None else sorted(random.Random(operations).sample(everywhere, most))


def _check(story: Story, tmp_path: Path, steps: range, most: int | None) -> None:
    cases = [
        {"step": number, "file": str(tmp_path / f"{number}-{at}" / "memory.db"), "do": number, "at": at}
        for number in steps
        for at in _places(story.operations[number], most)
    ]
    for case in cases:
        shutil.copytree(story.folders[case["do"]], Path(case["file"]).parent)
    lost = 0
    for case, (acknowledged, killed) in zip(cases, crashes(cases), strict=True):
        assert killed, case
        number, file = case["do"], Path(case["file"])
        with opened(file):
            pass
        found = rows(file)
        allowed = [story.rows[number + 1]] if acknowledged else story.rows[number : number + 2]
        assert found in allowed, (case, acknowledged)
        lost += found == story.rows[number] != story.rows[number + 1]
        assert faults(file) == [], case
    assert lost, "no kill came before a commit"


def test_a_kill_anywhere_in_a_write_leaves_all_or_nothing_of_it(story: Story, tmp_path: Path) -> None:
    _check(story, tmp_path, range(len(STEPS)), most=1)


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(STEPS)), ids=list(STEPS))
def test_a_kill_before_every_operation_of_a_write(story: Story, tmp_path: Path, number: int) -> None:
    if story.rows[number] == story.rows[number + 1]:
        assert list(STEPS)[number] == "add_message again"
        return
    _check(story, tmp_path, range(number, number + 1), most=None)


def test_the_whole_story_is_sound(story: Story, tmp_path: Path) -> None:
    """What the states are compared with is right: nothing is at fault, and the index is what the texts make of it."""
    for number, folder in enumerate(story.folders):
        file = shutil.copytree(folder, tmp_path / str(number)) / "memory.db"
        assert rows(file) == story.rows[number], "a power cut took what was acknowledged"
        assert faults(file) == []
        assert made_anew(file) == words_of(story.rows[number])
    assert len({json.dumps(state) for state in story.rows}) == len(STEPS), "each step but one changes something"


# --- at random moments, while others write ----------------------------------------------------------------------------


def _killed_together(file: Path, names: list[str], seconds: float) -> dict[str, list[Any]]:
    """What each of the writers had said when all of them were killed."""
    with MemoryManager(file):
        pass
    writers = {
        name: subprocess.Popen([sys.executable, str(WRITER), str(file), name], stdout=subprocess.PIPE, text=True)
        for name in names
    }
    guard = threading.Timer(GUARD, lambda: [writer.kill() for writer in writers.values()])
    guard.start()
    lines: dict[str, list[str]] = {}
    try:
        for writer in writers.values():  # all of them are at work
            assert writer.stdout is not None
            assert writer.stdout.readline()
        Killer(list(writers.values()), seconds).start()
        for name, writer in writers.items():
            lines[name], _ = writer.communicate()[0].splitlines(keepends=True), writer.wait()
    finally:
        guard.cancel()
        for writer in writers.values():
            writer.kill()
    assert all(writer.returncode == -signal.SIGKILL for writer in writers.values())
    # The last line may have been cut; the first is read above.
    return {
        name: [{"texts": [], "facts": {}}, *(json.loads(line) for line in said if line.endswith("\n"))]
        for name, said in lines.items()
    }


class Killer(threading.Thread):
    """Kills processes one after the other at random moments."""

    def __init__(self, processes: list[subprocess.Popen[str]], seconds: float) -> None:
        super().__init__(daemon=True)
        self._processes, self._seconds = processes, seconds

    def run(self) -> None:
        for process in self._processes:
            threading.Event().wait(random.uniform(0.5, 1.0) * self._seconds)
            process.kill()


def _stored(memory: MemoryManager, name: str) -> dict[str, Any]:
    return {
        "texts": [message.content for message in memory.get_messages(name, limit=10_000)],
        "facts": {fact.key: fact.value for fact in memory.get_knowledge(user_id=name, limit=10_000)},
    }


def _check_killed(tmp_path: Path, seconds: float) -> None:
    file, names = tmp_path / "memory.db", ["ann", "ben", "cai"]
    said = _killed_together(file, names, seconds)
    assert faults(file) == []
    with MemoryManager(file, embedder=FakeEmbedder(dim=8)) as memory:
        for name in names:
            expected = list(islice(states(name, None), len(said[name]) + 1))
            assert said[name] == expected[:-1], f"{name} was told of something that had not happened"
            assert _stored(memory, name) in expected[-2:], "what was acknowledged is lost, doubled, or there by half"
        memory.reindex()
        for name in names:
            found = memory.search_messages("walrus", user_id=name, limit=10_000)
            assert sorted(message.content for message in found) == sorted(_stored(memory, name)["texts"])
    assert faults(file) == []
    before = words_of(rows(file))
    assert made_anew(file) == before


def test_writers_killed_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    _check_killed(tmp_path, seconds=0.7)


@pytest.mark.long
@pytest.mark.parametrize("number", range(10))
def test_writers_killed_often(tmp_path: Path, number: int) -> None:
    _check_killed(tmp_path, seconds=0.5 + 0.3 * number)
