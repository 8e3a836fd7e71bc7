"""The other end of Chroma's process: one for a memory, started when it is first needed, and again when it has died.

Chroma is a projection. What cannot be asked, or does not answer in time, is left alone for a while; searches are
answered from the rows meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mirai_memory import _chroma_process
from mirai_memory._chroma_process import DELETED, GAVE_WAY, HELD, Json, delete_files, receive, send
from mirai_memory._locks import open_lock_file, try_lock
from mirai_memory._process import OncePerProcess
from mirai_memory.embeddings._calls import CallThread, Overdue, StillBusy
from mirai_memory.logging import logger

SEARCH_S, WORK_S, OPEN_S = 5.0, 120.0, 60.0  # how long an answer may take
_FIRST_REST, _LONGEST_REST = 2.0, 300.0  # seconds without a try after a failure, doubled each time
_DOUBLED = 10
_HELD_REST = 15.0  # seconds until the folder that another process has is asked for again
_PATIENCE = 10.0  # seconds that a process which has the folder may take to give way
_GOODBYE = 1.0  # seconds that it may take to end by itself
_DAMAGED = ("malformed", "not a database")


@dataclass(frozen=True, slots=True)
class Place:
    """Where Chroma keeps the vectors of one memory: in a folder, or at a server.

    ``apart`` tells apart the memories that may be there: a copied file has the number of the file it was copied from.
    """

    path: Path | None
    url: str | None
    apart: str

    def __str__(self) -> str:
        return str(self.path) if self.url is None else self.url

    def opening(self, patience_s: float) -> Json:
        url = None
        if self.url is not None:
            parts = urlsplit(self.url)
            ssl = parts.scheme == "https"
            url = {"host": parts.hostname, "port": parts.port or (443 if ssl else 8000), "ssl": ssl}
        return {"path": None if self.path is None else str(self.path), "url": url, "patience_s": patience_s}


class Unavailable(Exception):
    """Chroma cannot be asked, in words that say why."""


class Occupied(Unavailable):
    """It works, at something else."""


class Refused(Exception):
    """Chroma works, and has said no: ``kind`` is the name of its error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"Chroma answered {kind}")
        self.kind = kind
        self.is_damage = any(word in text for word in _DAMAGED)

    @property
    def is_missing(self) -> bool:
        return self.kind == "NotFoundError"


class Link:
    """Safe for many threads, and in a process that was forked: that one starts a process of its own."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.when_lacking: Callable[[int], None] = lambda scope: None  # told of what Chroma lacks of a scope
        self._here = OncePerProcess(lambda: _Connection(place))

    @property
    def is_ready(self) -> bool:
        return self._here().is_ready

    @property
    def is_held(self) -> bool:
        """Whether another process has the folder."""
        return self._here().is_held

    @property
    def may_hold(self) -> bool:
        """Whether there may be anything in Chroma; of a server only it can tell."""
        path = self.place.path
        return path is None or (path / "chroma.sqlite3").exists()

    def ask(self, op: str, more: bytes = b"", *, timeout_s: float = WORK_S, **asked: Any) -> Json:
        """What the operation answers. Raises Refused, and Unavailable at once where it is not open."""
        return self._here().ask({"op": op, **asked}, more, timeout_s)

    def open(self, *, insist: bool = False, timeout_s: float = OPEN_S) -> None:
        """Have it open, which can take seconds; raises Unavailable. ``insist``: now, and whoever has the folder."""
        self._here().open(insist=insist, timeout_s=timeout_s)

    def open_soon(self) -> None:
        """Have it opened by a thread, unless it is being opened, or rests."""
        self._here().open_soon()

    def wipe(self) -> None:
        """Have a folder of Chroma's empty, and its process begin anew. Raises Unavailable, Refused."""
        self.ask("wipe")
        self._here().end()

    @property
    def has_deleted(self) -> bool:
        """Whether files of Chroma may have bytes of what was deleted; those of a server are its own affair."""
        return self.place.path is not None and (self.place.path / DELETED).exists()

    def close(self) -> None:
        self._here().close()


class _Connection:
    """A child process and the pipes to it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._calls = CallThread("mirai-memory-chroma")
        self._opening = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._until, self._failures = 0.0, 0
        self.is_held = False
        self._trouble: str | None = None
        _connections.add(self)

    @property
    def is_ready(self) -> bool:
        return self._child is not None

    def open_soon(self) -> None:
        if self._rests() or self._opening.locked():
            return

        def open_quietly() -> None:
            with suppress(Unavailable):
                self.open(insist=False, timeout_s=OPEN_S)

        threading.Thread(target=open_quietly, name="mirai-memory-chroma-opening", daemon=True).start()

    def open(self, *, insist: bool, timeout_s: float) -> None:
        with self._opening:
            if self._child is not None:
                return
            if self._ended.is_set():
                raise Unavailable("this memory is closed")
            if self._rests() and not insist:
                raise Unavailable(self._trouble or "it is left alone for a while")
            child = self._started(_PATIENCE if insist else 0.0, timeout_s)
            self._child = child
            self._worked()
        if self._ended.is_set():  # meanwhile
            self.close()
            raise Unavailable("this memory is closed")

    def _rests(self) -> bool:
        return self._ended.is_set() or time.monotonic() < self._until

    def _started(self, patience_s: float, timeout_s: float) -> subprocess.Popen[bytes]:
        """A child that has opened Chroma. What is damaged goes: everything in it can be made again."""
        try:
            return self._opened(patience_s, timeout_s)
        except Refused as error:
            if error.is_damage and self._throw_away():
                with suppress(Refused):
                    return self._opened(patience_s, timeout_s)
            raise self._failed(f"it cannot be opened ({error.kind})") from None

    def _opened(self, patience_s: float, timeout_s: float) -> subprocess.Popen[bytes]:
        try:
            child = _spawn()
        except OSError as error:
            raise self._failed(f"its process does not start ({error.strerror})") from None
        try:
            self._converse(child, self._place.opening(patience_s), b"", timeout_s)
        except Refused:
            _end(child)
            raise
        except Unavailable as error:
            if _end(child) == HELD:
                raise self._held() from None
            raise self._failed(str(error)) from None
        return child

    def ask(self, asked: Json, more: bytes, timeout_s: float) -> Json:
        child = self._child
        if child is None:
            raise Unavailable(self._trouble or "it is not open yet")
        try:
            return self._converse(child, asked, more, timeout_s)
        except Occupied:
            raise
        except Unavailable as error:
            self._gone(child, str(error))
            raise

    def _converse(self, child: subprocess.Popen[bytes], asked: Json, more: bytes, timeout_s: float) -> Json:
        begun = False

        def exchange() -> Json | None:
            nonlocal begun
            begun = True
            assert child.stdin is not None
            assert child.stdout is not None
            send(child.stdin, asked, more)
            frame = receive(child.stdout)
            return None if frame is None else frame[0]

        try:
            answer = _answer(self._calls, exchange, timeout_s)
        except Unavailable:
            if not begun:
                raise Occupied("it is at other work") from None
            raise
        if "error" in answer:
            raise Refused(answer["error"], answer["text"])
        return answer

    def _gone(self, child: subprocess.Popen[bytes], why: str) -> None:
        """The child has died, or hangs, and is ended."""
        with self._opening:
            if self._child is not child:
                return  # somebody else has seen it
            self._child = None
            code = _end(child)
            if self._ended.is_set():
                return
            if code == GAVE_WAY:
                self._held()
                return
            self._failed(why)
            if code is not None and code < 0 and code not in (-9, -15):
                self._throw_away()  # what it read has made it crash, and would again

    def _throw_away(self) -> bool:
        """Delete what Chroma has stored in its folder, unless another process has it."""
        if self._place.path is None:
            return False
        logger.warning("Chroma's folder {} is damaged, and is made anew from the database", self._place.path)
        return throw_away(self._place.path)

    def _held(self) -> Unavailable:
        told, self.is_held = self.is_held, True
        self._trouble = f"another process has Chroma's folder {self._place.path}"
        self._until = time.monotonic() + _HELD_REST
        if not told:
            logger.info("{}; this one searches vectors without Chroma", self._trouble)
        return Unavailable(self._trouble)

    def _failed(self, why: str) -> Unavailable:
        self.is_held = False
        self._trouble = f"Chroma at {self._place} is not available: {why}"
        if not self._failures:
            logger.warning("{}; vectors are searched without it until it works again", self._trouble)
        self._until = time.monotonic() + min(_FIRST_REST * 2 ** min(self._failures, _DOUBLED), _LONGEST_REST)
        self._failures += 1
        return Unavailable(self._trouble)

    def _worked(self) -> None:
        if self._failures:
            logger.info("Chroma at {} works again", self._place)
        self._until, self._failures, self._trouble, self.is_held = 0.0, 0, None, False

    def let_go(self) -> None:
        """In a process that was forked: close the parent's pipes, without a word to its child."""
        if self._child is not None:
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    pipe.close()
            self._child.returncode = 0  # not a child of this process, which need not be told that it runs

    def end(self) -> None:
        """End the child; the next one is started when it is needed."""
        child, self._child = self._child, None
        if child is not None:
            _end(child)

    def close(self) -> None:
        self._ended.set()
        self.end()
        self._calls.close()


def _answer(calls: CallThread, exchange: Callable[[], Json | None], timeout_s: float) -> Json:
    try:
        done: Future[Json | None] = calls.run(exchange, timeout_s)
    except Overdue:
        raise Unavailable(f"no answer within {timeout_s:g} s") from None
    except StillBusy:
        raise Unavailable("it hangs") from None
    try:
        answer = done.result()
    except (OSError, ValueError):  # a pipe that is broken, or was closed meanwhile
        answer = None
    if answer is None:
        raise Unavailable("its process has ended")
    return answer


def _spawn() -> subprocess.Popen[bytes]:
    names = {name: value for name, value in os.environ.items() if not name.upper().startswith(("CHROMA", "OTEL_"))}
    # The same packages as here; and of the working folder, whose .env Chroma would read, nothing.
    names |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ANONYMIZED_TELEMETRY": "False"}
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-m", _chroma_process.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # nothing is in a buffer that a fork would copy
        cwd=Path(_chroma_process.__file__).parent,
        env=names,
        start_new_session=True,  # a key that interrupts the program is none of its business
    )


def _end(child: subprocess.Popen[bytes]) -> int | None:
    """End the child; the code that it ended with by itself, None for one that had to be killed."""
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(OSError):
        child.stdin.close()  # which it takes for the end, unless it hangs
    try:
        code = child.wait(_GOODBYE)
    except subprocess.TimeoutExpired:
        code = None
        child.kill()
        child.wait()
    with suppress(OSError):
        child.stdout.close()
    return code


def throw_away(folder: Path) -> bool:
    """Delete Chroma's own files in the folder, and nothing else; whether that could be done."""
    try:
        lock = open_lock_file(folder / _chroma_process.LOCK)
    except OSError:
        return False
    try:
        if not try_lock(lock):
            return False
        delete_files(folder)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


_connections: weakref.WeakSet[_Connection] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The parent's pipes are its own: with a copy of them open here, its child would not see them closed."""
    for connection in _connections:
        connection.let_go()
    _connections.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
