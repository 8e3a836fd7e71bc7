"""fastembed and sentence-transformers: which model is made, with which prefixes and sizes, and when."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from model_libraries import SentenceTransformer, TextEmbedding

from mirai_memory.embeddings import GuardedEmbedder
from mirai_memory.embeddings.fastembed_ import FastEmbedEmbedder
from mirai_memory.embeddings.sentence_transformers_ import SentenceTransformersEmbedder
from mirai_memory.errors import EmbeddingError

E5_LARGE = "intfloat/multilingual-e5-large"


def test_fastembed_loads_its_model_with_the_first_vector(fastembed: type[TextEmbedding]) -> None:
    embedder = FastEmbedEmbedder()
    assert embedder.name == "fastembed/sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
    assert fastembed.made == []
    embedder.embed_documents(["a", "b"])
    embedder.embed_query("c")
    assert embedder.dim == 384
    assert [model.seen for model in fastembed.made] == [["a", "b", "c"]]


def test_fastembed_gives_e5_its_prefixes(fastembed: type[TextEmbedding]) -> None:
    embedder = FastEmbedEmbedder(E5_LARGE)
    embedder.embed_documents(["a"])
    embedder.embed_query("b")
    assert embedder.dim == 1024
    assert fastembed.made[0].seen == ["passage: a", "query: b"]


def test_fastembed_does_not_know_every_model(fastembed: type[TextEmbedding]) -> None:
    guarded = GuardedEmbedder(FastEmbedEmbedder("nobody/nothing"))
    with pytest.raises(EmbeddingError, match="embedder 'fastembed/nobody/nothing' failed with ValueError"):
        guarded.query("a")


def test_fastembed_cannot_shorten_vectors(fastembed: type[TextEmbedding]) -> None:
    with pytest.raises(EmbeddingError, match=r"vectors of 1024 numbers; leave models\.embedding\.dimensions out"):
        GuardedEmbedder(FastEmbedEmbedder(E5_LARGE, dimensions=256)).query("a")
    assert GuardedEmbedder(FastEmbedEmbedder(E5_LARGE, dimensions=1024)).query("a").shape == (1024,)


def test_sentence_transformers_loads_its_model_with_the_first_vector(
    sentence_transformers: type[SentenceTransformer],
) -> None:
    embedder = SentenceTransformersEmbedder()
    assert embedder.name == "sentence-transformers/intfloat/multilingual-e5-small"
    assert sentence_transformers.made == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert embedder.dim == 96
    embedder.embed_documents(["a", "b"])
    embedder.embed_query("c")
    (model,) = sentence_transformers.made
    assert model.model_name == "intfloat/multilingual-e5-small"
    assert model.seen == ["passage: a", "passage: b", "query: c"]


@pytest.mark.parametrize(
    ("model", "saved", "seen"),
    [
        ("org/plain-model", {}, ["a", "b"]),
        ("intfloat/e5-mistral-7b-instruct", {"query": "Instruct: find\nQuery: "}, ["a", "Instruct: find\nQuery: b"]),
        ("org/prompted", {"query": "q> ", "document": "d> "}, ["d> a", "q> b"]),
        ("org/with-passage", {"query": "q> ", "passage": "p> "}, ["p> a", "q> b"]),
        ("intfloat/e5-base-v2", {"query": "Q: ", "passage": "P: "}, ["P: a", "Q: b"]),
        ("intfloat/e5-base-v2", {}, ["passage: a", "query: b"]),
        ("/models/my-e5-small", {}, ["passage: a", "query: b"]),
        ("org/base5-e512", {}, ["a", "b"]),
    ],
)
def test_a_models_own_prompts_come_before_our_prefixes(
    sentence_transformers: type[SentenceTransformer], model: str, saved: dict[str, str], seen: list[str]
) -> None:
    sentence_transformers.saved_prompts = saved
    embedder = SentenceTransformersEmbedder(model)
    embedder.embed_documents(["a"])
    embedder.embed_query("b")
    assert sentence_transformers.made[0].seen == seen


def test_sentence_transformers_shortens_vectors_and_says_so_in_the_name(
    sentence_transformers: type[SentenceTransformer],
) -> None:
    embedder = SentenceTransformersEmbedder(dimensions=32)
    assert embedder.name == "sentence-transformers/intfloat/multilingual-e5-small@32"
    assert GuardedEmbedder(embedder).documents(["a"]).shape == (1, 32)


def test_a_model_that_does_not_know_its_size_is_asked_for_a_vector(
    sentence_transformers: type[SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentence_transformers, "size", None)
    assert GuardedEmbedder(SentenceTransformersEmbedder()).query("a").shape == (96,)


@pytest.mark.parametrize("make", [FastEmbedEmbedder, SentenceTransformersEmbedder])
def test_a_forked_process_loads_a_model_of_its_own(
    fastembed: Any, sentence_transformers: Any, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    stand_in = fastembed if make is FastEmbedEmbedder else sentence_transformers
    embedder = make()
    embedder.embed_query("a")
    monkeypatch.setattr(os, "getpid", lambda: -1)  # what a child sees of it
    embedder.embed_query("b")
    embedder.embed_query("c")
    assert [[text[-1] for text in model.seen] for model in stand_in.made] == [["a"], ["b", "c"]]
