"""Is the memory well? Every part is looked at, each within a time limit; nothing is made, changed or repaired.

To add a check, write a function ``(probe) -> Finding`` in one of these modules and list it in ``run.STEPS``.
"""

from __future__ import annotations

from mirai_memory.health.report import Check, Health, Status
from mirai_memory.health.run import check_health

__all__ = ["Check", "Health", "Status", "check_health"]
