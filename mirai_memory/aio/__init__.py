"""The memory for asyncio: the same house with another entrance.

``AsyncMemoryManager`` and ``AsyncUserMemory`` have the methods of MemoryManager and UserMemory, awaited. Each hands one
call to a thread of its own; nothing is implemented twice. Needs asyncio; trio is not served.
"""

from __future__ import annotations

from mirai_memory.aio.manager import AsyncMemoryManager
from mirai_memory.aio.scoped import AsyncUserMemory

__all__ = ["AsyncMemoryManager", "AsyncUserMemory"]
