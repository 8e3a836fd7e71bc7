"""A database in memory is one connection, which all threads share: they take turns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from mirai_memory import MemoryManager, Message

GUARD = 60.0  # seconds after which something that should have happened will not; no test waits that long


def test_eight_threads_write_in_memory() -> None:
    with MemoryManager(":memory:") as memory, ThreadPoolExecutor(8) as pool:
        session = memory.create_session("alice").id
        together = threading.Barrier(8, timeout=GUARD)

        def add(thread: int) -> list[int]:
            together.wait()
            texts = (f"thread {thread} number {number}" for number in range(10))
            return [memory.add_message(Message(session_id=session, role="user", content=text)) for text in texts]

        given = sorted(id for ids in pool.map(add, range(8), timeout=GUARD) for id in ids)
        messages = memory.get_messages(session)
    assert [message.id for message in messages] == given
    assert [message.position for message in messages] == list(range(1, 81))
