"""The memory of an AI agent: conversations, preferences, tasks and knowledge, kept across runs and found again.

>>> from mirai_memory import MemoryManager, Message
>>> with MemoryManager(":memory:") as memory:
...     session = memory.create_session("alice")
...     _ = memory.add_message(Message(session_id=session.id, role="user", content="I prefer short answers"))
...     [found.content for found in memory.search_messages("an answer, shortly", user_id="alice")]
['I prefer short answers']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mirai_memory._version import __version__

if TYPE_CHECKING:
    from mirai_memory.aio import AsyncMemoryManager, AsyncUserMemory
    from mirai_memory.config import Settings, load_settings
    from mirai_memory.embeddings import Embedder
    from mirai_memory.entities import (
        Context,
        Duplicate,
        Knowledge,
        KnowledgeChange,
        KnowledgeDiff,
        Message,
        Omitted,
        Session,
        Task,
        UserPreferences,
    )
    from mirai_memory.errors import (
        Busy,
        ConfigurationError,
        Conflict,
        Corrupt,
        EmbeddingError,
        ForeignDatabase,
        InvalidInput,
        MiraiMemoryError,
        MissingExtra,
        ModelError,
        NotFound,
        ReadOnly,
        SchemaError,
        SchemaOutOfDate,
        SchemaTooNew,
        StorageError,
        StorageFull,
    )
    from mirai_memory.learning import (
        Extractor,
        Learned,
        LearnedItem,
        Proposals,
        ProposedFact,
        ProposedPreference,
    )
    from mirai_memory.logging import LogHandle, configure_logging
    from mirai_memory.manager import MemoryManager, get_memory_manager
    from mirai_memory.model_calls import logged_model_call, model_call
    from mirai_memory.reranking import Reranker
    from mirai_memory.scoped import UserMemory
    from mirai_memory.summaries import Summarizer
    from mirai_memory.tokens import TokenCounter
    from mirai_memory.unit_of_work import UnitOfWork

# Imported when first asked for: `import mirai_memory` itself loads no SQLAlchemy, pydantic or loguru, which together
# take most of a second.
_HOMES = {
    "mirai_memory.aio": ("AsyncMemoryManager", "AsyncUserMemory"),
    "mirai_memory.config": ("Settings", "load_settings"),
    "mirai_memory.embeddings": ("Embedder",),
    "mirai_memory.entities": (
        "Context",
        "Duplicate",
        "Knowledge",
        "KnowledgeChange",
        "KnowledgeDiff",
        "Message",
        "Omitted",
        "Session",
        "Task",
        "UserPreferences",
    ),
    "mirai_memory.errors": (
        "Busy",
        "ConfigurationError",
        "Conflict",
        "Corrupt",
        "EmbeddingError",
        "ForeignDatabase",
        "InvalidInput",
        "MiraiMemoryError",
        "MissingExtra",
        "ModelError",
        "NotFound",
        "ReadOnly",
        "SchemaError",
        "SchemaOutOfDate",
        "SchemaTooNew",
        "StorageError",
        "StorageFull",
    ),
    "mirai_memory.learning": (
        "Extractor",
        "Learned",
        "LearnedItem",
        "Proposals",
        "ProposedFact",
        "ProposedPreference",
    ),
    "mirai_memory.logging": ("LogHandle", "configure_logging"),
    "mirai_memory.manager": ("MemoryManager", "get_memory_manager"),
    "mirai_memory.model_calls": ("logged_model_call", "model_call"),
    "mirai_memory.reranking": ("Reranker",),
    "mirai_memory.scoped": ("UserMemory",),
    "mirai_memory.summaries": ("Summarizer",),
    "mirai_memory.tokens": ("TokenCounter",),
    "mirai_memory.unit_of_work": ("UnitOfWork",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncMemoryManager",
    "AsyncUserMemory",
    "Busy",
    "ConfigurationError",
    "Conflict",
    "Context",
    "Corrupt",
    "Duplicate",
    "Embedder",
    "EmbeddingError",
    "Extractor",
    "ForeignDatabase",
    "InvalidInput",
    "Knowledge",
    "KnowledgeChange",
    "KnowledgeDiff",
    "Learned",
    "LearnedItem",
    "LogHandle",
    "MemoryManager",
    "Message",
    "MiraiMemoryError",
    "MissingExtra",
    "ModelError",
    "NotFound",
    "Omitted",
    "Proposals",
    "ProposedFact",
    "ProposedPreference",
    "ReadOnly",
    "Reranker",
    "SchemaError",
    "SchemaOutOfDate",
    "SchemaTooNew",
    "Session",
    "Settings",
    "StorageError",
    "StorageFull",
    "Summarizer",
    "Task",
    "TokenCounter",
    "UnitOfWork",
    "UserMemory",
    "UserPreferences",
    "__version__",
    "configure_logging",
    "get_memory_manager",
    "load_settings",
    "logged_model_call",
    "model_call",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
