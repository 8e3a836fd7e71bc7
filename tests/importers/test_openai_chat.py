"""OpenAI-format files: what is read, what is refused, and that a second run adds only what is new."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import MemoryManager, Message, UserMemory
from mirai_memory.importers import ImportReport, import_file
from mirai_memory.importers.base import MAX_LISTED_FAULTS
from mirai_memory.importers.json_text import MAX_VALUE, WHOLE

HI = {"role": "user", "content": "hello there"}
YO = {"role": "assistant", "content": "general answer"}


@pytest.fixture
def alice(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


@pytest.fixture
def lite(memory: MemoryManager) -> UserMemory:
    """For what the parsing decides, one engine is enough."""
    return memory.for_user("alice")


def write(text: str | bytes, name: str = "chat.dat") -> Path:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*values: Any) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def everything(mine: UserMemory) -> dict[str, list[Message]]:
    """The messages of each session, by the session's external id."""
    return {str(s.external_id): mine.get_messages(s.id, limit=1000) for s in mine.list_sessions()}


def contents(mine: UserMemory) -> list[list[str]]:
    return [[message.content for message in messages] for messages in everything(mine).values()]


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return (
        report.conversations,
        report.messages_added,
        report.messages_already_there,
        report.conversations_refused,
    )


SHAPES = {
    "list of messages": json.dumps([HI, YO]),
    "list over many lines": json.dumps([HI, YO], indent=2),
    "object": json.dumps({"messages": [HI, YO]}),
    "object over many lines": json.dumps({"messages": [HI, YO], "title": "t"}, indent=2),
    "object with a line for each message": '{"messages": [\n' + json.dumps(HI) + ",\n" + json.dumps(YO) + "\n]}",
    "list of objects": json.dumps([{"messages": [HI, YO]}]),
    "list of lists": json.dumps([[HI, YO]]),
    "object of conversations": json.dumps({"conversations": [{"messages": [HI, YO]}], "version": 1}),
    "message per line": lines(HI, YO),
    "message per line, no newline at the end": lines(HI, YO).rstrip(),
    "message per line, CRLF": lines(HI, YO).replace("\n", "\r\n"),
    "message per line, blank lines": "\n" + lines(HI) + "\n\n" + lines(YO),
    "conversation per line": lines({"messages": [HI, YO]}),
    "byte order mark": "\ufeff" + json.dumps([HI, YO]),
    "byte order mark, lines": "\ufeff" + lines(HI, YO),
    "byte order mark, CRLF, conversation per line": "\ufeff" + lines({"messages": [HI, YO]}).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_one_conversation_of_two_messages(lite: UserMemory, shape: str) -> None:
    report = import_file(lite, write(SHAPES[shape]))
    assert counts(report) == (1, 2, 0, 0)
    assert report.fault_count == 0
    assert contents(lite) == [["hello there", "general answer"]]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"id": "a", "messages": [HI]}, {"messages": [YO], "id": 7}, [HI, YO]]),
        lines({"id": "a", "messages": [HI]}, {"messages": [YO], "id": 7}, [HI, YO]),
    ],
    ids=["json", "jsonl"],
)
def test_many_conversations_keep_the_ids_they_have(lite: UserMemory, text: str) -> None:
    assert counts(import_file(lite, write(text, "many.dat"))) == (3, 4, 0, 0)
    found = everything(lite)
    assert set(found) >= {"a", "7"}
    (third,) = set(found) - {"a", "7"}
    assert third.startswith("openai:many.dat:3:")
    assert len(third.rsplit(":", 1)[1]) == 12


def test_an_id_may_have_other_names(lite: UserMemory) -> None:
    import_file(lite, write(lines({"messages": [HI], "conversation_id": "c"}, {"session_id": "s", "messages": [YO]})))
    assert set(everything(lite)) == {"c", "s"}


def test_all_fields_arrive(alice: UserMemory) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ереван"}'}}]
    import_file(
        alice,
        write(
            json.dumps(
                {
                    "id": "full",
                    "title": "Погода",
                    "metadata": {"source": "app"},
                    "messages": [
                        {"role": "developer", "content": "be brief", "timestamp": 1_700_000_000},
                        {
                            "role": "user",
                            "name": "Zoë",
                            "content": "дождь? 🦊",
                            "created_at": "2026-01-02T03:04:05+03:00",
                        },
                        {"role": "assistant", "content": None, "tool_calls": calls, "model": "m-1", "tokens": 12},
                        {
                            "role": "tool",
                            "tool_call_id": "c1",
                            "content": "dry",
                            "metadata": {"k": [1, 2.5]},
                            "id": "t",
                        },
                        {"role": "assistant", "content": "no", "refusal": "none", "created": 1_700_000_000.5},
                    ],
                },
                ensure_ascii=False,
            )
        ),
    )
    (session,) = alice.list_sessions()
    assert session.metadata == {"title": "Погода", "source": "app"}
    developer, user, call, result, last = alice.get_messages(session.id)
    assert (developer.role, developer.timestamp) == ("developer", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    assert (user.name, user.content) == ("Zoë", "дождь? 🦊")
    assert user.timestamp == datetime(2026, 1, 2, 0, 4, 5, tzinfo=UTC)
    assert (call.content, call.tool_calls, call.model, call.tokens) == ("", calls, "m-1", 12)
    assert (result.tool_call_id, result.metadata, result.client_id) == ("c1", {"k": [1, 2.5]}, "t")
    assert last.metadata == {"refusal": "none"}
    assert last.timestamp == datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)


def test_parts_are_kept_and_their_text_is_the_content(lite: UserMemory) -> None:
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": "here"},
    ]
    import_file(lite, write(lines({"role": "user", "content": parts}, YO)))
    (messages,) = everything(lite).values()
    assert (messages[0].content, messages[0].parts) == ("look\nhere", parts)


def test_the_calls_of_old_become_a_call_and_its_result(lite: UserMemory) -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    import_file(lite, write(json.dumps([HI, call, {"role": "function", "name": "f", "content": "1"}])))
    (session,) = lite.list_sessions()
    history = lite.get_conversation_history(session.id)
    assert [message["role"] for message in history] == ["user", "assistant", "tool"]
    assert history[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert history[2]["tool_call_id"] == history[1]["tool_calls"][0]["id"]


def test_a_second_run_adds_nothing_and_a_grown_file_only_what_is_new(alice: UserMemory) -> None:
    path = write(lines(HI, YO))
    assert counts(import_file(alice, path)) == (1, 2, 0, 0)
    assert counts(import_file(alice, path)) == (1, 0, 2, 0)
    write(lines(HI, YO, {"role": "user", "content": "more"}))
    assert counts(import_file(alice, path)) == (1, 1, 2, 0)
    assert contents(alice) == [["hello there", "general answer", "more"]]


def test_a_changed_message_refuses_its_conversation_only(alice: UserMemory) -> None:
    first, second = {"id": "a", "messages": [HI, YO]}, {"id": "b", "messages": [HI]}
    path = write(json.dumps([first, second]))
    import_file(alice, path)
    changed = {"id": "a", "messages": [HI, YO | {"content": "another answer"}, HI]}
    write(json.dumps([changed, {"id": "b", "messages": [HI, YO]}]))
    report = import_file(alice, path)
    assert counts(report) == (1, 1, 1, 1)
    assert "conversation 1" in report.faults[0].place
    assert {name: len(messages) for name, messages in everything(alice).items()} == {"a": 2, "b": 2}


def test_conversations_that_begin_with_the_same_instructions_stay_apart(lite: UserMemory) -> None:
    system = {"role": "system", "content": "you are helpful"}
    Path("other").mkdir()
    import_file(lite, write(lines(system, HI)))
    import_file(lite, write(lines(system, YO), "other/chat.dat"))
    assert len(lite.list_sessions()) == 2


def test_owners_do_not_meet(memory: MemoryManager) -> None:
    path = write(lines({"id": "same", "messages": [HI]}))
    assert counts(import_file(memory.for_user("a"), path)) == (1, 1, 0, 0)
    assert counts(import_file(memory.for_user("b"), path)) == (1, 1, 0, 0)


BROKEN_MESSAGES = {
    "no role": {"content": "x"},
    "unknown role": {"role": "king", "content": "x"},
    "role of a wrong type": {"role": 1, "content": "x"},
    "content of a wrong type": {"role": "user", "content": 5},
    "parts of a wrong type": {"role": "user", "content": ["text"]},
    "text of a part of a wrong type": {"role": "user", "content": [{"type": "text", "text": 1}]},
    "tool calls of a wrong type": {"role": "assistant", "tool_calls": "call"},
    "name of a wrong type": {"role": "user", "name": 3},
    "negative tokens": {"role": "user", "content": "x", "tokens": -1},
    "naive time": {"role": "user", "content": "x", "timestamp": "2026-01-02T03:04:05"},
    "no time": {"role": "user", "content": "x", "timestamp": "yesterday"},
    "milliseconds": {"role": "user", "content": "x", "timestamp": 1_700_000_000_000},
    "metadata of a wrong type": {"role": "user", "content": "x", "metadata": [1]},
    "NUL": {"role": "user", "content": "a\x00b"},
    "lone surrogate": {"role": "user", "content": "\ud800"},
    "NUL below": {"role": "user", "content": "x", "extra": {"deep": ["\x00"]}},
    "no object": ["role", "user"],
    "null": None,
}


@pytest.mark.parametrize("case", BROKEN_MESSAGES)
def test_a_broken_message_refuses_its_conversation_whole(lite: UserMemory, case: str) -> None:
    broken = [HI, BROKEN_MESSAGES[case], YO]
    text = "\n".join(json.dumps({"id": id, "messages": m}) for id, m in (("a", [HI]), ("b", broken), ("c", [YO])))
    report = import_file(lite, write(text))
    assert counts(report) == (2, 2, 0, 1)
    assert report.fault_count == 1
    assert report.faults[0].place == "chat.dat, line 2, message 2"
    assert set(everything(lite)) == {"a", "c"}


@pytest.mark.parametrize("case", BROKEN_MESSAGES)
def test_a_broken_line_refuses_a_file_of_one_message_per_line(lite: UserMemory, case: str) -> None:
    report = import_file(lite, write("\n".join(map(json.dumps, [HI, BROKEN_MESSAGES[case], YO]))))
    assert counts(report) == (0, 0, 0, 1)
    assert report.faults[0].place == "chat.dat, line 2"
    assert lite.list_sessions() == []


def test_every_fault_of_a_conversation_is_listed_with_its_line(lite: UserMemory) -> None:
    text = lines(HI) + "nonsense\n" + lines({"role": "king"}) + '{"role": "user", "con\n' + lines(YO)
    report = import_file(lite, write(text))
    assert [fault.place for fault in report.faults] == [f"chat.dat, line {n}" for n in (2, 3, 4)]
    assert report.conversations_refused == 1


def test_the_list_of_faults_has_an_end_and_their_count_is_exact(lite: UserMemory) -> None:
    report = import_file(lite, write(lines(HI, *[{"role": "king"}] * 500)))
    assert (report.fault_count, len(report.faults)) == (500, MAX_LISTED_FAULTS)
    assert (report + report).fault_count == 1000
    assert len((report + report).faults) == MAX_LISTED_FAULTS


@pytest.mark.parametrize("cut", [1, 2, 3, 30, 100])
def test_a_truncated_list_keeps_the_conversations_before_the_cut(lite: UserMemory, cut: int) -> None:
    text = json.dumps([{"id": "a", "messages": [HI]}, {"id": "b", "messages": [HI, YO]}])
    report = import_file(lite, write(text[:-cut]))
    assert report.fault_count == 1
    assert "line 1" in report.faults[0].place
    assert everything(lite).keys() == ({"a", "b"} if cut == 1 else {"a"})


def test_a_truncated_list_of_messages_imports_nothing(lite: UserMemory) -> None:
    report = import_file(lite, write(json.dumps([HI, YO])[:-5]))
    assert counts(report) == (0, 0, 0, 1)
    assert "ends too early" in report.faults[0].reason
    assert lite.list_sessions() == []


def test_bytes_that_are_no_utf8_spoil_the_conversation_they_stand_in(lite: UserMemory) -> None:
    good, bad = (
        json.dumps({"id": "a", "messages": [HI]}).encode(),
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
    )
    for name, text in (("a.json", b"[" + bad + b"," + good + b"]"), ("b.jsonl", bad + b"\n" + good + b"\n")):
        report = import_file(lite, write(text, name))
        assert (report.conversations, report.conversations_refused) == (1, 1)
        assert "UTF-8" in report.faults[0].reason
    assert set(everything(lite)) == {"a"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\n ", "no messages"),
        ("hello", "locomo, openai)"),
        ("<xml/>\n" * 100, "locomo, openai)"),
        ("{}", "no messages"),
        ('{"name": "package", "version": 1}', "no messages"),
        ("[1, 2, 3]", "must be an object"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"role": "user", "x": ' + "[" * 50_000, "nested too deeply"),
        ('[{"role": "user", "content": "x", "n": NaN}]', "NaN"),
        ('[{"role": "user", "content": "x", "n": ' + "9" * 5000 + "}]", "digits"),
        (bytes(range(256)), "formats"),
        ("[]".encode("utf-16"), "formats"),
    ],
)
def test_what_is_no_conversation_is_said_in_one_fault(lite: UserMemory, text: str | bytes, reason: str) -> None:
    report = import_file(lite, write(text))
    assert report.fault_count == 1
    assert reason in report.faults[0].reason
    assert lite.list_sessions() == []


def test_an_empty_list_is_no_fault(lite: UserMemory) -> None:
    report = import_file(lite, write('{"messages": []}'), format="openai")
    assert (counts(report), report.fault_count) == ((0, 0, 0, 0), 0)


def test_a_missing_file_and_a_folder_are_faults(lite: UserMemory) -> None:
    Path("folder").mkdir()
    for name in ("missing.json", "folder"):
        report = import_file(lite, name)
        assert report.fault_count == 1
        assert report.faults[0].place == name


def test_content_above_the_limit_is_named_by_its_place(lite: UserMemory) -> None:
    report = import_file(lite, write(lines({"id": "a", "messages": [HI, HI | {"content": "x" * 1_000_001}]}, [YO])))
    assert counts(report) == (1, 1, 0, 1)
    assert report.faults[0].place == "chat.dat, line 1, message 2"


def test_a_conversation_too_long_to_be_held_is_walked(lite: UserMemory) -> None:
    long = HI | {"content": "я" * (WHOLE // 10)}
    text = json.dumps(
        [{"messages": [long] * 12, "id": "long", "title": "t"}, {"id": "b", "messages": [YO]}], ensure_ascii=False
    )
    assert counts(import_file(lite, write(text))) == (2, 13, 0, 0)
    assert {name: len(messages) for name, messages in everything(lite).items()} == {"long": 12, "b": 1}


def test_a_line_too_long_to_be_held_is_a_fault_of_its_own(lite: UserMemory) -> None:
    text = (
        '{"messages": [{"role": "user", "content": "'
        + "x" * MAX_VALUE
        + '"}]}\n'
        + lines({"id": "b", "messages": [YO]})
    )
    report = import_file(lite, write(text))
    assert counts(report) == (1, 1, 0, 1)
    assert report.faults[0].place == "chat.dat, line 1"


@pytest.mark.long
@pytest.mark.parametrize("wrap", [("[", "]", ","), ('{"messages": [', '], "id": "x"}', ","), ("", "\n", "\n")])
def test_a_long_list_is_imported_in_bounded_memory(lite: UserMemory, wrap: tuple[str, str, str]) -> None:
    def peak(count: int, name: str) -> int:
        path = Path(name)
        items: Iterator[str] = (json.dumps(HI | {"content": f"number {n} " + "x" * 900}) for n in range(count))
        path.write_text(wrap[0] + wrap[2].join(items) + wrap[1])
        tracemalloc.start()
        report = import_file(lite, path, format="openai")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.messages_added == count
        return used

    # The first run pays for what is loaded once. What the others need must not grow with the file, here by 4 MB.
    peak(1000, "warm")
    Path("warm").unlink()
    lite.delete_session(lite.list_sessions()[0].id)
    small = peak(1000, "small")
    for session in lite.list_sessions():
        lite.delete_session(session.id)
    assert peak(5000, "large") < small + 2_500_000


def test_an_interrupt_leaves_the_conversations_before_it_whole(alice: UserMemory) -> None:
    seen = 0

    def progress(messages: int) -> None:
        nonlocal seen
        seen += messages
        if seen > 600:
            raise KeyboardInterrupt

    long = {"id": "long", "messages": [HI | {"content": f"m{n}"} for n in range(900)]}
    path = write(lines({"id": "a", "messages": [HI]}, long, {"id": "c", "messages": [YO]}))
    with pytest.raises(KeyboardInterrupt):
        import_file(alice, path, progress=progress)
    assert set(everything(alice)) == {"a"}
    assert counts(import_file(alice, path)) == (3, 901, 1, 0)


def test_what_was_imported_is_found(memory: MemoryManager) -> None:
    mine = memory.for_user("alice")
    import_file(mine, write(lines(HI, {"role": "user", "content": "Пью зелёный чай по утрам"})))
    assert mine.search_messages("зеленого чая")[0].content == "Пью зелёный чай по утрам"
