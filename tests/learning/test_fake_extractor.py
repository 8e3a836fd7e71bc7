"""The fake extractor: deterministic, and wrong on demand."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from mirai_memory import Extractor, Knowledge, Message, UserPreferences
from mirai_memory.testing import FakeExtractor


def said(*contents: str) -> list[Message]:
    return [Message(session_id="s", role="user", content=text, id=id) for id, text in enumerate(contents, 1)]


def test_it_is_an_extractor() -> None:
    assert isinstance(FakeExtractor(), Extractor)


def test_it_proposes_what_the_messages_say() -> None:
    messages = said("My home city is Perm, on the Kama. my cat is Tom!", "Please be brief", "hello")
    found = FakeExtractor(confidence=0.4, category="c").extract(messages, known=[], preferences=None)
    assert [(fact.category, fact.key, fact.value, fact.confidence, fact.message_ids) for fact in found.facts] == [
        ("c", "home_city", "Perm, on the Kama", 0.4, [1]),
        ("c", "cat", "Tom", 0.4, [1]),
    ]
    assert [(like.field, like.value, like.message_ids) for like in found.preferences] == [
        ("communication_tone", "brief", [2])
    ]
    assert found == FakeExtractor(confidence=0.4, category="c").extract(messages, known=[], preferences=None)


def test_it_remembers_what_it_was_given() -> None:
    extractor, messages, likes = FakeExtractor(name="other"), said("hello"), UserPreferences(user_id="alice")
    assert (extractor.name, extractor.calls) == ("other", 0)
    extractor.extract(messages, known=[Knowledge(value="x")], preferences=likes)
    assert (extractor.calls, extractor.messages, extractor.preferences) == (1, [messages], [likes])
    assert [[fact.value for fact in facts] for facts in extractor.known] == [["x"]]


def test_it_fails_answers_hangs_and_recovers_as_told() -> None:
    extractor = FakeExtractor()
    extractor.fail()
    with pytest.raises(ConnectionError):
        extractor.extract([], known=[], preferences=None)
    extractor.fail(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        extractor.extract([], known=[], preferences=None)
    extractor.answer_with(None)
    assert extractor.extract([], known=[], preferences=None) is None
    extractor.hang()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(extractor.extract([], known=[], preferences=None)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    extractor.release()
    thread.join(60)
    assert len(answers) == 1
    extractor.recover()
    assert extractor.extract(said("My cat is Tom"), known=[], preferences=None).facts


def test_it_needs_no_extra() -> None:
    code = "from mirai_memory.testing import FakeExtractor; import sys; print({'pytest', 'factory'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
