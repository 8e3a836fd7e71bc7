"""Puts the stand-in for a chat API within reach of the tests here, however pytest was started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent))

from chat_server import ChatServer


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A chat API on this machine, which does what it is told to do wrong."""
    with ChatServer() as server:
        yield server
