"""Puts the stand-ins within reach of the tests here, however pytest was started."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("mirai_memory.testing.contract.embedders")

import embeddings_server  # noqa: E402
import model_libraries  # noqa: E402


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make ``import NAME`` give a module with these members."""

    def install(name: str, **members: Any) -> None:
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return install


@pytest.fixture
def fastembed(install: Callable[..., None]) -> type[model_libraries.TextEmbedding]:
    """The stand-in for fastembed, installed; the models that are made of it are in its ``made``."""

    class TextEmbedding(model_libraries.TextEmbedding):
        made: ClassVar[list[Any]] = []

    install("fastembed", TextEmbedding=TextEmbedding)
    return TextEmbedding


@pytest.fixture(params=["5", "6"])
def sentence_transformers(
    request: pytest.FixtureRequest, install: Callable[..., None]
) -> type[model_libraries.SentenceTransformer]:
    """The stand-in for either version of sentence-transformers, installed."""
    version = {"5": model_libraries.SentenceTransformer5, "6": model_libraries.SentenceTransformer6}[request.param]

    class SentenceTransformer(version):  # type: ignore[misc, valid-type]
        made: ClassVar[list[Any]] = []
        saved_prompts: ClassVar[dict[str, str]] = {}

    install("sentence_transformers", SentenceTransformer=SentenceTransformer)
    return SentenceTransformer


@pytest.fixture
def server() -> Iterator[embeddings_server.EmbeddingsServer]:
    """An embeddings API on this machine, which does what it is told to do wrong."""
    with embeddings_server.EmbeddingsServer() as server:
        yield server


class Keys:
    """Stands for ``settings.security.api_keys``."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.lookups = 0

    def get_api_key(self, provider: str) -> Any:
        from mirai_memory.errors import ConfigurationError

        self.lookups += 1
        if self.key is None:
            raise ConfigurationError(f"no API key of {provider}: set the environment variable OPENAI_API_KEY")
        return SimpleNamespace(get_secret_value=lambda: self.key)

    def locate(self, provider: str) -> str | None:
        return None if self.key is None else "here"


@pytest.fixture
def keys() -> Keys:
    return Keys("sk-test-0123456789abcdef")
