"""ChatGPT's export: the current branch, every kind of content, broken trees."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import foreign_sources as foreign
import pytest
from foreign_sources import chat, node, said

from mirai_memory import MemoryManager, Message, UserMemory
from mirai_memory.importers import ImportReport, detect_format, import_file

HI, YO = said("user", "Hello there"), said("assistant", "General answer", create_time=1_700_000_060.25)


@pytest.fixture
def alice(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


@pytest.fixture
def lite(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


def take(mine: UserMemory, *chats: Any) -> ImportReport:
    return import_file(mine, foreign.write(list(chats)))


def only(mine: UserMemory) -> list[Message]:
    (session,) = mine.list_sessions()
    return mine.get_messages(session.id, limit=1000)


def test_a_conversation_arrives(alice: UserMemory) -> None:
    model = {"metadata": {"model_slug": "gpt-4o", "finish_details": {"type": "stop"}}}
    more = {"update_time": None, "gizmo_id": None, "safe_urls": [], "is_archived": False, "default_model_slug": "auto"}
    report = take(alice, chat("a", HI, YO | model, **more))
    assert (report.conversations, report.messages_added, report.fault_count) == (1, 2, 0)
    (session,) = alice.list_sessions()
    assert session.external_id == "chatgpt:a"
    assert session.metadata == {
        "source": "chatgpt",
        "title": "Title a",
        "create_time": 1_700_000_000.5,
        "is_archived": False,
        "default_model_slug": "auto",
    }
    hi, yo = alice.get_messages(session.id)
    assert (hi.role, hi.content, hi.client_id, hi.metadata) == ("user", "Hello there", "a-1", {})
    assert hi.timestamp == datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)  # the conversation's
    assert (yo.role, yo.model, yo.metadata) == ("assistant", "gpt-4o", {"finish_details": {"type": "stop"}})
    assert yo.timestamp == datetime(2023, 11, 14, 22, 14, 20, 250_000, tzinfo=UTC)
    assert alice.search_messages("general answers")[0].id == yo.id


def test_a_second_run_adds_nothing_and_a_grown_export_only_what_is_new(alice: UserMemory) -> None:
    assert take(alice, chat("a", HI, YO)).messages_added == 2
    again = take(alice, chat("a", HI, YO))
    assert (again.messages_added, again.messages_already_there) == (0, 2)
    grown = take(alice, chat("b", HI), chat("a", HI, YO, said("user", "More")))
    assert (grown.messages_added, grown.messages_already_there) == (2, 2)


def test_only_the_current_branch_is_imported(lite: UserMemory) -> None:
    asked = chat("a", said("system", ""), HI, YO)
    asked["mapping"]["other"] = node("other", "n2", {"id": "x"} | said("assistant", "An answer that was thrown away"))
    asked["mapping"]["n2"]["children"].append("other")
    hidden = said("system", "About the user", metadata={"is_visually_hidden_from_conversation": True}, weight=0.0)
    report = take(lite, asked, chat("b", hidden, HI))
    assert (report.messages_added, report.messages_left_out, report.fault_count) == (3, 3, 0)
    contents = [m.content for session in lite.list_sessions() for m in lite.get_messages(session.id)]
    assert contents == ["Hello there", "General answer", "Hello there"]
    assert take(lite, asked | {"current_node": "other"}).messages_added == 1


def test_without_a_current_node_the_last_one_is_it(lite: UserMemory) -> None:
    take(lite, chat("a", HI, YO, current_node=None))
    assert len(only(lite)) == 2


def test_every_kind_of_content_is_kept(lite: UserMemory) -> None:
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1", "width": 10}
    speech = {"content_type": "audio_transcription", "text": "spoken words", "direction": "in"}
    thoughts = {"content_type": "thoughts", "thoughts": [{"summary": "Planning", "content": "First"}]}
    code = {"content_type": "code", "language": "python", "text": "print(1)"}
    output = {"content_type": "execution_output", "text": "1\n"}
    quote = {"content_type": "tether_quote", "url": "https://example.com", "text": "quoted", "title": "A page"}
    report = take(
        lite,
        chat(
            "a",
            said("user", image, "What is it?", kind="multimodal_text"),
            said("user", speech, kind="multimodal_text"),
            said("user", image, kind="multimodal_text"),
            said("assistant", content=thoughts),
            said("assistant", content=code, recipient="python"),
            said("tool", content=output, name="python", weight=0.0),
            said("tool", content=quote, name="browser"),
            said("assistant", content={"content_type": "reasoning_recap", "content": "Thought for 5 seconds"}),
            said("assistant", "A", "B"),
        ),
    )
    assert (report.messages_added, report.messages_left_out, report.fault_count) == (9, 0, 0)
    picture, voice, silent, thought, call, result, page, recap, answer = only(lite)
    assert (picture.content, picture.parts) == ("What is it?", [image, {"type": "text", "text": "What is it?"}])
    assert (voice.content, voice.parts) == ("spoken words", [speech])
    assert (silent.content, silent.parts) == ("", [image])
    assert (thought.kind, thought.payload and thought.payload["content"]) == ("item", thoughts)
    assert (call.role, call.content, call.metadata["recipient"]) == ("assistant", "print(1)", "python")
    assert call.metadata["content"] == {"content_type": "code", "language": "python"}
    assert (result.role, result.name, result.content, result.metadata["weight"]) == ("tool", "python", "1\n", 0.0)
    assert page.metadata["content"]["url"] == "https://example.com"
    assert recap.kind == "item"
    assert answer.content == "A\nB"
    history = lite.get_conversation_history(lite.list_sessions()[0].id)
    assert "tool" not in {message["role"] for message in history}
    assert len(history) == 5


def _tree(**changes: Any) -> dict[str, Any]:
    broken = chat("b", HI, YO)
    for id, fields in changes.items():
        broken["mapping"][id] = {**broken["mapping"][id], **fields} if isinstance(fields, dict) else fields
    return broken


BROKEN: dict[str, tuple[Any, str]] = {
    "loop": (_tree(root={"parent": "n2"}), "ancestor of itself"),
    "its own parent": (_tree(n1={"parent": "n1"}), "ancestor of itself"),
    "missing parent": (_tree(n1={"parent": "gone"}), "gone"),
    "missing current node": (chat("b", HI, current_node="gone"), "gone"),
    "node of a wrong type": (_tree(n1=5), "must be an object"),
    "parent of a wrong type": (_tree(n1={"parent": 5}), "parent"),
    "message of a wrong type": (_tree(n1={"message": "text"}), "must be an object"),
    "no author": (_tree(n1={"message": {"content": {}}}), "author"),
    "unknown role": (chat("b", said("king", "x")), "author.role"),
    "no content": (_tree(n1={"message": {"author": {"role": "user"}}}), "content"),
    "parts of a wrong type": (chat("b", said("user", 5)), "parts"),
    "milliseconds": (chat("b", HI | {"create_time": 1_700_000_000_000}), "create_time"),
    "no time": (chat("b", HI, create_time="yesterday"), "create_time"),
    "NUL": (chat("b", said("user", "a\x00b")), "NUL"),
    "lone surrogate": (chat("b", said("user", "\ud800")), "surrogate"),
    "surrogate in an id": (_tree(n1={"parent": "\ud800"}), "parent"),
    "no id": (chat("b", HI) | {"id": None}, "id"),
    "no object": (["text"], "object"),
    "null": (None, "object"),
    "no mapping": ({"id": "b", "title": "x"}, "mapping"),
    "mapping of a wrong type": ({"id": "b", "mapping": []}, "mapping"),
    "too long": (chat("b", HI, said("user", "x" * 1_000_001)), "content"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_conversation_is_refused_whole_and_no_other(lite: UserMemory, case: str) -> None:
    value, reason = BROKEN[case]
    report = take(lite, chat("a", HI), value, chat("c", YO))
    assert (report.conversations, report.conversations_refused, report.fault_count) == (2, 1, 1)
    assert report.faults[0].place.startswith("conversations.json, conversation 2")
    assert reason in report.faults[0].reason
    assert [session.external_id for session in lite.list_sessions()] == ["chatgpt:a", "chatgpt:c"]


def test_every_fault_of_a_conversation_is_listed_with_its_message(lite: UserMemory) -> None:
    report = take(lite, chat("a", HI, said("king", "x"), YO, said("user", 5)))
    assert [fault.place.rsplit(", ", 1)[1] for fault in report.faults] == ["message n2", "message n4"]
    assert (report.conversations_refused, lite.list_sessions()) == (1, [])


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_truncated_export_keeps_the_conversations_before_the_cut(lite: UserMemory, cut: int) -> None:
    text = json.dumps([chat("a", HI), chat("b", HI, YO)])
    report = import_file(lite, foreign.write(text[:-cut]))
    assert report.fault_count == 1
    assert "ends too early" in report.faults[0].reason
    assert report.conversations == (2 if cut == 1 else 1)


@pytest.mark.parametrize(
    "value", [chat("a", HI), {"conversations": [chat("a", HI)]}, [{"title": "empty", "mapping": {}}, chat("a", HI)]]
)
def test_other_layouts_of_the_file(lite: UserMemory, value: Any) -> None:
    path = foreign.write(value)
    assert detect_format(path) == "chatgpt"
    assert import_file(lite, path).messages_added == 1


def test_bytes_that_are_no_utf8_spoil_the_conversation_they_stand_in(lite: UserMemory) -> None:
    text = json.dumps([chat("a", said("user", "BAD")), chat("b", HI)]).encode().replace(b"BAD", b"\xff")
    Path("conversations.json").write_bytes(text)
    report = import_file(lite, "conversations.json")
    assert (report.conversations, report.conversations_refused, report.fault_count) == (1, 1, 1)
    assert report.faults[0].place == "conversations.json, conversation 1, message n1"


def test_a_long_branch_is_walked_in_bounded_memory(lite: UserMemory) -> None:
    """One conversation of 40 MB."""
    count, text = 400, "x" * 99_000

    def peak(path: Path, added: int) -> int:
        tracemalloc.start()
        report = import_file(lite, path, dry_run=True)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (report.messages_added, report.fault_count) == (added, 0)
        return used

    small = foreign.write([chat("s", *[said("user", text)] * 60)], "small.json")
    with Path("large.json").open("w", encoding="utf-8") as file:
        file.write('[{"id": "l", "mapping": {"n0": {"parent": null}')
        for n in range(1, count + 1):
            file.write(f', "n{n}": ' + json.dumps(node(f"n{n}", f"n{n - 1}", said("user", f"{n} {text}"))))
        file.write(f'}}, "current_node": "n{count}"}}]')
    assert Path("large.json").stat().st_size > 38_000_000
    peak(small, 60)
    assert peak(Path("large.json"), count) < peak(small, 60) + 10_000_000
