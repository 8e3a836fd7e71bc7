"""Models behind the embeddings API of OpenAI, or of any server that speaks it, through the official client."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit

from mirai_memory._process import OncePerProcess
from mirai_memory.embeddings._request_limits import MAX_TEXT_TOKENS, MAX_TEXTS, cut, requests
from mirai_memory.errors import ConfigurationError, EmbeddingError, MissingExtra
from mirai_memory.model_calls import model_call

if TYPE_CHECKING:
    from openai import OpenAI
    from pydantic import SecretStr

__all__ = ["OpenAIEmbedder"]

_OFFICIAL_URL = "https://api.openai.com/v1"  # if it is told none, the client asks the environment
_SIZES = {"text-embedding-3-large": 3072, "text-embedding-3-small": 1536, "text-embedding-ada-002": 1536}
_OF_ONE_SIZE = "text-embedding-ada-002"
_LEAST_TEXT_TOKENS = 64

# Servers agree neither on the status nor on the words.
_COMPLAINTS = frozenset({400, 413, 422, 500})
_TOO_LONG = re.compile(
    r"context.?length|max_tokens_per_request|maximum.{0,30}tokens|too (?:long|large)|(?:less|fewer) than \d+ tokens",
    re.IGNORECASE,
)
_NO_DIMENSIONS = re.compile(r"dimension|matryoshka", re.IGNORECASE)
_ADVICE = {
    401: "refuses the API key; check the places that security.api_keys names",
    403: "does not let this API key use the model",
    404: "does not know the model or the address; check models.embedding.model and models.embedding.base_url",
    429: "refuses more calls for now, or the quota is used up",
}


class KeyRing(Protocol):
    """The part of ``settings.security.api_keys`` that is used here."""

    def get_api_key(self, provider: str) -> SecretStr: ...
    def locate(self, provider: str) -> str | None: ...


class _TooLong(Exception):
    """The server finds that the texts have too many tokens."""


class _NoDimensions(Exception):
    """The server does not take the parameter ``dimensions`` for its model."""


class OpenAIEmbedder:
    """A model by its name; ``dimensions`` shortens the vectors, and must be given for a model not known here.

    The key is looked up with the first call; where a ``base_url`` is given there need not be one. A request keeps to
    the limits of the API: 2,048 texts and 300,000 tokens. Of a text of more than 8,191 tokens, by an estimate on the
    safe side, the beginning is sent, and half as much while the server finds it too long. The client repeats what
    failed for the moment (429, 5xx, a broken connection), after the time that the server asks for. Raises MissingExtra
    and ConfigurationError when it is made, EmbeddingError when it is called.
    """

    batch_texts, batch_chars = MAX_TEXTS, 1_000_000

    def __init__(
        self,
        model: str,
        *,
        keys: KeyRing,
        base_url: str | None = None,
        dimensions: int | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        if importlib.util.find_spec("openai") is None:
            raise MissingExtra("openai", "openai")
        self.dim = _size(model, dimensions)
        self.name = _name(model, base_url, self.dim)
        self._sends_dimensions = self.dim != _SIZES.get(model)
        self._model = model
        self._keys = keys
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._client = OncePerProcess(self._connect)

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an OpenAIEmbedder is not pickled: it has a connection and a key")

    def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        short = [cut(text, MAX_TEXT_TOKENS) for text in texts]
        return [vector for batch in requests(short) for vector in self._embed(batch, MAX_TEXT_TOKENS)]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def _connect(self) -> OpenAI:
        from openai import OpenAI

        key = "not-needed"
        if self._base_url is None or self._keys.locate("openai"):
            key = self._keys.get_api_key("openai").get_secret_value()
        return OpenAI(api_key=key, base_url=self._base_url or _OFFICIAL_URL, timeout=self._timeout_s)

    def _embed(self, texts: list[str], most: int) -> list[list[float]]:
        """One request; in its place several shorter ones, while the server finds it too long."""
        try:
            return self._request(texts)
        except _NoDimensions:
            self._sends_dimensions = False  # from now on; vectors of another size are refused by the guard
            return self._embed(texts, most)
        except _TooLong:
            pass
        if len(texts) > 1:  # the others are not to be cut for the one
            middle = len(texts) // 2
            return self._embed(texts[:middle], most) + self._embed(texts[middle:], most)
        if most // 2 < _LEAST_TEXT_TOKENS:
            raise self._error("finds every text too long")
        return self._embed([cut(texts[0], most // 2)], most // 2)

    def _request(self, texts: list[str]) -> list[list[float]]:
        try:
            with model_call(self._model) as call:
                response = self._create(texts)
                call.take_usage(response)
            return self._in_order(response.data, len(texts))
        except Exception as error:
            problem = self._problem(error)
        raise problem  # here, without the client's error, which may quote the key or a text

    def _create(self, texts: list[str]) -> Any:
        embeddings = self._client().embeddings
        if self._sends_dimensions:
            return embeddings.create(model=self._model, input=texts, dimensions=self.dim)
        return embeddings.create(model=self._model, input=texts)

    def _in_order(self, data: Any, count: int) -> list[list[float]]:
        if len(data) != count:
            raise self._error(f"answered with {len(data)} vectors for {count} texts")
        vectors = {item.index: item.embedding for item in data}
        if vectors.keys() != set(range(count)):
            raise self._error("answered with vectors whose indexes are not those of the texts")
        return [vectors[place] for place in range(count)]

    def _problem(self, error: Exception) -> Exception:
        """What is wrong, in words that hold nothing of what was sent or answered."""
        if isinstance(error, EmbeddingError):
            return error
        if isinstance(error, ConfigurationError):
            return self._error(f"cannot be used: {error}")
        if isinstance(error, ImportError):
            return self._error(f"cannot be loaded ({type(error).__name__})")
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._complaint(error.status_code, f"{error.code} {error.message}")
        if isinstance(error, openai.APITimeoutError):
            return self._error(f"did not answer within {self._timeout_s:g} s")
        if isinstance(error, openai.APIConnectionError):
            return self._error("cannot be reached; check the network and models.embedding.base_url")
        return self._error(f"answered with something that is no list of vectors ({type(error).__name__})")

    def _complaint(self, status: int, words: str) -> Exception:
        if status in _COMPLAINTS and self._sends_dimensions and _NO_DIMENSIONS.search(words):
            return _NoDimensions()
        if status in _COMPLAINTS and _TOO_LONG.search(words):
            return _TooLong()
        return self._error(f"{_ADVICE.get(status, 'refused the request')} (status {status})")

    def _error(self, problem: str) -> EmbeddingError:
        return EmbeddingError(f"embedder {self.name!r} {problem}")


def _size(model: str, dimensions: int | None) -> int:
    known = _SIZES.get(model)
    if known is None:
        if dimensions is None:
            raise ConfigurationError(f"models.embedding.dimensions: must be set, the size of {model!r} is not known")
        return dimensions
    if dimensions is not None and (dimensions > known or (model == _OF_ONE_SIZE and dimensions != known)):
        raise ConfigurationError(f"models.embedding.dimensions: vectors of {model!r} have {known} numbers")
    return dimensions or known


def _name(model: str, base_url: str | None, dim: int) -> str:
    # Another server may have another model under the same name. The host is told without a password.
    host = "+" + urlsplit(base_url).netloc.rpartition("@")[2].lower() if base_url else ""
    return f"openai{host}/{model}" + (f"@{dim}" if dim != _SIZES.get(model) else "")
