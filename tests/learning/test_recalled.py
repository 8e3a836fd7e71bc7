"""What came out of the memory is told from what people write."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mirai_memory import Knowledge, MemoryManager, Message, Task
from mirai_memory.learning.recalled import MARK, without_recalled


@pytest.fixture
def prompts(memory: MemoryManager) -> dict[str, str]:
    """A context with something in every part, in all the shapes that it has."""
    nasty = 'He said "no" </facts>\n<recalled>\u2028\x85{"x": 1}\n\n> quoted'
    older = memory.create_session("alice").id
    memory.add_messages(
        [
            Message(session_id=older, role="user", name="Alice", content=f"walrus {nasty}"),
            Message(session_id=older, role="tool", tool_call_id="c", content=f"walrus {nasty}"),
        ]
    )
    session = memory.create_session("alice").id
    for kind in ("user", "assistant", "tool", "document"):
        memory.add_knowledge(
            Knowledge(user_id="alice", key=f"walrus {kind}", value=nasty, source="s", source_kind=kind, confidence=0.5)
        )
    memory.add_knowledge(Knowledge(user_id="alice", value="walrus without a key"))
    memory.add_task(Task(user_id="alice", description=nasty))
    memory.update_user_preferences("alice", coding_style=nasty)
    memory.add_message(Message(session_id=session, role="user", content="walrus?"))
    context = replace(memory.build_context(session), summary=nasty)
    assert {message.role for message in context.recalled} == {"user", "tool"}
    assert len(context.knowledge) == 5
    openai = [str(message["content"]) for message in context.to_messages() if message["role"] == "system"]
    anthropic = context.to_messages("anthropic")
    block = anthropic["messages"][-1]["content"][0]["text"]
    return {"prompt": context.to_prompt(), "openai": "\n".join(openai), "block": block, "system": anthropic["system"]}


SHAPES = ("prompt", "openai", "block", "system")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_context_says_nothing(prompts: dict[str, str], shape: str) -> None:
    text = prompts[shape]
    assert len(text) > 100
    assert without_recalled(text) == ""
    assert without_recalled(f"\n  \n{text}\n\n") == ""


@pytest.mark.parametrize("shape", SHAPES)
def test_what_stands_around_it_stays(prompts: dict[str, str], shape: str) -> None:
    text = prompts[shape]
    assert without_recalled(f"before\n{text}\nafter") == f"before\n{MARK}\nafter"
    assert without_recalled(f"before: {text} after").replace(MARK, "").split() == ["before:", "after"]


@pytest.mark.parametrize("shape", SHAPES)
def test_quoted_as_in_a_mail_it_is_the_same(prompts: dict[str, str], shape: str) -> None:
    quoted = "\n".join(f"> {line}" for line in prompts[shape].split("\n"))
    left = without_recalled(f"Look:\n{quoted}\nwhat is this?")
    assert left.replace(MARK, "").replace(">", "").split() == ["Look:", "what", "is", "this?"]


@pytest.mark.parametrize("shape", ["prompt", "openai", "block"])
def test_lines_of_it_without_their_tags_are_known_too(prompts: dict[str, str], shape: str) -> None:
    lines = [line for line in prompts[shape].split("\n") if '"value"' in line or '"date"' in line]
    assert lines
    assert without_recalled("\n".join(lines)) == ""


def test_a_context_that_was_cut_off_is_recalled_as_far_as_it_goes(prompts: dict[str, str]) -> None:
    text = prompts["prompt"]
    for end in range(text.index("<facts>") + 20, len(text), 7):
        assert "walrus" not in without_recalled(text[:end]), end


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        'He said "hello" <facts> and left',
        '<facts>\nmy own words, "quoted"\n</facts>',
        '<summary>\nNothing of JSON here: {"a"\n',
        '{"mine": 1, "value": 2}',
        '{"value": "x", "category": "y"}',
        '"a quoted line"',
        '```json\n{\n  "key": "city"\n}\n```',
        '<data>\n{"key": "x"}\n</data>',
        'a\r\nb\x85c\u2028"d"',
    ],
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert without_recalled(text) == text


@pytest.mark.parametrize(
    "text",
    [
        '<facts>\n"' * 40_000,
        "<facts> " * 60_000 + '"',
        "> " * 200_000 + '"',
        "<facts>\n" + '{"' * 200_000,
        '{"a":' * 100_000,
        "<facts " + "x" * 400_000 + '"',
    ],
    ids=range(6),
)
def test_no_text_takes_long(text: str) -> None:
    started = time.perf_counter()
    without_recalled(text)
    assert time.perf_counter() - started < 5
