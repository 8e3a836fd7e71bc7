"""What a summariser is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mirai_memory.entities import Message

__all__ = ["Summarizer"]


@runtime_checkable
class Summarizer(Protocol):
    """Makes one text of a conversation's beginning. Any object with these two will do.

    It is called by several threads, outside of any transaction, and may be slow or fail: a failure costs the summary,
    never a message. It may also have ``longest_s``: after so many seconds its answer is waited for no longer.
    """

    @property
    def name(self) -> str:
        """What stands in ``Session.summary_method``."""

    def summarize(self, messages: Sequence[Message], *, previous: str | None, max_tokens: int) -> str:
        """A summary of ``previous``, the summary of all that was said before, and of ``messages``, in their order.

        It should have no more than ``max_tokens`` tokens: what is longer is cut off behind a sentence.
        """
