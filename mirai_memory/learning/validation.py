"""Which proposals are sound. An extractor may be a model, and a model may say anything: each is judged by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from mirai_memory import _checks
from mirai_memory.entities import Knowledge, Message
from mirai_memory.errors import InvalidInput, ModelError
from mirai_memory.learning.base import Proposals, ProposedFact, ProposedPreference
from mirai_memory.learning.report import LearnedItem

__all__ = ["MOST_PROPOSALS", "Rules", "judged"]

MOST_PROPOSALS = 50  # of one call; more than that is no choice any more
MAX_VALUE, MAX_KEY, MAX_CATEGORY, _MAX_REASON, _MOST_SOURCES = 2_000, 100, 50, 500, 50

# Words of any script, joined by "_": a later value finds the earlier one by it.
_KEY = re.compile(r"[^\W\d_]\w*")
_BETWEEN = re.compile(r"[\s-]+")

Proposed = ProposedFact | ProposedPreference
Checked = TypeVar("Checked", ProposedFact, ProposedPreference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What proposals may name: messages by id, keys that are in use, preferences that are kept."""

    messages: Mapping[int, Message]
    known: Set[tuple[str, str]] = frozenset()
    preferences: Set[str] = frozenset()

    @classmethod
    def of(cls, messages: Iterable[Message], known: Iterable[Knowledge], preferences: Iterable[str]) -> Rules:
        return cls(
            messages={message.id: message for message in messages if message.id is not None},
            known={(fact.category, fact.key) for fact in known if fact.key is not None},
            preferences=frozenset(preferences),
        )

    def newest(self, proposal: Proposed) -> Message:
        """The message that said it last."""
        return max((self.messages[id] for id in proposal.message_ids), key=lambda message: message.position or 0)


def judged(
    proposals: Any, rules: Rules, extractor: str, *, most: int = MOST_PROPOSALS
) -> tuple[list[Proposed], list[LearnedItem]]:
    """Those that are sound, in their order, and an item for each that is refused. Raises ModelError for no answer."""
    lists: list[Any] = [proposals.facts, proposals.preferences] if isinstance(proposals, Proposals) else [None]
    if not all(isinstance(some, (list, tuple)) for some in lists):
        raise ModelError(f"extractor {extractor!r} answered with something that is no proposals")
    sound: dict[tuple[str, ...], Proposed] = {}
    refused: list[LearnedItem] = []
    for number, (place, proposal) in enumerate(_each(proposals)):
        try:
            if number >= most:
                raise InvalidInput(place, f"more than {most} proposals were made at once")
            checked = _checked(proposal, rules)
        except InvalidInput as error:
            refused.append(_refusal(f"{place}: {error.field} {error.rule}" if error.field != place else str(error)))
            continue
        key = _key(checked)
        other = sound.get(key)
        if other is not None:
            # What was said last holds.
            _, checked = sorted((other, checked), key=lambda one: rules.newest(one).position or 0)
            refused.append(_refusal(f"{place}: another proposal says something of the same"))
        sound[key] = checked
    return list(sound.values()), refused


def _refusal(note: str) -> LearnedItem:
    return LearnedItem(proposal=None, outcome="refused", note=note)


def _each(proposals: Proposals) -> Iterable[tuple[str, Any]]:
    yield from ((f"facts[{number}]", fact) for number, fact in enumerate(proposals.facts))
    yield from ((f"preferences[{number}]", like) for number, like in enumerate(proposals.preferences))


def _key(proposal: Proposed) -> tuple[str, ...]:
    if isinstance(proposal, ProposedFact):
        return "fact", proposal.category, proposal.key
    return "preference", proposal.field


def _checked(proposal: Any, rules: Rules) -> Proposed:
    if isinstance(proposal, ProposedFact):
        return _fact(proposal, rules)
    if isinstance(proposal, ProposedPreference):
        return _preference(proposal, rules)
    raise InvalidInput("proposal", f"must be a ProposedFact or a ProposedPreference, not {type(proposal).__name__}")


def _fact(fact: ProposedFact, rules: Rules) -> ProposedFact:
    category = _checks.name("category", fact.category, limit=_checks.MAX_CATEGORY)
    key = _checks.name("key", fact.key)
    if (category, key) not in rules.known:  # those in use are as somebody has made them
        category, key = _formed("category", category, MAX_CATEGORY), _formed("key", key, MAX_KEY)
    return ProposedFact(category=category, key=key, value=_text("value", fact.value), **_common(fact, rules))


def _formed(field: str, name: str, limit: int) -> str:
    """One spelling for each name: "Home City" and "home-city" are home_city."""
    formed = _BETWEEN.sub("_", name.strip().lower())
    if len(formed) > limit or not _KEY.fullmatch(formed):
        raise InvalidInput(field, f"must be words joined by '_', of at most {limit} characters")
    return formed


def _preference(preference: ProposedPreference, rules: Rules) -> ProposedPreference:
    field = _checks.one_of("field", preference.field, sorted(rules.preferences))
    value: str | list[str]
    if field == "favorite_tools":
        value = [_text("value", tool) for tool in _checks.texts("value", preference.value, limit=MAX_VALUE)]
        if not value:
            raise InvalidInput("value", "must not be empty")
    else:
        value = _text("value", preference.value)
    return ProposedPreference(field=field, value=value, **_common(preference, rules))


def _text(field: str, value: Any) -> str:
    text = _checks.text(field, value, limit=MAX_VALUE).strip()
    if not text:
        raise InvalidInput(field, "must not be empty")
    return text


def _common(proposal: Any, rules: Rules) -> dict[str, Any]:
    return {
        "confidence": _checks.number("confidence", proposal.confidence, least=0.0, most=1.0),
        "message_ids": _sources(proposal.message_ids, rules),
        "reason": _checks.text("reason", proposal.reason, limit=_checks.MAX_LABEL)[:_MAX_REASON],
    }


def _sources(ids: Any, rules: Rules) -> list[int]:
    given = _checks.items("message_ids", ids)
    if not 1 <= len(given) <= _MOST_SOURCES:
        raise InvalidInput("message_ids", f"must name between 1 and {_MOST_SOURCES} messages")
    if not all(isinstance(id, int) and not isinstance(id, bool) and id in rules.messages for id in given):
        raise InvalidInput("message_ids", "name a message that nothing can be learned from here")
    return sorted(set(given))
