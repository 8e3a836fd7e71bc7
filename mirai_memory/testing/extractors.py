"""An extractor for tests, which needs no model and fails on demand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mirai_memory.entities import Knowledge, Message, UserPreferences
from mirai_memory.learning import Proposals, ProposedFact, ProposedPreference
from mirai_memory.testing._scripted import Scripted

__all__ = ["FakeExtractor"]

_FACT = re.compile(r"\b[Mm]y ([^\W\d_][\w ]*?) is ([^.!?;\n]+)")
_TONE = re.compile(r"\b[Pp]lease be ([a-z]+)")


class FakeExtractor(Scripted):
    """Proposes a fact for each "my home city is Perm", and a tone for "please be brief"; the same in every process.

    ::

        extractor = FakeExtractor()
        extractor.fail()                        # ConnectionError from now on; or any exception you hand in
        extractor.answer_with(Proposals())      # this, whatever it is given
        extractor.hang()                        # no answer before release()
        extractor.recover()                     # as at first
        assert extractor.calls == 0             # what it was given is in extractor.messages, .known, .preferences
    """

    def __init__(self, *, name: str = "fake", confidence: float = 0.9, category: str = "profile") -> None:
        super().__init__("extractor")
        self.name = name
        self.confidence = confidence
        self.category = category
        self.calls = 0
        self.messages: list[list[Message]] = []
        self.known: list[list[Knowledge]] = []
        self.preferences: list[UserPreferences | None] = []

    def extract(
        self, messages: Sequence[Message], *, known: Sequence[Knowledge], preferences: UserPreferences | None
    ) -> Any:
        """Proposals, or what it was told to do."""
        with self._counting:
            self.calls += 1
            self.messages.append(list(messages))
            self.known.append(list(known))
            self.preferences.append(preferences)
        return self._as_told(lambda: self._proposals(messages))

    def _proposals(self, messages: Sequence[Message]) -> Proposals:
        return Proposals(
            facts=[fact for message in messages for fact in self._facts(message)],
            preferences=[tone for message in messages for tone in self._tones(message)],
        )

    def _facts(self, message: Message) -> Iterator[ProposedFact]:
        for found in _FACT.finditer(message.content):
            yield ProposedFact(
                category=self.category,
                key="_".join(found[1].lower().split()),
                value=found[2].strip(),
                confidence=self.confidence,
                message_ids=[message.id or 0],
                reason="they said so",
            )

    def _tones(self, message: Message) -> Iterator[ProposedPreference]:
        for found in _TONE.finditer(message.content):
            yield ProposedPreference(
                field="communication_tone",
                value=found[1],
                confidence=self.confidence,
                message_ids=[message.id or 0],
                reason="they asked for it",
            )
