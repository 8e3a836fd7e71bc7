"""The declaration of every table; the schema itself is made by ``migrations/`` alone."""

from __future__ import annotations

from mirai_memory.models.base import Base
from mirai_memory.models.embeddings import EmbeddingRow
from mirai_memory.models.knowledge import KnowledgeRow
from mirai_memory.models.messages import MessageRow
from mirai_memory.models.preferences import PreferencesRow
from mirai_memory.models.sessions import SessionRow
from mirai_memory.models.state import StateRow
from mirai_memory.models.tasks import TaskRow

__all__ = [
    "Base",
    "EmbeddingRow",
    "KnowledgeRow",
    "MessageRow",
    "PreferencesRow",
    "SessionRow",
    "StateRow",
    "TaskRow",
]
