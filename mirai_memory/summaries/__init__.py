"""Summaries of conversations: the protocol of a summariser, those that the settings can name, and the guard around any.

Importing this loads no summariser's package.
"""

from __future__ import annotations

from mirai_memory.summaries.base import Summarizer
from mirai_memory.summaries.choose import open_summarizer
from mirai_memory.summaries.guard import GuardedSummarizer

__all__ = ["GuardedSummarizer", "Summarizer", "open_summarizer"]
