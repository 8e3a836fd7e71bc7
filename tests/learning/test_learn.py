"""What a session teaches: which messages are read, what becomes of each proposal, and that a range counts once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest

from mirai_memory import (
    AsyncMemoryManager,
    Busy,
    ConfigurationError,
    Conflict,
    InvalidInput,
    Knowledge,
    Learned,
    MemoryManager,
    Message,
    ModelError,
    NotFound,
    Proposals,
    ProposedFact,
    ProposedPreference,
    ReadOnly,
    UserPreferences,
    load_settings,
)
from mirai_memory.testing import FakeEmbedder, FakeExtractor
from mirai_memory.testing.clock import FrozenClock


def say(memory: MemoryManager, session_id: str, *contents: str, role: Any = "user") -> list[int]:
    return memory.add_messages([Message(session_id=session_id, role=role, content=text) for text in contents])


def outcomes(learned: Learned) -> Counter[str]:
    return Counter(item.outcome for item in learned.items)


def a_fact(value: str, *ids: int, key: str = "home_city", **more: Any) -> Proposals:
    return Proposals(facts=[ProposedFact(category="profile", key=key, value=value, message_ids=ids, **more)])


def a_preference(field: str, value: Any, *ids: int, **more: Any) -> Proposals:
    return Proposals(preferences=[ProposedPreference(field=field, value=value, message_ids=ids, **more)])


@pytest.fixture
def session(memory: MemoryManager) -> str:
    return memory.create_session("alice").id


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_fact_is_kept_with_where_it_is_from(memory: MemoryManager, session: str, clock: FrozenClock) -> None:
    said = clock()
    _, id = say(memory, session, "hello", "My home city is Perm.")
    clock.advance(hours=1)
    learned = memory.learn(session)
    [item] = learned.items
    [fact] = memory.get_knowledge(user_id="alice")
    assert (item.outcome, item.id, item.replaces) == ("applied", fact.id, None)
    assert (fact.category, fact.key, fact.value, fact.confidence) == ("profile", "home_city", "Perm", 0.9)
    assert (fact.source, fact.source_kind, fact.message_id, fact.user_id) == ("fake", "user", id, "alice")
    assert (fact.valid_from, fact.created_at) == (said, clock())
    assert (learned.session_id, learned.extractor) == (session, "fake")
    assert (learned.after, learned.through, learned.messages) == (0, 2, 2)


def test_it_is_found_by_words_and_by_meaning(url: str, clock: FrozenClock, extractor: FakeExtractor) -> None:
    embedder = FakeEmbedder()
    with MemoryManager(url, clock=clock, extractor=extractor, embedder=embedder) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "My home city is Perm.")
        memory.learn(session)
        asked = embedder.calls
        [found] = memory.search_knowledge("cities", user_id="alice", explain=True)
        assert "dense" in (found.explanation or {})
        assert embedder.calls == asked + 1, "the fact's vector was made before it was stored"


def test_an_embedder_that_fails_costs_the_vector_only(url: str, clock: FrozenClock, extractor: FakeExtractor) -> None:
    embedder = FakeEmbedder()
    embedder.fail()
    with MemoryManager(url, clock=clock, extractor=extractor, embedder=embedder) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "My home city is Perm.")
        assert outcomes(memory.learn(session)) == {"applied": 1}
        assert len(memory.search_knowledge("Perm", user_id="alice")) == 1


def test_a_later_value_supersedes_the_earlier_one(memory: MemoryManager, session: str, clock: FrozenClock) -> None:
    say(memory, session, "My home city is Kazan.")
    memory.learn(session)
    clock.advance(days=1)
    say(memory, session, "My home city is Perm.")
    [item] = memory.learn(session).items
    assert (item.outcome, item.replaces) == ("applied", "Kazan")
    history = memory.knowledge_history("home_city", category="profile", user_id="alice")
    assert [fact.value for fact in history] == ["Kazan", "Perm"]
    assert [fact.value for fact in memory.get_knowledge("profile", user_id="alice")] == ["Perm"]


def test_the_same_said_twice_refreshes(memory: MemoryManager, session: str, clock: FrozenClock) -> None:
    say(memory, session, "My home city is Perm.")
    memory.learn(session)
    [before] = memory.get_knowledge(user_id="alice")
    clock.advance(days=1)
    say(memory, session, "As I said, my home city is Perm.")
    [item] = memory.learn(session).items
    [fact] = memory.get_knowledge(user_id="alice")
    assert (item.outcome, item.id, item.replaces) == ("refreshed", before.id, None)
    assert fact.updated_at == clock()
    assert len(memory.knowledge_history("home_city", category="profile", user_id="alice")) == 1


def test_what_the_assistant_repeats_makes_nothing_surer(
    memory: MemoryManager, session: str, clock: FrozenClock
) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", category="profile", key="home_city", value="Perm", confidence=0.5))
    [before] = memory.get_knowledge(user_id="alice")
    clock.advance(days=1)
    say(memory, session, "As you told me: my home city is Perm.", role="assistant")
    [item] = memory.learn(session).items
    assert (item.outcome, item.note) == ("kept", "the assistant repeats what is known")
    assert memory.get_knowledge(user_id="alice") == [before]


def test_what_the_user_says_again_refreshes_whoever_repeats_it(
    memory: MemoryManager, session: str, extractor: FakeExtractor
) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", category="profile", key="home_city", value="Perm", confidence=0.5))
    ids = [*say(memory, session, "still in Perm"), *say(memory, session, "so, still in Perm", role="assistant")]
    extractor.answer_with(a_fact("Perm", *ids, confidence=0.8))
    assert outcomes(memory.learn(session)) == {"refreshed": 1}
    assert [fact.confidence for fact in memory.get_knowledge(user_id="alice")] == [0.8]


def test_what_the_assistant_says_first_is_the_assistants(memory: MemoryManager, session: str) -> None:
    say(memory, session, "My home city is Perm.", role="assistant")
    memory.learn(session)
    assert [fact.source_kind for fact in memory.get_knowledge(user_id="alice")] == ["assistant"]


def test_an_older_message_does_not_replace_what_is_newer(
    memory: MemoryManager, session: str, clock: FrozenClock
) -> None:
    earlier = memory.create_session("alice").id
    say(memory, earlier, "My home city is Kazan.")
    clock.advance(days=1)
    say(memory, session, "My home city is Perm.")
    memory.learn(session)
    [item] = memory.learn(earlier).items
    assert (item.outcome, item.replaces) == ("kept", "Perm")
    assert "newer" in item.note
    assert [fact.value for fact in memory.get_knowledge(user_id="alice")] == ["Perm"]


@pytest.mark.parametrize(
    ("policy", "confidence", "outcome"),
    [
        ("replace", 0.1, "applied"),
        ("reject", 1.0, "rejected"),
        ("keep_higher_confidence", 0.4, "kept"),
        ("keep_higher_confidence", 0.6, "applied"),
    ],
)
def test_the_policy_of_the_settings_holds(
    url: str, clock: FrozenClock, policy: str, confidence: float, outcome: str
) -> None:
    settings = load_settings(memory={"long_term": {"on_conflict": {"profile": policy}}})
    extractor = FakeExtractor(confidence=confidence)
    with MemoryManager(url, clock=clock, extractor=extractor, settings=settings) as memory:
        known = Knowledge(user_id="alice", category="profile", key="home_city", value="Kazan", confidence=0.5)
        memory.add_knowledge(known)
        session = memory.create_session("alice").id
        clock.advance(days=1)
        say(memory, session, "My home city is Perm.", "My cat is Tom.")
        shown = memory.learn(session, apply=False)
        assert next(item.outcome for item in shown.items) == ("proposed" if outcome == "applied" else outcome)
        assert [item.outcome for item in memory.learn(session).items] == [outcome, "applied"]
        values = {fact.value for fact in memory.get_knowledge(user_id="alice")}
        assert values == {"Perm" if outcome == "applied" else "Kazan", "Tom"}


# --- preferences ------------------------------------------------------------------------------------------------------


def test_a_preference_is_merged_with_the_others(memory: MemoryManager, session: str) -> None:
    memory.save_user_preferences(UserPreferences(user_id="alice", coding_style="typed", communication_tone="warm"))
    say(memory, session, "Please be brief.")
    [item] = memory.learn(session).items
    assert (item.outcome, item.replaces) == ("applied", "warm")
    stored = memory.get_user_preferences("alice")
    assert stored is not None
    assert (stored.coding_style, stored.communication_tone, stored.version) == ("typed", "brief", 2)


def test_tools_are_added_to_those_that_are_there(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    memory.update_user_preferences("alice", favorite_tools=["uv"])
    [id] = say(memory, session, "I like Ruff, and UV")
    extractor.answer_with(a_preference("favorite_tools", ["UV", "Ruff", "Ruff"], id))
    assert outcomes(memory.learn(session)) == {"applied": 1}
    stored = memory.get_user_preferences("alice")
    assert stored is not None
    assert stored.favorite_tools == ["uv", "Ruff"]


def test_a_preference_that_is_so_already_writes_nothing(memory: MemoryManager, session: str) -> None:
    memory.update_user_preferences("alice", communication_tone="brief")
    say(memory, session, "Please be brief.")
    assert [(item.outcome, item.note) for item in memory.learn(session).items] == [("kept", "is so already")]
    stored = memory.get_user_preferences("alice")
    assert stored is not None
    assert stored.version == 1


@pytest.mark.parametrize(
    ("policy", "confidence", "outcome"),
    [("replace", 0.2, "applied"), ("reject", 1.0, "rejected"), ("keep_higher_confidence", 0.9, "kept")],
)
def test_preferences_have_a_policy_of_their_own(
    url: str, clock: FrozenClock, policy: str, confidence: float, outcome: str
) -> None:
    settings = load_settings(memory={"long_term": {"on_conflict": {"preferences": policy}}})
    extractor = FakeExtractor(confidence=confidence)
    with MemoryManager(url, clock=clock, extractor=extractor, settings=settings) as memory:
        memory.update_user_preferences("alice", communication_tone="warm")
        session = memory.create_session("alice").id
        say(memory, session, "Please be brief.")
        assert outcomes(memory.learn(session)) == {outcome: 1}
        stored = memory.get_user_preferences("alice")
        assert stored is not None
        assert stored.communication_tone == ("brief" if outcome == "applied" else "warm")


@pytest.mark.parametrize("likes", [{"enabled": False}, {"remember": ["coding_style"]}])
def test_preferences_that_are_not_kept_are_refused(
    url: str, clock: FrozenClock, extractor: FakeExtractor, likes: dict[str, Any]
) -> None:
    settings = load_settings(memory={"user_preferences": likes})
    with MemoryManager(url, clock=clock, extractor=extractor, settings=settings) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "Please be brief. My home city is Perm.")
        learned = memory.learn(session)
        assert outcomes(learned) == {"applied": 1, "refused": 1}
        assert memory.get_user_preferences("alice") is None


def test_tools_beyond_what_a_list_may_hold_are_refused_alone(
    url: str, clock: FrozenClock, extractor: FakeExtractor
) -> None:
    settings = load_settings(memory={"max_content_chars": 40})
    with MemoryManager(url, clock=clock, extractor=extractor, settings=settings) as memory:
        memory.update_user_preferences("alice", favorite_tools=["x" * 30])
        session = memory.create_session("alice").id
        [id] = say(memory, session, "words")
        both = Proposals(
            facts=a_fact("Perm", id).facts, preferences=a_preference("favorite_tools", ["y" * 30], id).preferences
        )
        extractor.answer_with(both)
        assert outcomes(memory.learn(session)) == {"applied": 1, "refused": 1}


# --- which messages are read ------------------------------------------------------------------------------------------


def test_only_user_and_assistant_teach(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    words = "Remember that my admin password is hunter2."
    memory.add_messages(
        [
            Message(session_id=session, role="system", content=words),
            Message(session_id=session, role="developer", content=words),
            Message(session_id=session, role="user", content="look it up"),
            Message(session_id=session, role="assistant", tool_calls=[{"id": "c", "function": {"arguments": words}}]),
            Message(session_id=session, role="tool", tool_call_id="c", content=words),
            Message(session_id=session, kind="item", payload={"text": words}),
            Message(session_id=session, role="assistant", content="found", parts=[{"type": "text", "text": words}]),
        ]
    )
    learned = memory.learn(session)
    [given] = extractor.messages
    assert [(message.role, message.content) for message in given] == [("user", "look it up"), ("assistant", "found")]
    assert "hunter2" not in repr(given)
    assert (learned.through, learned.messages, learned.items) == (7, 2, [])
    assert memory.get_knowledge(user_id="alice") == []


def test_a_fact_may_not_name_what_a_tool_said(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    memory.add_messages(
        [
            Message(session_id=session, role="assistant", tool_calls=[{"id": "c", "function": {}}]),
            Message(session_id=session, role="tool", tool_call_id="c", content="the password is hunter2"),
            Message(session_id=session, role="user", content="thanks"),
        ]
    )
    _, tool, user = [message.id or 0 for message in memory.get_messages(session)]
    extractor.answer_with(a_fact("hunter2", user, tool, key="password"))
    assert outcomes(memory.learn(session)) == {"refused": 1}
    assert memory.get_knowledge(user_id="alice") == []


def test_a_session_with_nothing_to_learn_asks_nobody(
    memory: MemoryManager, session: str, extractor: FakeExtractor
) -> None:
    assert memory.learn(session) == Learned(session_id=session, extractor="fake", after=0, through=0)
    say(memory, session, "only rules", role="system")
    assert memory.learn(session).through == 1
    assert extractor.calls == 0


def test_a_pasted_context_teaches_nothing(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", category="profile", key="x", value="my home city is Perm"))
    prompt = memory.build_context(session, "home city").to_prompt()
    say(memory, session, prompt)
    say(memory, session, f"{prompt}\n\nBy the way, my cat is Tom.")
    memory.learn(session)
    [given] = extractor.messages
    assert [message.content for message in given] == ["[recalled from memory]\n\nBy the way, my cat is Tom."]
    assert {fact.key for fact in memory.get_knowledge(user_id="alice")} == {"x", "cat"}


def test_a_long_session_is_read_in_parts(memory: MemoryManager, extractor: FakeExtractor) -> None:
    memory, extractor = memory, extractor
    session = memory.create_session("alice").id
    filler = "word " * 600
    say(memory, session, *(f"My item{number} is thing{number}. {filler}" for number in range(20)))
    seen: list[tuple[int, int]] = []
    learned = memory.learn(session, progress=lambda done, total: seen.append((done, total)))
    assert extractor.calls > 2
    assert [message.position for given in extractor.messages for message in given] == list(range(1, 21))
    assert all(sum(len(message.content) for message in given) < 20_000 for given in extractor.messages)
    assert outcomes(learned) == {"applied": 20}
    assert (learned.after, learned.through, learned.messages) == (0, 20, 20)
    assert seen == sorted(seen)
    assert seen[-1] == (20, 20)


def test_a_message_of_any_length_is_read_in_part(memory: MemoryManager, extractor: FakeExtractor) -> None:
    session = memory.create_session("alice").id
    say(memory, session, "My home city is Perm. " + "x" * 500_000)
    memory.learn(session)
    [[message]] = extractor.messages
    assert len(message.content) <= 12_000
    assert len(memory.get_knowledge(user_id="alice")) == 1


def test_hundreds_of_short_messages_and_gaps(memory: MemoryManager, extractor: FakeExtractor) -> None:
    session = memory.create_session("alice").id
    ids = say(memory, session, *("yes" if n % 5 else f"My item{n} is thing." for n in range(250)))
    for id in (*ids[:3], *ids[120:130], *ids[-2:]):
        memory.delete_message(id)
    learned = memory.learn(session)
    assert (learned.through, learned.messages, outcomes(learned)) == (250, 235, {"applied": 47})
    assert extractor.calls == 3


def test_known_facts_and_preferences_are_given(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", category="profile", key="Home City", value="Kazan"))
    memory.add_knowledge(Knowledge(user_id="bob", category="profile", key="home_city", value="Omsk"))
    memory.add_knowledge(Knowledge(value="shared by all", key="rule"))
    memory.add_knowledge_many(
        [Knowledge(user_id="alice", value=f"noise {number}", key=f"n{number}") for number in range(60)]
    )
    memory.update_user_preferences("alice", communication_tone="warm")
    [id] = say(memory, session, "which home city?")
    extractor.answer_with(a_fact("Perm", id, key="Home City"))
    [item] = memory.learn(session).items
    [known], [preferences] = extractor.known, extractor.preferences
    assert len(known) <= 30
    assert "Kazan" in {fact.value for fact in known}
    assert "Omsk" not in {fact.value for fact in known}
    assert preferences is not None
    assert preferences.communication_tone == "warm"
    # A key that is in use is used again as it is.
    assert (item.outcome, item.replaces) == ("applied", "Kazan")


# --- each range once --------------------------------------------------------------------------------------------------


def test_a_range_is_learned_once(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    say(memory, session, "My home city is Perm.")
    memory.learn(session)
    again = memory.learn(session)
    assert (again.after, again.through, again.items, extractor.calls) == (1, 1, [], 1)
    say(memory, session, "My cat is Tom.")
    assert memory.learn(session).after == 1
    assert [message.content for message in extractor.messages[-1]] == ["My cat is Tom."]


@pytest.mark.parametrize(
    "answer", [None, {"facts": []}, "[]", Proposals(facts="x"), Proposals(preferences=None)], ids=repr
)
def test_an_answer_that_is_no_proposals_leaves_all_as_it_was(
    memory: MemoryManager, session: str, extractor: FakeExtractor, answer: Any
) -> None:
    say(memory, session, "My home city is Perm.")
    extractor.answer_with(answer)
    with pytest.raises(ModelError, match="'fake' answered with something that is no proposals"):
        memory.learn(session)
    extractor.recover()
    learned = memory.learn(session)
    assert (learned.after, outcomes(learned)) == (0, {"applied": 1})


def test_an_extractor_that_fails_is_a_model_error(
    memory: MemoryManager, session: str, extractor: FakeExtractor
) -> None:
    say(memory, session, "My home city is Perm.")
    mine = KeyError("walrus")
    extractor.fail(mine)
    with pytest.raises(ModelError) as caught:
        memory.learn(session)
    assert str(caught.value) == "extractor 'fake' failed with KeyError"
    assert caught.value.__cause__ is mine
    own = ModelError("the model is tired")
    extractor.fail(own)
    with pytest.raises(ModelError) as caught:
        memory.learn(session)
    assert caught.value is own
    extractor.recover()
    assert outcomes(memory.learn(session)) == {"applied": 1}


def test_what_was_stored_before_a_failure_stays(memory: MemoryManager, extractor: FakeExtractor) -> None:
    session = memory.create_session("alice").id
    say(memory, session, *(f"My item{number} is thing. {'word ' * 3_000}" for number in range(3)))
    with pytest.raises(ModelError):
        memory.learn(session, progress=lambda done, total: extractor.fail())
    assert len(memory.get_knowledge(user_id="alice")) == 1
    extractor.recover()
    assert memory.learn(session).after == 1
    assert len(memory.get_knowledge(user_id="alice")) == 3


def test_nonsense_costs_only_itself(memory: MemoryManager, session: str, extractor: FakeExtractor) -> None:
    [id] = say(memory, session, "My home city is Perm.")
    good, bad = a_fact("Perm", id).facts[0], a_fact("", id, key="other").facts[0]
    extractor.answer_with(Proposals(facts=[bad, good]))
    learned = memory.learn(session)
    assert outcomes(learned) == {"applied": 1, "refused": 1}
    assert [item.note for item in learned.items if item.outcome == "refused"] == ["facts[0]: value must not be empty"]


class Meanwhile(FakeExtractor):
    """While it thinks, something happens."""

    def __init__(self, happens: Any) -> None:
        super().__init__()
        self.happens = happens

    def extract(self, *arguments: Any, **more: Any) -> Any:
        self.happens(self)
        return super().extract(*arguments, **more)


IMPATIENT = {"busy_timeout_ms": 1}


def learn_while(url: str, clock: FrozenClock, happens: Any) -> tuple[MemoryManager, str, FakeExtractor]:
    extractor = Meanwhile(lambda self: self.calls == 0 and happens(memory, session))
    memory = MemoryManager(url, clock=clock, extractor=extractor, settings=load_settings(memory=IMPATIENT))
    session = memory.create_session("alice").id
    say(memory, session, "My home city is Perm.", "My cat is Tom.")
    return memory, session, extractor


def test_a_message_deleted_meanwhile_teaches_nothing(url: str, clock: FrozenClock) -> None:
    def delete(memory: MemoryManager, session: str) -> None:
        memory.delete_message(memory.get_messages(session)[0].id or 0)

    memory, session, _ = learn_while(url, clock, delete)
    with memory:
        memory.learn(session)
        assert {fact.value for fact in memory.get_knowledge(user_id="alice")} == {"Tom"}


def test_a_message_changed_meanwhile_teaches_what_it_says_now(url: str, clock: FrozenClock) -> None:
    def change(memory: MemoryManager, session: str) -> None:
        memory.update_message(memory.get_messages(session)[0].id or 0, "My home city is Kazan.")

    memory, session, extractor = learn_while(url, clock, change)
    with memory:
        memory.learn(session)
        assert {fact.value for fact in memory.get_knowledge(user_id="alice")} == {"Kazan", "Tom"}
        assert extractor.calls == 2


def test_messages_trimmed_meanwhile_teach_nothing(url: str, clock: FrozenClock) -> None:
    def trim(memory: MemoryManager, session: str) -> None:
        memory.run(lambda uow: uow.messages.trim(session, 1))

    memory, session, _ = learn_while(url, clock, trim)
    with memory:
        assert outcomes(memory.learn(session)) == {"refused": 1, "applied": 1}
        assert {fact.value for fact in memory.get_knowledge(user_id="alice")} == {"Tom"}


def test_a_session_gone_meanwhile_teaches_nothing(url: str, clock: FrozenClock) -> None:
    memory, session, _ = learn_while(url, clock, lambda memory, session: memory.forget_user("alice"))
    with memory:
        with pytest.raises(NotFound):
            memory.learn(session)
        assert memory.get_knowledge(user_id="alice") == []


def test_one_that_is_always_changed_is_busy(url: str, clock: FrozenClock) -> None:
    extractor = Meanwhile(lambda self: memory.update_message(id, f"My cat is Tom{self.calls}."))
    with MemoryManager(url, clock=clock, extractor=extractor) as memory:
        session = memory.create_session("alice").id
        [id] = say(memory, session, "words")
        with pytest.raises(Busy, match="changed"):
            memory.learn(session)
        assert extractor.calls == 3
        assert memory.get_knowledge(user_id="alice") == []


def test_messages_that_come_meanwhile_are_for_the_next_time(url: str, clock: FrozenClock) -> None:
    memory, session, extractor = learn_while(url, clock, lambda memory, session: say(memory, session, "My dog is Rex."))
    with memory:
        assert memory.learn(session).through == 2
        assert memory.learn(session).after == 2
        assert len(memory.get_knowledge(user_id="alice")) == 3
        assert extractor.calls == 2


def test_a_session_that_somebody_works_on_is_busy_until_the_lease_runs_out(
    url: str, clock: FrozenClock, extractor: FakeExtractor
) -> None:
    settings = load_settings(memory=IMPATIENT)
    with MemoryManager(url, clock=clock, extractor=extractor, settings=settings) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "My home city is Perm.")
        assert memory.run(lambda uow: uow.leases.take(session, "summary", 100)) is not None
        with pytest.raises(Busy, match="somebody else works on the session"):
            memory.learn(session)
        assert extractor.calls == 0
        clock.advance(seconds=101)
        assert outcomes(memory.learn(session)) == {"applied": 1}


def test_it_waits_for_who_works_on_the_session(memory: MemoryManager, session: str) -> None:
    say(memory, session, "My home city is Perm.")
    token = memory.run(lambda uow: uow.leases.take(session, "summary", 100))
    assert token is not None
    with ThreadPoolExecutor(1) as pool:
        learning = pool.submit(memory.learn, session)
        with pytest.raises(TimeoutError):
            learning.result(0.2)
        memory.run(lambda uow: uow.leases.release(session, token))
        assert outcomes(learning.result(60)) == {"applied": 1}


def test_the_lease_outlasts_the_extractor_and_is_given_back(url: str, clock: FrozenClock) -> None:
    class Slow(Meanwhile):
        longest_s = 1_000.0

    until: list[Any] = []

    def look(self: FakeExtractor) -> None:
        with memory.unit_of_work() as uow:
            until.append(uow.leases.take(session, "other", 1))
        clock.advance(seconds=999)
        with memory.unit_of_work() as uow:
            until.append(uow.leases.take(session, "other", 1))

    with MemoryManager(url, clock=clock, extractor=Slow(look)) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "My home city is Perm.")
        memory.learn(session)
        assert until == [None, None]
        with memory.unit_of_work() as uow:
            assert uow.leases.take(session, "other", 1) is not None


def test_a_lease_that_ran_out_costs_a_call_and_no_second_result(url: str, clock: FrozenClock) -> None:
    """Another process takes the session over and is done first."""

    def take_over(memory: MemoryManager, session: str) -> None:
        clock.advance(days=1)
        with MemoryManager(url, clock=clock, extractor=FakeExtractor(name="other")) as second:
            assert outcomes(second.learn(session)) == {"applied": 2}

    memory, session, extractor = learn_while(url, clock, take_over)
    with memory:
        assert memory.learn(session).items == []
        assert extractor.calls == 1
        assert {fact.source for fact in memory.get_knowledge(user_id="alice")} == {"other"}
        assert all(fact.updated_at == fact.created_at for fact in memory.get_knowledge(user_id="alice"))


# --- proposing only, and looking through ------------------------------------------------------------------------------


def test_proposals_alone_change_nothing(memory: MemoryManager, session: str) -> None:
    memory.add_knowledge(Knowledge(user_id="alice", category="profile", key="home_city", value="Kazan"))
    say(memory, session, "My home city is Perm. Please be brief.")
    found = memory.learn(session, apply=False)
    assert [(item.outcome, item.replaces) for item in found.items] == [("proposed", "Kazan"), ("proposed", None)]
    assert [fact.value for fact in memory.get_knowledge(user_id="alice")] == ["Kazan"]
    assert memory.get_user_preferences("alice") is None
    assert memory.learn(session, apply=False) == found


def test_what_was_looked_through_is_applied_and_the_rest_is_not_asked_again(
    memory: MemoryManager, session: str, extractor: FakeExtractor
) -> None:
    say(memory, session, "My home city is Perm. My cat is Tom. Please be brief.")
    found = memory.learn(session, apply=False)
    wanted = found.only(lambda item: "Tom" not in repr(item))
    learned = memory.learn(session, proposals=wanted)
    assert outcomes(learned) == {"applied": 2}
    [fact] = memory.get_knowledge(user_id="alice")
    assert (fact.value, fact.source, fact.source_kind) == ("Perm", "fake", "user")
    assert fact.message_id == memory.get_messages(session)[0].id
    assert memory.learn(session).items == []
    assert extractor.calls == 1
    with pytest.raises(Conflict, match="learned from meanwhile"):
        memory.learn(session, proposals=wanted)


def test_proposals_that_were_changed_by_hand_are_judged_again(memory: MemoryManager, session: str) -> None:
    say(memory, session, "My home city is Perm.")
    other = memory.create_session("alice").id
    [elsewhere] = say(memory, other, "My cat is Tom.")
    found = memory.learn(session, apply=False)
    [item] = found.items
    assert isinstance(item.proposal, ProposedFact)
    wrong = [
        replace(item, proposal=replace(item.proposal, confidence=7.0)),
        replace(item, proposal=replace(item.proposal, key="other", message_ids=[elsewhere])),
        replace(item, proposal=replace(item.proposal, key=["x"])),
        replace(item, proposal="a fact"),
        replace(item, proposal=replace(item.proposal, key="Home City", value="Perm, on the Kama")),
    ]
    learned = memory.learn(session, proposals=replace(found, items=wrong))
    assert outcomes(learned) == {"applied": 1, "refused": 4}
    [fact] = memory.get_knowledge(user_id="alice")
    assert (fact.key, fact.value) == ("Home City", "Perm, on the Kama")


def test_proposals_of_another_session_or_of_no_range_are_refused(memory: MemoryManager, session: str) -> None:
    say(memory, session, "My home city is Perm.")
    found = memory.learn(session, apply=False)
    for wrong, rule in [
        (replace(found, session_id="other"), "another session"),
        (replace(found, through=0), "empty range"),
        (replace(found, through=2), "behind the last message"),
        (replace(found, after=-1), "between 0"),
        (replace(found, extractor=""), "empty"),
        (Proposals(), "learn\\(apply=False\\)"),
    ]:
        with pytest.raises(InvalidInput, match=rule):
            memory.learn(session, proposals=wrong)
    with pytest.raises(InvalidInput, match="apply"):
        memory.learn(session, proposals=found, apply=False)
    assert memory.get_knowledge(user_id="alice") == []
    assert outcomes(memory.learn(session, proposals=found)) == {"applied": 1}


def test_proposals_go_over_to_another_process(memory: MemoryManager, url: str, session: str) -> None:
    """Whoever applies them needs no extractor."""
    say(memory, session, "My home city is Perm.")
    found = memory.learn(session, apply=False)
    with MemoryManager(url) as other:
        assert outcomes(other.learn(session, proposals=found)) == {"applied": 1}


def test_a_report_is_json_without_surprises(memory: MemoryManager, session: str) -> None:
    [id] = say(memory, session, "My home city is Perm. Please be brief.")
    found = json.loads(json.dumps(memory.learn(session, apply=False).to_dict()))
    assert found["through"] == 1
    assert [item["proposal"] for item in found["items"]] == [
        {
            "kind": "fact",
            "category": "profile",
            "key": "home_city",
            "value": "Perm",
            "confidence": 0.9,
            "message_ids": [id],
            "reason": "they said so",
        },
        {
            "kind": "preference",
            "field": "communication_tone",
            "value": "brief",
            "confidence": 0.9,
            "message_ids": [id],
            "reason": "they asked for it",
        },
    ]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_without_an_extractor_the_error_names_where_to_put_one(url: str) -> None:
    with MemoryManager(url) as memory:
        session = memory.create_session("alice").id
        with pytest.raises(ConfigurationError, match=r"memory\.long_term\.extractor is none.*extractor="):
            memory.learn(session)


def test_where_facts_are_not_kept_nothing_is_learned(url: str, extractor: FakeExtractor) -> None:
    settings = load_settings(memory={"long_term": {"enabled": False}})
    with MemoryManager(url, settings=settings, extractor=extractor) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "My home city is Perm.")
        with pytest.raises(ConfigurationError, match=r"memory\.long_term\.enabled"):
            memory.learn(session)
    assert extractor.calls == 0


def test_a_memory_for_reading_only_proposes(url: str, clock: FrozenClock, extractor: FakeExtractor) -> None:
    with MemoryManager(url, clock=clock) as memory:
        session = memory.create_session("alice").id
        say(memory, session, "My home city is Perm.")
    with MemoryManager(url, clock=clock, extractor=extractor, read_only=True) as memory:
        with pytest.raises(ReadOnly):
            memory.learn(session)
        assert extractor.calls == 0
        assert outcomes(memory.learn(session, apply=False)) == {"proposed": 1}


def test_an_unknown_session_is_not_found(memory: MemoryManager, extractor: FakeExtractor) -> None:
    for apply in (True, False):
        with pytest.raises(NotFound):
            memory.learn("nowhere", apply=apply)
    with pytest.raises(InvalidInput):
        memory.learn("")
    assert extractor.calls == 0


@pytest.mark.parametrize("nonsense", [object(), type("E", (), {"name": "x"})(), type("E", (), {"extract": print})()])
def test_what_is_no_extractor_is_refused_at_the_opening(url: str, nonsense: Any) -> None:
    with pytest.raises(InvalidInput, match="extractor"):
        MemoryManager(url, extractor=nonsense)


# --- owners -----------------------------------------------------------------------------------------------------------


def test_an_owner_learns_from_their_own_sessions_only(
    memory: MemoryManager, session: str, extractor: FakeExtractor
) -> None:
    say(memory, session, "My home city is Perm.")
    bob = memory.for_user("bob")
    for apply in (True, False):
        with pytest.raises(NotFound):
            bob.learn(session, apply=apply)
    with pytest.raises(NotFound):
        bob.learn(session, proposals=Learned(session_id=session, extractor="x", after=0, through=1))
    assert extractor.calls == 0
    assert outcomes(memory.for_user("alice").learn(session)) == {"applied": 1}
    assert bob.get_knowledge() == []


def test_facts_go_to_the_owner_of_the_session_whoever_asks(memory: MemoryManager, session: str) -> None:
    memory.add_knowledge(Knowledge(category="profile", key="home_city", value="Moscow"))  # shared
    say(memory, session, "My home city is Perm.")
    [item] = memory.learn(session).items
    assert item.replaces is None
    assert [fact.value for fact in memory.get_knowledge()] == ["Moscow"]
    own = [fact.value for fact in memory.get_knowledge(user_id="alice") if fact.user_id]
    assert own == ["Perm"]


def test_a_message_dated_ahead_is_true_from_now(memory: MemoryManager, session: str, clock: FrozenClock) -> None:
    ahead = clock() + timedelta(days=9)
    memory.add_message(Message(session_id=session, role="user", content="My home city is Perm.", timestamp=ahead))
    memory.learn(session)
    assert [fact.valid_from for fact in memory.get_knowledge(user_id="alice")] == [clock()]


def test_it_is_awaited_with_asyncio(url: str, extractor: FakeExtractor) -> None:
    async def learn() -> tuple[Learned, list[Knowledge]]:
        async with AsyncMemoryManager(url, extractor=extractor) as memory:
            alice = memory.for_user("alice")
            session = (await alice.create_session()).id
            await alice.add_message(Message(session_id=session, role="user", content="My home city is Perm."))
            found = await alice.learn(session, apply=False)
            return await memory.learn(session, proposals=found), await alice.get_knowledge()

    learned, facts = asyncio.run(learn())
    assert outcomes(learned) == {"applied": 1}
    assert [fact.value for fact in facts] == ["Perm"]


def test_an_export_tells_how_far_a_session_is_learned(
    memory: MemoryManager, session: str, extractor: FakeExtractor
) -> None:
    say(memory, session, "My home city is Perm.")
    memory.learn(session)
    file = BytesIO()
    memory.export_user("alice", file)
    file.seek(0)
    with MemoryManager(":memory:", extractor=extractor) as other:
        other.import_user(file)
        assert other.learn(session).after == 1
        [fact] = other.get_knowledge(user_id="alice")
    assert (fact.value, fact.source, extractor.calls) == ("Perm", "fake", 1)
