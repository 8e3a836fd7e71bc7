"""Log settings of a test, and the logger as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mirai_memory.logging import LogHandle, configure_logging, logger

FIELDS = (
    "timestamp",
    "level",
    "module",
    "message",
    "model",
    "tokens_in",
    "tokens_out",
    "latency_ms",
    "attempt_number",
    "error_code",
    "user_id",
)


@dataclass
class Rotate:
    enabled: bool = True
    max_bytes: int = 10_485_760
    backup_count: int = 5


@dataclass
class Logs:
    path: Path = Path("mirai.log")
    level: str = "DEBUG"
    format: str = "json"
    rotate: Rotate = field(default_factory=Rotate)
    fields: tuple[str, ...] = FIELDS


Configure = Callable[..., LogHandle]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """``configure_logging`` with these settings; what it opened is closed after the test."""
    handles = []

    def configured(*, rotate: Rotate | None = None, **changes: Any) -> LogHandle:
        logs = Logs(rotate=rotate or Rotate(), **changes)
        handles.append(configure_logging(SimpleNamespace(monitoring=SimpleNamespace(logs=logs))))
        return handles[-1]

    yield configured
    for handle in handles:
        handle.remove()
    logger.disable("mirai_memory")


@pytest.fixture
def host() -> Iterator[list[str]]:
    """A sink of the host's own: what it was given."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level=0)
    yield lines
    logger.remove(sink)


@pytest.fixture
def ours() -> Any:
    """A logger whose records come from a module of ours."""
    return logger.patch(lambda record: record.update(name="mirai_memory.somewhere"))
