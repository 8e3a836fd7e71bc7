"""Chroma is given what the rows have: behind the writes, outside of any transaction, as often as it takes.

A collection is there before the rows are read that go into it, and its mark is written after them. So a process may
end between any two steps, and any number of them may be at it: what was not noted is given again, and what is given
for an owner who is being forgotten goes into a collection that is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from mirai_memory._chroma_process import Json
from mirai_memory._process import OncePerProcess
from mirai_memory.background import Worker
from mirai_memory.errors import MiraiMemoryError
from mirai_memory.logging import logger
from mirai_memory.search import chroma_rows as rows
from mirai_memory.search.base import ItemKind
from mirai_memory.search.chroma_link import Link, Refused, Unavailable
from mirai_memory.search.chroma_rows import Collection
from mirai_memory.search.postings import ScopeCounts
from mirai_memory.unit_of_work import Store

BATCH = 100  # vectors that are given at once: a search waits for as long as that takes
_EFFORT = 400  # how many neighbours Chroma looks at for the nearest ones; by itself it would be 100
_PAUSE = 0.2  # seconds between two rounds of the thread in the background
_NOWHERE: Callable[[], bool] = lambda: False  # noqa: E731

Scopes = Sequence[tuple[ItemKind, ScopeCounts]]


class ChromaFeeder:
    """Gives Chroma the vectors of one database, and takes from it what is gone. ``least``: items of a scope."""

    def __init__(self, store: Store, link: Link, least: int, *, background: bool) -> None:
        self._store = store
        self.link = link
        self._least = least
        self._background = background
        self._worker = OncePerProcess(lambda: Worker(self._work, "chroma-vectors"))
        self._feeding = OncePerProcess(threading.Lock)
        self._done: dict[int, tuple[int, int]] = {}  # the state of a scope that Chroma has all of
        self._prefix: str | None = None
        self._closed = False
        link.when_lacking = self._look_again

    @property
    def is_at_server(self) -> bool:
        return self.link.place.url is not None

    def notify(self) -> None:
        """There may be new vectors."""
        if self._background and not self._closed:
            self._worker().wake()

    def _look_again(self, scope: int) -> None:
        """A search has found that Chroma lacks something of the scope."""
        self._done.pop(scope, None)
        self.notify()

    def rebuild(self) -> None:
        """Give Chroma everything anew. Where it cannot be asked that is in the log, and is made good later."""
        held = self.link.may_hold
        if not self._scopes() and not held:
            return
        try:
            self.link.open(insist=True)
            with self._feeding():
                if held:
                    self._empty()
                self._done.clear()
                self._round(_NOWHERE)
        except (Unavailable, Refused) as error:
            logger.warning("the vectors were not given to Chroma: {}", error)

    def forget(self, *, compact: bool) -> str | None:
        """Take from Chroma what belongs to nobody any more; why that could not be done, or None.

        ``compact``: from its files too, which are then made anew behind the call; vectors are compared without it
        meanwhile.
        """
        if not self.link.may_hold:
            return None
        try:
            self.link.open(insist=True)
            with self._feeding():
                self._sweep(self._named(), self._scopes())
                if compact and self.link.has_deleted:
                    self.link.wipe()
                    self._done.clear()
                    self.notify()
        except (Unavailable, Refused) as error:
            return f"vectors of the owner may be left in Chroma: {error}; then call forget_user again"
        return None

    def _empty(self) -> None:
        if self.is_at_server:
            self._drop(self._marks(self._named()))
        else:
            self.link.wipe()
            self.link.open(insist=True)

    def close(self) -> None:
        """End the thread, after what it is at, and Chroma's process."""
        self._closed = True
        self._worker().stop()
        self.link.close()

    def _work(self, stopping: threading.Event) -> None:
        try:
            if not self._scopes() and not self.link.is_ready:
                return  # nothing for which Chroma would have to be started
            self.link.open()
            with self._feeding():
                self._round(lambda: stopping.is_set() or self._store.is_waited_for)
        except Unavailable:
            return  # the link has said so; the next write or search tries again
        except Refused as error:
            logger.warning("vectors are not given to Chroma for now: {}", error)
        except MiraiMemoryError as error:
            logger.debug("vectors are given to Chroma another time: {}", error)
        stopping.wait(_PAUSE)

    def _named(self) -> str:
        """What the names of this memory's collections begin with."""
        apart = self.link.place.apart
        if self._prefix is None:
            self._prefix = self._store.read(lambda uow: rows.prefix(uow.db, apart))
        if self._prefix is None:
            self._store.write(lambda uow: rows.give_number(uow.db))
            self._prefix = self._store.read(lambda uow: rows.prefix(uow.db, apart))
        assert self._prefix is not None
        return self._prefix

    def _scopes(self) -> Scopes:
        return self._store.read(lambda uow: rows.scopes(uow.db, self._least))

    def _marks(self, prefix: str) -> dict[str, Json]:
        marks: dict[str, Json] = self.link.ask("marks", prefix=prefix)["marks"]
        return marks

    def _round(self, stopped: Callable[[], bool]) -> None:
        """Have Chroma hold the vectors of every large scope, and nothing else of ours."""
        prefix, scopes = self._named(), self._scopes()
        if not self._done:
            self._sweep(prefix, scopes)
        for kind, counts in scopes:
            state = (counts.vectors, counts.removals)
            if self._done.get(counts.id) == state:
                continue
            there = self._store.read(lambda uow: rows.collections(uow.db, kind, counts))  # noqa: B023
            wanted = [collection for collection, _ in there]
            names = {collection.name(prefix) for collection in wanted}
            self._drop(set(self._marks(f"{prefix}{counts.id}-")) - names)
            if not all(self._feed(prefix, collection, counts, stopped) for collection in wanted):
                return
            self._done[counts.id] = state

    def _sweep(self, prefix: str, scopes: Scopes) -> None:
        """Drop what belongs to no scope, or to one that has become small."""
        known = {counts.id for _, counts in scopes}
        self._drop(name for name in self._marks(prefix) if rows.scope_of(prefix, name) not in known)

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self.link.ask("drop", name=name)
            except Refused as error:
                if not error.is_missing:
                    raise

    def _feed(self, prefix: str, collection: Collection, counts: ScopeCounts, stopped: Callable[[], bool]) -> bool:
        """Give Chroma what it lacks of the collection; False where there was no time for all of it."""
        name = collection.name(prefix)
        mark = self._made(name, counts)
        if not self._is_of_these_rows(collection, mark, counts):
            self._drop([name])
            mark = self._made(name, counts)
        while not stopped():
            now, found = self._store.read(
                lambda uow: (
                    rows.scope(uow.db, collection.scope),
                    rows.after(uow.db, collection, mark["last"], BATCH),  # noqa: B023
                )
            )
            if now is None:
                return True  # the owner is gone, and with it, by and by, the collection
            if not len(found.rows):
                self._without_gone(name, collection, mark, now)
                return True
            mark = {**mark, "last": int(found.rows[-1]), "vectors": now.vectors}
            vectors = found.values.astype("<f4").tobytes()
            mark = self.link.ask("add", vectors, name=name, ids=found.rows.tolist(), mark=mark)["mark"]
        return False

    def _made(self, name: str, counts: ScopeCounts) -> Json:
        empty = {"last": 0, "vectors": 0, "removals": counts.removals, "count": 0}
        mark: Json = self.link.ask("make", name=name, mark=empty, effort=_EFFORT)["mark"]
        return mark

    def _is_of_these_rows(self, collection: Collection, mark: Json, counts: ScopeCounts) -> bool:
        """Whether the mark can be of this database, as it was earlier; a restored one has gone back in time."""
        if mark["vectors"] > counts.vectors or mark["removals"] > counts.removals:
            return False
        if not mark["last"]:
            return True
        owner = self._store.read(lambda uow: rows.owner_of(uow.db, mark["last"]))
        if owner is None:
            return bool(mark["removals"] < counts.removals)
        return owner == (collection.kind, collection.user_id, collection.model)

    def _without_gone(self, name: str, collection: Collection, mark: Json, now: ScopeCounts) -> None:
        """Take out what is no row any more, if any has gone since that was last done."""
        if mark["removals"] == now.removals:
            return
        # In this order: what Chroma has by now was committed before.
        held = self.link.ask("ids", name=name)["ids"]
        counts, alive = self._store.read(
            lambda uow: (rows.scope(uow.db, collection.scope), rows.ids(uow.db, collection))
        )
        if counts is not None:
            self.link.ask("remove", name=name, ids=sorted(set(held).difference(alive.tolist())))
            mark = {**mark, "removals": counts.removals}
            self.link.ask("add", name=name, ids=[], mark=mark)
