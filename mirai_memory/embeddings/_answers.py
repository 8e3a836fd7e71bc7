"""What an embedder answered, held to the protocol: finite numbers in the promised shape, scaled to length one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mirai_memory.errors import EmbeddingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Answers"]


class Answers:
    """Reads what the embedder ``name`` answers. Raises EmbeddingError, which says what came, not what was in it."""

    def __init__(self, name: str, dim: int) -> None:
        self._name = name
        self._dim = dim

    def matrix(self, answer: Any, *, count: int) -> NDArray[np.float32]:
        """A row of length one for each of ``count`` texts."""
        rows = answer if isinstance(answer, list | tuple) else self._array(answer)
        if isinstance(rows, np.ndarray) and rows.ndim != 2:
            raise self._nonsense(f"{_shape(rows)} instead of a list of vectors")
        if len(rows) != count:
            raise self._nonsense(f"{len(rows)} vectors for {count} texts")
        return np.stack([self.vector(row) for row in rows]) if count else np.empty((0, self._dim), np.float32)

    def vector(self, answer: Any) -> NDArray[np.float32]:
        """Finite numbers as float32, scaled to length one. Zeros alone have no direction and are refused."""
        numbers = self._array(answer)
        if numbers.ndim != 1:
            raise self._nonsense(f"{_shape(numbers)} instead of a vector")
        if len(numbers) != self._dim:
            raise self._nonsense(f"a vector of {len(numbers)} numbers, its dim is {self._dim}")
        with np.errstate(over="ignore"):  # a longdouble may become an infinity here
            wide = numbers.astype(np.float64)
        if not np.isfinite(wide).all():
            raise self._nonsense("a NaN or an infinity")
        largest = np.abs(wide).max()
        if largest == 0:
            raise self._nonsense("a vector of zeros")
        wide /= largest  # first, so that no square overflows or vanishes
        unit: NDArray[np.float32] = (wide / np.sqrt(wide @ wide)).astype(np.float32)
        return unit

    def _array(self, answer: Any) -> NDArray[Any]:
        try:
            array = np.asarray(answer)
        except (ValueError, TypeError):  # lists of unequal lengths, a tensor on another device
            array = np.asarray(None)
        if array.dtype.kind not in "fiu":
            raise self._nonsense(f"{type(answer).__name__} where numbers belong")
        return array

    def _nonsense(self, what: str) -> EmbeddingError:
        return EmbeddingError(f"embedder {self._name!r} answered with {what}")


def _shape(array: NDArray[Any]) -> str:
    return "a number" if array.ndim == 0 else f"an array of {array.ndim} dimensions"
