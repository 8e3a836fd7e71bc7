"""Memories whose vectors are in Chroma, on both engines, and what is said of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from log_lines import log_lines

from mirai_memory import MemoryManager

sys.path.insert(0, str(Path(__file__).parent))

from chroma_memories import opening

Opened = Callable[..., AbstractContextManager[MemoryManager]]


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Opened:
    """Opens a memory without a thread in the background, whose vectors are in Chroma if not told otherwise."""

    @contextmanager
    def open_memory(**options: Any) -> Iterator[MemoryManager]:
        with opening(url, tmp_path / "chroma", **options) as memory:
            yield memory

    return open_memory


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is said of Chroma, at INFO and above."""
    with log_lines("INFO", of="chroma") as lines:
        yield lines
