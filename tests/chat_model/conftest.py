"""The stand-in for a chat API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chat_server import ChatServer


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat API on this machine, which does what it is told to do wrong."""
    with ChatServer() as server:
        yield server
