"""Which summariser the settings mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirai_memory.summaries.base import Summarizer
from mirai_memory.tokens import TokenCounter

if TYPE_CHECKING:
    from mirai_memory.config import Settings

__all__ = ["open_summarizer"]


def open_summarizer(settings: Settings, counter: TokenCounter) -> Summarizer:
    """The summariser of ``memory.short_term.summarizer``. Raises MissingExtra for a package that is not installed."""
    if settings.memory.short_term.summarizer == "openai":
        from mirai_memory.chat_model import ChatModel
        from mirai_memory.summaries.openai_ import ChatSummarizer

        return ChatSummarizer(ChatModel(settings.models.chat, settings.security.api_keys))
    from mirai_memory.summaries.extractive import ExtractiveSummarizer

    return ExtractiveSummarizer(counter)
