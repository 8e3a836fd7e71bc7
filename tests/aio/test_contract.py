"""The contract that every backend owes, kept by an async memory."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest

from mirai_memory import AsyncMemoryManager, AsyncUserMemory, InvalidInput, MemoryManager, UnitOfWork
from mirai_memory.testing import FrozenClock
from mirai_memory.testing.contract import MemoryContract


class Driven:
    """An async memory with methods that are not awaited: each is run to its end in an event loop."""

    def __init__(self, runner: asyncio.Runner, face: AsyncMemoryManager | AsyncUserMemory) -> None:
        self._runner = runner
        self._face = face

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._face, name)
        if not inspect.iscoroutinefunction(member):
            return member
        return lambda *arguments, **named: self._runner.run(member(*arguments, **named))

    def for_user(self, user_id: str) -> Driven:
        assert isinstance(self._face, AsyncMemoryManager)
        return Driven(self._runner, self._face.for_user(user_id))

    def unit_of_work(self) -> AbstractContextManager[UnitOfWork]:
        """Not there on purpose; the tests that are about services use the other memory's."""
        return self._face._threads.memory.unit_of_work()


class TestAsync(MemoryContract):
    @pytest.fixture
    def memory(self, sqlite_file: str, clock: FrozenClock) -> Iterator[MemoryManager]:
        memory = AsyncMemoryManager(sqlite_file, clock=clock)
        with asyncio.Runner() as runner:
            runner.run(memory.open())
            yield cast(MemoryManager, Driven(runner, memory))
            runner.run(memory.close())

    def test_the_memory_inside_a_unit_of_work_is_refused(self, memory: MemoryManager) -> None:
        session = memory.create_session("alice").id
        face = cast(Driven, memory)._face
        assert isinstance(face, AsyncMemoryManager)
        uses: list[Callable[[], Any]] = [
            lambda: face.get_session(session),
            lambda: face.for_user("alice").list_sessions(),
            lambda: face.run(lambda inner: None),
        ]

        def work(uow: UnitOfWork) -> None:
            uow.sessions.create("kept")
            for use in uses:
                with pytest.raises(InvalidInput, match="unit of work"):
                    asyncio.run(use())

        memory.run(work)
        assert len(memory.list_sessions("kept")) == 1
