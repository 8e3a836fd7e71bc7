"""A JSON log as a table: calls, errors, tokens and latencies per model."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class ModelSummary:
    """What one model was asked, and how it did."""

    model: str
    calls: int = 0
    errors: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))

    def add(self, record: dict[str, Any]) -> None:
        self.calls += 1
        self.errors += record.get("error_code") is not None
        self.tokens_in += int(_number(record.get("tokens_in")) or 0)
        self.tokens_out += int(_number(record.get("tokens_out")) or 0)
        latency = _number(record.get("latency_ms"))
        if latency is not None:
            self.latencies.append(latency)

    def to_dict(self) -> dict[str, Any]:
        ordered = sorted(self.latencies)
        return {
            "model": self.model,
            "calls": self.calls,
            "errors": self.errors,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "latency_ms_p50": _percentile(ordered, 50),
            "latency_ms_p95": _percentile(ordered, 95),
        }


@dataclass(slots=True)
class LogSummary:
    """The models of a log by name, and how many of its lines were no records."""

    models: dict[str, ModelSummary] = field(default_factory=dict)
    lines: int = 0
    bad_lines: int = 0

    def to_dict(self) -> dict[str, Any]:
        models = [self.models[name].to_dict() for name in sorted(self.models)]
        return {"models": models, "lines": self.lines, "bad_lines": self.bad_lines}


def summarize(paths: Iterable[Path]) -> LogSummary:
    """Everything in these files, read line by line. Raises OSError."""
    summary = LogSummary()
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                _count(summary, line)
    return summary


def with_rotated(path: Path) -> list[Path]:
    """``path`` and the files it was rotated into, the oldest first."""
    numbers = (sibling.name.removeprefix(f"{path.name}.") for sibling in path.parent.iterdir())
    old = sorted((int(number) for number in numbers if number.isascii() and number.isdigit()), reverse=True)
    siblings = [path.with_name(f"{path.name}.{number}") for number in old]
    # Just rotated, and nothing written since: the path itself is empty.
    return [*siblings, path] if path.exists() or not siblings else siblings


def _count(summary: LogSummary, line: bytes) -> None:
    summary.lines += 1
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    model = record.get("model") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(model, str | None):
        summary.bad_lines += 1
    elif model is not None:
        if model not in summary.models:
            summary.models[model] = ModelSummary(model)
        summary.models[model].add(record)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value < math.inf else None


def _percentile(ordered: list[float], percent: int) -> float | None:
    """The nearest rank: a latency that occurred."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None
