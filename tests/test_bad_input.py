"""Every bad value is refused by our own error: before any SQL, with nothing changed, and without repeating it."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine, event

from mirai_memory import (
    InvalidInput,
    Knowledge,
    MemoryManager,
    Message,
    MiraiMemoryError,
    NotFound,
    Task,
    UserPreferences,
    load_settings,
)
from mirai_memory.testing.clock import FrozenClock

LIMIT = 5_000  # memory.max_content_chars here
CANARY = "purple walrus"  # what stands in every bad text; with a space, so that it is no name of anything
HUGE = (2**63, -(2**63) - 1, 2**200, 10**5_000)


@dataclass(frozen=True)
class Held:
    """What the memory holds before the bad values come."""

    session: str
    message: int
    task: int
    fact: int


@pytest.fixture(scope="module")
def memory() -> Iterator[MemoryManager]:
    """One for all, since nothing may change in it."""
    settings = load_settings(memory={"max_content_chars": LIMIT})
    with MemoryManager(":memory:", settings=settings, clock=FrozenClock()) as memory:
        yield memory


@pytest.fixture(scope="module")
def held(memory: MemoryManager) -> Held:
    session = memory.create_session("alice").id
    memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="black"))
    return Held(
        session=session,
        message=memory.add_message(Message(session_id=session, role="user", content="hello")),
        task=memory.add_task(Task(session_id=session, description="task")),
        fact=memory.add_knowledge(Knowledge(user_id="alice", key="city", value="Oslo")),
    )


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The SQL that is sent to any database while a test runs."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


def dump(memory: MemoryManager) -> dict[str, list[Any]]:
    """Every row of every table, the index's own included."""
    with memory.unit_of_work() as uow:
        driver: Any = uow.db.connection.driver_connection  # straight on it, since this is done some thousand times
        names = [name for (name,) in driver.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: driver.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}


def words_of(error: BaseException | None) -> str:
    """All that the error and what led to it say."""
    if error is None:
        return ""
    return f"{error} {error!r} {words_of(error.__cause__)} {words_of(error.__context__)}"


# --- where values go in, by what they must be -------------------------------------------------------------------------

Call = Callable[[MemoryManager, Held, Any], Any]


def _message(memory: MemoryManager, held: Held, **fields: Any) -> int:
    return memory.add_message(Message(**{"session_id": held.session, "role": "user", **fields}))


def _task(memory: MemoryManager, **fields: Any) -> int:
    return memory.add_task(Task(**{"user_id": "alice", "description": "x", **fields}))


def _fact(memory: MemoryManager, **fields: Any) -> int:
    return memory.add_knowledge(Knowledge(**{"user_id": "alice", "value": "x", **fields}))


def _likes(memory: MemoryManager, **fields: Any) -> UserPreferences:
    return memory.save_user_preferences(UserPreferences(**{"user_id": "alice", **fields}))


OWNERS: dict[str, Call] = {
    "for_user": lambda m, h, v: m.for_user(v),
    "create_session": lambda m, h, v: m.create_session(v),
    "ensure_session": lambda m, h, v: m.ensure_session(v, "chat"),
    "get_user_preferences": lambda m, h, v: m.get_user_preferences(v),
    "save_user_preferences": lambda m, h, v: _likes(m, user_id=v),
    "update_user_preferences": lambda m, h, v: m.update_user_preferences(v, coding_style="x"),
    "delete_user_preferences": lambda m, h, v: m.delete_user_preferences(v),
    "recall": lambda m, h, v: m.recall("hello", user_id=v),
}
OWNERS_OR_NONE: dict[str, Call] = {
    "get_active_sessions": lambda m, h, v: m.get_active_sessions(user_id=v),
    "list_sessions": lambda m, h, v: m.list_sessions(v),
    "search_messages": lambda m, h, v: m.search_messages("hello", user_id=v),
    "get_tasks": lambda m, h, v: m.get_tasks(user_id=v),
    "get_knowledge": lambda m, h, v: m.get_knowledge(user_id=v),
    "search_knowledge": lambda m, h, v: m.search_knowledge("Oslo", user_id=v),
    "knowledge_history": lambda m, h, v: m.knowledge_history("city", user_id=v),
    "diff": lambda m, h, v: m.diff(v, m._clock(), m._clock()),
    "find_duplicates": lambda m, h, v: m.find_duplicates(v),
    "delete_knowledge": lambda m, h, v: m.delete_knowledge(key="city", user_id=v),
    "delete_knowledge by id": lambda m, h, v: m.delete_knowledge(h.fact, user_id=v),
    "message": lambda m, h, v: _message(m, h, user_id=v),
    "task": lambda m, h, v: _task(m, user_id=v),
    "task of a session": lambda m, h, v: _task(m, session_id=h.session, user_id=v),
    "fact": lambda m, h, v: _fact(m, user_id=v),
}
SESSION_IDS: dict[str, Call] = {
    "get_session": lambda m, h, v: m.get_session(v),
    "update_session": lambda m, h, v: m.update_session(v, metadata={}),
    "update_session_activity": lambda m, h, v: m.update_session_activity(v),
    "clear_session": lambda m, h, v: m.clear_session(v),
    "delete_session": lambda m, h, v: m.delete_session(v),
    "get_messages": lambda m, h, v: m.get_messages(v),
    "get_recent_messages": lambda m, h, v: m.get_recent_messages(v),
    "get_conversation_history": lambda m, h, v: m.get_conversation_history(v),
    "build_context": lambda m, h, v: m.build_context(v),
    "pop_message": lambda m, h, v: m.pop_message(v),
    "trim_old_messages": lambda m, h, v: m.trim_old_messages(v, 0),
    "message": lambda m, h, v: _message(m, h, session_id=v),
}
NAMES_OR_NONE: dict[str, Call] = {
    "create_session id": lambda m, h, v: m.create_session("alice", session_id=v),
    "create_session agent_id": lambda m, h, v: m.create_session("alice", agent_id=v),
    "ensure_session agent_id": lambda m, h, v: m.ensure_session("alice", "new", agent_id=v),
    "search_messages session": lambda m, h, v: m.search_messages("hello", session_id=v),
    "list_sessions after": lambda m, h, v: m.list_sessions(after=v),
    "get_tasks session": lambda m, h, v: m.get_tasks(v),
    "message client_id": lambda m, h, v: _message(m, h, client_id=v),
    "task client_id": lambda m, h, v: _task(m, client_id=v),
    "task session": lambda m, h, v: _task(m, session_id=v),
    "fact key": lambda m, h, v: _fact(m, key=v),
    "get_knowledge category": lambda m, h, v: m.get_knowledge(v),
    "get_knowledge key": lambda m, h, v: m.get_knowledge(key=v),
    "search_knowledge category": lambda m, h, v: m.search_knowledge("Oslo", category=v),
    "delete_knowledge key": lambda m, h, v: m.delete_knowledge(key=v, category="x"),
    "delete_knowledge category": lambda m, h, v: m.delete_knowledge(key="x", category=v),
}
NAMES: dict[str, Call] = {
    "ensure_session": lambda m, h, v: m.ensure_session("alice", v),
    "fact category": lambda m, h, v: _fact(m, category=v),
    "fact embedding_model": lambda m, h, v: _fact(m, embedding=[1.0], embedding_model=v),
    "knowledge_history key": lambda m, h, v: m.knowledge_history(v),
    "knowledge_history category": lambda m, h, v: m.knowledge_history("city", category=v),
}
TEXTS: dict[str, Call] = {
    "message content": lambda m, h, v: _message(m, h, content=v),
    "update_message": lambda m, h, v: m.update_message(h.message, v),
    "task description": lambda m, h, v: _task(m, description=v),
    "fact value": lambda m, h, v: _fact(m, value=v),
    "fact value of a key": lambda m, h, v: _fact(m, value=v, key="city"),
}
TEXTS_OR_NONE: dict[str, Call] = {
    "message name": lambda m, h, v: _message(m, h, name=v),
    "message model": lambda m, h, v: _message(m, h, model=v),
    "message tool_call_id": lambda m, h, v: _message(m, h, role="tool", tool_call_id=v),
    "task result": lambda m, h, v: _task(m, result=v),
    "update_task_status": lambda m, h, v: m.update_task_status(h.task, "failed", v),
    "fact source": lambda m, h, v: _fact(m, source=v),
    "delete_knowledge source": lambda m, h, v: m.delete_knowledge(key="city", source=v),
    "save coding_style": lambda m, h, v: _likes(m, coding_style=v),
    "save communication_tone": lambda m, h, v: _likes(m, communication_tone=v),
    "save project_context": lambda m, h, v: _likes(m, project_context=v),
    "save favorite_tools": lambda m, h, v: _likes(m, favorite_tools=["ruff", v] if v is not None else None),
    "update coding_style": lambda m, h, v: m.update_user_preferences("alice", coding_style=v),
    "update favorite_tools": lambda m, h, v: m.update_user_preferences("alice", favorite_tools=[v]),
}
OBJECTS: dict[str, Call] = {
    "create_session": lambda m, h, v: m.create_session("alice", metadata=v),
    "ensure_session": lambda m, h, v: m.ensure_session("alice", "new", metadata=v),
    "update_session": lambda m, h, v: m.update_session(h.session, metadata=v),
    "message metadata": lambda m, h, v: _message(m, h, metadata=v),
    "message payload": lambda m, h, v: _message(m, h, role=None, kind="item", payload=v),
    "message parts": lambda m, h, v: _message(m, h, parts=[{"type": "text"}, v]),
    "message tool_calls": lambda m, h, v: _message(m, h, role="assistant", tool_calls=[{"id": "a", "arguments": v}, v]),
    "task": lambda m, h, v: _task(m, metadata=v),
    "fact": lambda m, h, v: _fact(m, metadata=v),
    "save_user_preferences": lambda m, h, v: _likes(m, metadata=v),
    "update_user_preferences": lambda m, h, v: m.update_user_preferences("alice", metadata=v),
}
MOMENTS: dict[str, Call] = {
    "message timestamp": lambda m, h, v: _message(m, h, timestamp=v),
    "search since": lambda m, h, v: m.search_messages("hello", since=v),
    "search until": lambda m, h, v: m.search_messages("hello", until=v),
    "task created_at": lambda m, h, v: _task(m, created_at=v),
    "task completed_at": lambda m, h, v: _task(m, status="failed", completed_at=v),
    "fact created_at": lambda m, h, v: _fact(m, created_at=v),
    "fact valid_from": lambda m, h, v: _fact(m, valid_from=v),
    "fact valid_to": lambda m, h, v: _fact(m, valid_to=v),
    "fact expires_at": lambda m, h, v: _fact(m, expires_at=v),
    "get_knowledge as_of": lambda m, h, v: m.get_knowledge(as_of=v),
    "get_knowledge known_at": lambda m, h, v: m.get_knowledge(known_at=v),
    "diff t1": lambda m, h, v: m.diff("alice", v, m._clock()),
    "diff t2": lambda m, h, v: m.diff("alice", m._clock(), v),
}
CHOICES: dict[str, Call] = {
    "message role": lambda m, h, v: _message(m, h, role=v),
    "message kind": lambda m, h, v: _message(m, h, kind=v),
    "task status": lambda m, h, v: _task(m, status=v),
    "update_task_status": lambda m, h, v: m.update_task_status(h.task, v),
    "get_tasks": lambda m, h, v: m.get_tasks(status=v),
    "fact source_kind": lambda m, h, v: _fact(m, source_kind=v),
    "search_knowledge": lambda m, h, v: m.search_knowledge("Oslo", source_kind=v),
    "delete_knowledge": lambda m, h, v: m.delete_knowledge(source_kind=v),
    "policy of one": lambda m, h, v: m.add_knowledge(Knowledge(value="x"), on_conflict=v),
    "policy of many": lambda m, h, v: m.add_knowledge_many([Knowledge(value="x")], on_conflict=v),
    "recall kinds": lambda m, h, v: m.recall("Oslo", user_id="alice", kinds=["messages", v]),
}
SHARES: dict[str, Call] = {
    "fact confidence": lambda m, h, v: _fact(m, confidence=v),
    "search_knowledge": lambda m, h, v: m.search_knowledge("Oslo", min_confidence=v),
    "find_duplicates": lambda m, h, v: m.find_duplicates("alice", threshold=v),
}
SPANS: dict[str, Call] = {
    "get_active_sessions": lambda m, h, v: m.get_active_sessions(v),
    "cleanup_old_sessions": lambda m, h, v: m.cleanup_old_sessions(v),
    "cleanup_old_sessions dry": lambda m, h, v: m.cleanup_old_sessions(v, dry_run=True),
    "cleanup": lambda m, h, v: m.cleanup(v),
}
LIMITS: dict[str, Call] = {
    "list_sessions": lambda m, h, v: m.list_sessions(limit=v),
    "get_messages": lambda m, h, v: m.get_messages(h.session, limit=v),
    "search_messages": lambda m, h, v: m.search_messages("hello", limit=v),
    "get_tasks": lambda m, h, v: m.get_tasks(limit=v),
    "get_knowledge": lambda m, h, v: m.get_knowledge(limit=v),
    "search_knowledge": lambda m, h, v: m.search_knowledge("Oslo", v),
    "recall": lambda m, h, v: m.recall("Oslo", user_id="alice", limit=v),
    "diff": lambda m, h, v: m.diff("alice", m._clock(), m._clock(), limit=v),
    "find_duplicates": lambda m, h, v: m.find_duplicates("alice", limit=v),
}
COUNTS_OR_NONE: dict[str, Call] = {
    "get_recent_messages": lambda m, h, v: m.get_recent_messages(h.session, v),
    "get_conversation_history": lambda m, h, v: m.get_conversation_history(h.session, v),
    "get_conversation_history max_tokens": lambda m, h, v: m.get_conversation_history(h.session, max_tokens=v),
    "build_context max_tokens": lambda m, h, v: m.build_context(h.session, max_tokens=v),
    "trim_old_messages": lambda m, h, v: m.trim_old_messages(h.session, v),
    "message tokens": lambda m, h, v: _message(m, h, tokens=v),
    "preferences version": lambda m, h, v: _likes(m, version=v),
}
READ_IDS: dict[str, Call] = {
    "get_message": lambda m, h, v: m.get_message(v),
    "get_task": lambda m, h, v: m.get_task(v),
}
WRITE_IDS: dict[str, Call] = {
    "update_message": lambda m, h, v: m.update_message(v, "x"),
    "delete_message": lambda m, h, v: m.delete_message(v),
    "update_task_status": lambda m, h, v: m.update_task_status(v, "failed"),
    "delete_task": lambda m, h, v: m.delete_task(v),
    "delete_knowledge": lambda m, h, v: m.delete_knowledge(v, key="city"),
    "merge_knowledge keep": lambda m, h, v: m.merge_knowledge(v, h.fact),
    "merge_knowledge drop": lambda m, h, v: m.merge_knowledge(h.fact, v),
    "fact": lambda m, h, v: _fact(m, message_id=v),
}
AFTERS: dict[str, Call] = {
    "get_messages": lambda m, h, v: m.get_messages(h.session, after=v),
    "get_tasks": lambda m, h, v: m.get_tasks(after=v),
    "get_knowledge": lambda m, h, v: m.get_knowledge(after=v),
    "diff": lambda m, h, v: m.diff("alice", m._clock(), m._clock(), after=v),
}
VECTORS: dict[str, Call] = {
    "fact": lambda m, h, v: _fact(m, embedding=v, embedding_model="mine"),
    "fact of a key": lambda m, h, v: _fact(m, key="city", embedding=v, embedding_model="mine"),
}
QUERIES: dict[str, Call] = {
    "search_messages": lambda m, h, v: m.search_messages(v),
    "search_knowledge": lambda m, h, v: m.search_knowledge(v),
    "recall": lambda m, h, v: m.recall(v, user_id="alice"),
    "build_context": lambda m, h, v: m.build_context(h.session, v),
}
ENTITIES: dict[str, Call] = {
    "add_message": lambda m, h, v: m.add_message(v),
    "add_messages": lambda m, h, v: m.add_messages([v]),
    "add_task": lambda m, h, v: m.add_task(v),
    "add_knowledge": lambda m, h, v: m.add_knowledge(v),
    "add_knowledge_many": lambda m, h, v: m.add_knowledge_many([v]),
    "save_user_preferences": lambda m, h, v: m.save_user_preferences(v),
}
LISTS: dict[str, Call] = {
    "add_messages": lambda m, h, v: m.add_messages(v),
    "add_knowledge_many": lambda m, h, v: m.add_knowledge_many(v),
    "recall kinds": lambda m, h, v: m.recall("Oslo", user_id="alice", kinds=v),
    "message parts": lambda m, h, v: _message(m, h, parts=v),
    "message tool_calls": lambda m, h, v: _message(m, h, role="assistant", tool_calls=v),
    "favorite_tools": lambda m, h, v: _likes(m, favorite_tools=v),
}

# --- what goes in -----------------------------------------------------------------------------------------------------


def _cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {"text": CANARY}
    value["self"] = [value]
    return value


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"text": CANARY}
    for _ in range(levels):
        value = {"in": value}
    return value


def _shared_parts() -> dict[str, Any]:
    """Small in memory, 2 ** 60 values as JSON."""
    value: list[Any] = [CANARY]
    for _ in range(60):
        value = [value, value]
    return {"in": value}


BAD_TEXTS: dict[str, Any] = {
    "NUL": f"{CANARY}\x00",
    "lone surrogate": f"ё {CANARY}\ud800",
    "surrogate pair": f"{CANARY}\ud83d\ude00",
    "too long": CANARY * LIMIT,
    "bytes": CANARY.encode(),
    "integer": 5,
    "list": [CANARY],
}
BAD_NAMES = BAD_TEXTS | {"empty": "", "256 characters": (CANARY * 20)[:256]}
BAD_OBJECTS: dict[str, Any] = {
    "tuple": {"a": (CANARY,)},
    "set": {"a": {CANARY}},
    "bytes": {"a": CANARY.encode()},
    "object": {"a": object()},
    "datetime": {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    "NaN": {"a": [CANARY, float("nan")]},
    "infinity": {"a": float("-inf")},
    "integer key": {1: CANARY},
    "None key": {"a": {None: CANARY}},
    "tuple key": {(CANARY,): 1},
    "NUL": {"a": f"{CANARY}\x00"},
    "NUL in a key": {f"{CANARY}\x00": 1},
    "lone surrogate": {"a": [f"{CANARY}\udfff"]},
    "lone surrogate in a key": {f"{CANARY}\udfff": 1},
    "cyclic": _cyclic(),
    "5000 deep": _deep(5_000),
    "shared parts": _shared_parts(),
    "too long": {"a": CANARY * LIMIT},
    "too many": {"a": [0] * LIMIT},
    "huge integer": {"a": 10**5_000},
    "string": CANARY,
    "pairs": [["a", CANARY]],
    "integer": 5,
}
BAD_METADATA = {"empty list": [], "zero": 0, "empty string": "", "False": False}
BAD_MOMENTS: dict[str, Any] = {
    "naive": datetime(2026, 1, 1),  # noqa: DTZ001 - that is the point
    "before the first": datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    "after the last": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    "string": f"2026-01-01 {CANARY}",
    "date": datetime(2026, 1, 1, tzinfo=UTC).date(),
    "number": 1_767_225_600.0,
}
BAD_CHOICES: dict[str, Any] = {
    "unknown": CANARY,
    "upper case": "USER",
    "empty": "",
    "with a NUL": "user\x00",
    "lone surrogate": "\ud800",
    "long": CANARY * 1_000,
    "integer": 1,
    "list": ["user"],
    "dict": {"user": CANARY},
}
BAD_SHARES = {
    "above": 1.0000001,
    "below": -1e-9,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "bool": True,
    "string": "0.5",
    "None": None,
    "complex": 1j,
    "huge": 10**5_000,
}
BAD_SPANS = {name: BAD_SHARES[name] for name in ("below", "NaN", "infinity", "bool", "string", "complex", "huge")}
BAD_COUNTS: dict[str, Any] = {
    "negative": -1,
    "fraction": 1.5,
    "whole float": 1.0,
    "bool": True,
    "string": "1",
    "NaN": float("nan"),
    "list": [1],
} | {f"huge {place}": value for place, value in enumerate(HUGE)}
BAD_IDS = {"fraction": 1.5, "bool": True, "string": CANARY, "digits": "1", "bytes": b"1", "list": [1]}
BAD_VECTORS: dict[str, Any] = {
    "empty": [],
    "NaN": [1.0, float("nan")],
    "infinity": [float("inf")],
    "too large": [65_505.0],
    "huge": [10**5_000],
    "strings": ["1.0", "2.0"],
    "string": "12",
    "a text": CANARY,
    "bools": [True, False],
    "None": [None],
    "nested": [[1.0]],
    "dict": {"1": 2},
    "number": 1.0,
}
BAD_QUERIES = {"bytes": CANARY.encode(), "integer": 5, "list": [CANARY]}
BAD_ENTITIES = {"None": None, "string": CANARY, "dict": {"content": CANARY}, "type": Message, "other": UserPreferences}
BAD_LISTS: dict[str, Any] = {
    "integer": 5,
    "string": CANARY,
    "dict": {"a": CANARY},
    "nested": [[CANARY]],
    "Nones": [None],
}

Case = tuple[Call, Any]


def _crossed(what: str, places: dict[str, Call], values: dict[str, Any]) -> Iterator[Any]:
    for (place, call), (name, value) in product(places.items(), values.items()):
        yield pytest.param(call, value, id=f"{what} of {place}: {name}")


CASES = [
    *_crossed("owner", OWNERS, BAD_NAMES | {"None": None}),
    *_crossed("owner", OWNERS_OR_NONE, BAD_NAMES),
    *_crossed("session", SESSION_IDS, BAD_NAMES | {"None": None}),
    *_crossed("name", NAMES, BAD_NAMES | {"None": None}),
    *_crossed("name", NAMES_OR_NONE, BAD_NAMES),
    *_crossed("text", TEXTS, BAD_TEXTS | {"None": None}),
    *_crossed("text", TEXTS_OR_NONE, BAD_TEXTS),
    *_crossed("text", {"task description": TEXTS["task description"]}, {"empty": ""}),
    *_crossed("JSON", OBJECTS, BAD_OBJECTS),
    *_crossed("JSON", {name: call for name, call in OBJECTS.items() if "parts" not in name}, BAD_METADATA),
    *_crossed("time", MOMENTS, BAD_MOMENTS),
    *_crossed("choice", CHOICES, BAD_CHOICES),
    *_crossed("share", SHARES, BAD_SHARES),
    *_crossed("span", SPANS, BAD_SPANS),
    *_crossed("limit", LIMITS, BAD_COUNTS | {"None": None}),
    *_crossed("count", COUNTS_OR_NONE, BAD_COUNTS),
    *_crossed("id", READ_IDS, BAD_IDS | {"None": None}),
    *_crossed("id", WRITE_IDS, BAD_IDS),
    *_crossed("after", AFTERS, BAD_IDS),
    *_crossed("vector", VECTORS, BAD_VECTORS),
    *_crossed("query", QUERIES, BAD_QUERIES),
    *_crossed("entity", ENTITIES, BAD_ENTITIES),
    *_crossed("list", LISTS, BAD_LISTS),
]


@pytest.mark.parametrize(("call", "value"), CASES)
def test_a_bad_value_is_refused(
    memory: MemoryManager, held: Held, statements: list[str], call: Call, value: Any
) -> None:
    before = dump(memory)
    statements.clear()
    with pytest.raises(InvalidInput) as raised:
        call(memory, held, value)
    assert statements == []
    assert CANARY not in words_of(raised.value)
    copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy), copy.args) == (type(raised.value), str(raised.value), raised.value.args)
    assert dump(memory) == before


@pytest.mark.parametrize(
    ("call", "value"), [*_crossed("id", WRITE_IDS, {f"huge {place}": value for place, value in enumerate(HUGE)})]
)
def test_a_huge_id_is_not_found(memory: MemoryManager, held: Held, call: Call, value: int) -> None:
    before = dump(memory)
    with pytest.raises((NotFound, InvalidInput)) as raised:
        call(memory, held, value)
    assert str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)  # noqa: S301 - our own bytes
    assert dump(memory) == before


@pytest.mark.parametrize("value", HUGE, ids=["2**63", "-2**63-1", "2**200", "10**5000"])
@pytest.mark.parametrize("call", READ_IDS.values(), ids=READ_IDS)
def test_a_huge_id_reads_nothing(memory: MemoryManager, held: Held, call: Call, value: int) -> None:
    assert call(memory, held, value) is None


@pytest.mark.parametrize(
    "change",
    [
        {"favourite_tools": ["ruff"]},
        {"version": 3},
        {"updated_at": None},
        {CANARY: 1},
        {"": 1},
        {"\ud800": 1},
        {"coding_style": "x", "nonsense": CANARY},
    ],
)
def test_an_unknown_preference_is_refused(memory: MemoryManager, held: Held, change: dict[str, Any]) -> None:
    before = dump(memory)
    with pytest.raises(InvalidInput) as raised:
        memory.update_user_preferences("alice", **change)
    assert CANARY not in words_of(raised.value)
    assert str(raised.value).encode()
    assert dump(memory) == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda memory, held: memory.add_knowledge(Knowledge(value="x", embedding=[1.0])),
        lambda memory, held: memory.delete_knowledge(),
        lambda memory, held: memory.delete_knowledge(user_id="alice"),
        lambda memory, held: _fact(
            memory, valid_from=datetime(2026, 1, 2, tzinfo=UTC), valid_to=datetime(2026, 1, 1, tzinfo=UTC)
        ),
    ],
    ids=["embedding without model", "delete nothing named", "delete an owner's all", "valid_to before valid_from"],
)
def test_values_that_do_not_fit_together_are_refused(
    memory: MemoryManager, held: Held, statements: list[str], wrong: Callable[[MemoryManager, Held], Any]
) -> None:
    before = dump(memory)
    statements.clear()
    with pytest.raises(InvalidInput):
        wrong(memory, held)
    assert statements == []
    assert dump(memory) == before


def test_one_bad_value_refuses_the_whole_batch(memory: MemoryManager, held: Held, statements: list[str]) -> None:
    good, bad = (Message(session_id=held.session, role="user", content=content) for content in ("good", "\x00"))
    before = dump(memory)
    statements.clear()
    with pytest.raises(InvalidInput):
        memory.add_messages([good, bad])
    with pytest.raises(InvalidInput):
        memory.add_knowledge_many([Knowledge(value="good"), Knowledge(value="\x00")])
    assert statements == []
    assert dump(memory) == before


def test_what_a_unit_of_work_refuses_carries_no_text_either(memory: MemoryManager, held: Held) -> None:
    before = dump(memory)

    def work() -> None:
        with memory.unit_of_work() as uow:
            uow.messages.add(Message(session_id=held.session, role="user", content="good"))
            uow.messages.add(Message(session_id=held.session, role="user", content=f"{CANARY}\x00"))

    with pytest.raises(InvalidInput) as raised:
        work()
    assert CANARY not in words_of(raised.value)
    assert dump(memory) == before


def test_the_content_limit_itself_is_allowed(memory: MemoryManager, held: Held) -> None:
    id = _message(memory, held, content="ё" * LIMIT, metadata={"a": "x" * (LIMIT - len('{"a": ""}'))})
    memory.delete_message(id)


def test_a_text_that_is_shared_many_times_is_not_written_out() -> None:
    """100 MB as JSON, though it takes one."""
    text = "x" * 1_000_000
    with MemoryManager(":memory:", clock=FrozenClock()) as memory:
        session = memory.create_session("alice")
        tracemalloc.start()
        try:
            with pytest.raises(InvalidInput):
                memory.update_session(session.id, metadata={"a": [text] * 100})
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("error", MiraiMemoryError.__subclasses__(), ids=lambda error: error.__name__)
def test_every_error_survives_pickling(error: type[MiraiMemoryError]) -> None:
    arguments = {"NotFound": ("task", 1), "InvalidInput": ("a", "b"), "Conflict": ("a", 1, "b"), "MissingExtra": "ab"}
    for kind in (error, *error.__subclasses__()):
        made = kind(*arguments.get(kind.__name__, ("message",)))
        copy = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
        assert (type(copy), str(copy), vars(copy)) == (kind, str(made), vars(made))
