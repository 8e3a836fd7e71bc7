"""Is what is stored right? ``verify`` counts every fault by its name; ``repair`` mends what can be made anew."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mirai_memory.database import Database
from mirai_memory.database.chunks import chunks
from mirai_memory.errors import Corrupt, ReadOnly
from mirai_memory.logging import logger
from mirai_memory.search import ItemKind
from mirai_memory.services.mending import FIXES, ROWS, Fix
from mirai_memory.unit_of_work import Store, UnitOfWork

Progress = Callable[[int, int], object]

_KINDS: tuple[ItemKind, ...] = ("message", "knowledge")
_BACKUP = "restore a backup"
_REPAIR = "repair() mends it"
_ROUNDS = 3  # what one repair makes anew may need another

# What each fault means, and what to do. The names are a promise: programs look for them.
FAULTS: dict[str, tuple[str, str]] = {
    "integrity": ("pages of the file that do not fit together", f"{_BACKUP}, and write no more to this file"),
    "foreign_keys": (
        "references to rows that are gone",
        "repair() drops links of facts; messages and tasks whose session is gone stay: restore a backup",
    ),
    "session_counts": ("sessions that count their messages wrongly", _REPAIR),
    "positions": (
        "messages whose place or group cannot be, sessions whose next place is taken",
        "repair() mends places that are taken and groups; what stands in the wrong order stays: restore a backup",
    ),
    "owners": ("rows that belong to another owner than what they are part of", f"nobody can know whose: {_BACKUP}"),
    "supersession": ("values of a fact that do not replace each other as they should", _REPAIR),
    "word_index": ("texts that are not found by exactly their words", _REPAIR),
    "word_counts": ("owners whose texts are counted wrongly in the word index", _REPAIR),
    "word_places": ("messages whose place in the layout of a search is missing or wrong", _REPAIR),
    "vectors": ("vectors that are not of their text, or no vectors", f"{_REPAIR}: they are made anew"),
    "orphans": ("rows derived from messages or facts that are gone", _REPAIR),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault: its name, how many of it there are, what it means and what to do. No content is in it."""

    name: str
    count: int
    meaning: str
    advice: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Every kind of fault that was looked for, with its count; ``unread`` names those that could not be looked for."""

    checks: tuple[Fault, ...]
    unread: tuple[str, ...]
    seconds: float

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those that were found."""
        return tuple(check for check in self.checks if check.count)

    @property
    def ok(self) -> bool:
        """Whether everything was looked at and nothing was found."""
        return not self.faults and not self.unread

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        checks = [asdict(check) for check in self.checks]
        return {"ok": self.ok, "checks": checks, "unread": list(self.unread), "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class Repair:
    """What ``verify`` found before and after: ``mended`` by name and count, ``left`` is what could not be mended."""

    mended: dict[str, int]
    left: tuple[Fault, ...]
    unread: tuple[str, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is left."""
        return not self.left and not self.unread

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "ok": self.ok, "left": [asdict(f) for f in self.left], "unread": list(self.unread)}


def verify(database: Database, store: Store, *, progress: Progress | None = None) -> Verification:
    """Look at everything. Each check reads one moment; nothing is changed."""
    started = time.perf_counter()
    rows = database.dialect.estimated_rows
    store.read(lambda uow: uow.maintenance.counts(rows))  # raises where there is no memory to look at
    counts, unread = _counted(database, store, progress)
    checks = tuple(Fault(name, counts[name], *FAULTS[name]) for name in FAULTS)
    found = Verification(checks, tuple(unread), round(time.perf_counter() - started, 3))
    logger.info("verify: {}", "nothing found" if found.ok else ", ".join(f"{f.name} {f.count}" for f in found.faults))
    return found


def _counted(database: Database, store: Store, progress: Progress | None) -> tuple[Counter[str], list[str]]:
    steps: dict[str, Callable[[UnitOfWork], int | Counter[str]]] = {
        "integrity": lambda uow: database.dialect.damages(uow.db),
        "foreign_keys": lambda uow: uow.maintenance.verification.foreign_keys(),
        "session_counts": lambda uow: uow.maintenance.verification.session_counts(),
        "positions": lambda uow: uow.maintenance.verification.positions(),
        "owners": lambda uow: uow.maintenance.verification.owners(),
        "supersession": lambda uow: uow.maintenance.verification.supersession(),
        "word_index": lambda uow: uow.maintenance.verification.index(progress),
        "vectors": lambda uow: uow.maintenance.verification.vectors(),
        "orphans": lambda uow: uow.maintenance.verification.orphans(),
    }
    counts: Counter[str] = Counter()
    unread = []
    for name, step in steps.items():
        try:
            found = store.read(step)
        except Corrupt:  # what of it is damaged the engine does not say
            unread.append(name)
        else:
            counts += Counter({name: found}) if isinstance(found, int) else found
    if unread and not counts["integrity"]:
        counts["integrity"] = len(unread)
    return counts, unread


def repair(database: Database, store: Store, *, progress: Progress | None = None) -> Repair:
    """Mend what can be mended, in small transactions, and say what cannot."""
    if database.options.read_only:
        raise ReadOnly("this memory was opened read-only")
    started = time.perf_counter()
    before = verify(database, store, progress=progress)
    after = before
    for _ in range(_ROUNDS):
        if after.ok:
            break
        last, after = after, _once(database, store, after, progress)
        if _found(last) == _found(after):
            break
    still = {fault.name: fault.count for fault in after.faults}
    mended = {f.name: f.count - still.get(f.name, 0) for f in before.faults if f.count > still.get(f.name, 0)}
    logger.info("repair: {} mended, {} left", sum(mended.values()), sum(still.values()))
    return Repair(mended, after.faults, after.unread, round(time.perf_counter() - started, 3))


def _once(database: Database, store: Store, found: Verification, progress: Progress | None) -> Verification:
    try:
        _Repairs(store).run(set(_found(found)))
    except Corrupt as error:  # what comes after it would read the same pages
        logger.warning("repair ended early: {}", error)
    return verify(database, store, progress=progress)


def _found(report: Verification) -> dict[str, int]:
    return dict.fromkeys(report.unread, -1) | {fault.name: fault.count for fault in report.faults}


class _Repairs:
    """What is done for each fault."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def run(self, names: set[str]) -> None:
        for name, fixes in FIXES.items():
            if name in names:
                for fix in fixes:
                    self._fix(fix)
        if "orphans" in names:
            self._remove_orphans()
        if names & {"word_index", "word_places", "word_counts", "orphans"}:
            self._mend_index()
        if "vectors" in names:
            self._mend_vectors()

    def _fix(self, fix: Fix) -> None:
        self._in_batches(
            lambda uow: uow.maintenance.mending.wrong_ids(fix), lambda uow, ids: uow.maintenance.mending.apply(fix, ids)
        )

    def _in_batches(
        self, find: Callable[[UnitOfWork], list[Any]], mend: Callable[[UnitOfWork, Sequence[Any]], int]
    ) -> None:
        """Until none is found, or none of those found can be mended."""
        while ids := self._store.read(find):
            done = sum(self._store.write(lambda uow: mend(uow, batch)) for batch in chunks(ids, ROWS))  # noqa: B023
            if not done:
                return

    def _remove_orphans(self) -> None:
        for kind in _KINDS:
            self._in_batches(
                lambda uow: uow.maintenance.mending.orphaned_words(kind),  # noqa: B023
                lambda uow, ids: uow.maintenance.mending.remove_words(kind, ids),  # noqa: B023
            )
        self._in_batches(
            lambda uow: uow.maintenance.mending.orphaned_places(),
            lambda uow, places: uow.maintenance.mending.remove_places(places),
        )
        self._in_batches(
            lambda uow: uow.maintenance.mending.orphaned_vectors(),
            lambda uow, ids: uow.maintenance.mending.remove_vectors(ids),
        )

    def _mend_index(self) -> None:
        for kind in _KINDS:
            self._mend_rows(kind)
            if self._has_wrong_postings(kind):
                self._store.write(lambda uow: uow.maintenance.mending.mend_postings(kind))  # noqa: B023
            differences = self._store.read(lambda uow: uow.maintenance.mending.count_differences(kind))  # noqa: B023
            for batch in chunks(list(differences.items()), ROWS):
                self._store.write(lambda uow: uow.maintenance.mending.adjust_counts(batch))  # noqa: B023
        self._store.drop_cached()

    def _mend_rows(self, kind: ItemKind) -> None:
        after: int | None = 0
        while after is not None:
            last, wrong = self._store.read(lambda uow: uow.maintenance.mending.wrong_items(kind, after or 0))  # noqa: B023
            if wrong:
                self._store.write(lambda uow: uow.maintenance.mending.mend_items(kind, after or 0))  # noqa: B023
            after = last

    def _has_wrong_postings(self, kind: ItemKind) -> bool:
        try:
            return self._store.read(lambda uow: uow.maintenance.mending.has_wrong_postings(kind))
        except Corrupt:
            return True  # so wrong that they cannot be read

    def _mend_vectors(self) -> None:
        self._in_batches(
            lambda uow: uow.maintenance.mending.wrong_vector_ids(),
            lambda uow, ids: uow.maintenance.mending.mend_vectors(ids),
        )
