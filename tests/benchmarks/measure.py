"""Timing of arms in turn, so that a noisy moment of the machine falls on all of them, and the table of the results."""

from __future__ import annotations

import math
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy

Call = Callable[[], object]
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One arm of one benchmark; times in nanoseconds. ``ratio`` compares the medians with those of the ``base`` arm."""

    benchmark: str
    arm: str
    calls: int
    p50: float
    p95: float
    ratio: float | None
    base: str | None


def interleaved(benchmark: str, arms: Mapping[str, Call], *, rounds: int, base: str, warm_up: int = 3) -> list[Result]:
    """Time every arm ``rounds`` times, one call of each in turn, each round beginning with another."""
    names = list(arms)
    for _ in range(warm_up):
        for call in arms.values():
            call()
    times: dict[str, list[int]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter_ns()
            arms[name]()
            times[name].append(time.perf_counter_ns() - started)
    middle = statistics.median(times[base])
    return [
        Result(
            benchmark=benchmark,
            arm=name,
            calls=rounds,
            p50=statistics.median(taken),
            p95=sorted(taken)[math.ceil(0.95 * rounds) - 1],
            ratio=None if name == base else statistics.median(taken) / middle,
            base=None if name == base else base,
        )
        for name, taken in times.items()
    ]


def table(results: list[Result]) -> str:
    lines = ["| benchmark | arm | calls | p50 | p95 | p50 ratio |", "|---|---|---:|---:|---:|---:|"]
    for item in results:
        ratio = "" if item.ratio is None else f"{item.ratio:.2f} x {item.base}"
        cells = (item.benchmark, item.arm, str(item.calls), _shown(item.p50), _shown(item.p95), ratio)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(nanoseconds: float) -> str:
    for size, unit in _UNITS:
        if nanoseconds >= size:
            return (
                f"{nanoseconds / size:.3g} {unit}" if nanoseconds < 1000 * size else f"{nanoseconds / size:.0f} {unit}"
            )
    return f"{nanoseconds:.0f} ns"


def machine() -> dict[str, Any]:
    """What figures depend on and anybody may know."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlalchemy": sqlalchemy.__version__,
        "load": [round(value, 1) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def report(results: list[Result], facts: dict[str, Any]) -> dict[str, Any]:
    """The results as JSON-ready data."""
    return {"at": datetime.now(UTC).isoformat(), "machine": facts, "results": [asdict(item) for item in results]}


def memory_folder() -> Path | None:
    """A folder in memory, where a sync costs nothing; None where the system has none."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else None
