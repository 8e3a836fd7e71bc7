"""Stand-ins with the interfaces of fastembed 0.9 and of sentence-transformers 5 and 6, as read in their sources.

Models are made up: a vector depends on the words of the text. Arguments, defaults, return types and what is done with
prompts are the libraries'.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mirai_memory.testing import FakeEmbedder

Array = NDArray[np.float32]


def _embed(text: str, size: int) -> Array:
    return np.array(FakeEmbedder(dim=size).embed_query(text), dtype=np.float32)


class TextEmbedding:
    """``fastembed.TextEmbedding``."""

    SIZES: ClassVar = {
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": 384,
        "intfloat/multilingual-e5-large": 1024,
    }
    made: ClassVar[list[Any]]

    def __init__(
        self,
        model_name: str = "BAAI/bge-small-en-v1.5",
        cache_dir: str | None = None,
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
        cuda: Any = "auto",
        device_ids: list[int] | None = None,
        lazy_load: bool = False,
        **kwargs: Any,
    ) -> None:
        if model_name not in self.SIZES:
            raise ValueError(f"Model {model_name} is not supported in TextEmbedding.")
        self.model_name = model_name
        self.seen: list[str] = []
        self.made.append(self)

    @property
    def embedding_size(self) -> int:
        return self.SIZES[self.model_name]

    def embed(
        self, documents: str | Iterable[str], batch_size: int = 256, parallel: int | None = None, **kwargs: Any
    ) -> Iterator[Array]:
        for text in [documents] if isinstance(documents, str) else documents:
            self.seen.append(text)
            yield _embed(text, self.embedding_size)

    def query_embed(self, query: str | Iterable[str], **kwargs: Any) -> Iterator[Array]:
        yield from self.embed([query] if isinstance(query, str) else query, **kwargs)

    def passage_embed(self, texts: Iterable[str], **kwargs: Any) -> Iterator[Array]:
        yield from self.embed(texts, **kwargs)


class SentenceTransformer:
    """What both versions of ``sentence_transformers.SentenceTransformer`` have."""

    made: ClassVar[list[Any]]
    saved_prompts: ClassVar[dict[str, str]]  # what the model's own files say
    size: ClassVar[int | None] = 96

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        device: str | None = None,
        prompts: dict[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        self.model_name = model_name_or_path
        self.truncate_dim = truncate_dim
        self.prompts = {"query": "", "document": ""} | self.saved_prompts | (prompts or {})
        self.seen: list[str] = []
        self.made.append(self)

    def encode_query(
        self,
        inputs: Sequence[str] | str,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> Array:
        if prompt_name is None and prompt is None and "query" in self.prompts:
            prompt_name = "query"
        return self._encode(inputs, prompt_name, prompt, show_progress_bar, **kwargs)

    def encode_document(
        self,
        inputs: Sequence[str] | str,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> Array:
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in ("document", "passage", "corpus") if name in self.prompts), None)
        return self._encode(inputs, prompt_name, prompt, show_progress_bar, **kwargs)

    def _encode(
        self, inputs: Sequence[str] | str, prompt_name: str | None, prompt: str | None, show_progress_bar: bool | None
    ) -> Array:
        assert show_progress_bar is False, "None shows a bar where the host's logging is at INFO"
        prefix = prompt if prompt is not None else self.prompts[prompt_name] if prompt_name else ""
        texts = [prefix + text for text in ([inputs] if isinstance(inputs, str) else inputs)]
        self.seen += texts
        if not texts:
            return np.array([])
        vectors = np.stack([_embed(text, self.size or 96)[: self.truncate_dim] for text in texts])
        return vectors[0] if isinstance(inputs, str) else vectors

    def _size(self) -> int | None:
        if self.truncate_dim is not None:
            return self.truncate_dim if self.size is None else min(self.size, self.truncate_dim)
        return self.size


class SentenceTransformer5(SentenceTransformer):
    def get_sentence_embedding_dimension(self) -> int | None:
        return self._size()


class SentenceTransformer6(SentenceTransformer):
    def get_embedding_dimension(self) -> int | None:
        return self._size()

    def get_sentence_embedding_dimension(self) -> int | None:
        warnings.warn("renamed to `get_embedding_dimension`", FutureWarning, stacklevel=2)
        return self._size()
