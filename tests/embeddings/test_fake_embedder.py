"""The fake embedder: deterministic, near for similar texts, and wrong on demand."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from mirai_memory.embeddings import GuardedEmbedder
from mirai_memory.errors import EmbeddingError
from mirai_memory.testing import FakeEmbedder


def _near(a: str, b: str) -> float:
    guarded = GuardedEmbedder(FakeEmbedder())
    return float(guarded.documents([a])[0] @ guarded.query(b))


def test_word_forms_are_near_in_both_languages() -> None:
    assert _near("кратких ответов", "Краткие ответы!") > 0.99
    assert _near("running the tests", "Run a test") > 0.99
    assert _near("running the tests", "кратких ответов") < 0.3


def test_vectors_are_the_same_in_every_process() -> None:
    code = "from mirai_memory.testing import FakeEmbedder; print(FakeEmbedder(dim=8).embed_query('зелёный чай'))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout == f"{FakeEmbedder(dim=8).embed_query('зелёный чай')}\n"


def test_it_needs_no_extra() -> None:
    code = "from mirai_memory.testing import FakeEmbedder; import sys; print({'pytest', 'factory'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_it_counts_calls_and_keeps_texts() -> None:
    embedder = FakeEmbedder(dim=5, name="other")
    assert (embedder.name, embedder.dim, embedder.calls) == ("other", 5, 0)
    assert np.shape(embedder.embed_documents(["a", "b"])) == (2, 5)
    assert np.shape(embedder.embed_query("c")) == (5,)
    assert (embedder.calls, embedder.texts) == (2, ["a", "b", "c"])


def test_it_fails_answers_and_recovers_as_told() -> None:
    embedder = FakeEmbedder(dim=2)
    embedder.fail()
    with pytest.raises(ConnectionError):
        embedder.embed_query("a")
    embedder.fail(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        embedder.embed_documents(["a"])
    for nonsense in ("nonsense", None, []):
        embedder.answer_with(nonsense)
        assert embedder.embed_query("a") == embedder.embed_documents(["a"]) == nonsense
    embedder.recover()
    assert len(embedder.embed_query("a")) == 2


def test_it_hangs_until_it_is_released() -> None:
    embedder = FakeEmbedder()
    embedder.hang()
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(embedder.embed_query("a")))
    thread.start()
    guarded = GuardedEmbedder(embedder)
    with pytest.raises(EmbeddingError):
        guarded.query("b", timeout_s=0.05)
    assert thread.is_alive()
    embedder.release()
    thread.join(30)
    assert len(results) == 1
