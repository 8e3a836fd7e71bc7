"""What became of each proposal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mirai_memory.learning.base import ProposedFact, ProposedPreference

__all__ = ["Learned", "LearnedItem", "Outcome"]

Outcome = Literal["proposed", "applied", "refreshed", "kept", "rejected", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedItem:
    """One proposal and what became of it.

    ``proposed`` (nothing was changed yet), ``applied`` (stored), ``refreshed`` (known, and said again), ``kept`` (what
    is known stays), ``rejected`` (by the policy ``reject``), ``refused`` (it breaks a rule, which ``note`` names; then
    ``proposal`` may be None). ``replaces`` is the value that it replaces, or would replace; ``id`` the fact's.
    """

    proposal: ProposedFact | ProposedPreference | None
    outcome: Outcome
    note: str = ""
    replaces: str | list[str] | None = None
    id: int | None = None

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """The item as JSON-ready data."""
        return {
            "outcome": self.outcome,
            "note": self.note,
            "replaces": self.replaces,
            "id": self.id,
            "proposal": None if self.proposal is None else self.proposal.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a session taught: the messages with ``after`` < position <= ``through``, and an item for each proposal.

    ``messages`` is how many of them could teach something; ``extractor`` the name of who proposed.
    """

    session_id: str
    extractor: str
    after: int
    through: int
    messages: int = 0
    items: list[LearnedItem] = field(default_factory=list)

    __hash__ = None  # type: ignore[assignment]

    def only(self, wanted: Callable[[LearnedItem], object]) -> Learned:
        """The same with those items only for which ``wanted`` is true: what ``learn(proposals=...)`` is to apply."""
        return replace(self, items=[item for item in self.items if wanted(item)])

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {
            "session_id": self.session_id,
            "extractor": self.extractor,
            "after": self.after,
            "through": self.through,
            "messages": self.messages,
            "items": [item.to_dict() for item in self.items],
        }
