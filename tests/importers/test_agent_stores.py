"""Session files of the OpenAI Agents SDK, and LangChain's chat history."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import foreign_sources as foreign
import pytest

from mirai_memory import MemoryManager, Message, UserMemory
from mirai_memory.importers import detect_format, import_file

USER = {"role": "user", "content": "Weather in Kazan?"}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "id": "fc_1"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "-4 °C"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
TEXT = {"type": "output_text", "text": "It snows.", "annotations": []}
ANSWER = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [TEXT]}


def lc(kind: str, content: Any, **data: Any) -> dict[str, Any]:
    empty = {"additional_kwargs": {}, "response_metadata": {}, "name": None, "id": None}
    return {"type": kind, "data": {**empty, "content": content, "type": kind, **data}}


@pytest.fixture
def alice(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


@pytest.fixture
def lite(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


def everything(mine: UserMemory) -> dict[str, list[Message]]:
    return {str(s.external_id): mine.get_messages(s.id, limit=1000) for s in mine.list_sessions()}


def test_a_session_of_the_agents_sdk_arrives(alice: UserMemory) -> None:
    path = foreign.agents(("one", item) for item in (USER, REASONING, CALL, OUTPUT, ANSWER))
    assert detect_format(path) == "openai-agents"
    report = import_file(alice, path)
    assert (report.conversations, report.messages_added, report.fault_count) == (1, 5, 0)
    user, reasoning, call, output, answer = everything(alice)["one"]
    assert (user.kind, user.role, user.content) == ("chat", "user", "Weather in Kazan?")
    assert user.timestamp == datetime(2025, 1, 1, 10, 0, 1, tzinfo=UTC)
    assert [(item.kind, item.payload) for item in (reasoning, call, output)] == [
        ("item", REASONING),
        ("item", CALL),
        ("item", OUTPUT),
    ]
    assert (answer.role, answer.content, answer.parts) == ("assistant", "It snows.", None)
    assert answer.metadata == {"id": "msg_1", "status": "completed"}
    # A call and its output are one group, kept or left out as a whole.
    (session,) = alice.list_sessions()
    assert [m.id for m in alice.get_recent_messages(session.id, limit=2)] == [answer.id]
    assert [m["content"] for m in alice.get_conversation_history(session.id)] == ["Weather in Kazan?", "It snows."]


def test_sessions_of_the_agents_sdk_grow(alice: UserMemory) -> None:
    path = foreign.agents([("one", USER), ("two", USER), ("one", ANSWER)])
    assert import_file(alice, path).messages_added == 3
    assert import_file(alice, path).messages_added == 0
    foreign.agents([("two", ANSWER), ("three", USER)], path)
    grown = import_file(alice, path)
    assert (grown.messages_added, grown.messages_already_there, grown.sessions) == (2, 3, 3)
    assert [len(messages) for messages in everything(alice).values()] == [2, 2, 1]


def test_images_and_citations_of_the_agents_sdk_are_kept(lite: UserMemory) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,xx", "detail": "auto"}
    asked = {"role": "user", "content": [{"type": "input_text", "text": "Look"}, image]}
    cited = {"role": "assistant", "content": [TEXT | {"annotations": [{"type": "url_citation", "url": "u"}]}]}
    import_file(lite, foreign.agents([("one", asked), ("one", cited)]))
    look, snow = everything(lite)["one"]
    assert look.content == "Look"
    assert look.parts == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,xx"}},
    ]
    assert look.metadata["content"] == asked["content"]
    assert (snow.content, snow.metadata["content"]) == ("It snows.", cited["content"])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        (b"\xff", "UTF-8"),
        ({"role": "king", "content": "x"}, "role"),
        ({"role": "user", "content": 5}, "content"),
        ({"type": "reasoning", "text": "\x00"}, "NUL"),
        ({"__enc__": 1, "v": 1, "kid": "k", "payload": "x"}, "encrypted"),
    ],
)
def test_a_broken_item_refuses_its_session_only(lite: UserMemory, item: Any, reason: str) -> None:
    report = import_file(lite, foreign.agents([("one", USER), ("two", USER), ("two", item), ("three", USER)]))
    assert (report.conversations, report.conversations_refused, report.fault_count) == (2, 1, 1)
    assert report.faults[0].place == "agents.db, session two, item 3"
    assert reason in report.faults[0].reason
    assert set(everything(lite)) == {"one", "three"}


def test_a_history_of_langchain_arrives(alice: UserMemory) -> None:
    calls = [{"name": "weather", "args": {"city": "Казань"}, "id": "c1", "type": "tool_call"}]
    usage = {"usage_metadata": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    rows = [
        lc("system", "Be brief"),
        lc("human", ["Look", image], name="Zoë"),
        lc("ai", "", tool_calls=calls, response_metadata={"model_name": "gpt-4o"}, **usage),
        lc("tool", "-4 °C", tool_call_id="c1", name="weather", status="success"),
        lc("AIMessageChunk", "It snows.", id="run-1"),
        lc("chat", "Fine", role="user"),
        lc("remove", "", id="run-1"),
    ]
    path = foreign.langchain(("one", row) for row in rows)
    assert detect_format(path) == "langchain"
    report = import_file(alice, path)
    assert (report.messages_added, report.messages_left_out, report.fault_count) == (6, 1, 0)
    system, look, call, result, answer, fine = everything(alice)["one"]
    assert (system.role, system.content) == ("system", "Be brief")
    assert (look.content, look.name, look.parts) == ("Look", "Zoë", [{"type": "text", "text": "Look"}, image])
    function = {"name": "weather", "arguments": '{"city": "Казань"}'}
    assert call.tool_calls == [{"id": "c1", "type": "function", "function": function}]
    assert (call.model, call.tokens) == ("gpt-4o", 7)
    assert (result.role, result.tool_call_id, result.name) == ("tool", "c1", "weather")
    assert result.metadata == {"status": "success"}
    assert (answer.role, answer.metadata, fine.role) == ("assistant", {"id": "run-1"}, "user")
    history = alice.get_conversation_history(alice.list_sessions()[0].id)
    assert [m["role"] for m in history] == ["system", "user", "assistant", "tool", "assistant", "user"]


def test_calls_of_older_histories_of_langchain(lite: UserMemory) -> None:
    old_calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    broken_call = {"name": "g", "args": "{not json", "id": "c2", "error": "x"}
    rows = [
        lc("ai", "", additional_kwargs={"tool_calls": old_calls}),
        lc("ai", "", invalid_tool_calls=[broken_call]),
        lc("ai", "", tool_calls=[{"name": "h", "args": {}, "id": None}]),
        lc("ai", "", additional_kwargs={"function_call": {"name": "i", "arguments": "{}"}}),
        lc("function", "1", name="i"),
    ]
    import_file(lite, foreign.langchain(("one", row) for row in rows))
    first, second, third, fourth, answer = everything(lite)["one"]
    assert first.tool_calls == old_calls
    calls = [(message.tool_calls or [{}])[0] for message in (second, third, fourth)]
    assert calls[0]["function"]["arguments"] == "{not json"
    assert calls[1]["id"]
    assert calls[2]["id"] == answer.tool_call_id


def test_histories_of_langchain_grow(alice: UserMemory) -> None:
    path = foreign.langchain([("one", lc("human", "a")), ("two", lc("human", "b")), ("one", lc("ai", "c"))])
    assert import_file(alice, path).messages_added == 3
    foreign.langchain([("one", lc("human", "d"))], path)
    grown = import_file(alice, path)
    assert (grown.messages_added, grown.messages_already_there) == (1, 3)
    assert [message.content for message in everything(alice)["one"]] == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("nonsense", "JSON"),
        ("[]", "object"),
        ({"type": "human"}, "data"),
        (lc("king", "x"), "type"),
        (lc("chat", "x", role="king"), "type"),
        (lc("human", 5), "content"),
        (lc("ai", "", tool_calls="x"), "tool_calls"),
        (lc("ai", "", additional_kwargs=[1]), "additional_kwargs"),
    ],
)
def test_a_broken_message_refuses_its_history_only(lite: UserMemory, message: Any, reason: str) -> None:
    path = foreign.langchain([("one", lc("human", "a")), ("two", lc("human", "b")), ("two", message)])
    report = import_file(lite, path)
    assert (report.conversations, report.conversations_refused, report.fault_count) == (1, 1, 1)
    assert report.faults[0].place == "langchain.db, session two, message 3"
    assert reason in report.faults[0].reason
    assert set(everything(lite)) == {"one"}


def test_a_message_of_no_session_is_a_fault(lite: UserMemory) -> None:
    report = import_file(lite, foreign.langchain([(None, lc("human", "a")), ("one", lc("human", "b"))]))
    assert (report.conversations, [fault.place for fault in report.faults]) == (1, ["langchain.db, message 1"])


@pytest.mark.parametrize(
    ("format", "script"),
    [
        ("openai-agents", "CREATE TABLE agent_messages (id INTEGER PRIMARY KEY)"),
        ("langchain", "CREATE TABLE message_store (id INTEGER PRIMARY KEY, session_id TEXT)"),
        ("first-version", "CREATE TABLE sessions (id TEXT)"),
    ],
)
def test_tables_that_are_not_as_expected_are_faults(lite: UserMemory, format: str, script: str) -> None:
    report = import_file(lite, foreign.database("other.db", script), format=format)
    assert report.fault_count > 0
    assert "table" in report.faults[0].reason
    assert lite.list_sessions() == []


def test_other_databases_and_other_files_are_told_apart(lite: UserMemory) -> None:
    other = foreign.database("other.db", "CREATE TABLE birds (id TEXT)")
    assert detect_format(other) is None
    assert "without the tables of a known format" in import_file(lite, other).faults[0].reason
    assert "SQLite database" in import_file(lite, other, format="chatgpt").faults[0].reason
    chat = foreign.write([{"role": "user", "content": "hi"}])
    assert detect_format(chat) == "openai"
    assert "no SQLite database" in import_file(lite, chat, format="langchain").faults[0].reason
    assert detect_format("missing") is None
    Path("text").write_text("nothing at all")
    assert detect_format("text") is None


@pytest.mark.long
def test_a_long_session_is_read_in_bounded_memory(lite: UserMemory) -> None:
    def peak(name: str, rows: int) -> int:
        fill = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO message_store (session_id, message) "
            """SELECT 's', '{"type": "human", "data": {"content": "x' || hex(zeroblob(50000)) || '"}}' FROM n"""
        )
        path = foreign.database(name, foreign.LANGCHAIN, (fill, (rows,)))
        tracemalloc.start()
        report = import_file(lite, path, dry_run=True)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (report.messages_added, report.fault_count) == (rows, 0)
        return used

    peak("warm.db", 60)
    assert peak("large.db", 400) < peak("small.db", 60) + 10_000_000
    assert Path("large.db").stat().st_size > 38_000_000
