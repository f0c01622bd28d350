"""A server of answers that meets its first requests as a script says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = Callable[["Handler", dict], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append((self.path, self.headers, body))
            server.running += 1
            server.most = max(server.most, server.running)
            reply = server.script.pop(0) if server.script else server.otherwise
        try:
            reply(self, body)
        finally:
            with server.lock:
                server.running -= 1

    def send(self, status: int, content: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def completion(text: str | None) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def say(text: str | None) -> Reply:
    return lambda handler, body: handler.send(200, completion(text))


def echo(handler: Handler, body: dict) -> None:
    """Answer with the question, so that swapped answers show."""
    handler.send(200, completion(body["messages"][-1]["content"][-1]["text"]))


def fail(status: int, message: str = "no", **headers: str) -> Reply:
    return lambda handler, body: handler.send(status, json.dumps({"error": {"message": message}}).encode(), **headers)


def cut_off(handler: Handler, body: dict) -> None:
    handler.send(200, completion("whole")[:30], length=len(completion("whole")))
    handler.close_connection = True


def truncated(handler: Handler, body: dict) -> None:
    handler.send(200, completion("whole")[:30])


def hang(handler: Handler, body: dict) -> None:
    time.sleep(1.5)
    handler.close_connection = True


@contextmanager
def serving(*script: Reply, otherwise: Reply = echo) -> Iterator[ThreadingHTTPServer]:
    """A server whose first requests meet `script`, in order, and all later ones `otherwise`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.script, server.otherwise, server.asked = list(script), otherwise, []
    server.lock, server.running, server.most = threading.Lock(), 0, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
