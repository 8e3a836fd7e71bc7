"""What holds for whatever is stored: exactness, whole windows, facts that follow a plain model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirai_memory import Conflict, InvalidInput, Knowledge, MemoryManager, Message, Task, UserPreferences
from mirai_memory.testing.clock import START, FrozenClock


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def memory(request: pytest.FixtureRequest) -> Iterator[MemoryManager]:
    """One for all examples, on each engine: each begins with a session or an owner of its own."""
    url = ":memory:" if request.param == "sqlite" else request.getfixturevalue("lasting_postgres_url")
    with MemoryManager(url, clock=FrozenClock()) as memory:
        yield memory


def bounded(examples: int) -> settings:
    return settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])


# --- what is accepted comes back equal --------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # NUL and lone surrogates among it
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
ANY_OBJECT = st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4)


@bounded(150)
@given(content=ANY_TEXT, label=ANY_TEXT, metadata=ANY_OBJECT)
@example(content="", label="", metadata={"zero": -0.0, "large": 1e308 * 10, "int": 2**64})
def test_what_is_accepted_comes_back_equal(
    memory: MemoryManager, content: str, label: str, metadata: dict[str, Any]
) -> None:
    session = memory.create_session("alice").id
    message = Message(session_id=session, role="user", content=content, name=label, parts=[metadata], metadata=metadata)
    likes = UserPreferences(user_id="alice", coding_style=content, favorite_tools=[label], metadata=metadata)
    try:
        id = memory.add_message(message)
    except InvalidInput:
        assert memory.get_messages(session) == []
        return
    stored = memory.get_message(id)
    assert stored is not None
    assert (stored.content, stored.name) == (content, label)
    # repr, since 1 == 1.0 == True, and 0.0 == -0.0
    assert repr((stored.parts, stored.metadata)) == repr(([metadata], metadata))
    saved = memory.save_user_preferences(likes)
    assert memory.get_user_preferences("alice") == saved == replace(likes, version=saved.version, updated_at=START)
    task = memory.get_task(memory.add_task(Task(user_id="alice", description=f"x{content}", metadata=metadata)))
    assert task is not None
    assert (task.description, repr(task.metadata)) == (f"x{content}", repr(metadata))


# --- windows ----------------------------------------------------------------------------------------------------------

# Few ids, so that they are used again, answered twice, late, or by nobody.
CALL_IDS = st.sampled_from("abc")
STEPS = st.one_of(
    st.just(("user", "")),
    st.tuples(st.just("call"), st.lists(CALL_IDS, min_size=1, max_size=2, unique=True).map("".join)),
    st.tuples(st.just("result"), CALL_IDS),
    st.tuples(st.just("item call"), CALL_IDS),
    st.tuples(st.just("item result"), CALL_IDS),
)


def _message(session: str, kind: str, ids: str) -> Message:
    if kind == "user":
        return Message(session_id=session, role="user", content="x")
    if kind == "call":
        return Message(session_id=session, role="assistant", tool_calls=[{"id": id} for id in ids])
    if kind == "result":
        return Message(session_id=session, role="tool", tool_call_id=ids)
    type = "function_call" if kind == "item call" else "function_call_output"
    return Message(session_id=session, kind="item", payload={"type": type, "call_id": ids})


def _cuts(steps: list[tuple[str, str]]) -> list[int]:
    """How many of the newest messages may be kept so that no result is parted from the latest call of its id."""
    opened: dict[str, int] = {}
    spans = []
    for place, (kind, ids) in enumerate(steps):
        if kind.endswith("call"):
            opened |= dict.fromkeys(ids, place)
        elif kind.endswith("result") and ids in opened:
            spans.append((opened[ids], place))
    return [
        len(steps) - start
        for start in range(len(steps) - 1, -1, -1)
        if not any(first < start <= last for first, last in spans)
    ]


@bounded(150)
@given(steps=st.lists(STEPS, max_size=14), limit=st.integers(0, 15), split=st.integers(0, 14))
def test_a_window_is_the_longest_run_of_whole_groups(
    memory: MemoryManager, steps: list[tuple[str, str]], limit: int, split: int
) -> None:
    session = memory.create_session("alice").id
    messages = [_message(session, *step) for step in steps]
    memory.add_messages(messages[:split])
    memory.add_messages(messages[split:])
    everything = memory.get_messages(session)
    assert len(everything) == len(steps)
    cuts = _cuts(steps) if limit else []
    size = max((cut for cut in cuts if cut <= limit), default=cuts[0] if cuts else 0)
    window = everything[len(everything) - size :]
    assert memory.get_recent_messages(session, limit) == window

    _assert_acceptable(memory.get_conversation_history(session, limit))

    assert memory.trim_old_messages(session, limit) == len(everything) - size
    assert memory.get_messages(session) == window


def _assert_acceptable(history: list[dict[str, Any]]) -> None:
    waiting: list[str] = []
    for entry in history:
        if entry["role"] == "tool":
            assert entry["tool_call_id"] in waiting
            waiting.remove(entry["tool_call_id"])
        else:
            assert waiting == []
            waiting = [call["id"] for call in entry.get("tool_calls", [])]
    assert waiting == []


# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass
class Believed:
    """A fact as the model has it; ``until`` is the end it was given, ``gone`` that a later one took its place."""

    value: str
    confidence: float
    since: datetime
    until: datetime | None
    gone: bool = False
    successor: int | None = None


@dataclass(frozen=True)
class Add:
    value: str
    confidence: float
    day: int
    days: int | None  # of a closed fact
    policy: Any


DAYS = st.integers(-6, 0)
ADDS = st.builds(
    Add,
    value=st.sampled_from(["Oslo", "Riga", "Rome"]),
    confidence=st.sampled_from([0.2, 0.5, 0.9]),
    day=DAYS,
    days=st.none() | st.none() | st.integers(0, 4),
    policy=st.sampled_from(["replace", "keep_higher_confidence", "reject"]),
)
DELETES = st.integers(0, 6)  # the place among those that are left


class Model:
    """One key's facts in plain Python: what is said in DESIGN of supersede, policies, as_of and delete."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.facts: dict[int, Believed] = {}

    def open(self) -> tuple[int, Believed] | None:
        return next(((id, fact) for id, fact in self.facts.items() if not fact.gone and fact.until is None), None)

    def add(self, id: int, add: Add) -> None:
        since = self.now + timedelta(days=add.day)
        until = None if add.days is None else since + timedelta(days=add.days)
        current = self.open()
        if until is None and current is not None:
            _, fact = current
            if fact.value == add.value:
                fact.confidence = max(fact.confidence, add.confidence)
                return
            if add.policy == "keep_higher_confidence" and add.confidence < fact.confidence:
                return
            fact.gone, fact.successor = True, id
        self.facts[id] = Believed(add.value, add.confidence, since, until)

    def rejects(self, add: Add) -> bool:
        current = self.open()
        return add.days is None and add.policy == "reject" and current is not None and current[1].value != add.value

    def delete(self, id: int) -> None:
        deleted = self.facts.pop(id)
        for earlier, fact in self.facts.items():
            if fact.successor == id:
                fact.successor = None
            if fact.gone and earlier < id and (deleted.gone or deleted.until is None):
                end = max(fact.since, deleted.since)
                fact.until = end if fact.until is None else min(fact.until, end)

    def true(self, moment: datetime) -> list[int]:
        return [
            id
            for id, fact in self.facts.items()
            if fact.since <= moment
            and (fact.until is None or moment < fact.until)
            and not (fact.gone and self._replaced(id, moment))
        ]

    def _replaced(self, id: int, moment: datetime) -> bool:
        """Whether a later value of the chain of open ones was true by then."""
        return any(
            later > id and fact.since <= moment and (fact.gone or fact.until is None)
            for later, fact in self.facts.items()
        )


@pytest.mark.long
@bounded(150)
@given(steps=st.lists(ADDS | DELETES, max_size=9))
def test_facts_follow_the_model(memory: MemoryManager, steps: list[Add | int]) -> None:
    owner = memory.create_session("alice").id  # a name that no other example uses
    model = Model(START)
    for step in steps:
        if isinstance(step, Add):
            _add(memory, model, owner, step)
        elif model.facts:
            id = sorted(model.facts)[step % len(model.facts)]
            assert memory.delete_knowledge(id, user_id=owner) == 1
            model.delete(id)
        current = model.open()
        expected = [current[1].value] if current else []
        assert [fact.value for fact in memory.search_knowledge("Oslo Riga Rome", user_id=owner)] == expected
    assert [fact.id for fact in memory.knowledge_history("city", user_id=owner)] == sorted(model.facts)
    for day in range(-7, 2):
        moment = START + timedelta(days=day)
        assert [fact.id for fact in memory.get_knowledge(user_id=owner, as_of=moment)] == sorted(model.true(moment))
    now = [fact.id for fact in memory.get_knowledge(user_id=owner)]
    assert now == sorted(model.true(START))


def _add(memory: MemoryManager, model: Model, owner: str, step: Add) -> None:
    since = START + timedelta(days=step.day)
    fact = Knowledge(
        user_id=owner,
        key="city",
        value=step.value,
        confidence=step.confidence,
        valid_from=since,
        valid_to=None if step.days is None else since + timedelta(days=step.days),
    )
    if model.rejects(step):
        with pytest.raises(Conflict):
            memory.add_knowledge(fact, on_conflict=step.policy)
        return
    id = memory.add_knowledge(fact, on_conflict=step.policy)
    model.add(id, step)
    assert id in model.facts
