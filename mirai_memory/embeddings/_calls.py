"""Calls into code that may hang, on a daemon thread, so that their caller gets away in time."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

__all__ = ["CallThread", "Overdue", "StillBusy"]

T = TypeVar("T")


class Overdue(Exception):
    """The call gave no answer in time."""


class StillBusy(Exception):
    """An earlier call that gave no answer in time has not ended yet."""


class _Job:
    def __init__(self, call: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._call = call
        self._context = contextvars.copy_context()  # what the caller bound for the logger holds there too

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._context.run(self._call)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    def refuse(self) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(StillBusy())


_Queue = SimpleQueue[_Job | None]


def _serve(queue: _Queue) -> None:
    while (job := queue.get()) is not None:
        job.run()
        del job  # while the thread waits it keeps nothing alive


class CallThread:
    """Runs calls one at a time, in the order in which they came.

    The thread starts with the first call, ends with ``close`` or when nobody has this object any more, and never
    keeps the interpreter from ending. Of a call that hangs there is never more than one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changing = threading.Lock()
        self._queue: _Queue | None = None
        self._end: Callable[[], Any] = lambda: None
        self._hanging: Future[Any] | None = None

    def run(self, call: Callable[[], T], timeout_s: float) -> Future[T]:
        """The call when it has ended, with what it returned or raised, whatever that is.

        Raises Overdue after ``timeout_s``, and StillBusy at once while an earlier call hangs.
        """
        future = self._hand_over(call)
        try:
            wait([future], timeout_s)
        finally:  # a KeyboardInterrupt comes out of the waiting as well
            if not future.done():
                self._give_up(future)
        if future.cancelled() or not future.done():
            raise Overdue
        if isinstance(future.exception(), StillBusy):
            raise StillBusy
        return future

    def close(self) -> None:
        """End the thread after what it does now; another call starts another."""
        with self._changing:
            self._end()
            self._queue = None

    def _hand_over(self, call: Callable[[], T]) -> Future[T]:
        job = _Job(call)
        with self._changing:
            if self._hanging is not None:
                if not self._hanging.done():
                    raise StillBusy
                self._hanging = None
            if self._queue is None:
                self._start()
            assert self._queue is not None
            self._queue.put(job)
        return job.future

    def _start(self) -> None:
        queue: _Queue = SimpleQueue()
        threading.Thread(target=_serve, args=(queue,), name=self._name, daemon=True).start()
        end = weakref.finalize(self, queue.put, None)
        end.atexit = False
        self._queue, self._end = queue, end

    def _give_up(self, future: Future[Any]) -> None:
        with self._changing:
            if future.cancel() or future.done():  # it had not begun, or has ended just now
                return
            self._hanging = future
            if self._queue is not None:
                self._refuse_those_behind(self._queue)

    @staticmethod
    def _refuse_those_behind(queue: _Queue) -> None:
        try:
            while (job := queue.get_nowait()) is not None:
                job.refuse()
            queue.put(None)
        except Empty:
            pass
