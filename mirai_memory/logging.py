"""The package's logger: silent until somebody asks.

Importing this module disables the ``mirai_memory`` namespace in loguru; ``logger.enable("mirai_memory")`` lets the
host's own sinks have it. Ids, sizes and latencies are logged, never content, preferences, vectors or passwords.
"""

from __future__ import annotations

from loguru import logger

logger.disable("mirai_memory")

__all__ = ["logger"]
