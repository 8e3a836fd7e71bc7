"""What somebody else has of a database file, and what a memory leaves behind."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from mirai_memory import Message

GUARD = 60.0  # seconds after which something that should have happened will not; no test waits that long


@contextmanager
def write_lock(path: str) -> Iterator[None]:
    """Somebody else's write lock on the file; fails at once where anybody has it."""
    with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(GUARD):
        while not condition():  # noqa: ASYNC110 - what happens in threads sets no event of the loop's
            await asyncio.sleep(0)


def own_threads() -> list[threading.Thread]:
    """The threads of async memories that live."""
    for thread in threading.enumerate():
        if thread.name.startswith("mirai-memory-close"):
            thread.join(GUARD)  # it is at its last line
    lanes = ("mirai-memory-read", "mirai-memory-write", "mirai-memory-slow", "mirai-memory-close")
    return [thread for thread in threading.enumerate() if thread.name.startswith(lanes)]


def open_files(path: str) -> list[str]:
    """The files of the database that this process has open, lock files among them."""
    folder = Path("/proc/self/fd")
    targets = []
    for entry in os.listdir(folder):
        with suppress(OSError):  # of the listing itself
            targets.append(os.readlink(folder / entry))
    return [target for target in targets if target.startswith(path)]


def is_there(path: str) -> bool:
    return Path(path).exists()


def said(session_id: str, content: str = "words", **more: Any) -> Message:
    return Message(session_id=session_id, role="user", content=content, **more)
