"""Which extractor the settings mean. Opening one asks nobody anything: that is left to the first ``learn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirai_memory.learning.base import Extractor

if TYPE_CHECKING:
    from mirai_memory.config import Settings

__all__ = ["open_extractor"]


def open_extractor(settings: Settings) -> Extractor | None:
    """The extractor of ``memory.long_term.extractor``; None for ``none``. Raises MissingExtra."""
    if settings.memory.long_term.extractor == "none":
        return None
    from mirai_memory.chat_model import ChatModel
    from mirai_memory.learning.openai_ import OpenAIExtractor

    return OpenAIExtractor(ChatModel(settings.models.chat, settings.security.api_keys))
