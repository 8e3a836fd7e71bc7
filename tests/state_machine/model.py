"""The memory as dictionaries and lists: what the façade promises, with nothing of how it keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

OWNERS = ("alice", "bob")
FINISHED = ("completed", "failed")


class Refused(Exception):
    """The façade must raise the error of this name."""


@dataclass
class Said:
    """A message. ``first`` is the position of the call that it answers, else its own."""

    id: int
    position: int
    first: int
    content: str
    kind: str  # "user", "call" or "result"
    call: str = ""
    client_id: str | None = None

    @property
    def what(self) -> tuple[str, str, str]:
        return self.content, self.kind, self.call


@dataclass
class Talk:
    """A session."""

    id: str
    owner: str
    used: datetime
    metadata: dict[str, Any] = field(default_factory=dict)
    messages: list[Said] = field(default_factory=list)
    positions: int = 0  # that were ever taken

    def window(self, limit: int) -> list[Said]:
        """The longest end of at most ``limit`` messages that parts no result from its call; the newest group always."""
        whole = [
            start
            for start, message in enumerate(self.messages)
            if start == 0 or self.messages[start - 1].position < min(later.first for later in self.messages[start:])
        ]
        fitting = [start for start in whole if len(self.messages) - start <= limit]
        if not limit or not whole:
            return []
        return self.messages[fitting[0] if fitting else whole[-1] :]

    def named(self, client_id: str | None) -> Said | None:
        return next((m for m in self.messages if client_id is not None and m.client_id == client_id), None)


@dataclass
class Job:
    """A task."""

    id: int
    owner: str
    talk: str | None
    description: str
    client_id: str | None
    status: str = "pending"
    result: str | None = None


@dataclass
class Likes:
    """Preferences."""

    version: int
    style: str | None
    metadata: dict[str, int]


@dataclass
class Fact:
    """A fact; ``owner`` None is everybody's. ``gone``: a later value took its place, which ``successor`` names."""

    id: int
    owner: str | None
    key: str
    value: str
    confidence: float
    since: datetime
    until: datetime | None
    expires: datetime | None
    gone: bool = False
    successor: int | None = None

    @property
    def is_open(self) -> bool:
        return not self.gone and self.until is None

    def lives(self, now: datetime) -> bool:
        return self.expires is None or self.expires > now


@dataclass
class Model:
    now: datetime
    talks: dict[str, Talk] = field(default_factory=dict)
    jobs: dict[int, Job] = field(default_factory=dict)
    likes: dict[str, Likes] = field(default_factory=dict)
    facts: dict[int, Fact] = field(default_factory=dict)

    # Messages

    def new_positions(self, talk: Talk, batch: Iterable[Said]) -> None:
        """Take messages in at the end of the session; their ids are known already."""
        for message in batch:
            talk.positions += 1
            message.position = message.first = talk.positions
            if message.kind == "result":
                calls = [m for m in talk.messages if m.kind == "call" and m.call == message.call]
                message.first = calls[-1].position if calls else message.position
            talk.messages.append(message)
        talk.used = self.now

    def spoken(self, owner: str | None) -> Iterator[Said]:
        for talk in self.talks.values():
            if owner in (None, talk.owner):
                yield from talk.messages

    def talk_of(self, id: int) -> Talk:
        return next(talk for talk in self.talks.values() if any(m.id == id for m in talk.messages))

    def delete_talk(self, id: str) -> None:
        del self.talks[id]
        self.jobs = {job.id: job for job in self.jobs.values() if job.talk != id}

    # Facts

    def open_fact(self, owner: str | None, key: str) -> Fact | None:
        return next((f for f in self.facts.values() if (f.owner, f.key) == (owner, key) and f.is_open), None)

    def learn(self, new: Fact, policy: str) -> int | None:
        """The id of the fact that holds the value afterwards; None where a new row takes it."""
        current = self.open_fact(new.owner, new.key)
        if new.until is not None or current is None:
            return None
        if current.lives(self.now):
            if current.value == new.value:
                if new.since <= self.now < current.since:
                    return None
                current.confidence, current.expires = max(current.confidence, new.confidence), new.expires
                return current.id
            if policy == "reject":
                raise Refused("Conflict")
            if policy == "keep_higher_confidence" and new.confidence < current.confidence:
                return current.id
        return None

    def store(self, new: Fact) -> None:
        """Take in a new row, whose id is known by now."""
        current = self.open_fact(new.owner, new.key)
        if new.until is None and current is not None:
            current.gone, current.successor = True, new.id
        self.facts[new.id] = new

    def unlearn(self, ids: Iterable[int]) -> None:
        gone = {id: self.facts.pop(id) for id in ids}
        for fact in self.facts.values():
            if fact.successor in gone:
                fact.successor = None
            for hid in gone.values():
                if fact.gone and self._came_after(hid, fact) and (hid.gone or hid.until is None):
                    end = max(fact.since, hid.since)
                    fact.until = end if fact.until is None else min(fact.until, end)

    def visible(self, owner: str | None) -> list[Fact]:
        return [fact for fact in self.facts.values() if fact.owner in (owner, None)]

    def true_now(self, owner: str | None) -> list[Fact]:
        """What ``get_knowledge`` shows: true by now, not replaced by what is true by now, not expired."""
        return [
            fact
            for fact in self.visible(owner)
            if fact.since <= self.now
            and (fact.until is None or self.now < fact.until)
            and fact.lives(self.now)
            and not (fact.gone and self._replaced(fact))
        ]

    def _replaced(self, fact: Fact) -> bool:
        return any(
            self._came_after(later, fact) and later.since <= self.now and (later.gone or later.until is None)
            for later in self.facts.values()
        )

    @staticmethod
    def _came_after(later: Fact, fact: Fact) -> bool:
        return (later.owner, later.key) == (fact.owner, fact.key) and later.id > fact.id

    def found(self, owner: str | None, word: str) -> set[int]:
        """What a search for the word finds: open facts only."""
        return {fact.id for fact in self.true_now(owner) if fact.is_open and word in fact.value.split()}
