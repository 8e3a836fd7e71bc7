"""Threads of one memory: they take turns on a database in memory, and closing waits for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from mirai_memory import MemoryManager, Message, UnitOfWork

GUARD = 60.0  # seconds after which something that should have happened will not; no test waits that long


def test_eight_threads_write_in_memory() -> None:
    """It is one connection, which all of them share."""
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


def test_closing_waits_for_a_thread_that_reads(memory: MemoryManager) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def read(uow: UnitOfWork) -> int:
        inside.set()
        go_on.wait(GUARD)
        return len(uow.sessions.page(limit=9))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(memory._store.read, read)
        assert inside.wait(GUARD)
        closing = threading.Thread(target=memory.close)
        closing.start()
        closing.join(0.1)  # time enough to end, if it waits for nobody
        ended_early = not closing.is_alive()
        go_on.set()
        assert reading.result(GUARD) == 0
    assert not ended_early
    closing.join(GUARD)
    assert not closing.is_alive()
