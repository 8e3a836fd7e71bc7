"""What helps to test an application that keeps its memory here. Needs the extra ``testing``.

FrozenClock and what is called Fake do without it. ``mirai_memory.testing.plugin`` has the fixtures, ``factories`` makes
entities, and a test class that inherits ``MemoryContract`` holds a database to what every backend owes, one that
inherits ``EmbedderContract`` an embedder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirai_memory.testing.canary import OwnerCanary
    from mirai_memory.testing.clock import FrozenClock
    from mirai_memory.testing.contract import MemoryContract
    from mirai_memory.testing.contract.embedders import EmbedderContract
    from mirai_memory.testing.embedders import FakeEmbedder
    from mirai_memory.testing.extractors import FakeExtractor
    from mirai_memory.testing.factories import (
        KnowledgeFactory,
        MessageFactory,
        PreferencesFactory,
        SessionFactory,
        TaskFactory,
    )
    from mirai_memory.testing.summarizers import FakeSummarizer

# Imported when first asked for: the clock and the embedder are of use without pytest and factory-boy.
_HOME_OF = {
    "EmbedderContract": "contract.embedders",
    "FakeEmbedder": "embedders",
    "FakeExtractor": "extractors",
    "FakeSummarizer": "summarizers",
    "FrozenClock": "clock",
    "KnowledgeFactory": "factories",
    "MemoryContract": "contract",
    "MessageFactory": "factories",
    "OwnerCanary": "canary",
    "PreferencesFactory": "factories",
    "SessionFactory": "factories",
    "TaskFactory": "factories",
}

__all__ = [
    "EmbedderContract",
    "FakeEmbedder",
    "FakeExtractor",
    "FakeSummarizer",
    "FrozenClock",
    "KnowledgeFactory",
    "MemoryContract",
    "MessageFactory",
    "OwnerCanary",
    "PreferencesFactory",
    "SessionFactory",
    "TaskFactory",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
