"""Is the memory well? Every part is looked at, each within a time limit; nothing is made, changed or repaired.

To add a check, write a function ``(probe) -> Finding`` in one of these modules and list it in ``run.STEPS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mirai_memory.health.report import Check, Health, Status

if TYPE_CHECKING:
    from mirai_memory.health.run import check_health

__all__ = ["Check", "Health", "Status", "check_health"]


def __getattr__(name: str) -> Any:
    """The checks are loaded when they are first asked for: ``Health`` alone is what every process needs."""
    if name != "check_health":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mirai_memory.health.run import check_health

    return check_health
