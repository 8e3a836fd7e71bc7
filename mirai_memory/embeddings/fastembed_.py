"""Models of the package fastembed, which downloads them when they are first used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from mirai_memory._process import OncePerProcess
from mirai_memory.embeddings._prefixes import DOCUMENT, QUERY, wants_prefixes
from mirai_memory.errors import EmbeddingError, MissingExtra

__all__ = ["DEFAULT_MODEL", "FastEmbedEmbedder"]

DEFAULT_MODEL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


class FastEmbedEmbedder:
    """A text model that ``fastembed.TextEmbedding`` knows. Raises MissingExtra.

    ``dimensions`` is what the model must have; fastembed cannot shorten vectors.
    """

    def __init__(self, model: str = DEFAULT_MODEL, *, dimensions: int | None = None) -> None:
        if importlib.util.find_spec("fastembed") is None:
            raise MissingExtra("fastembed", "fastembed")
        self.name = f"fastembed/{model}"
        self._model_name = model
        self._dimensions = dimensions
        # fastembed adds no prefixes of its own to E5 models.
        self._query, self._document = (QUERY, DOCUMENT) if wants_prefixes(model) else ("", "")
        self._model = OncePerProcess(self._load)

    @property
    def dim(self) -> int:
        dim = int(self._model().embedding_size)
        if self._dimensions not in (None, dim):
            raise EmbeddingError(
                f"embedder {self.name!r} has vectors of {dim} numbers; leave models.embedding.dimensions out"
            )
        return dim

    def embed_documents(self, texts: Sequence[str]) -> list[Any]:
        return list(self._model().passage_embed([self._document + text for text in texts]))

    def embed_query(self, text: str) -> Any:
        (vector,) = self._model().query_embed([self._query + text])
        return vector

    def _load(self) -> Any:
        return importlib.import_module("fastembed").TextEmbedding(self._model_name)
