"""What a check says, and what all of them say together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the memory: how it is, and what to do where it is not well. No content and no secret is in it."""

    name: str
    status: Status
    detail: str
    advice: str | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Health:
    """Every check in order; ``ok`` unless one of them is an error."""

    ok: bool
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"ok": self.ok, "checks": [check.to_dict() for check in self.checks]}


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's answer; its name and its time are added by who ran it."""

    status: Status
    detail: str
    advice: str | None = None


def ok(detail: str) -> Finding:
    return Finding("ok", detail)


def warning(detail: str, advice: str) -> Finding:
    return Finding("warning", detail, advice)


def error(detail: str, advice: str) -> Finding:
    return Finding("error", detail, advice)


def megabytes(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


class Skip(Exception):
    """Raised by a check that has nothing to look at; its text says why."""


class Unfinished(Exception):
    """Raised in a check whose statement was stopped because its time was up."""
