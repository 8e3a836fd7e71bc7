"""A whole memory, moved to another database or engine."""

from __future__ import annotations

from mirai_memory.copying.run import Copied, copy_memory

__all__ = ["Copied", "copy_memory"]
