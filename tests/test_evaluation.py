"""Labelled questions: what is read, what is counted, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import CliRunner

from mirai_memory import InvalidInput, Knowledge, MemoryManager, Message
from mirai_memory.cli.app import app
from mirai_memory.evaluation import Question, evaluate, read_questions

DB = "eval.db"


@pytest.fixture
def stored() -> list[int]:
    """Three messages in sessions of their own, so that none stands beside another; and two facts."""
    with MemoryManager(DB) as memory:
        ids = [
            memory.add_message(Message(session_id=memory.create_session("alice").id, role="user", content=content))
            for content in ("Green  TEA in the morning", "tea for two", "a walk in the park")
        ]
        memory.add_knowledge(Knowledge(user_id="alice", value="Alice sails"))
        memory.add_knowledge(Knowledge(user_id="bob", value="Bob sails to Perm"))
    return ids


def _evaluated(*questions: Question, depths: tuple[int, ...] = (1, 2)) -> Any:
    with MemoryManager(DB) as memory:
        return evaluate(memory.for_user("alice"), questions, depths=depths)


def test_recall_is_the_share_of_what_was_wanted_and_mrr_the_first_rank(stored: list[int]) -> None:
    green, two, walk = stored
    run = _evaluated(
        Question(query="green tea", kind="messages", ids=(green,)),  # first
        Question(query="green tea", kind="messages", ids=(two,)),  # second
        Question(query="green tea", kind="messages", ids=(green, two, walk)),  # one of three, then two of three
        Question(query="submarine", kind="messages", ids=(walk,)),  # none
    )
    assert run.questions == 4
    assert run.recall == {1: round(100 * (1 + 0 + 1 / 3 + 0) / 4, 1), 2: round(100 * (1 + 1 + 2 / 3 + 0) / 4, 1)}
    assert run.mrr == round(100 * (1 + 1 / 2 + 1 + 0) / 4, 1)
    assert run.missed == ["submarine"]
    assert 0 < run.p50_ms <= run.p95_ms


def test_texts_are_looked_for_without_case_and_spacing_in_messages_and_facts(stored: list[int]) -> None:
    run = _evaluated(
        Question(query="green tea", texts=("green tea",)),
        Question(query="who sails", texts=("alice sails",)),
        Question(query="who sails", kind="messages", texts=("alice sails",)),
        Question(query="who sails to Perm", texts=("Bob sails",)),  # another owner's
    )
    assert run.missed == ["who sails", "who sails to Perm"]


def test_a_fact_is_not_taken_for_the_message_of_the_same_id(stored: list[int]) -> None:
    run = _evaluated(
        Question(query="sails", kind="knowledge", ids=(1,)), Question(query="sails", kind="messages", ids=(1,))
    )
    assert run.missed == ["sails"]
    assert run.mrr == 50.0


def test_no_question_is_refused(stored: list[int]) -> None:
    with pytest.raises(InvalidInput):
        _evaluated()


def _file(*lines: Any) -> Path:
    path = Path("questions.jsonl")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_questions_are_read_line_by_line() -> None:
    path = _file(
        "\ufeff" + json.dumps({"query": "чай", "texts": ["зелёный"]}),
        "",
        {"query": "q", "kind": "messages", "ids": [2, 2]},
    )
    assert read_questions(path) == [
        Question(query="чай", texts=("зелёный",)),
        Question(query="q", kind="messages", ids=(2,)),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1"),
        ("[]", "line 1"),
        ("[" * 100_000, "line 1"),
        ({"query": "", "texts": ["x"]}, "query"),
        ({"query": 5, "texts": ["x"]}, "query"),
        ({"texts": ["x"]}, "query"),
        ({"query": "q"}, "ids"),
        ({"query": "q", "texts": []}, "ids"),
        ({"query": "q", "texts": [""]}, "ids"),
        ({"query": "q", "texts": "x"}, "ids"),
        ({"query": "q", "ids": ["1"], "kind": "messages"}, "ids"),
        ({"query": "q", "ids": [True], "kind": "messages"}, "ids"),
        ({"query": "q", "ids": [1]}, "kind"),
        ({"query": "q", "ids": [1], "kind": "tasks"}, "kind"),
        ({"query": "q", "texts": ["x"], "limit": 5}, "limit"),
        ("\udcff", "UTF-8"),
        ("", "no questions"),
    ],
)
def test_what_is_no_question_is_refused_with_its_place(line: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_questions(_file(line))


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--db", DB, "--user", "alice"])


def test_the_command_compares_two_settings(stored: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(tmp_path / "log"))
    path = _file({"query": "green tea", "texts": ["green tea"]}, {"query": "submarine", "texts": ["x"]})
    alone = _run("eval", str(path), "--misses", "5")
    assert alone.exit_code == 0
    assert alone.stdout.splitlines()[0].split() == ["measure", "as", "configured"]
    assert "submarine" in alone.stdout
    both = _run("eval", str(path), "--against", "memory.rag.cache_mb=1", "--json")
    runs = json.loads(both.stdout)
    assert list(runs) == ["as configured", "memory.rag.cache_mb=1"]
    assert all(run["recall"]["1"] == 50.0 for run in runs.values())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("eval", "missing.jsonl"), 1),
        (("eval", "."), 1),
        (("eval", "questions.jsonl", "--against", "nonsense"), 2),
        (("eval", "questions.jsonl", "--against", "memory=1"), 2),
        (("eval", "questions.jsonl", "--against", "memory.rag=1", "--against", "memory.rag.embedder=none"), 2),
        (("eval", "questions.jsonl", "--against", "memory.rag.embeder=none"), 3),
    ],
)
def test_the_command_refuses_what_it_cannot_use(
    arguments: tuple[str, ...], code: int, stored: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(tmp_path / "log"))
    _file({"query": "green tea", "texts": ["green tea"]})
    assert _run(*arguments).exit_code == code


def test_reindex_without_an_embedder_says_so(
    stored: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MIRAI_MONITORING__LOGS__PATH", str(tmp_path / "log"))
    done = _run("reindex")
    assert done.exit_code == 0
    assert "no embedder" in done.stderr
