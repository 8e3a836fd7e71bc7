"""Everything of one database made the same on another, of either engine: block by block, and compared at the end.

There is no list of what was done. Each block of rows is compared with what the target has in the same range of keys,
and written only where it differs: a run that was cut short is gone on with by the next, and a second run, after others
have written to the source, moves only what has changed. The source is read at one moment; nobody else uses the target.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mirai_memory.copying.compare import Sum, compared, encoded, summed
from mirai_memory.database import Database, display, sqlite_path
from mirai_memory.errors import Conflict, InvalidInput, StorageError
from mirai_memory.logging import logger
from mirai_memory.services.copies import PARTS, Copies, Part, Row
from mirai_memory.unit_of_work import Store

Progress = Callable[[int, int], object]
_DELETED = 500  # rows of one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was copied: rows of each table, how many of them were written by this run, and each table's checksum.

    Rows and checksums were read from both databases at the end, and are the same.
    """

    source: str
    target: str
    rows: dict[str, int]
    written: dict[str, int]
    deleted: dict[str, int]
    checksums: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)


def copy_memory(
    source: Store, source_database: Database, target: Store, target_database: Database, *, progress: Progress | None
) -> Copied:
    """Make the target hold exactly what the source holds.

    Raises InvalidInput for a target that is the source, Conflict for one that holds anything else, StorageError where
    the two differ at the end.
    """
    started = time.perf_counter()
    _refuse_itself(source_database, target_database)
    identity = _identity(source_database)
    with source.transaction(write=False) as uow:
        copying = _Copying(uow.maintenance.copies, target, progress)
        copying.begin(identity)
        copying.delete_what_is_gone()
        copying.put_rows()
        copying.set_links()
        sums = copying.end(identity)
    logger.info(
        "copied: {} rows, {} of them written", sum(s.rows for s in sums.values()), sum(copying.written.values())
    )
    return Copied(
        source=display(source_database.url),
        target=display(target_database.url),
        rows={name: own.rows for name, own in sums.items()},
        written=copying.written,
        deleted=copying.deleted,
        checksums={name: own.hex for name, own in sums.items()},
        seconds=round(time.perf_counter() - started, 3),
    )


class _Copying:
    """One run."""

    def __init__(self, source: Copies, target: Store, progress: Progress | None) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._total = 2 * sum(source.counts().values())  # once to copy, once to compare
        self._done = 0
        self.written = dict.fromkeys((part.name for part in PARTS), 0)
        self.deleted = dict(self.written)

    def begin(self, identity: str) -> None:
        """See that the target is empty, or has come from here and was not used since."""
        mark, counts = self._target.read(lambda uow: (uow.maintenance.copies.mark, uow.maintenance.copies.counts()))
        if mark is None and any(counts.values()):
            raise Conflict("memory", "target", "holds something that was not copied here; name an empty database")
        if mark is not None and mark["source"] != identity:
            raise Conflict("memory", "target", "was copied from another database; name an empty one")
        if mark is not None and mark["sums"] is not None and mark["sums"] != self._target_sums():
            raise Conflict("memory", "target", "has changed since it was copied: it is in use. Name an empty database")
        self._target.write(lambda uow: uow.maintenance.copies.set_mark({"source": identity, "sums": None}))

    def _target_sums(self) -> dict[str, str]:
        return self._target.read(lambda uow: {part.name: summed(uow.maintenance.copies, part).hex for part in PARTS})

    def delete_what_is_gone(self) -> None:
        """From the last table to the first, before anything is written: a name that was free again may be taken."""
        if not any(self._target.read(lambda uow: uow.maintenance.copies.counts()).values()):
            return
        for part in reversed(PARTS):
            after = None
            while keys := self._target.read(lambda uow: uow.maintenance.copies.keys(part, after, None, limit=_DELETED)):  # noqa: B023
                here = set(self._source.keys(part, after, keys[-1]))
                gone = [key for key in keys if key not in here]
                if gone:
                    self._target.write(lambda uow: uow.maintenance.copies.delete(part, gone))  # noqa: B023 - called at once
                    self.deleted[part.name] += len(gone)
                after = keys[-1]

    def put_rows(self) -> None:
        for part in PARTS:
            for mine, theirs in self._blocks(part):
                self._put(part, mine, theirs)
                self._tell(len(mine))
            number = self._source.last_number(part) if part.numbered else 0
            if number:
                self._target.write(lambda uow: uow.maintenance.copies.give_none_below(part, number))  # noqa: B023 - called at once

    def _blocks(self, part: Part) -> Iterator[tuple[list[Row], list[Row]]]:
        """Each with what the target has now: a transaction of its own for each."""
        after = None
        while (last := self._source.block_end(part, after)) is not None:
            mine = self._source.rows(part, after, last)
            theirs = self._target.read(lambda uow: uow.maintenance.copies.rows(part, after, last))  # noqa: B023 - called at once
            yield mine, theirs
            after = last

    def _put(self, part: Part, mine: list[Row], theirs: list[Row]) -> None:
        there = {row[part.key]: encoded(row, part.copied) for row in theirs}
        differing = [row for row in mine if there.get(row[part.key]) != encoded(row, part.copied)]
        if differing:
            self._target.write(lambda uow: uow.maintenance.copies.put(part, differing, there))
            self.written[part.name] += len(differing)

    def set_links(self) -> None:
        """What names a row of its own table, now that all of them are there."""
        for part in PARTS:
            if part.link is None:
                continue
            for mine, theirs in self._blocks(part):
                there = {row[part.key]: row[part.link] for row in theirs}
                wrong = {row[part.key]: row[part.link] for row in mine if there.get(row[part.key]) != row[part.link]}
                if wrong:
                    self._target.write(lambda uow: uow.maintenance.copies.link(part, wrong))  # noqa: B023 - called at once

    def end(self, identity: str) -> dict[str, Sum]:
        """Both sides once more, row by row. Raises StorageError where they differ."""

        def read(theirs: Copies) -> dict[str, tuple[Sum, Sum]]:
            return {part.name: compared(self._source, theirs, part, self._tell) for part in PARTS}

        sums = self._target.read(lambda uow: read(uow.maintenance.copies))
        wrong = [name for name, (mine, theirs) in sums.items() if mine != theirs]
        if wrong:
            raise StorageError(
                f"the copy differs from its source in {', '.join(wrong)}: somebody else writes to it, or it is "
                "damaged. End that, and copy again"
            )
        # Of what was compared: what somebody writes from here on is a change since.
        checksums = {name: theirs.hex for name, (_, theirs) in sums.items()}
        self._target.write(lambda uow: uow.maintenance.copies.set_mark({"source": identity, "sums": checksums}))
        return {name: mine for name, (mine, _) in sums.items()}

    def _tell(self, rows: int) -> None:
        self._done += rows
        if self._progress is not None and rows:
            self._progress(min(self._done, self._total), self._total)


def _refuse_itself(source: Database, target: Database) -> None:
    mine, theirs = sqlite_path(source.url), sqlite_path(target.url)
    if mine is not None and theirs is not None:
        same = mine.exists() and theirs.exists() and mine.samefile(theirs)
    else:
        on_server = source.url.get_backend_name() == "postgresql"  # two memories in memory have one URL
        same = on_server and source.url == target.url and source.options.schema == target.options.schema
    if same or source is target:
        raise InvalidInput("other", "is this memory itself; name another database")


def _identity(database: Database) -> str:
    """The same for the same database at the next run; it names nothing."""
    place = f"{display(database.url)} {database.options.schema}"
    return hashlib.blake2b(place.encode(), digest_size=16).hexdigest()
