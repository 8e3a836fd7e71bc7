"""A summariser that does as it is told, and memories that use it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from log_lines import log_lines

from mirai_memory import MemoryManager, load_settings
from mirai_memory.testing import FakeSummarizer
from mirai_memory.testing.clock import FrozenClock

sys.path.append(str(Path(__file__).parent))

from chat_server import ChatServer

Opened = Callable[..., AbstractContextManager[MemoryManager]]


@pytest.fixture
def summarizer() -> Iterator[FakeSummarizer]:
    summarizer = FakeSummarizer()
    yield summarizer
    summarizer.release()


@pytest.fixture
def opened(url: str, summarizer: FakeSummarizer, clock: FrozenClock) -> Opened:
    """Opens a memory: without a thread in the background, if not told otherwise by settings of ``short_term``."""

    @contextmanager
    def open_memory(
        by: Any = summarizer,
        *,
        busy_timeout_ms: int = 10_000,
        pool_size: int = 15,
        timeout_s: float = 30,
        read_only: bool = False,
        **short_term: Any,
    ) -> Iterator[MemoryManager]:
        settings = load_settings(
            memory={
                "short_term": {"auto_summarize": False, "max_messages": 4, **short_term},
                "busy_timeout_ms": busy_timeout_ms,
                "pool_size": pool_size,
            },
            models={"chat": {"timeout_s": timeout_s}},
        )
        with MemoryManager(url, summarizer=by, settings=settings, clock=clock, read_only=read_only) as memory:
            yield memory

    return open_memory


@pytest.fixture
def memory(opened: Opened) -> Iterator[MemoryManager]:
    """A window of four messages; nothing is summarised that is not asked for."""
    with opened() as memory:
        yield memory


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat API on this machine, which does what it is told to do wrong."""
    with ChatServer() as server:
        yield server


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, at WARNING and above."""
    with log_lines("WARNING", "{message}") as lines:
        yield lines
