"""A real HTTP server in a thread that answers as an OpenAI-compatible one does, and misbehaves where it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""
Misbehave = Callable[[int, dict[str, Any]], "Reply | str | None"]
"""(number of the request from 1, its body) → a reply, "hang", "cut", "slam" (no reply), or None for an answer."""


class ModelServer(ThreadingHTTPServer):
    """What it was asked is in `asked`; each with its path and its Authorization."""

    daemon_threads = True

    def __init__(self, misbehave: Misbehave) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.misbehave = misbehave
        self.asked: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asked has gone, which is what some tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body | {"path": self.path, "key": self.headers.get("Authorization", "")})
            number = len(self.server.asked)
        reply = self.server.misbehave(number, body)
        if reply == "hang":
            self.server.over.wait(20)
            self.close_connection = True
        elif reply == "slam":
            self.close_connection = True
        elif reply == "cut":
            whole = answer_to(body)
            self._send(200, {"Content-Length": str(len(whole))}, whole[: len(whole) // 2])
            self.close_connection = True
        else:
            status, headers, content = reply if isinstance(reply, tuple) else (200, {}, answer_to(body))
            self._send(status, {"Content-Length": str(len(content))} | headers, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def answer_to(body: dict[str, Any]) -> bytes:
    """A right answer, which says what was asked and with which seed."""
    asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    said = f"{asked} by {body['model']} seed {body['seed']}"
    choice = {"message": {"role": "assistant", "content": said}} if "messages" in body else {"text": said}
    choice["finish_reason"] = "length" if "long" in asked else "stop"  # type: ignore[assignment]
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}}).encode()


@contextmanager
def serving(misbehave: Misbehave = lambda number, body: None) -> Iterator[ModelServer]:
    """The server while the block runs."""
    server = ModelServer(misbehave)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
