"""A canary: rows of an owner that no test is about, and an alarm for when a test reads one of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, MiraiMemoryError, Task, UserMemory, UserPreferences

__all__ = ["OwnerCanary"]

T = TypeVar("T")
_ADVICE = (
    "Read through a UserMemory (memory.for_user(...)), or name the owner in the call. "
    "A test that means to see everybody's rows does so inside `with owner_canary.looking_away():`."
)


class OwnerCanary:
    """Rows of every kind that belong to an owner of their own, and what was seen of them.

    Handed out by the fixture ``owner_canary``. The ids are there to be tried: an agent that is asked for
    ``canary.session_id`` must not find it.
    """

    def __init__(self, memory: MemoryManager) -> None:
        # The owner's name stands in every text of the canary's, so that a prompt made of them gives it away too.
        self.user_id = f"canary-{uuid.uuid4().hex}"
        self.leaks: list[str] = []
        self._asked: set[str] = set()
        self._silent = False
        self._add_message, self._add_knowledge = memory.add_message, memory.add_knowledge
        mine = f"a secret of {self.user_id}"
        self.session_id = memory.create_session(self.user_id, metadata={"title": mine}).id
        self.message_id = memory.add_message(Message(session_id=self.session_id, role="user", content=mine))
        self.knowledge_id = memory.add_knowledge(Knowledge(user_id=self.user_id, key="secret", value=mine))
        self.task_id = memory.add_task(Task(user_id=self.user_id, description=mine))
        memory.save_user_preferences(UserPreferences(user_id=self.user_id, coding_style=mine))

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """No alarm inside, for what a test itself looks up of everybody's."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before

    def lure(self, query: str) -> None:
        """Store a message and a fact with these words: a search that minds no owner now finds the canary's."""
        if query in self._asked or self._silent:
            return
        self._asked.add(query)
        text = f"{query} {self.user_id}"
        with suppress(MiraiMemoryError):  # a query that cannot be stored; the call itself will say what is wrong
            self._add_message(Message(session_id=self.session_id, role="user", content=text))
            self._add_knowledge(Knowledge(user_id=self.user_id, value=text))

    def inspect(self, call: str, result: object) -> None:
        """Fail the test where the result holds anything of the canary's."""
        __tracebackhide__ = True
        place = None if self._silent else _find(self.user_id, result)
        if place is not None:
            self.leaks.append(f"{call} returned rows of another owner: {place} is the canary's")
            pytest.fail(self.message)

    @property
    def message(self) -> str:
        """What was seen, and what to do."""
        return "\n".join(["owner_canary: the test read what belongs to another owner.", *self.leaks, _ADVICE])


def _find(token: str, value: object, place: str = "result") -> str | None:
    """Where in the value the token stands: "result[2].user_id"."""
    if isinstance(value, str):
        return place if token in value else None
    return next((found for name, item in _parts(value) if (found := _find(token, item, place + name))), None)


def _parts(value: object) -> Iterable[tuple[str, object]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return [part for key, item in value.items() for part in ((f"[{key!r}]", item), (f", key {key!r}", key))]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{number}]", item) for number, item in enumerate(value)]
    return []


def watch(canary: OwnerCanary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the canary look at every result of every memory, those that the code under test opens itself included."""
    for cls in {*MemoryManager.__mro__, *UserMemory.__mro__} - {object}:
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                monkeypatch.setattr(cls, name, _watched(canary, method))


def _watched(canary: OwnerCanary, method: Callable[..., T]) -> Callable[..., T]:
    asks = "query" in inspect.signature(method).parameters

    @functools.wraps(method)
    def call(self: object, *arguments: Any, **named: Any) -> T:
        __tracebackhide__ = True
        if asks and isinstance(query := _query(method, self, arguments, named), str):
            canary.lure(query)
        result = method(self, *arguments, **named)
        canary.inspect(f"{type(self).__name__}.{method.__name__}()", result)
        return result

    return call


def _query(method: Callable[..., Any], self: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> object:
    try:
        return inspect.signature(method).bind(self, *arguments, **named).arguments.get("query")
    except TypeError:
        return None  # wrong arguments: the call itself says which
