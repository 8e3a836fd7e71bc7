"""Nothing that was said, proposed or learned reaches a log or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirai_memory import MemoryManager, Message, ModelError, Proposals, ProposedFact, configure_logging, load_settings
from mirai_memory.testing import FakeExtractor

WORD = "canary"


def test_learning_leaves_no_word_in_the_log(tmp_path: Path, url: str) -> None:
    path = tmp_path / "mirai.log"
    extractor = FakeExtractor()
    settings = load_settings(monitoring={"logs": {"path": str(path), "level": "TRACE"}})
    with configure_logging(settings), MemoryManager(url, extractor=extractor) as memory:
        session = memory.create_session("alice").id
        for number in range(3):
            text = f"My {WORD} is {WORD}{number}. Please be {WORD}."
            memory.add_message(Message(session_id=session, role="user", content=text))
            memory.learn(session, proposals=memory.learn(session, apply=False))
        memory.add_message(Message(session_id=session, role="user", content=f"My {WORD} is lost."))
        extractor.fail(ValueError(WORD))
        with pytest.raises(ModelError) as caught:
            memory.learn(session)
        assert WORD not in str(caught.value)
        extractor.answer_with(Proposals(facts=[ProposedFact(key=WORD, value=WORD * 1_000, message_ids=[1])]))
        memory.learn(session)
        extractor.recover()
        memory.add_message(Message(session_id=session, role="user", content=f"My {WORD} is found."))
        memory.learn(session)
        assert memory.get_knowledge(user_id="alice")[0].value == "found"
    text = path.read_text("utf-8")
    assert "learned from 1 messages" in text
    assert WORD not in text


def test_what_is_refused_is_told_without_its_text(url: str) -> None:
    extractor = FakeExtractor()
    with MemoryManager(url, extractor=extractor) as memory:
        session = memory.create_session("alice").id
        [id] = memory.add_messages([Message(session_id=session, role="user", content="words")])
        wrong = [
            ProposedFact(key=WORD * 100, value="x", message_ids=[id]),
            ProposedFact(key="k", value=WORD * 1_000, message_ids=[id]),
            ProposedFact(key="k", value=f"{WORD}\x00", message_ids=[id]),
            ProposedFact(key="k", value="x", category=f"{WORD}: {WORD}", message_ids=[id]),
            ProposedFact(key="k", value="x", reason=[WORD], message_ids=[id]),
            ProposedFact(key="k", value="x", confidence=WORD, message_ids=[id]),
            ProposedFact(key="k", value="x", message_ids=[WORD]),
        ]
        extractor.answer_with(Proposals(facts=wrong))
        items = memory.learn(session).items
        assert [item.outcome for item in items] == ["refused"] * len(wrong)
        assert WORD not in repr(items)
