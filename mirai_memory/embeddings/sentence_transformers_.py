"""Models of the package sentence-transformers, which downloads them when they are first used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

from mirai_memory._process import OncePerProcess
from mirai_memory.embeddings._prefixes import DOCUMENT, QUERY, wants_prefixes
from mirai_memory.errors import MissingExtra

__all__ = ["DEFAULT_MODEL", "SentenceTransformersEmbedder"]

DEFAULT_MODEL = "intfloat/multilingual-e5-small"


class SentenceTransformersEmbedder:
    """A model's name, or the folder it is in. ``dimensions`` shortens its vectors. Raises MissingExtra."""

    def __init__(self, model: str = DEFAULT_MODEL, *, dimensions: int | None = None) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise MissingExtra("sentence-transformers", "sentence-transformers")
        self.name = f"sentence-transformers/{model}" + (f"@{dimensions}" if dimensions else "")
        self._model_name = model
        self._dimensions = dimensions
        self._model = OncePerProcess(self._load)

    @property
    def dim(self) -> int:
        model = self._model()
        # The older of these names warns since version 6, the newer one came with it.
        size = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        return size() or len(self.embed_query("?"))  # some models do not know

    def embed_documents(self, texts: Sequence[str]) -> Any:
        model = self._model()
        prompt = self._prompt(model, ("document", "passage", "corpus"), DOCUMENT)
        return model.encode_document(list(texts), prompt=prompt, show_progress_bar=False)

    def embed_query(self, text: str) -> Any:
        model = self._model()
        return model.encode_query(text, prompt=self._prompt(model, ("query",), QUERY), show_progress_bar=False)

    def _prompt(self, model: Any, names: Iterable[str], prefix: str) -> str | None:
        """E5's prefix where the model's own files state none; None leaves it to the library."""
        own = next((model.prompts[name] for name in names if model.prompts.get(name)), None)
        # The library takes the first name that is there, even if it stands for nothing.
        return own or (prefix if wants_prefixes(self._model_name) else None)

    def _load(self) -> Any:
        library = importlib.import_module("sentence_transformers")
        return library.SentenceTransformer(self._model_name, truncate_dim=self._dimensions)
