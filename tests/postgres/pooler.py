"""A pooler in transaction mode: a client has a connection of the server's for one transaction, and then another one.

It does to a client what PgBouncer does with ``pool_mode = transaction``, and the worst of it every time: connections
go round in a circle, so that whatever a client has left on one, another client meets. It takes the startup
parameters that PgBouncer takes and refuses all others. No passwords, no TLS, no cancelling.
"""

from __future__ import annotations

import queue
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import URL, make_url

_TAKEN = {"user", "database", "client_encoding", "application_name", "datestyle", "timezone"}
_ENCRYPTION = {80877103, 80877104}  # what a client asks before it says who it is
_VERSION = 196608
_LEFT = """
SELECT 'setting ' || name FROM pg_settings WHERE source = 'session' AND name <> 'client_encoding'
UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements
UNION ALL SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'
UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() AS c
"""


class _Gone(Exception):
    """The other side has closed."""


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise _Gone
        data += part
    return data


def _read(connection: socket.socket) -> tuple[bytes, bytes]:
    """A message: its kind, and all of it."""
    head = _exactly(connection, 5)
    return head[:1], head + _exactly(connection, struct.unpack("!I", head[1:])[0] - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


class Pooler:
    """``url`` is for clients, ``server`` the way around it.

    ``transactions`` counts what clients have done, ``trips`` how often they waited for an answer.
    """

    def __init__(self, server: URL, size: int) -> None:
        self._server, self._all, self._free = server, list[socket.socket](), queue.Queue[socket.socket]()
        self.server = server.render_as_string(hide_password=False)
        self.transactions = self.trips = 0
        self._counting = threading.Lock()
        for _ in range(size):
            self._free.put(self._connected())
        self._listening = socket.create_server(("127.0.0.1", 0))
        given = server.set(host="127.0.0.1", port=self._listening.getsockname()[1], query={})
        self.url = given.render_as_string(hide_password=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def _connected(self) -> socket.socket:
        folder, port = self._server.query.get("host"), self._server.port or 5432
        if folder:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(f"{folder}/.s.PGSQL.{port}")
        else:
            connection = socket.create_connection((self._server.host, port))
        names = f"user\0{self._server.username}\0database\0{self._server.database}\0client_encoding\0UTF8\0\0".encode()
        connection.sendall(struct.pack("!II", len(names) + 8, _VERSION) + names)
        greeting, kind = b"", b""
        while kind != b"Z":
            kind, message = _read(connection)
            assert kind != b"E", message
            greeting += message
        self._greeting = greeting
        self._all.append(connection)
        return connection

    def left_behind(self) -> set[str]:
        """Whatever should not have been left on a connection of the server's. All of them must be free."""
        found = set[str]()
        for connection in self._all:
            connection.sendall(_message(b"Q", _LEFT.encode() + b"\0"))
            kind = b""
            while kind != b"Z":
                kind, message = _read(connection)
                assert kind != b"E", message
                if kind == b"D":
                    found.add(message[11:].decode())
        return found

    def close(self) -> None:
        self._listening.close()
        for connection in self._all:
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(_Gone, OSError):
            if self._greeted(client):
                while True:
                    kind, message = _read(client)
                    if kind == b"X":
                        return
                    self._lend(client, kind, message)

    def _greeted(self, client: socket.socket) -> bool:
        while True:
            length, code = struct.unpack("!II", _exactly(client, 8))
            body = _exactly(client, length - 8)
            if code not in _ENCRYPTION:
                break
            client.sendall(b"N")
        refused = {name.lower() for name in body.decode().split("\0")[:-2:2]} - _TAKEN
        if refused:
            text = f"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: {min(refused)}\0\0"
            client.sendall(_message(b"E", text.encode()))
        else:
            client.sendall(self._greeting)
        return code == _VERSION and not refused

    def _lend(self, client: socket.socket, kind: bytes, message: bytes) -> None:
        connection = self._free.get()
        try:
            self._transaction(client, connection, kind, message)
        except BaseException:
            # Somebody left in the middle: what the connection is at nobody knows.
            connection.close()
            self._all.remove(connection)
            connection = self._connected()
            raise
        finally:
            self._free.put(connection)

    def _transaction(self, client: socket.socket, server: socket.socket, kind: bytes, message: bytes) -> None:
        """Pass messages on until the server has answered all, and is in no transaction."""
        owed, unfinished, answered = 0, False, b""
        while True:
            if kind == b"X":
                raise _Gone
            if kind in b"QS":
                self._count(trips=1)
                owed += 1
            unfinished = kind not in b"QS"
            server.sendall(message)
            # Never waiting for one of them: either may have more to say first. The server's words go on as they come,
            # since the end of a message may come only when the client has said more.
            while server in select.select([client, server], [], [])[0]:
                data = server.recv(65_536)
                if not data:
                    raise _Gone
                ends, answered = _ends(answered + data)
                owed -= len(ends)
                over = ends and ends[-1] == b"I" and not owed and not unfinished and not answered
                if over:
                    self._count(transactions=1)
                client.sendall(data)
                if over:
                    return
            kind, message = _read(client)

    def _count(self, *, transactions: int = 0, trips: int = 0) -> None:
        """Before a client is answered: it may look at the numbers as soon as it is."""
        with self._counting:
            self.transactions += transactions
            self.trips += trips


def _ends(data: bytes) -> tuple[list[bytes], bytes]:
    """The state at the end of each answer among the server's messages, and the beginning of the next message."""
    ends = []
    while len(data) >= 5 and len(data) > (size := struct.unpack("!I", data[1:5])[0]):
        if data[:1] == b"Z":
            ends.append(data[5:6])
        data = data[size + 1 :]
    return ends, data


@contextmanager
def pooler(server: str, *, size: int = 3) -> Iterator[Pooler]:
    pooler = Pooler(make_url(server), size)
    try:
        yield pooler
    finally:
        pooler.close()
