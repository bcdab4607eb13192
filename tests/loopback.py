"""A server on this machine that answers as the Hugging Face hub does, as far as `huggingface_hub` asks it."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository at one commit, and faults."""

    repo: str = "made/net"
    commit: str = COMMIT
    files: dict[str, bytes] = field(default_factory=dict)
    """Kept by LFS."""
    plain: dict[str, bytes] = field(default_factory=dict)
    """Kept by git itself, which knows no SHA-256."""
    sent: dict[str, bytes] = field(default_factory=dict)
    """Bytes that are sent in a file's place; what is told of it stays."""
    cuts: list[int] = field(default_factory=list)
    """After so many bytes the next answers end, the first one first."""
    gated: bool = False
    broken: int = 0
    """A status that every request is answered with."""
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)
    """Method and path of every request."""
    ranges: list[str] = field(default_factory=list)

    def url(self, file: str) -> str:
        return f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{file}"


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answer for `hub` on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Answers,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Answers(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        if not self.path.startswith("/api/"):
            return self._resolve(body=True)
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(\w+))?", self.path)
        assert found, self.path
        if self._refused(found[1], found[2]):
            return None
        return self._send(json.dumps({"id": found[1], "sha": self.hub.commit}).encode())

    def do_POST(self) -> None:
        found = re.fullmatch(r"/api/models/(.+)/paths-info/(\w+)", self.path)
        assert found, self.path
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self._refused(found[1], found[2]):
            return
        rows = []
        for name, data in {**self.hub.files, **self.hub.plain}.items():
            if name in asked:
                row = {"type": "file", "path": name, "size": len(data), "oid": "f" * 40}
                if name in self.hub.files:
                    row["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
                rows.append(row)
        self._send(json.dumps(rows).encode())

    def _resolve(self, *, body: bool) -> None:
        found = re.fullmatch(r"/(.+)/resolve/(\w+)/(.+)", self.path)
        assert found, self.path
        if self._refused(found[1], found[2]):
            return
        if found[3] not in self.hub.files:
            self._fail(404, "EntryNotFound")
            return
        told = self.hub.files[found[3]]
        data = self.hub.sent.get(found[3], told) if body else told
        headers = {
            "X-Repo-Commit": self.hub.commit,
            "ETag": '"made"',
            "X-Linked-Etag": f'"{sha256(told)}"',
            "X-Linked-Size": str(len(told)),
        }
        self._send(data, headers, body=body)

    def _refused(self, repo: str, revision: str | None) -> bool:
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.hub.broken:
            self._fail(self.hub.broken, "")
        elif repo != self.hub.repo:
            self._fail(404, "RepoNotFound")
        elif self.hub.gated:
            self._fail(403, "GatedRepo")
        elif revision not in (None, self.hub.commit):
            self._fail(404, "RevisionNotFound")
        else:
            return False
        return True

    def _fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, headers: dict[str, str] | None = None, *, body: bool = True) -> None:
        asked = self.headers.get("Range") if body else None
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
        if asked:
            self.hub.ranges.append(asked)
        if asked and start >= len(data):
            self._fail(416, "")
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for name, value in {**(headers or {}), "Content-Length": str(len(data) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            cut = self.hub.cuts.pop(0) if headers and self.hub.cuts else len(data)
            self.wfile.write(data[start : start + cut])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
