"""Connections are given out in the order in which they were asked for, and to nobody for ever."""

from __future__ import annotations

import threading

import pytest
from server_side import until

from mirai_memory import Busy, MemoryManager, Message, load_settings
from mirai_memory.database.seats import Seats

GUARD = 30.0


def _waiting(seats: Seats) -> int:
    return len(seats._waiting)


def test_who_asks_again_at_once_comes_after_those_who_wait() -> None:
    seats, order = Seats(1, wait_s=GUARD), []

    def sit(name: str) -> None:
        with seats:
            order.append(name)

    seats.__enter__()
    threads = []
    for number in range(3):
        threads.append(threading.Thread(target=sit, args=(f"waiter {number}",)))
        threads[-1].start()
        until(lambda: _waiting(seats) == len(threads))
    seats.__exit__(None, None, None)
    sit("again")
    for thread in threads:
        thread.join(GUARD)
    assert order == ["waiter 0", "waiter 1", "waiter 2", "again"]
    assert seats._free == 1


def test_as_many_as_there_are_sit_at_once() -> None:
    seats = Seats(3, wait_s=0.0)
    for _ in range(3):
        seats.__enter__()
    with pytest.raises(Busy, match="none of 3 connections"):
        seats.__enter__()
    seats.__exit__(None, None, None)
    with seats:
        pass
    assert (_waiting(seats), seats._free) == (0, 1)


def test_more_threads_than_connections(postgres_url: str) -> None:
    with MemoryManager(postgres_url, settings=load_settings(memory={"pool_size": 6})) as memory:
        session = memory.create_session("alice").id
        counts = dict.fromkeys(range(12), 0)
        done = threading.Event()

        def write(number: int) -> None:
            while not done.is_set():
                memory.add_message(Message(session_id=session, role="user", content=f"message {number}"))
                counts[number] += 1

        threads = [threading.Thread(target=write, args=(number,)) for number in counts]
        for thread in threads:
            thread.start()
        until(lambda: sum(counts.values()) >= 120)
        done.set()
        for thread in threads:
            thread.join(GUARD)
        assert min(counts.values()) >= 5, counts
        assert memory.get_stats()["total_messages"] == sum(counts.values())


def test_nobody_waits_for_a_connection_for_ever(postgres_url: str) -> None:
    few = load_settings(memory={"busy_timeout_ms": 50, "pool_size": 5})
    with MemoryManager(postgres_url, settings=few) as memory:
        leave, inside = threading.Event(), []

        def hold() -> None:
            with memory.unit_of_work():
                inside.append(1)
                leave.wait(GUARD)

        threads = [threading.Thread(target=hold) for _ in range(5)]
        for thread in threads:
            thread.start()
        until(lambda: len(inside) == 5)
        with pytest.raises(Busy, match="none of 5 connections"):
            memory.get_stats()
        leave.set()
        for thread in threads:
            thread.join(GUARD)
        assert memory.get_stats()["total_sessions"] == 0
