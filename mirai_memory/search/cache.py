"""What searches keep of the scopes they have read, within a number of bytes; the longest unused goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Protocol


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


class ScopeCache:
    """Values by key. Safe for many threads; a value is never changed once it is in."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Sized) -> None:
        """Keep it; one that alone is larger than the cache is not kept."""
        with self._lock:
            self._drop(key)
            if value.nbytes > self._most:
                return
            self._values[key] = value
            self._bytes += value.nbytes
            while self._bytes > self._most:
                self._drop(next(iter(self._values)))

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def _drop(self, key: Hashable) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._bytes -= value.nbytes
