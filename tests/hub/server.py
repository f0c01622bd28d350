"""A small Hub on 127.0.0.1 that answers what huggingface_hub 2.4, datasets 5.2 and transformers 5.23 ask, over real HTTP.

In a test, with the fixture of tests/conftest.py (one empty Hub per test; clients run in fresh processes, since HF_ENDPOINT and
HF_HOME are read when huggingface_hub is imported):

    def test_it(hub):
        hub.run("import huggingface_hub; huggingface_hub.create_repo('org/model')", token=hub.token)
        hub.files("model", "org/model")                    # {path: content} at main
        hub.flip_byte("model", "org/model", "model.safetensors", 1000)
        hub.requests                                        # ["POST /api/repos/create", ...]
        hub.fail("POST .*/commit/.*", status=503)           # the next such request fails
        hub.environment(token=None, xet=False, home=path)   # what a client process needs, for processes.run(env=...)

In the pytest process itself no environment is needed where an endpoint can be given: `HfApi(endpoint=hub.url, token=hub.token)`.

As a process, which prints its URL and serves until it is ended:

    python tests/hub/server.py --root DIR [--user alice:hf_token:org,other_org] [--port 0]
    HF_ENDPOINT=http://127.0.0.1:PORT HF_TOKEN=hf_loopback_alice python my_script.py

tests/hub/other.py puts another server in its place. Users are alice (token hf_loopback_alice, may write to alice/ and org/), bob (hf_loopback_bob, bob/) and carol (hf_loopback_carol, a
member of org whose token may only read). Served: models, datasets and
Spaces with create, settings, move (the old name redirects), delete, whoami, auth-check, validate-yaml, pre-upload, LFS with verify, Xet,
commit, tree and commits in pages, revision, refs, branches, tags, resolve with ranges (LFS files by a redirect). Evaluation files are
validated. Not served: pull requests, gated repositories, multipart LFS, search, repositories without a namespace.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import processes
from hub.api import Call, answer
from hub.store import HubError, Repo, Store, User
from hub.xet import XetStore

USERS = (
    User("alice", "hf_loopback_alice", ("org",)),
    User("bob", "hf_loopback_bob"),
    User("carol", "hf_loopback_carol", ("org",), role="read"),
)


class ClientRuns:
    """Processes that are clients of a Hub.

    Attributes:
        root: folder for their homes.
        url: what they need as HF_ENDPOINT.
    """

    root: Path
    url: str

    def environment(self, token: str | None, home: str | Path, xet: bool = True) -> dict[str, str]:
        """Environment of a client process: this Hub, a home of its own, and nothing of the caller's Hub settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_XET_TELEMETRY_ENABLED": "0",
            **({"HF_TOKEN": token} if token else {}),
            **({} if xet else {"HF_HUB_DISABLE_XET": "1"}),
        }

    def run(
        self,
        script: str | list[str],
        token: str | None = None,
        xet: bool = True,
        home: str | Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code, or [script, argument, ...], as a client in a fresh process with an empty home.

        Raises:
            AssertionError: it failed, with its output (not with `check` off), or it did not end.
        """
        home = home or self.root / f"home{len(list(self.root.glob('home*')))}"
        command = [sys.executable, *(["-c", script] if isinstance(script, str) else script)]
        done = processes.run(command, env=self.environment(token, home, xet))
        assert not check or done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


class Hub(ClientRuns, ThreadingHTTPServer):
    """The server and what tests look at.

    Attributes:
        url: what clients need as HF_ENDPOINT.
        token: that of the first user.
        requests: "METHOD path" of everything asked, in order.
        sent: bytes of all answers.
        latency: seconds before each answer.
        page_size: entries of a list in one answer.
        stop_at, stopped: pattern of "METHOD path" whose requests are held, and whether one is.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root: str | Path, users: tuple[User, ...] = USERS, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.root = Path(root)
        self.store = Store(self.root, users)
        self.xet = XetStore(self.root, self.store)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.token = users[0].token
        self.requests: list[str] = []
        self.sent = 0
        self.latency = 0.0
        self.failures: list[tuple[str, int]] = []
        self.page_size = 1000
        self.stop_at: str | None = None
        self.stopped, self._go_on = Event(), Event()

    def __enter__(self) -> "Hub":
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news; everything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def fail(self, pattern: str, status: int) -> None:
        """Answer the next request whose "METHOD path" matches with an error."""
        self.failures.append((pattern, status))

    def go_on(self) -> None:
        """Let the requests go that `stop_at` holds, and hold no more."""
        self.stop_at = None
        self._go_on.set()

    def hold(self, request: str) -> None:
        """Hold a request that `stop_at` matches until the test says `go_on`; its client may be killed meanwhile.

        Raises:
            ConnectionError: it was held; nothing of it is done.
        """
        if self.stop_at and re.fullmatch(self.stop_at, request):
            self.stopped.set()
            self._go_on.wait(600)
            raise ConnectionError(f"{request} was held, and whoever asked is gone")

    def repo(self, kind: str, repo_id: str) -> Repo:
        return self.store.repos[kind, repo_id]

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Content of every file of a repository, as it is kept."""
        files = self.repo(kind, repo_id).resolve(revision).files
        return {path: self.store.blob(file.sha256).read_bytes() for path, file in files.items()}

    def flip_byte(self, kind: str, repo_id: str, path: str, offset: int) -> None:
        """Change one byte of a file in the store, behind the back of every client."""
        self.xet.flip_byte(self.repo(kind, repo_id).resolve("main").files[path].sha256, offset)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Hub

    def serve(self) -> None:
        path, query = urlsplit(self.path).path, urlsplit(self.path).query
        content = self.body()
        self.server.requests.append(f"{self.command} {path}")
        time.sleep(self.server.latency)
        try:
            self.server.hold(f"{self.command} {path}")
            self.fail_if_asked(path)
            call = Call(
                self.server.url,
                self.command,
                parse_qs(query),
                content,
                self.user(path),
                self.server.store,
                self.server.xet,
                self.byte_range,
                {},
                page_size=self.server.page_size,
            )
            status, headers, body = answer(call, path)
        except HubError as error:
            headers = {
                "X-Error-Code": error.code,
                "X-Error-Message": error.message,
                "Content-Type": "application/json",
            }
            headers = {**{name: value for name, value in headers.items() if value}, **error.headers}
            status, body = error.status, json.dumps({"error": error.message, **error.body}).encode()
        self.send(status, headers, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.server.sent += len(body)
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def user(self, path: str) -> User | None:
        """Who asks. A wrong token is refused for public repositories too; a Xet token is good for the CAS alone."""
        kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
        if path.startswith("/cas/"):
            allowed = ("xet-write",) if self.command in ("POST", "PUT") else ("xet-read", "xet-write")
            if token not in allowed and not path.startswith("/cas/xorbs/"):
                raise HubError(401, "", "Invalid Xet token")
            return None
        if kind and token not in self.server.store.users:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return self.server.store.users.get(token)

    def byte_range(self, size: int) -> tuple[int, int] | None:
        """First and last byte asked for, of a file of `size` bytes; None asks for all."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not match or not any(match.groups()):
            return None
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        end = min(int(last), size - 1) if first and last else size - 1
        if start >= size:
            raise HubError(416, "", f"range {match[0]} of {size} bytes")
        return start, end

    def fail_if_asked(self, path: str) -> None:
        for failure in self.server.failures:
            if re.fullmatch(failure[0], f"{self.command} {path}"):
                self.server.failures.remove(failure)
                raise HubError(failure[1], "", "the test asked for this failure")

    def log_message(self, *_: object) -> None:
        """Silent; `Hub.requests` keeps the log."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A Hub on 127.0.0.1")
    parser.add_argument("--root", type=Path, required=True, help="folder for what is uploaded")
    parser.add_argument("--user", action="append", default=[], help="name:token:org,org (several times)")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    users = []
    for text in options.user:
        name, token, orgs = [*text.split(":"), ""][:3]
        users.append(User(name, token, tuple(filter(None, orgs.split(",")))))
    hub = Hub(options.root, tuple(users) or USERS, options.port)
    sys.stdout.write(hub.url + "\n")
    sys.stdout.flush()
    hub.serve_forever()


if __name__ == "__main__":
    main()
