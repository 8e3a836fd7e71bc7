"""LoCoMo files: sessions, speakers, dates and shared images; a sample whole or not at all."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mirai_memory import MemoryManager, UserMemory
from mirai_memory.importers import import_file


def turn(speaker: str, dia_id: str, text: str, **more: Any) -> dict[str, Any]:
    return {"speaker": speaker, "dia_id": dia_id, "text": text, **more}


SAMPLE: dict[str, Any] = {
    "qa": [{"question": "Where?", "answer": "Oslo", "evidence": ["D1:1"]}],
    "sample_id": "s-1",
    "conversation": {
        "speaker_a": "Ada",
        "speaker_b": "Ben",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [
            turn("Ada", "D1:1", "I moved to Oslo"),
            turn("Ben", "D1:2", "Look!", blip_caption="a red boat", img_url=["x"]),
        ],
        "session_2_date_time": "12:09 am on 13 September, 2023",
        "session_2": [turn("Ada", "D2:1", "Back again")],
        "session_10_date_time": "10:00 am on 1 December, 2023",
        "session_10": [],
    },
}


@pytest.fixture
def alice(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


@pytest.fixture
def lite(memory: MemoryManager) -> UserMemory:
    return memory.for_user("alice")


def write(value: Any) -> Path:
    path = Path("chats.json")
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


def other(id: str, **changes: Any) -> dict[str, Any]:
    sample = copy.deepcopy(SAMPLE) | {"sample_id": id}
    sample["conversation"].update(changes)
    return sample


def test_each_session_is_a_session_and_each_turn_a_message(alice: UserMemory) -> None:
    report = import_file(alice, write([SAMPLE]))
    assert (report.conversations, report.sessions, report.messages_added, report.fault_count) == (1, 2, 3, 0)
    first, second = alice.list_sessions()
    assert [first.external_id, second.external_id] == ["locomo:s-1:session_1", "locomo:s-1:session_2"]
    assert first.metadata == {"source": "chats.json", "title": "Ada and Ben, session 1"}
    one, two = alice.get_messages(first.id)
    assert (one.role, one.name, one.content) == ("user", "Ada", "I moved to Oslo")
    assert (one.client_id, one.metadata) == ("D1:1", {"dia_id": "D1:1"})
    assert one.timestamp == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert two.content == "Look! [shared image: a red boat]"
    (three,) = alice.get_messages(second.id)
    assert three.timestamp == datetime(2023, 9, 13, 0, 9, tzinfo=UTC)


def test_a_second_run_adds_nothing(alice: UserMemory) -> None:
    path = write([SAMPLE, other("s-2")])
    assert import_file(alice, path).messages_added == 6
    again = import_file(alice, path)
    assert (again.conversations, again.messages_added, again.messages_already_there) == (2, 0, 6)


@pytest.mark.parametrize(
    ("changes", "place", "reason"),
    [
        ({"session_2_date_time": "yesterday"}, "session_2", "session_2_date_time"),
        ({"session_2_date_time": "1:00 pm on 31 June, 2023"}, "session_2", "calendar"),
        ({"session_2": [turn("Ada", "D2:1", "x"), {"speaker": "Ben", "text": "y"}]}, "session_2, turn 2", "dia_id"),
        ({"session_2": [turn("Ada", "D2:1", "a\x00b")]}, "session_2, turn 1", "NUL"),
        ({"session_2": ["text"]}, "session_2, turn 1", "missing"),
        ({"session_2": "text"}, "session_2", "list"),
    ],
)
def test_a_fault_refuses_the_whole_sample_and_no_other(
    lite: UserMemory, changes: dict[str, Any], place: str, reason: str
) -> None:
    report = import_file(lite, write([SAMPLE, other("s-2", **changes), other("s-3")]))
    assert (report.conversations, report.conversations_refused, report.fault_count) == (2, 1, 1)
    assert report.faults[0].place == f"chats.json, sample s-2, {place}"
    assert reason in report.faults[0].reason
    assert all("s-2" not in str(session.external_id) for session in lite.list_sessions())


def test_a_changed_turn_in_the_last_session_refuses_the_sample(alice: UserMemory) -> None:
    import_file(alice, write([SAMPLE]))
    changed = other("s-1", session_2=[turn("Ada", "D2:1", "something else")])
    changed["conversation"]["session_1"].append(turn("Ada", "D1:3", "one more"))
    report = import_file(alice, write([changed]))
    assert (report.conversations, report.conversations_refused, report.messages_added) == (0, 1, 0)
    assert [session.message_count for session in alice.list_sessions()] == [2, 1]


def test_a_truncated_file_keeps_the_samples_before_the_cut(lite: UserMemory) -> None:
    report = import_file(lite, write(json.dumps([SAMPLE, other("s-2")])[:-40]))
    assert (report.conversations, report.fault_count) == (1, 1)
    assert len(lite.list_sessions()) == 2


def test_what_is_no_sample_is_a_fault(lite: UserMemory) -> None:
    report = import_file(lite, write([SAMPLE, {"sample_id": "x"}, 5]))
    assert (report.conversations, report.fault_count) == (1, 2)


def test_the_named_format_wins_over_the_content(lite: UserMemory) -> None:
    report = import_file(lite, write([{"role": "user", "content": "hi"}]), format="locomo")
    assert (report.conversations, report.fault_count) == (0, 1)
