"""Search: by words in every form, best first, over what is current and within what was asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mirai_memory import Knowledge, MemoryManager, Message
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import contents, new_session, said, say

_WORD_FORMS = [
    ("кратких ответов", "Я люблю краткие ответы"),
    ("зеленого чая", "зелёный чай без сахара"),
    ("running the tests", "run a test before the release"),
    ("ЁЛКИ", "елка в гостиной"),
    ("children went", "the child goes to school"),
    ("what is the answer", "short answers, please"),
    ("CAFÉ", "a cafe nearby"),
    ("c++", "we write C++ here"),
    ("黒猫", "我家的黒猫"),
]
_OPERATORS = [
    'tea" OR "1',
    "tea AND coffee",
    "NOT tea",
    "tea*",
    "content:tea",
    "tea NEAR/2 milk",
    "(tea",
    "tea ) ; DROP TABLE messages; --",
    "tea:* & !milk | <->",
    "'tea'",
    "^tea {a b}: -tea +tea ~tea",
    "tea\\",
    "tea@1",
]


def _values(found: list[Knowledge]) -> list[str]:
    return [fact.value for fact in found]


def _know(memory: MemoryManager, value: str, **fields: Any) -> int:
    return memory.add_knowledge(Knowledge(value=value, **{"user_id": "alice", **fields}))


def _scores(found: list[Message]) -> list[tuple[str, float | None]]:
    return [(message.content, message.score) for message in found]


class SearchContract:
    def test_words_are_found_in_every_form(self, memory: MemoryManager) -> None:
        for query, text in _WORD_FORMS:
            say(memory, new_session(memory, query), "nothing of the kind", text, "ничего такого")
            _know(memory, "nothing of the kind", user_id=query)
            _know(memory, text, user_id=query)
            assert contents(memory.search_messages(query, user_id=query))[:1] == [text], query
            assert _values(memory.search_knowledge(query, user_id=query)) == [text], query

    def test_operators_are_text(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), "green tea", "black pepper")
        _know(memory, "green tea")
        for query in _OPERATORS:
            assert contents(memory.search_messages(query, user_id="alice"))[:1] == ["green tea"], query
            assert contents(memory.search_messages(query))[:1] == ["green tea"], query
            assert _values(memory.search_knowledge(query, user_id="alice")) == ["green tea"], query

    def test_a_query_without_words_finds_nothing(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), 'the " and * of 🙂 @1')
        for query in ("", " \n", "the and of", "и в на", '"', "*", "🙂", "\x00", "\ud800", "@"):
            assert memory.search_messages(query, user_id="alice") == memory.search_messages(query) == [], query
            assert memory.search_knowledge(query) == memory.recall(query, user_id="alice") == [], query

    def test_results_are_the_stored_entities_with_a_score(self, memory: MemoryManager) -> None:
        id = memory.add_message(said(new_session(memory), "green tea", metadata={"a": 1}))
        [found] = memory.search_messages("tea", user_id="alice")
        assert found == memory.get_message(id)
        assert found.score is not None
        assert found.score > 0
        _know(memory, "green tea", key="drink")
        [fact] = memory.search_knowledge("tea", user_id="alice")
        assert [fact] == memory.get_knowledge(user_id="alice")
        assert fact.score is not None

    def test_the_best_come_first(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, "green tea", "tea", "green green tea with milk", "coffee", *(f"word{n} tea" for n in range(30)))
        for found in (memory.search_messages("green milk tea", limit=50), memory.search_messages("green tea", limit=3)):
            scores = [message.score or 0.0 for message in found]
            assert scores == sorted(scores, reverse=True)
        assert memory.search_messages("green milk tea")[0].content == "green green tea with milk"
        assert len(memory.search_messages("tea", limit=5)) == 5
        assert memory.search_messages("tea", limit=0) == []

    def test_a_rare_word_says_more_than_a_common_one(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, *(f"report {number}" for number in range(20)), "submarine")
        assert memory.search_messages("submarine report", user_id="alice")[0].content == "submarine"

    def test_messages_of_one_session(self, memory: MemoryManager) -> None:
        one, other = new_session(memory), new_session(memory)
        say(memory, one, "tea here")
        say(memory, other, "tea there")
        assert contents(memory.search_messages("tea", session_id=one)) == ["tea here"]
        assert memory.search_messages("tea", session_id="nobody's") == []

    def test_messages_of_a_span_of_time(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        days = [datetime(2025, 5, day, tzinfo=UTC) for day in (1, 2, 3)]
        for day in days:
            say(memory, id, f"tea {day.day}", timestamp=day)
        assert contents(memory.search_messages("tea", since=days[1])) == ["tea 3", "tea 2"]
        assert contents(memory.search_messages("tea", until=days[1])) == ["tea 1"]
        assert contents(memory.search_messages("tea", since=days[1], until=days[2])) == ["tea 2"]
        assert memory.search_messages("tea", since=days[2], until=days[1]) == []

    def test_who_spoke_and_when_is_found(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, "hello", name="Caroline", timestamp=datetime(2023, 5, 8, tzinfo=UTC))
        say(memory, id, "hello too", name="Mel", timestamp=datetime(2023, 6, 9, tzinfo=UTC))
        for query in ("Caroline", "8 May", "8 мая"):
            assert contents(memory.search_messages(query, user_id="alice"))[:1] == ["hello"], query

    def test_facts_by_category_kind_of_source_and_confidence(self, memory: MemoryManager) -> None:
        _know(memory, "tea one", category="drinks", confidence=0.5)
        _know(memory, "tea two", source_kind="document", confidence=0.9)
        search = memory.search_knowledge
        assert _values(search("tea", category="drinks", user_id="alice")) == ["tea one"]
        assert _values(search("tea", source_kind="document", user_id="alice")) == ["tea two"]
        assert _values(search("tea", min_confidence=0.9, user_id="alice")) == ["tea two"]
        assert search("tea", category="drinks", min_confidence=0.6, user_id="alice") == []
        assert len(search("tea", 1, user_id="alice")) == 1

    def test_a_key_is_found_too(self, memory: MemoryManager) -> None:
        _know(memory, "green tea", key="favorite drink")
        assert _values(memory.search_knowledge("drinks", user_id="alice")) == ["green tea"]

    def test_only_current_facts_are_found(self, memory: MemoryManager, clock: FrozenClock) -> None:
        now = clock()
        _know(memory, "tea superseded", key="a")
        _know(memory, "tea current", key="a")
        _know(memory, "tea expired", key="b", expires_at=now)
        _know(memory, "tea closed", key="c", valid_from=now - timedelta(days=2), valid_to=now - timedelta(days=1))
        _know(memory, "tea to come", key="d", valid_from=now + timedelta(days=1))
        memory.delete_knowledge(_know(memory, "tea deleted", key="e"))
        assert _values(memory.search_knowledge("tea", user_id="alice")) == ["tea current"]
        clock.advance(days=1)
        assert set(_values(memory.search_knowledge("tea", user_id="alice"))) == {"tea current", "tea to come"}

    def test_an_updated_message_is_found_by_its_new_words_only(self, memory: MemoryManager) -> None:
        [id] = say(memory, new_session(memory), "green tea", name="Ann")
        memory.update_message(id, "чёрный кофе")
        assert memory.search_messages("tea") == []
        assert contents(memory.search_messages("черного кофе")) == ["чёрный кофе"]
        assert len(memory.search_messages("Ann")) == 1

    def test_what_is_gone_is_not_found(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        old, deleted, *_ = say(memory, id, "tea old", "tea deleted", "tea kept", "tea popped")
        memory.delete_message(deleted)
        memory.pop_message(id)
        assert contents(memory.search_messages("tea")) == ["tea kept", "tea old"]
        memory.trim_old_messages(id, 1)
        assert contents(memory.search_messages("tea")) == ["tea kept"]
        assert memory.get_message(old) is None

    def test_what_is_gone_weighs_nothing(self, memory: MemoryManager, clock: FrozenClock) -> None:
        id, gone = new_session(memory), new_session(memory)
        say(memory, id, "green tea", "tea for two", "a cup of coffee and more words")
        _know(memory, "green tea", key="drink")
        _know(memory, "a tea pot", key="pot")

        def scores() -> list[tuple[str, float | None]]:
            facts = memory.search_knowledge("green tea", user_id="alice")
            found = _scores(memory.search_messages("green tea", user_id="alice"))
            return found + [(fact.value, fact.score) for fact in facts]

        before = scores()
        say(memory, gone, *("tea " * number for number in range(1, 20)))
        one, two, *_ = say(memory, id, "tea 1", "tea 2", "tea 3", "tea 4", "tea 5", "tea 6")
        facts = [_know(memory, f"tea {number}", key=str(number)) for number in range(10)]
        assert scores() != before
        memory.delete_message(one)
        memory.update_message(two, "milk milk milk")
        memory.delete_message(two)
        memory.pop_message(id)
        kept = memory.get_messages(id)[:3]
        memory.delete_session(gone)
        for fact in facts:
            memory.delete_knowledge(fact)
        for message in memory.get_messages(id)[3:]:
            memory.delete_message(message.id or 0)
        assert contents(kept) == contents(memory.get_messages(id))
        assert scores() == before

    def test_items_are_not_searched(self, memory: MemoryManager) -> None:
        memory.add_message(Message(session_id=new_session(memory), kind="item", payload={"text": "tea"}, content="tea"))
        assert memory.search_messages("tea") == []

    def test_a_long_query_is_answered(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), "green tea")
        assert contents(memory.search_messages("tea " * 50_000 + "x" * 50_000)) == ["green tea"]

    def test_recall_holds_messages_and_facts_best_first(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), "green tea in the morning")
        say(memory, new_session(memory), "coffee")
        say(memory, new_session(memory, "bob"), "green tea of bob's")
        _know(memory, "prefers green tea")
        _know(memory, "tea is served at five", user_id=None)
        found = memory.recall("green tea", user_id="alice")
        texts = [item.content if isinstance(item, Message) else item.value for item in found]
        assert sorted(texts) == ["green tea in the morning", "prefers green tea", "tea is served at five"]
        scores = [item.score or 0.0 for item in found]
        assert scores == sorted(scores, reverse=True)
        assert len(memory.recall("green tea", user_id="alice", limit=1)) == 1
        assert memory.recall("green tea", user_id="alice", limit=0) == []

    def test_recall_of_one_kind(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), "tea")
        _know(memory, "tea")
        [message] = memory.recall("tea", user_id="alice", kinds=["messages"])
        [fact] = memory.recall("tea", user_id="alice", kinds=["knowledge"])
        assert isinstance(message, Message)
        assert isinstance(fact, Knowledge)
        assert memory.recall("tea", user_id="alice", kinds=[]) == []

    def test_what_stands_beside_a_match_is_found(self, memory: MemoryManager) -> None:
        say(memory, new_session(memory), "Which colour is it?", "the fence", "Green", "Fine", "far away")
        say(memory, new_session(memory), "elsewhere")
        found = contents(memory.search_messages("fence", user_id="alice"))
        assert found[0] == "the fence"
        assert set(found) == {"Which colour is it?", "the fence", "Green", "Fine"}

    def test_a_span_of_time_is_exact_to_the_microsecond(self, memory: MemoryManager) -> None:
        id, moment, step = new_session(memory), datetime(2025, 5, 1, 12, tzinfo=UTC), timedelta(microseconds=1)
        for name, when in (("before", moment - step), ("at", moment), ("after", moment + step)):
            say(memory, id, f"tea {name}", timestamp=when)
        for user_id in ("alice", None):
            since = memory.search_messages("tea", user_id=user_id, since=moment)
            until = memory.search_messages("tea", user_id=user_id, until=moment)
            both = memory.search_messages("tea", user_id=user_id, since=moment, until=moment + step)
            assert set(contents(since)) == {"tea at", "tea after"}
            assert contents(until) == ["tea before"]
            assert contents(both) == ["tea at"]

    def test_a_score_is_the_sum_of_what_is_explained(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        for name, content in (("Ann", "Who painted the fence?"), ("Ben", "I painted it in June"), ("Ann", "Oh")):
            say(memory, id, content, name=name)
        _know(memory, "the fence is green")
        for item in memory.recall("When did Ben paint the fence?", user_id="alice", explain=True):
            assert item.explanation is not None
            assert abs(sum(item.explanation.values()) - (item.score or 0.0)) < 1e-3
        best, *_ = memory.search_messages("When did Ben paint the fence?", user_id="alice", explain=True)
        assert best.content == "I painted it in June"
        assert {"bm", "near", "speaker", "of_oneself", "time", "reply"} <= (best.explanation or {}).keys()
        assert memory.search_messages("fence", user_id="alice")[0].explanation is None

    def test_facts_are_found_by_vectors_of_the_caller_s_own(self, memory: MemoryManager) -> None:
        for value, numbers in (("east", [1.0, 0.0]), ("north", [0.0, 1.0]), ("north by east", [0.4, 0.9])):
            _know(memory, value, embedding=numbers, embedding_model="compass")
        _know(memory, "bob's east", user_id="bob", embedding=[1.0, 0.0], embedding_model="compass")
        _know(memory, "shared east", user_id=None, embedding=[1.0, 0.0], embedding_model="compass")
        _know(memory, "of another model", embedding=[1.0, 0.0], embedding_model="map")

        def found(numbers: list[float], **options: Any) -> list[str]:
            options = {"user_id": "alice", "embedding_model": "compass", **options}
            return _values(memory.search_knowledge("", embedding=numbers, **options))

        assert set(found([1.0, 0.0])[:2]) == {"east", "shared east"}
        assert set(found([1.0, 0.0])) == {"east", "shared east", "north", "north by east"}
        assert found([0.0, 2.0])[0] == "north"
        assert found([1.0, 0.0], user_id=None) == ["shared east"]
        assert found([1.0, 0.0], embedding_model="map") == ["of another model"]
        assert found([1.0, 0.0, 0.0]) == found([1.0, 0.0], embedding_model="nobody's") == []

    def test_filters_hold_for_vectors_too(self, memory: MemoryManager, clock: FrozenClock) -> None:
        given: dict[str, Any] = {"embedding": [1.0, 0.0], "embedding_model": "compass"}
        _know(memory, "wanted", category="a", source_kind="user", confidence=0.9, **given)
        _know(memory, "of another category", category="b", source_kind="user", confidence=0.9, **given)
        _know(memory, "of another kind", category="a", source_kind="tool", confidence=0.9, **given)
        _know(memory, "unsure", category="a", source_kind="user", confidence=0.5, **given)
        _know(memory, "expired", category="a", source_kind="user", confidence=0.9, expires_at=clock(), **given)
        _know(memory, "superseded", key="k", category="a", source_kind="user", confidence=0.9, **given)
        _know(memory, "new", key="k", category="a", source_kind="user", confidence=0.9)
        memory.delete_knowledge(_know(memory, "deleted", category="a", source_kind="user", confidence=0.9, **given))
        found = memory.search_knowledge(
            "", category="a", source_kind="user", min_confidence=0.9, user_id="alice", **given
        )
        assert _values(found) == ["wanted"]
