"""Messages: kept exactly, in one order that never moves, counted, stored once however often they are sent."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mirai_memory import Conflict, InvalidInput, Knowledge, MemoryManager, Message, NotFound, Task
from mirai_memory.testing.clock import FrozenClock
from mirai_memory.testing.contract.making import answering, calling, contents, new_session, said, say

_TEXTS = (
    "Привет, ёжик! Ещё чаю?",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 ☕",
    unicodedata.normalize("NFD", "йогурт, café, naïve, Å"),
    unicodedata.normalize("NFC", "йогурт, café, naïve, Å"),
    "  leading, trailing \t\r\n lines\u2028and\u0085more\ufeff ",
    "'quoted' \"twice\" \\ % _ ; -- /* */ ' OR 1=1",
    "\x01\x1f\x7f\u200b\u202e\uffff\U0010ffff",
    "",
)
_JSON: dict[str, Any] = {
    "floats": [0.1, 1e22, 5e-324, 1.7976931348623157e308, -0.5, 100.0],
    "integers": [0, -1, 2**63, -(2**80)],
    "others": [True, False, None, "", [], {}, [[[]]]],
    "ключ 🔑": {"z": 1, "a": {"\\u0000": "a backslash, not a NUL"}},
}


class MessageContract:
    def test_text_comes_back_exactly(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, *_TEXTS)
        assert contents(memory.get_messages(id)) == list(_TEXTS)

    def test_every_field_comes_back_exactly(self, memory: MemoryManager) -> None:
        moment = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        message = Message(
            session_id=new_session(memory),
            role="assistant",
            content=_TEXTS[0],
            name="Анна К.",
            tool_calls=[{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.0}'}}],
            parts=[{"type": "image_url", "image_url": {"url": "https://example.org/ё.png"}}, {"nested": _JSON}],
            timestamp=moment,
            tokens=2**53 + 1,
            model="gpt-4o",
            metadata=_JSON,
            client_id="клиент-1",
        )
        id = memory.add_message(message)
        expected = replace(message, id=id, user_id="alice", position=1)
        stored = memory.get_message(id)
        assert stored == expected
        assert repr(stored) == repr(replace(expected, timestamp=moment.astimezone(UTC)))  # 1 is not 1.0 is not True
        assert memory.get_messages(message.session_id) == memory.get_recent_messages(message.session_id) == [stored]

    def test_an_item_keeps_its_payload_exactly(self, memory: MemoryManager) -> None:
        message = Message(session_id=new_session(memory), kind="item", payload={"type": "reasoning", "deep": _JSON})
        id = memory.add_message(message)
        stored = memory.get_message(id)
        assert stored is not None
        assert (stored.kind, stored.role, stored.content, stored.payload) == ("item", None, "", message.payload)

    def test_the_first_and_the_last_moment_come_back(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        moments = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
        memory.add_messages([said(id, "far", timestamp=moment) for moment in moments])
        assert [message.timestamp for message in memory.get_messages(id)] == moments

    def test_a_message_without_a_time_gets_the_clock_s(self, memory: MemoryManager, clock: FrozenClock) -> None:
        stored = memory.get_message(memory.add_message(said(new_session(memory), "now")))
        assert stored is not None
        assert stored.timestamp == clock()

    def test_absent_is_not_empty(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        absent = memory.get_message(memory.add_message(said(id, role="assistant")))
        empty = memory.get_message(memory.add_message(said(id, role="assistant", tool_calls=[], parts=[], name="")))
        assert absent is not None
        assert empty is not None
        assert (absent.tool_calls, absent.parts, absent.name) == (None, None, None)
        assert (empty.tool_calls, empty.parts, empty.name) == ([], [], "")

    def test_order_is_the_order_of_writing_whatever_the_times_say(
        self, memory: MemoryManager, clock: FrozenClock
    ) -> None:
        id = new_session(memory)
        say(memory, id, "one")
        clock.advance(days=-1)
        say(memory, id, "two", "three")
        say(memory, id, "four", timestamp=datetime(1999, 1, 1, tzinfo=UTC))
        messages = memory.get_messages(id)
        assert contents(messages) == ["one", "two", "three", "four"]
        assert [message.position for message in messages] == [1, 2, 3, 4]
        assert contents(memory.get_recent_messages(id)) == ["one", "two", "three", "four"]

    def test_places_and_ids_are_never_used_again(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        first, second, third = say(memory, id, "one", "two", "three")
        memory.delete_message(third)
        memory.pop_message(id)
        [fourth] = say(memory, id, "four")
        assert [(message.id, message.position) for message in memory.get_messages(id)] == [(first, 1), (fourth, 4)]
        assert fourth > third > second > first
        memory.delete_message(fourth)
        fifth, sixth = say(memory, id, "five", "six")  # together, which may be another way than one alone
        assert [(message.id, message.position) for message in memory.get_messages(id)][1:] == [(fifth, 5), (sixth, 6)]
        assert sixth > fifth > fourth

    def test_pages_hold_every_message_once(self, memory: MemoryManager) -> None:
        id, other = new_session(memory), new_session(memory)
        for number in range(5):
            say(memory, id, str(number))
            say(memory, other, "between")
        found: list[Message] = []
        while page := memory.get_messages(id, limit=2, after=found[-1].id if found else None):
            assert len(page) <= 2
            found += page
        assert contents(found) == ["0", "1", "2", "3", "4"]
        assert memory.get_messages(id, limit=0) == []

    def test_a_page_goes_on_after_a_message_that_was_deleted(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        _, second, _ = say(memory, id, "one", "two", "three")
        memory.delete_message(second)
        assert contents(memory.get_messages(id, after=second)) == ["three"]

    @pytest.mark.parametrize("after", [2**63 - 1, 2**200])
    def test_no_page_comes_after_an_id_that_is_larger_than_any(self, memory: MemoryManager, after: int) -> None:
        id = new_session(memory)
        say(memory, id, "one")
        memory.add_task(Task(session_id=id, description="x"))
        memory.add_knowledge(Knowledge(value="x"))
        assert memory.get_messages(id, after=after) == []
        assert memory.get_tasks(after=after) == []
        assert memory.get_knowledge(after=after) == []

    def test_the_counter_counts(self, memory: MemoryManager) -> None:
        id = new_session(memory)

        def count() -> int:
            session = memory.get_session(id)
            assert session is not None
            return session.message_count

        first, *_ = say(memory, id, "1", "2", "3", "4", "5", "6")
        assert count() == 6
        memory.add_message(said(id, "named", client_id="x"))
        memory.add_message(said(id, "named", client_id="x"))
        assert count() == 7
        memory.delete_message(first)
        memory.pop_message(id)
        assert count() == 5
        memory.trim_old_messages(id, 2)
        assert count() == 2
        memory.update_message(memory.get_messages(id)[0].id or 0, "other")
        assert count() == len(memory.get_messages(id)) == 2

    def test_a_repeated_client_id_stores_once(self, memory: MemoryManager, clock: FrozenClock) -> None:
        id = new_session(memory)
        first = memory.add_message(said(id, "pay", client_id="m-1"))
        clock.advance(minutes=1)
        assert memory.add_message(said(id, "pay", client_id="m-1", metadata={"retry": 1})) == first
        assert contents(memory.get_messages(id)) == ["pay"]

    def test_a_client_id_with_other_content_is_a_conflict(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        message = said(id, "pay", client_id="m-1")
        memory.add_message(message)
        others: list[dict[str, Any]] = [{"content": "twice"}, {"role": "system"}, {"name": "bob"}, {"parts": [{}]}]
        for other in others:
            with pytest.raises(Conflict):
                memory.add_message(replace(message, **other))
        assert contents(memory.get_messages(id)) == ["pay"]

    def test_a_client_id_is_its_session_s_own(self, memory: MemoryManager) -> None:
        one, other = new_session(memory), new_session(memory)
        assert memory.add_message(said(one, "a", client_id="x")) != memory.add_message(said(other, "b", client_id="x"))

    def test_duplicates_within_a_batch_are_one_message(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        stored = memory.add_message(said(id, "zero", client_id="x0"))
        batch = [
            said(id, "one", client_id="x1"),
            said(id, "two"),
            said(id, "one", client_id="x1"),
            said(id, "zero", client_id="x0"),
            said(id, "two"),
        ]
        first, second, again, zero, third = memory.add_messages(batch)
        assert (again, zero) == (first, stored)
        assert [message.id for message in memory.get_messages(id)] == [stored, first, second, third]

    def test_a_conflict_within_a_batch_stores_none_of_it(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        with pytest.raises(Conflict):
            memory.add_messages([said(id, "one", client_id="x"), said(id, "two", client_id="x")])
        assert memory.get_messages(id) == []

    def test_a_batch_over_several_sessions_keeps_the_order_given(self, memory: MemoryManager) -> None:
        one, other = new_session(memory), new_session(memory, "bob")
        batch = [said([one, other][number % 2], str(number)) for number in range(6)]
        ids = memory.add_messages(batch)
        assert contents([message for id in ids if (message := memory.get_message(id))]) == [
            "0",
            "1",
            "2",
            "3",
            "4",
            "5",
        ]
        assert contents(memory.get_messages(one)) == ["0", "2", "4"]
        assert contents(memory.get_messages(other)) == ["1", "3", "5"]
        assert {message.user_id for message in memory.get_messages(other)} == {"bob"}

    def test_a_batch_is_stored_whole_or_not_at_all(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        before = memory.get_session(id)
        with pytest.raises(NotFound):
            memory.add_messages([said(id, "one"), said("nobody's", "two")])
        with pytest.raises(InvalidInput):
            memory.add_messages([said(id, "one"), said(id, "two", user_id="bob")])
        assert memory.get_messages(id) == []
        assert memory.search_messages("one") == []
        assert memory.get_session(id) == before
        say(memory, id, "three")
        assert [message.position for message in memory.get_messages(id)] == [1]

    def test_an_empty_batch_is_no_message(self, memory: MemoryManager) -> None:
        assert memory.add_messages([]) == []

    def test_popping_takes_the_newest(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        say(memory, id, "one", "two")
        newest = memory.get_messages(id)[-1]
        assert memory.pop_message(id) == newest
        assert contents(memory.get_messages(id)) == ["one"]
        memory.pop_message(id)
        assert memory.pop_message(id) is None

    def test_updating_changes_the_text_and_drops_what_described_the_old_one(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        [message_id] = say(memory, id, "old", parts=[{"text": "old"}], tokens=3, metadata={"kept": 1}, name="Ann")
        before = memory.get_message(message_id)
        updated = memory.update_message(message_id, "новое")
        assert before is not None
        assert updated == replace(before, content="новое", parts=None, tokens=None)
        assert memory.get_message(message_id) == updated

    def test_an_item_is_not_updated(self, memory: MemoryManager) -> None:
        id = memory.add_message(Message(session_id=new_session(memory), kind="item", payload={"type": "x"}))
        with pytest.raises(InvalidInput):
            memory.update_message(id, "text")

    def test_deleting_takes_one_message(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        _, second, _ = say(memory, id, "one", "two", "three")
        memory.delete_message(second)
        assert memory.get_message(second) is None
        assert [message.position for message in memory.get_messages(id)] == [1, 3]

    def test_an_unknown_message_is_none_and_a_write_to_it_is_not_found(self, memory: MemoryManager) -> None:
        assert memory.get_message(404) is None
        assert memory.get_messages("nobody's") == memory.get_recent_messages("nobody's") == []
        assert memory.get_conversation_history("nobody's") == []
        for write in (lambda: memory.update_message(404, "x"), lambda: memory.delete_message(404)):
            with pytest.raises(NotFound) as error:
                write()
            assert (error.value.kind, error.value.id) == ("message", 404)
        with pytest.raises(NotFound) as error:
            memory.add_message(said("nobody's", "x"))
        assert (error.value.kind, error.value.id) == ("session", "nobody's")

    def test_a_message_names_no_other_owner_than_its_session_s(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        assert memory.add_message(said(id, "mine", user_id="alice"))
        with pytest.raises(InvalidInput):
            memory.add_message(said(id, "theirs", user_id="bob"))

    def test_parts_that_do_not_fit_together_are_refused(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        misfits: list[dict[str, Any]] = [
            {"role": None},
            {"payload": {"type": "x"}},
            {"kind": "item"},
            {"tool_call_id": "call_1"},
            {"tool_calls": [{"id": "call_1"}]},
            {"role": "assistant", "tool_calls": [{"type": "function"}]},
            {"role": "assistant", "tool_calls": [{"id": "c"}, {"id": "c"}]},
        ]
        for fields in misfits:
            with pytest.raises(InvalidInput):
                memory.add_message(said(id, "x", **fields))

    def test_results_and_calls_come_back_in_order(self, memory: MemoryManager) -> None:
        id = new_session(memory)
        batch = [calling(id, "a", "b"), answering(id, "b"), answering(id, "a")]
        memory.add_messages(batch)
        stored = memory.get_messages(id)
        assert [message.tool_call_id for message in stored] == [None, "b", "a"]
        assert stored[0].tool_calls == batch[0].tool_calls
