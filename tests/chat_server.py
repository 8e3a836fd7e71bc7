"""The chat completions API over HTTP on this machine, with faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["AT_ONCE", "ChatAnswer", "ChatFault", "ChatRequest", "ChatServer", "answering", "chat_error"]

AT_ONCE = {"retry-after-ms": "1"}  # a client waits half a second where the server does not say


@dataclass
class ChatAnswer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class ChatRequest:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    when: float

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][-1]["content"])


# What to answer a request instead of the usual text; None for that.
ChatFault = Callable[[ChatRequest], ChatAnswer | None]


def chat_error(status: int, message: str = "no", headers: dict[str, str] = AT_ONCE) -> ChatFault:
    answer = ChatAnswer(status, {"error": {"message": message, "code": None, "type": "x", "param": None}}, headers)
    return lambda request: answer


def answering(content: Any, *, finish_reason: str = "stop", **message: Any) -> ChatFault:
    """A whole completion with this content."""
    return lambda request: ChatAnswer(body=completion(content, finish_reason, **message))


def completion(content: Any, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


class ChatServer:
    """Answers every question with ``text``, or what ``reply`` makes of the request; the next ``faults`` come first."""

    def __init__(self) -> None:
        self.requests: list[ChatRequest] = []
        self.faults: deque[ChatFault] = deque()
        self.always: ChatFault = lambda request: None
        self.text = "They talked."
        self.reply: Callable[[ChatRequest], str] = lambda request: self.text
        self.ending = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def asked(self) -> list[str]:
        """What the user's part of each request said."""
        return [request.user for request in self.requests]

    def hang(self, request: ChatRequest) -> ChatAnswer:
        """A fault: no answer before the test is over."""
        self.ending.wait(60)
        return ChatAnswer(500)

    def answer(self, request: ChatRequest) -> ChatAnswer:
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else self.always
        return fault(request) or ChatAnswer(body=completion(self.reply(request)))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = server.answer(ChatRequest(self.path, headers, body, time.monotonic()))
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
