"""What is logged, for tests that read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger


@contextmanager
def log_lines(level: str, form: str = "{level} {message}", *, of: str = "") -> Iterator[list[str]]:
    """Lines of the level and above, of modules whose names have these letters."""
    lines: list[str] = []
    logger.enable("mirai_memory")
    handler = logger.add(
        lambda line: lines.append(str(line)),
        level=level,
        format=form,
        filter=lambda record: of in (record["name"] or ""),
    )
    try:
        yield lines
    finally:
        logger.remove(handler)
        logger.disable("mirai_memory")
