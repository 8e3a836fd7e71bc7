"""A PostgreSQL server that lives as long as whoever started it, who may stop it and let it go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_side import ask
from sqlalchemy import make_url

_SCRIPT = Path(__file__).with_name("embedded_server.py")


class OwnServer:
    """Orders to the process that keeps the server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        assert self.url, "the PostgreSQL server did not start; its own words are above"
        self._databases = 0

    def _order(self, order: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def down(self, mode: str) -> None:
        self._order(f"down {mode}")

    def up(self) -> None:
        self._order("up")

    def database(self) -> str:
        """The URL of a new one at head."""
        from mirai_memory import schema

        self._databases += 1
        name = f"memory{self._databases}"
        ask(self.url, f"CREATE DATABASE {name}")
        url = make_url(self.url).set(database=name).render_as_string(hide_password=False)
        schema.upgrade(url)
        return url


@contextmanager
def own_server() -> Iterator[OwnServer]:
    # A session of its own: Ctrl-C reaches pytest only, which then lets the server down in order.
    pipe, command = subprocess.PIPE, [sys.executable, str(_SCRIPT)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        try:
            yield OwnServer(process)
        finally:
            process.communicate("stop\n")
