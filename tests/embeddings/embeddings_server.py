"""The embeddings API over HTTP on this machine, with faults on demand."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mirai_memory.testing import FakeEmbedder

SOON = {"retry-after-ms": "1"}  # the client waits half a second where the server does not say


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    when: float


# What to answer a request instead of its vectors; None for those.
Fault = Callable[[Request], Answer | None]


def error(status: int, message: str = "no", code: str | None = None, headers: dict[str, str] = SOON) -> Fault:
    answer = Answer(status, {"error": {"message": message, "code": code, "type": "x", "param": None}}, headers)
    return lambda request: answer


class EmbeddingsServer:
    """Answers with vectors of the size asked for, else of ``size``; the next ``faults`` come first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault = lambda request: None
        self.size = 3072
        self.ending = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> EmbeddingsServer:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def inputs(self) -> list[list[str]]:
        """The texts of each request."""
        return [request.body["input"] for request in self.requests]

    def hang(self, request: Request) -> Answer:
        """A fault: no answer before the test is over."""
        self.ending.wait(60)
        return Answer(500)

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else self.always
        return fault(request) or Answer(body=self.vectors(request))

    def vectors(self, request: Request) -> dict[str, Any]:
        fake = FakeEmbedder(dim=request.body.get("dimensions", self.size))
        pack = as_base64 if request.body.get("encoding_format") == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": pack(fake.embed_query(text))}
            for index, text in enumerate(request.body["input"])
        ]
        return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = server.answer(Request(self.path, headers, body, time.monotonic()))
                content = answer.encoded()
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None: ...

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the client has gone
                    self.close_connection = True

        return Handler


def as_base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
