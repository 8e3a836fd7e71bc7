"""Messages found by words, by what stands around them and by meaning; large scopes, cut terms, filters."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mirai_memory import MemoryManager, Message, UnitOfWork, load_settings
from mirai_memory.search import layouts, message_search, postings
from mirai_memory.testing import FakeEmbedder
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import contents, new_session, said, say

MOMENT = datetime(2023, 5, 8, 12, tzinfo=UTC)
STEP = timedelta(microseconds=1)


@pytest.fixture
def embedded(url: str, clock: FrozenClock) -> Iterator[MemoryManager]:
    """A memory with an embedder, once per engine."""
    settings = load_settings(memory={"rag": {"background": False, "search_budget_ms": 60_000}})
    with MemoryManager(url, clock=clock, embedder=FakeEmbedder(), settings=settings) as memory:
        yield memory


def _parts(memory: MemoryManager, query: str, content: str, **options: Any) -> dict[str, float]:
    """What made the score of this message."""
    options = {"user_id": "alice", **options}
    for found in memory.search_messages(query, limit=50, explain=True, **options):
        if found.content == content:
            return found.explanation or {}
    raise AssertionError("not found")


def _talk(memory: MemoryManager, *turns: tuple[str, str], **fields: Any) -> str:
    """A session of named speakers; its id."""
    session = new_session(memory)
    memory.add_messages([said(session, content, name=name, **fields) for name, content in turns])
    return session


# --- what stands around a match ---------------------------------------------------------------------------------------


def test_what_answers_is_found_beside_the_words_of_the_question(memory: MemoryManager) -> None:
    _talk(memory, ("Ann", "Hello!"), ("Ben", "How was the trip to Kazan?"), ("Ann", "Lovely, thanks"), ("Ben", "Good"))
    _talk(memory, ("Ann", "something else"), ("Ben", "entirely"))
    found = contents(memory.search_messages("the trip to Kazan", user_id="alice"))
    assert found[0] == "How was the trip to Kazan?"
    assert set(found) == {"Hello!", "How was the trip to Kazan?", "Lovely, thanks", "Good"}


def test_what_stands_further_off_is_not_found(memory: MemoryManager) -> None:
    say(memory, new_session(memory), "tea", "one", "two", "three", "four")
    assert contents(memory.search_messages("tea", user_id="alice")) == ["tea", "one", "two"]


class Understanding(FakeEmbedder):
    """To whom an automobile is a car."""

    def embed_query(self, text: str) -> Any:
        return super().embed_query(text.replace("automobile", "car"))


@pytest.mark.parametrize("most", [layouts.MOST, 2])
def test_what_stands_beside_a_match_of_meaning_is_found_too(
    url: str, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(message_search, "CANDIDATES", 1)
    monkeypatch.setattr(layouts, "MOST", most)
    with MemoryManager(url, embedder=Understanding()) as memory:
        say(memory, new_session(memory), "far", "hello", "well", "my car is red", "yes", "so", "far too")
        say(memory, new_session(memory), "elsewhere")
        memory.reindex()
        found = contents(memory.search_messages("automobile", user_id="alice"))
        assert found[0] == "my car is red"
        assert set(found) == {"hello", "well", "my car is red", "yes", "so"}


def test_an_answer_is_told_by_its_question(memory: MemoryManager) -> None:
    wood = "Which wood is the table of"
    _talk(memory, ("Ben", f"{wood}?"), ("Ann", "Oak"), ("Ben", f"{wood}."), ("Ann", "Elm"))
    assert _parts(memory, "wood table", "Oak")["reply"] > 0
    assert "reply" not in _parts(memory, "wood table", "Elm")


def test_roles_alone_are_speakers_whom_no_question_names(memory: MemoryManager) -> None:
    session = new_session(memory)
    memory.add_message(said(session, "Which wood is the table of?"))
    memory.add_message(said(session, "Oak, I think", role="assistant"))
    parts = _parts(memory, "what did the user and the assistant say of the wood", "Oak, I think")
    assert parts["reply"] > 0
    assert not {"speaker", "of_oneself", "asks"} & parts.keys()
    assert _parts(memory, "wood", "Which wood is the table of?")["opens"] > 0


def test_a_session_of_one_speaker_is_a_document(memory: MemoryManager) -> None:
    _talk(memory, ("Ann", "I painted the fence green"), ("Ann", "Is the fence dry?"))
    for content in ("I painted the fence green", "Is the fence dry?"):
        assert not {"speaker", "of_oneself", "asks", "opens"} & _parts(memory, "Ann fence", content).keys()


@pytest.mark.parametrize("query", ["What did Melanie paint?", "What did Mel paint?", "what did melanie paint?"])
def test_who_is_named_is_asked_about(memory: MemoryManager, query: str) -> None:
    _talk(memory, ("Caroline", "I paint a fence"), ("Melanie", "I paint a bridge"), ("Caroline", "Do you paint?"))
    found = memory.search_messages(query, user_id="alice", explain=True)
    assert found[0].content == "I paint a bridge"
    assert found[0].explanation is not None
    assert {"speaker", "of_oneself"} <= found[0].explanation.keys()
    assert "speaker" not in _parts(memory, query, "I paint a fence")


def test_a_question_tells_little_of_who_asks_it(memory: MemoryManager) -> None:
    turns = ("Ben", "hello"), ("Ann", "the fence, is it green?"), ("Ben", "yes"), ("Ann", "the fence is green now")
    _talk(memory, *turns)
    assert _parts(memory, "What of Ann's fence?", "the fence, is it green?")["asks"] < 0
    assert contents(memory.search_messages("What of Ann's fence?", user_id="alice"))[0] == "the fence is green now"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("When did she paint the fence?", "She did paint the fence yesterday"),
        ("Когда красили забор?", "Забор красили позавчера"),
    ],
)
def test_when_is_answered_by_a_time(memory: MemoryManager, query: str, expected: str) -> None:
    say(memory, new_session(memory), "She did paint the fence yesterday", "She did paint the fence green")
    say(memory, new_session(memory), "Забор красили позавчера", "Забор красили зелёным")
    assert contents(memory.search_messages(query, user_id="alice"))[0] == expected
    assert _parts(memory, query, expected)["time"] > 0
    assert "time" not in _parts(memory, query.replace("When", "Why").replace("Когда", "Зачем"), expected)


@pytest.mark.parametrize(
    "date", ["8 May 2023", "May 8, 2023", "08.05.2023", "2023-05-08", "8 мая 2023", "в мае", "in May"]
)
def test_a_date_in_the_question_is_that_of_the_message(memory: MemoryManager, date: str) -> None:
    for day in (MOMENT - timedelta(days=60), MOMENT, MOMENT + timedelta(days=200)):
        session = new_session(memory)
        memory.add_messages([said(session, f"tea of {day:%B}", timestamp=day), said(session, "ok", timestamp=day)])
    query = f"tea, {date}"
    assert contents(memory.search_messages(query, user_id="alice"))[0] == "tea of May"
    assert _parts(memory, query, "tea of May")["date"] == (3.5 if "8" in date else 1.75)
    assert "date" not in _parts(memory, query, "tea of March")


def test_dates_that_there_are_not_and_far_ones_break_nothing(memory: MemoryManager) -> None:
    session = new_session(memory)
    ends = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    memory.add_messages([said(session, "tea", timestamp=moment) for moment in ends])
    for date in ("31 February", "31.02.2023", "8 May 9999", "31 December", "1 January", "0001-01-01", "9999-12-31"):
        assert contents(memory.search_messages(f"tea on {date}", user_id="alice")) == ["tea", "tea"], date
    assert [message.timestamp for message in memory.search_messages("tea", since=ends[1])] == [ends[1]]
    assert [message.timestamp for message in memory.search_messages("tea", until=ends[0] + STEP)] == [ends[0]]


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_id", ["alice", None])
def test_a_span_of_time_is_exact_to_the_microsecond(embedded: MemoryManager, user_id: str | None) -> None:
    session = new_session(embedded)
    for name, moment in (("before", MOMENT - STEP), ("first", MOMENT), ("after", MOMENT + STEP)):
        say(embedded, session, f"tea {name}", timestamp=moment)

    def found(**span: datetime) -> set[str]:
        return set(contents(embedded.search_messages("tea", user_id=user_id, **span)))

    assert found(since=MOMENT) == {"tea first", "tea after"}
    assert found(until=MOMENT) == {"tea before"}
    assert found(since=MOMENT, until=MOMENT + STEP) == {"tea first"}
    assert found(since=MOMENT, until=MOMENT) == set()


@pytest.mark.parametrize("most", [layouts.MOST, 2])
def test_filters_hold_for_what_stands_around_and_what_is_near_by_meaning(
    embedded: MemoryManager, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(layouts, "MOST", most)
    one, other = new_session(embedded), new_session(embedded)
    say(embedded, one, "tea here", "beside it", timestamp=MOMENT)
    say(embedded, one, "later", timestamp=MOMENT + timedelta(hours=1))
    say(embedded, other, "tea there", "beside that", timestamp=MOMENT)
    search = embedded.search_messages
    assert set(contents(search("tea", user_id="alice", session_id=one))) == {"tea here", "beside it", "later"}
    within = search("tea", user_id="alice", until=MOMENT + STEP)
    assert set(contents(within)) == {"tea here", "beside it", "tea there", "beside that"}
    assert contents(search("tea", user_id="alice", session_id=one, since=MOMENT + STEP)) in (["later"], [])
    assert search("tea", user_id="alice", session_id="nobody's") == []


@pytest.mark.parametrize("user_id", ["alice", None])
def test_what_is_common_among_all_is_found_in_a_small_part(
    memory: MemoryManager, monkeypatch: pytest.MonkeyPatch, user_id: str | None
) -> None:
    """The newest postings of a common word are read, and an old session's are not among them."""
    for module in (postings, message_search):
        monkeypatch.setattr(module, "POSTINGS", 5)
    old = new_session(memory)
    say(memory, old, "tea of old", "quiet", timestamp=MOMENT)
    say(memory, new_session(memory), *(f"tea {number}" for number in range(20)))
    assert "tea of old" not in contents(memory.search_messages("tea", user_id=user_id))
    assert contents(memory.search_messages("tea", user_id=user_id, session_id=old))[0] == "tea of old"
    assert contents(memory.search_messages("tea", user_id=user_id, until=MOMENT + STEP))[0] == "tea of old"


def test_a_common_word_that_was_cut_still_says_less_than_a_rare_one(
    memory: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postings, "POSTINGS", 3)
    monkeypatch.setattr(postings, "SAMPLE", 10)
    for number in range(30):
        say(memory, new_session(memory), f"a cup of tea {number}")
    say(memory, new_session(memory), "a samovar")
    say(memory, new_session(memory), "a cup of tea")
    assert contents(memory.search_messages("cup tea samovar", user_id="alice"))[0] == "a samovar"


# --- large scopes, and everybody --------------------------------------------------------------------------------------


def _story(memory: MemoryManager, user_id: str = "alice") -> None:
    for number in range(12):
        session = new_session(memory, user_id)
        names = ("Ann", "Ben")
        texts = (f"we walked by river {number}", f"did you see bridge {number}?", f"I did, and tower {number}", "good")
        memory.add_messages([said(session, text, name=names[place % 2]) for place, text in enumerate(texts)])


@pytest.mark.parametrize("query", ["river 7", "What did Ann see at bridge 3?", "tower 11", "who walked by the river"])
def test_of_a_large_scope_only_the_surroundings_are_read_and_the_best_is_the_same(
    embedded: MemoryManager, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    _story(embedded)
    embedded.reindex()
    whole = embedded.search_messages(query, user_id="alice", explain=True)
    monkeypatch.setattr(layouts, "MOST", 10)
    monkeypatch.setattr(message_search, "CANDIDATES", 6)
    around = embedded.search_messages(query, user_id="alice", explain=True, limit=40)
    assert contents(around)[0] == contents(whole)[0]
    assert around[0].explanation is not None
    assert whole[0].explanation is not None
    assert around[0].explanation.keys() == whole[0].explanation.keys()
    # What stands beside a match is found there too.
    assert len({message.session_id for message in around}) < len(around)


def test_a_large_scope_does_not_reach_into_others(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "MOST", 0)
    for owner in ("alice", "bob"):
        _story(memory, owner)
    found = memory.for_user("alice").search_messages("bridge 3", limit=100)
    assert found
    assert {message.session_id for message in found} <= {session.id for session in memory.list_sessions("alice")}


def _work(memory: MemoryManager, query: str) -> int:
    """How many thousand steps of its virtual machine SQLite takes for a search."""
    steps = 0

    def counted() -> None:
        nonlocal steps
        steps += 1

    def find(uow: UnitOfWork) -> list[Message]:
        uow._work.db.connection.driver_connection.set_progress_handler(counted, 1_000)
        return uow.messages.search(query, limit=10)

    found = memory._store.read(find, owner="alice")
    assert len(found) == 10
    return steps


def test_a_search_in_a_large_scope_does_not_read_all_of_it(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "MOST", 10)
    with MemoryManager(sqlite_url) as memory:
        for number in range(4):
            say(memory, new_session(memory), *(f"good tea {number}" for _ in range(60)))
        before = _work(memory, "tea 3")
        for number in range(20):
            say(memory, new_session(memory), *(f"rain {number} {place}" for place in range(200)))
        assert _work(memory, "tea 3") < 2 * before + 20


def test_the_administrator_finds_everybody_s_without_vectors(embedded: MemoryManager) -> None:
    for owner in ("alice", "bob"):
        say(embedded, new_session(embedded, owner), f"hello of {owner}", f"tea of {owner}", f"bye of {owner}")
    embedded.reindex()
    found = embedded.search_messages("tea", explain=True)
    assert {message.content for message in found[:2]} == {"tea of alice", "tea of bob"}
    assert len(found) == 6
    assert not any("dense" in name for message in found for name in message.explanation or {})


# --- scores -----------------------------------------------------------------------------------------------------------


def test_a_score_is_the_sum_of_what_is_explained(embedded: MemoryManager) -> None:
    _story(embedded)
    names: set[str] = set()
    for query in ("What did Ann see at bridge 3?", "when was 15 January 2026, river 1"):
        for message in embedded.search_messages(query, user_id="alice", limit=100, explain=True):
            assert message.explanation is not None
            assert message.score == pytest.approx(sum(message.explanation.values()), abs=1e-3)
            assert all(message.explanation.values())
            names |= message.explanation.keys()
    context = {"reply", "speaker", "of_oneself", "date", "opens"}
    assert names >= {"bm", "sess", "near", *context, "dense", "dense_near", "dense_sess"}


def test_nothing_is_explained_unasked(embedded: MemoryManager) -> None:
    say(embedded, new_session(embedded), "tea")
    [plain], [explained] = (embedded.search_messages("tea", user_id="alice", explain=flag) for flag in (False, True))
    assert plain.explanation is None
    assert plain == explained
    assert plain.score == explained.score
    assert explained.to_dict()["explanation"] == explained.explanation


def test_a_query_without_words_is_answered_by_meaning_alone(embedded: MemoryManager) -> None:
    say(embedded, new_session(embedded), "tea")
    assert embedded.search_messages("", user_id="alice") == embedded.search_messages(" \n", user_id="alice") == []
    assert embedded.search_messages("tea", user_id="alice", limit=0) == []
    found = embedded.search_messages("?!", user_id="alice", explain=True)
    assert [set(message.explanation or ()) for message in found] == [{"dense", "dense_sess"}]


def test_as_many_are_found_as_there_are_and_were_asked_for(memory: MemoryManager) -> None:
    """More than fit into one statement, and lengths on both sides of a power of two."""
    said = set(say(memory, new_session(memory), *(f"tea {number}" for number in range(950))))
    for limit in (1, 2, 3, 4, 5, 511, 512, 513, 1_000):
        found = [message.id for message in memory.search_messages("tea", user_id="alice", limit=limit)]
        assert len(found) == len({*found}) == min(limit, len(said))
        assert said >= {*found}


def test_an_owner_without_messages_has_no_result(embedded: MemoryManager) -> None:
    say(embedded, new_session(embedded), "tea")
    assert embedded.search_messages("tea", user_id="nobody") == []


# --- threads ----------------------------------------------------------------------------------------------------------


def test_eight_threads_search_and_add_at_once(url: str) -> None:
    """What a thread has stored is in its next search, whatever the others do, and at the end all of it is there."""
    rounds = 6
    with MemoryManager(url, embedder=FakeEmbedder()) as memory:
        sessions = [new_session(memory, f"owner-{number % 2}") for number in range(8)]

        def work(number: int) -> None:
            owner = f"owner-{number % 2}"
            for turn in range(rounds):
                content = f"tea number{number}x{turn}"
                id = memory.add_message(Message(session_id=sessions[number], role="user", content=content))
                found = memory.search_messages(content, user_id=owner)
                assert found[0].id == id
                assert {message.session_id for message in found} <= set(sessions[number % 2 :: 2])
                if turn % 3 == 2:
                    memory.delete_message(id)
                    assert id not in {message.id for message in memory.search_messages(content, user_id=owner)}

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        memory.reindex()
        with MemoryManager(url, embedder=FakeEmbedder()) as fresh:
            for owner in ("owner-0", "owner-1"):
                kept, read = (
                    [
                        (found.id, found.explanation)
                        for found in each.search_messages("tea", user_id=owner, limit=100, explain=True)
                    ]
                    for each in (memory, fresh)
                )
                assert kept == read
                assert len(kept) == 4 * (rounds - rounds // 3)
