"""What an embedder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Embedder", "Vector", "Vectors"]

Vector: TypeAlias = "Sequence[float] | NDArray[Any]"
Vectors: TypeAlias = "Sequence[Vector] | NDArray[Any]"


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors of one dimension. Any object with these four will do.

    It is called by one thread at a time, always the same one in a process, and may be slow or fail: a failure costs
    the vector, never the text. Texts come as they are, empty ones too. Vectors need not be of length one. An
    embedder may also have ``batch_texts`` and ``batch_chars``: how much is handed to ``embed_documents`` at once.
    """

    @property
    def name(self) -> str:
        """The model and all else that changes vectors; those of different names are never compared."""

    @property
    def dim(self) -> int:
        """How many numbers each vector has."""

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """A vector for each text, in their order: lists of numbers, or an array with a row for each."""

    def embed_query(self, text: str) -> Vector:
        """The vector of a question, which some models make in another way than that of an answer."""
