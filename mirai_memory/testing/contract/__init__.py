"""What every backend owes, as a test class to inherit.

::

    class TestMyDatabase(MemoryContract):
        @pytest.fixture
        def memory(self, clock):
            with MemoryManager(MY_URL, clock=clock) as memory:
                yield memory
"""

from __future__ import annotations

import pytest

_PARTS = (
    "sessions", "messages", "windows", "preferences", "tasks", "knowledge", "search", "scope", "work", "values",
    "embedders",
)  # fmt: skip
# Before they are imported: a failing assert in them then shows its values, as one in a test file does.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from mirai_memory.testing.clock import FrozenClock  # noqa: E402
from mirai_memory.testing.contract.knowledge import KnowledgeContract  # noqa: E402
from mirai_memory.testing.contract.messages import MessageContract  # noqa: E402
from mirai_memory.testing.contract.preferences import PreferencesContract  # noqa: E402
from mirai_memory.testing.contract.scope import ScopeContract  # noqa: E402
from mirai_memory.testing.contract.search import SearchContract  # noqa: E402
from mirai_memory.testing.contract.sessions import SessionContract  # noqa: E402
from mirai_memory.testing.contract.tasks import TaskContract  # noqa: E402
from mirai_memory.testing.contract.values import ValueContract  # noqa: E402
from mirai_memory.testing.contract.windows import WindowContract  # noqa: E402
from mirai_memory.testing.contract.work import WorkContract  # noqa: E402

__all__ = ["MemoryContract"]


class MemoryContract(
    SessionContract,
    MessageContract,
    WindowContract,
    PreferencesContract,
    TaskContract,
    KnowledgeContract,
    SearchContract,
    ScopeContract,
    WorkContract,
    ValueContract,
):
    """The tests. A subclass provides ``memory``: a MemoryManager on an empty database with the frozen ``clock``."""

    @pytest.fixture
    def clock(self) -> FrozenClock:
        """Stands at 2026-01-15T12:00:00Z until a test advances it."""
        return FrozenClock()
