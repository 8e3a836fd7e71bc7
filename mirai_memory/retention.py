"""Cleaning up: many small transactions, between which others write, and of which any may be the last."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mirai_memory.logging import logger
from mirai_memory.unit_of_work import Store, UnitOfWork

Progress = Callable[[int, int], object]

# A batch holds the write lock. It should take less than half of the 100 ms that others may have to wait: the commit
# comes on top, and the next batch may have longer texts.
_WANTED_S = 0.04
_FIRST, _FEWEST, _MOST = 100, 10, 2_000  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """How many rows of each table went, or with ``dry_run`` would go, because they were older than ``before``, or had
    expired."""

    before: datetime
    dry_run: bool
    sessions: int = 0
    messages: int = 0
    tasks: int = 0
    knowledge: int = 0
    embeddings: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "before": self.before.isoformat()}


class Pace:
    """How many rows fit into the time of a batch, by how long the last ones took."""

    def __init__(self) -> None:
        self.rows = _FIRST
        self._began = 0.0

    def timed(self, fn: Callable[[UnitOfWork, int], Counter[str]]) -> Callable[[UnitOfWork], Counter[str]]:
        def run(uow: UnitOfWork) -> Counter[str]:
            started = time.perf_counter()  # when the lock is held
            gone = fn(uow, self.rows)
            self._took(time.perf_counter() - started, gone.total())
            return gone

        return run

    def _took(self, seconds: float, gone: int) -> None:
        # Twice as many at most: what was quick with few rows may not be so with many.
        fitting = int(gone * _WANTED_S / seconds) if seconds else _MOST
        self.rows = max(_FEWEST, min(fitting, 2 * self.rows, _MOST)) if gone >= self.rows / 2 else self.rows


def clean_up(store: Store, before: datetime, *, dry_run: bool, progress: Progress | None) -> Cleanup:
    """Delete sessions unused since ``before`` with all in them, and facts that have expired."""
    due: Counter[str] = Counter()
    if dry_run or progress is not None:
        due = store.read(lambda uow: uow.retention.due(before))
    if dry_run:
        return Cleanup(before=before, dry_run=True, **due)
    gone: Counter[str] = Counter()
    total = due.total()
    sweeps: tuple[Callable[[UnitOfWork, int], Counter[str]], ...] = (
        lambda uow, rows: uow.retention.sweep_sessions(before, rows=rows),
        lambda uow, rows: uow.retention.sweep_facts(rows=rows),
    )
    for sweep in sweeps:
        pace = Pace()
        while batch := +store.write(pace.timed(sweep)):
            gone += batch
            if progress is not None:
                progress(gone.total(), max(total, gone.total()))
    logger.info("cleanup: {} sessions deleted, {} expired facts", gone["sessions"], gone["knowledge"])
    return Cleanup(before=before, dry_run=False, **gone)
