"""The threads behind an async memory, and what becomes of a call whose await is cancelled.

A call is handed to a thread as a whole: one hop there, one back. So a cancelled await never cuts a unit of work in two.
One that no thread has begun is not begun any more; one that has begun goes on to its end, whether anybody waits or not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Literal, TypeVar, cast

from mirai_memory._process import OncePerProcess
from mirai_memory.errors import InvalidInput, StorageError
from mirai_memory.manager import MemoryManager

T = TypeVar("T")

# Calls queue up in lanes, so that a read does not wait behind writes that wait for another process, and neither of them
# behind a search that waits for an embedder.
Lane = Literal["read", "write", "slow"]
_LANES: tuple[Lane, ...] = ("read", "write", "slow")
_WIDTH = 4  # threads of a lane; all of them find a connection in the pool of either engine

# The memories whose unit of work the current call is inside of.
_inside: ContextVar[tuple[Threads, ...]] = ContextVar("mirai_memory_inside", default=())


class _Lanes:
    """The threads of one process."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.opening = threading.Lock()
        self.closing: Future[None] | None = None
        self.executors = {
            lane: ThreadPoolExecutor(_WIDTH, thread_name_prefix=f"mirai-memory-{lane}") for lane in _LANES
        }


class Threads:
    """Opens a memory in a thread when it is first wanted, and runs calls on it in threads of its own."""

    def __init__(self, open_memory: Callable[[], MemoryManager], *, memory: MemoryManager | None = None) -> None:
        """A ``memory`` that is given is open, and stays open; one that was opened here is closed with the threads."""
        self._open_memory = open_memory
        self._memory = memory
        self._closes = memory is None
        self._closed = False
        # A forked child has none of its parent's threads, and may have its locks locked for ever.
        self._lanes = OncePerProcess(_Lanes)

    @property
    def is_open(self) -> bool:
        return self._memory is not None

    @property
    def memory(self) -> MemoryManager:
        """The memory itself. Raises StorageError before it is open."""
        if self._memory is None:
            raise StorageError("this memory is not open yet; use `async with`, await open(), or any other method first")
        return self._memory

    async def open(self) -> MemoryManager:
        """Open the memory, if it is not open; raises what MemoryManager raises, and then may be tried again."""
        if self._memory is None or self._closed:
            return await self._run("slow", self._opened)
        return self._memory

    def _opened(self) -> MemoryManager:
        with self._lanes().opening:
            if self._memory is None:
                self._memory = self._open_memory()
            return self._memory

    async def call(self, lane: Lane, fn: Callable[[MemoryManager], T]) -> T:
        """What ``fn(memory)`` returns, run in a thread of the lane with the context variables of the caller."""
        self._refuse_inside()
        memory = await self.open()
        return await self._run(lane, partial(fn, memory))

    def inside(self, fn: Callable[[], T]) -> T:
        """Run ``fn``, which is inside a unit of work: a call that it makes would wait for what waits for it."""
        token = _inside.set((*_inside.get(), self))
        try:
            return fn()
        finally:
            _inside.reset(token)

    def _refuse_inside(self) -> None:
        if self in _inside.get():
            raise InvalidInput("unit of work", "is open around this call; use its uow instead of the memory")

    async def _run(self, lane: Lane, call: Callable[[], T]) -> T:
        future = self._submit(lane, partial(copy_context().run, _outcome, call))
        # Cancelling the one future cancels the other, which only works while no thread has taken it up.
        result, error = await asyncio.wrap_future(future)
        if error is None:
            return cast(T, result)
        try:
            raise error
        finally:
            del error  # else it would hold this frame, and the frame it

    def _submit(self, lane: Lane, call: Callable[[], T]) -> Future[T]:
        lanes = self._lanes()
        with lanes.guard:
            if self._closed:
                raise StorageError("this memory is closed; open a new AsyncMemoryManager")
            return lanes.executors[lane].submit(call)

    async def close(self) -> None:
        """Refuse new calls and wait for those that were made, cancelled or not."""
        self._refuse_inside()
        done = asyncio.wrap_future(self._close_begun())
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        done.result()

    def _close_begun(self) -> Future[None]:
        lanes = self._lanes()
        with lanes.guard:
            self._closed = True
            if lanes.closing is None:
                closer = ThreadPoolExecutor(1, thread_name_prefix="mirai-memory-close")
                lanes.closing = closer.submit(self._close_down, lanes)
                closer.shutdown(wait=False)
            return lanes.closing

    def _close_down(self, lanes: _Lanes) -> None:
        for executor in lanes.executors.values():
            executor.shutdown()
        if self._closes and self._memory is not None:
            self._memory.close()


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What ``call`` returned, and what it raised: a future hands on some errors as others, and some not at all."""
    try:
        return call(), None
    except BaseException as error:
        return None, error
