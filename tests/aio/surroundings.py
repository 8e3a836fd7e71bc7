"""What an async memory leaves behind, and waiting without standing in its way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mirai_memory import Message

GUARD = 60.0  # seconds after which something that should have happened will not; no test waits that long


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


def is_there(path: str) -> bool:
    return Path(path).exists()


def said(session_id: str, content: str = "words", **more: Any) -> Message:
    return Message(session_id=session_id, role="user", content=content, **more)
