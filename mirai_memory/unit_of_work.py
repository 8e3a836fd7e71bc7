"""The only doors to the database.

``Store.read(fn)`` and ``Store.write(fn)`` hand a ``UnitOfWork`` to a function. A read never commits. A write commits
once at the end or rolls everything back, and may run its function again when the engine asks for it, so the function
has no effects outside the database. Errors of driver and SQLAlchemy are translated here, once.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from mirai_memory._time import Clock
from mirai_memory.config import MemorySettings
from mirai_memory.database import Database, Db
from mirai_memory.database.engine import driver_error, lift_time_limit
from mirai_memory.database.seats import Seats
from mirai_memory.database.urls import sqlite_path
from mirai_memory.errors import Busy, InvalidInput, MiraiMemoryError, ReadOnly, StorageError
from mirai_memory.logging import logger
from mirai_memory.search import SearchIndex
from mirai_memory.services.base import Work
from mirai_memory.services.context import Contexts
from mirai_memory.services.embeddings import Embeddings, PendingVectors
from mirai_memory.services.exports import Exports
from mirai_memory.services.imports import Imports
from mirai_memory.services.knowledge import KnowledgeBase
from mirai_memory.services.learning import Learning
from mirai_memory.services.leases import Leases
from mirai_memory.services.maintenance import Maintenance
from mirai_memory.services.messages import Messages
from mirai_memory.services.preferences import Preferences
from mirai_memory.services.retention import Retention
from mirai_memory.services.sessions import Sessions
from mirai_memory.services.summaries import Summaries
from mirai_memory.services.tasks import Tasks

T = TypeVar("T")

# A unit of work that lost to another writer is run again, this often and for as long as a writer waits; then Busy. One
# whose row was there, or was gone, is run so often only: where nobody else has put it there, it will be there again.
TRIES = 8
_FIRST_PAUSE, _DOUBLED = 0.01, 5  # seconds, and how often the pause is doubled
_AT_ONCE = nullcontext()
_LOST = "other writers were faster, and others who have lost to them are tried again first; nothing was changed"
_LONGEST_WAIT_TO_FORK = 5.0  # seconds; the forking thread itself may be what a unit of work waits for


class UnitOfWork:
    """The services of one transaction, bound to one owner or (None) to none."""

    def __init__(self, work: Work) -> None:
        self._work = work

    @property
    def sessions(self) -> Sessions:
        """Conversations."""
        return Sessions(self._work)

    @property
    def messages(self) -> Messages:
        """Their entries."""
        return Messages(self._work)

    @property
    def preferences(self) -> Preferences:
        """What owners like."""
        return Preferences(self._work)

    @property
    def tasks(self) -> Tasks:
        """Pieces of work."""
        return Tasks(self._work)

    @property
    def knowledge(self) -> KnowledgeBase:
        """Facts."""
        return KnowledgeBase(self._work)

    @property
    def contexts(self) -> Contexts:
        """What an agent gets for one turn."""
        return Contexts(self._work)

    @property
    def learning(self) -> Learning:
        """What conversations teach."""
        return Learning(self._work)

    @property
    def leases(self) -> Leases:
        """Who works on a session while a model is asked."""
        return Leases(self._work)

    @property
    def summaries(self) -> Summaries:
        """What has left the window, in short."""
        return Summaries(self._work)

    @property
    def exports(self) -> Exports:
        """Everything of one owner, read."""
        return Exports(self._work)

    @property
    def imports(self) -> Imports:
        """Everything of one owner, taken in."""
        return Imports(self._work)

    @property
    def pending(self) -> PendingVectors:
        """Vectors that are wanted."""
        return PendingVectors(self._work)

    @property
    def vectors(self) -> Embeddings:
        """Vectors that are wanted and stored, over all owners."""
        self._refuse_owner("vectors")
        return Embeddings(self._work)

    @property
    def maintenance(self) -> Maintenance:
        """Counting and upkeep, over all owners."""
        self._refuse_owner("maintenance")
        lift_time_limit(self._work.db)
        return Maintenance(self._work)

    @property
    def retention(self) -> Retention:
        """What is kept no longer, over all owners."""
        self._refuse_owner("retention")
        lift_time_limit(self._work.db)
        return Retention(self._work)

    @property
    def db(self) -> Db:
        """The SQLAlchemy connection of this transaction, for SQL of your own."""
        self._refuse_owner("db")
        return self._work.db

    def _refuse_owner(self, name: str) -> None:
        if self._work.owner is not None:
            raise InvalidInput(name, "knows no owner, and is not for the unit of work of one; use MemoryManager.run")


class Store:
    """Runs functions in units of work over one database."""

    def __init__(
        self,
        database: Database,
        index: SearchIndex,
        settings: MemorySettings,
        clock: Clock,
        *,
        model: str | None = None,
    ) -> None:
        """``model`` names the embedder whose vectors are wanted for what is stored."""
        self.when_grown: Callable[[set[str]], None] | None = None  # told of sessions, once their messages are committed
        self._model = model
        self._database = database
        self._index = index
        self._settings = settings
        self._clock = clock
        # Those who have lost go one at a time: where the server runs transactions as if one after the other, all that
        # write to one place but one lose, and lost again and again when they came back together (one in ten, seen).
        self._again = Seats(1, wait_s=database.options.busy_timeout_ms / 1000, busy=_LOST)
        self._inside = threading.local()
        self._running = 0
        self._idle = threading.Condition()
        self._forking = self._closed = False
        with _fork:
            # What SQLite believes of a file, it believes for the whole process.
            self._torn: bool = any(other._torn and other._database.url == database.url for other in _stores)
            _stores.add(self)
        if database.seats is not None:
            # Forgotten without close(), it gives its connections back to the server, and no warning of the driver's.
            weakref.finalize(self, database.engine.dispose).atexit = False

    def read(self, fn: Callable[[UnitOfWork], T], *, owner: str | None = None) -> T:
        """What ``fn`` returns, from one consistent view; changes it makes are not kept."""
        try:
            with self.transaction(owner, write=False, later=True) as uow:
                return fn(uow)
        except StorageError as error:
            if error.__cause__ is None or not self._database.never_began(error.__cause__):
                raise
        with self.transaction(owner, write=False) as uow:
            return fn(uow)

    def write(self, fn: Callable[[UnitOfWork], T], *, owner: str | None = None) -> T:
        """What ``fn`` returns, once everything it did is committed."""
        attempt, patience = 1, time.monotonic() + self._database.options.busy_timeout_ms / 1000
        while True:
            try:
                with self._again if attempt > 1 else _AT_ONCE, self.transaction(owner, write=True) as uow:
                    return fn(uow)
            except MiraiMemoryError as error:
                cause = error.__cause__
                if cause is None or not self._database.is_transient(cause):
                    raise
                if attempt >= TRIES and (not isinstance(error, Busy) or time.monotonic() >= patience):
                    raise
                logger.debug("unit of work runs again after attempt {}: {}", attempt, type(cause).__name__)
            # Full jitter: writers that collided must not meet again at the same moment.
            time.sleep(random.uniform(0, _FIRST_PAUSE * 2 ** min(attempt, _DOUBLED)))
            attempt += 1

    def drop_cached(self) -> None:
        """Keep nothing in memory of what searches have read; the next ones read it anew."""
        self._index.drop_cached()

    def outside(self, fn: Callable[[Db], T]) -> T:
        """What ``fn`` returns, which is given a connection without a transaction. Writers wait until it is done."""
        if self._database.options.read_only:
            raise ReadOnly("this memory was opened read-only")
        with self._alone():
            try:
                with self._database.outside() as db:
                    return fn(db)
            except Exception as error:
                translated = self._database.translated(error)
                if translated is error:
                    raise
                raise translated from driver_error(error)

    @contextmanager
    def transaction(self, owner: str | None = None, *, write: bool, later: bool = False) -> Iterator[UnitOfWork]:
        """One transaction, never run again: committed at the end of a write, else rolled back.

        ``later``: where it saves a round trip, a read begins with its first statement.
        """
        if write and self._database.options.read_only:
            raise ReadOnly("this memory was opened read-only")
        started = time.perf_counter()
        with self._alone():
            try:
                with self._database.begin(write=write, later=later) as db:
                    work = Work(
                        db=db,
                        clock=self._clock,
                        index=self._index,
                        settings=self._settings,
                        owner=owner,
                        writing=write,
                        model=self._model,
                    )
                    yield UnitOfWork(work)
            except Exception as error:
                translated = self._database.translated(error)
                if translated is error:
                    raise
                self._log(started, owner, write, type(translated).__name__)
                raise translated from driver_error(error)
            self._log(started, owner, write, None)
        if work.grown and self.when_grown is not None:
            self.when_grown(work.grown)

    @staticmethod
    def _log(started: float, owner: str | None, write: bool, error_code: str | None) -> None:
        about: dict[str, object] = {"latency_ms": round(1000 * (time.perf_counter() - started), 3)}
        # What is not known is not given: it would hide what the host has said with logger.contextualize().
        if owner is not None:
            about["user_id"] = owner
        if error_code is not None:
            about["error_code"] = error_code
        # As arguments, which loguru binds as well: a bound logger would be made for nobody where nobody listens.
        logger.debug("unit of work: {}", "write" if write else "read", **about)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One unit of work in a thread at a time: a second one would wait for the first until the timeout."""
        if getattr(self._inside, "open", False):
            raise InvalidInput("unit of work", "is already open in this thread; use its uow instead of the memory")
        with self._idle:
            self._idle.wait_for(lambda: not self._forking)
            if self._torn:
                raise StorageError(
                    "this process was forked in the middle of a unit of work, and its locks cannot be trusted; fork "
                    "when nothing runs, or start the process with spawn"
                )
            if self._closed:
                raise StorageError("this memory is closed; open a new MemoryManager")
            self._running += 1
        self._inside.open = True
        try:
            yield
        finally:
            self._inside.open = False
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """Refuse new work and wait for what runs: a connection closed under a thread's hands crashes the process."""
        with self._idle:
            self._closed = True
            own = self._own()
            self._idle.wait_for(lambda: self._running <= own)

    @property
    def is_waited_for(self) -> bool:
        """Whether a fork or ``close`` waits for what runs; work that can be done another time had better end."""
        return self._forking or self._closed

    def _own(self) -> int:
        """How many units of work are this thread's."""
        return 1 if getattr(self._inside, "open", False) else 0

    def before_fork(self) -> None:
        """Wait for what runs, let nothing begin, and leave no connection open that a child must not have."""
        with self._idle:
            self._forking = True
            wait_s = 0.0 if self._own() else _LONGEST_WAIT_TO_FORK
            quiet = self._idle.wait_for(lambda: not self._running, wait_s)
        self._torn = not self._database.before_fork(quiet=quiet)

    def after_fork(self) -> None:
        """In the parent: go on."""
        with self._idle:
            self._forking = self._torn = False
            self._idle.notify_all()

    def after_fork_in_child(self) -> None:
        """The parent's threads are not here: what they were at will never end, and locks they held stay locked."""
        self._idle = threading.Condition()
        self._running = self._own()
        self._forking = False
        self._again = self._again.renewed()
        self._database.after_fork_in_child()


def is_open(path: Path) -> bool:
    """Whether a memory of this process has the file open: opened by anybody else, and closed again, it would lose the
    locks that the process has on it."""
    databases = [sqlite_path(store._database.url) for store in list(_stores) if not store._closed]
    return path.exists() and any(own is not None and own.exists() and path.samefile(own) for own in databases)


_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_fork = threading.Lock()  # one thread forks at a time


def _before_fork() -> None:
    _fork.acquire()
    for store in _stores:
        store.before_fork()


def _after_fork() -> None:
    for store in _stores:
        store.after_fork()
    _fork.release()


def _after_fork_in_child() -> None:
    global _fork
    _fork = threading.Lock()
    for store in _stores:
        store.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
