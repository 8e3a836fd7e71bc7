"""Databases to be backed up; the ways of the tests of faults to look at rows and to break a disk are there too."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "outside"))
sys.path.insert(0, str(Path(__file__).parent))

from backup_files import fill

from mirai_memory import MemoryManager
from mirai_memory.testing.clock import FrozenClock


@pytest.fixture
def memory(tmp_path: Path, sqlite_template: Path, clock: FrozenClock) -> Iterator[MemoryManager]:
    """An open memory with rows of every kind, in a file."""
    (tmp_path / "data").mkdir()
    path = shutil.copy(sqlite_template, tmp_path / "data" / "memory.db")
    with MemoryManager(path, clock=clock) as memory:
        fill(memory)
        yield memory


@pytest.fixture
def backup(memory: MemoryManager, tmp_path: Path) -> Path:
    """A backup of it."""
    return memory.backup(tmp_path / "backup.db").path
