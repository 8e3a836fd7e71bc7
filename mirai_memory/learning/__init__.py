"""Learning from conversations: what is proposed, by whom, and which of it is sound."""

from __future__ import annotations

from mirai_memory.learning.base import Extractor, Proposals, ProposedFact, ProposedPreference
from mirai_memory.learning.choose import open_extractor
from mirai_memory.learning.report import Learned, LearnedItem

__all__ = [
    "Extractor",
    "Learned",
    "LearnedItem",
    "Proposals",
    "ProposedFact",
    "ProposedPreference",
    "open_extractor",
]
