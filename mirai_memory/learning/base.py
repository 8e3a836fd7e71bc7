"""What an extractor is, and what it proposes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from mirai_memory.entities import Knowledge, Message, UserPreferences

__all__ = ["Extractor", "Proposals", "ProposedFact", "ProposedPreference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedFact:
    """A fact that messages tell: ``(category, key) -> value``.

    ``message_ids`` are those of the messages that say so, at least one; ``reason`` is a word on why it matters.
    """

    key: str
    value: str
    message_ids: Sequence[int]
    category: str = "general"
    confidence: float = 1.0
    reason: str = ""

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """The proposal as JSON-ready data."""
        return {"kind": "fact", **_values(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedPreference:
    """A new value of one of the fields of UserPreferences; of ``favorite_tools`` those that are to be added."""

    field: str
    value: str | list[str]
    message_ids: Sequence[int]
    confidence: float = 1.0
    reason: str = ""

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """The proposal as JSON-ready data."""
        return {"kind": "preference", **_values(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposals:
    """What an extractor found in some messages."""

    facts: Sequence[ProposedFact] = field(default_factory=list)
    preferences: Sequence[ProposedPreference] = field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """The proposals as JSON-ready data."""
        return {
            "facts": [fact.to_dict() for fact in self.facts],
            "preferences": [preference.to_dict() for preference in self.preferences],
        }


def _values(proposal: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(proposal), "message_ids": list(proposal.message_ids)}


@runtime_checkable
class Extractor(Protocol):
    """Finds facts and preferences in messages. Any object with these two will do.

    It is called outside of any transaction, may be slow, and may fail: then nothing is learned, and the same messages
    are given to it again. Several threads may call it at once. One that takes longer than five minutes should have
    ``longest_s``, the seconds that a call takes at most: other processes keep away from the session for as long.
    """

    @property
    def name(self) -> str:
        """What it is; the ``source`` of the facts that are learned through it."""

    def extract(
        self, messages: Sequence[Message], *, known: Sequence[Knowledge], preferences: UserPreferences | None
    ) -> Proposals:
        """What the messages teach, in their order and all of one session; only theirs are the ids to name.

        ``known`` are facts that may be meant: a proposal with the category and the key of one of them replaces its
        value. What is proposed is checked one by one, and what breaks a rule is left out.
        """
