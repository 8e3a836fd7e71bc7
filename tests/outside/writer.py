"""A program that writes without end, and says after each call that has returned how its own rows are now.

``python writer.py FILE NAME``: what it does follows from NAME alone, so that others can tell what comes next.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from typing import Any

from mirai_memory import Knowledge, MemoryManager, Message, load_settings
from mirai_memory.testing import FakeEmbedder


class Owner:
    """Rows of one owner, as they are thought to be; with a memory they are also made so."""

    def __init__(self, name: str, memory: MemoryManager | None) -> None:
        self._name, self._memory = name, memory
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._facts: dict[str, str] = {}

    def state(self) -> dict[str, Any]:
        return {"texts": list(self._texts), "facts": dict(self._facts)}

    def add(self, text: str, place: float) -> None:
        self._add([text])

    def add_several(self, text: str, place: float) -> None:
        self._add([f"{text} {part}" for part in "abc"])

    def _add(self, texts: list[str]) -> None:
        messages = [Message(session_id=self._name, role="user", content=text) for text in texts]
        self._ids += self._memory.add_messages(messages) if self._memory else [0] * len(texts)
        self._texts += texts

    def update(self, text: str, place: float) -> None:
        if self._texts:
            at = int(place * len(self._texts))
            if self._memory:
                self._memory.update_message(self._ids[at], text)
            self._texts[at] = text

    def delete(self, text: str, place: float) -> None:
        if self._texts:
            at = int(place * len(self._texts))
            if self._memory:
                self._memory.delete_message(self._ids[at])
            del self._texts[at], self._ids[at]

    def pop(self, text: str, place: float) -> None:
        if self._memory:
            self._memory.pop_message(self._name)
        del self._texts[-1:], self._ids[-1:]

    def trim(self, text: str, place: float) -> None:
        if self._memory:
            self._memory.trim_old_messages(self._name, 8)
        del self._texts[:-8], self._ids[:-8]

    def learn(self, text: str, place: float) -> None:
        key = f"k{int(place * 5)}"
        if self._memory:
            self._memory.add_knowledge(Knowledge(user_id=self._name, key=key, value=text))
        self._facts[key] = text

    def forget(self, text: str, place: float) -> None:
        key = f"k{int(place * 5)}"
        if self._memory:
            self._memory.delete_knowledge(key=key, user_id=self._name)
        self._facts.pop(key, None)


ACTIONS = (
    Owner.add,
    Owner.add,
    Owner.add_several,
    Owner.update,
    Owner.delete,
    Owner.pop,
    Owner.trim,
    Owner.learn,
    Owner.forget,
)


def states(name: str, memory: MemoryManager | None) -> Iterator[dict[str, Any]]:
    """The state before the first call, and after each."""
    owner, chance = Owner(name, memory), random.Random(name)
    for number in range(1_000_000):
        yield owner.state()
        chance.choice(ACTIONS)(owner, f"{name} says {number} of the walrus", chance.random())


def main(path: str, name: str) -> None:
    with MemoryManager(path, settings=load_settings(), embedder=FakeEmbedder(dim=8)) as memory:
        memory.create_session(name, session_id=name)
        for state in states(name, memory):
            print(json.dumps(state), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
