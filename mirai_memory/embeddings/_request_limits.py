"""What one request to the embeddings API may hold, and how texts are cut and divided to keep to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mirai_memory.tokens import EstimatedTokens

__all__ = ["MAX_TEXTS", "MAX_TEXT_TOKENS", "MAX_TOKENS", "count", "cut", "requests"]

MAX_TEXTS, MAX_TOKENS = 2048, 300_000  # of a request
MAX_TEXT_TOKENS = 8191

_ESTIMATE = EstimatedTokens()
# The estimate is made for a newer vocabulary than that of the embedding models, which knows less of other scripts.
_BEYOND_ASCII = 1.7
# More characters than that make one token of hardly any text, and to count millions would take a while.
_CHARS_OF_A_TOKEN = 20


def count(text: str) -> int:
    """The tokens of a text, rather too many than too few."""
    tokens = _ESTIMATE.count(text)
    if text.isascii():
        return tokens
    return min(int(tokens * _BEYOND_ASCII) + 1, len(text.encode(errors="replace")))


def cut(text: str, most: int) -> str:
    """The beginning of the text, as much as has ``most`` tokens. For an empty text, which the API refuses, a space."""
    text = text[: _CHARS_OF_A_TOKEN * most] or " "
    while (tokens := count(text)) > most:
        text = text[: min(len(text) - 1, len(text) * most // tokens)]
    return text


def requests(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in their order, as many at a time as one request may hold."""
    batch: list[str] = []
    total = 0
    for text in texts:
        tokens = count(text)
        if batch and (len(batch) == MAX_TEXTS or total + tokens > MAX_TOKENS):
            yield batch
            batch, total = [], 0
        batch.append(text)
        total += tokens
    if batch:
        yield batch
