"""A stand-in for the Hugging Face Hub on loopback: its API, its files, and its storage of large files on another host.

What it was asked is in `requests`, what it has sent in `sent`. Faults are answers to the next requests whose path contains a text.
"""

import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

# The only token that opens a private repository.
TOKEN = "hf_" + "Pl4ntedToken" * 3
# The part of a storage's address that must be in no message.
SIGNATURE = "S1gnatureOfTheStorage"
# Files from this size on are in the storage of large files.
LARGE = 4096
PAGE = 20
CHUNK = 1 << 15


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if len(content) >= LARGE else git_digest(content)


@dataclass
class Fault:
    """What is wrong with the answers to the next `times` requests whose method and path contain `match`."""

    match: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # Bytes of the content after which the connection breaks, or the answer ends as if it were whole.
    breaks_after: int | None = None
    ends_after: int | None = None
    is_damaged: bool = False
    # Whether the range that was asked for is ignored.
    ignores_range: bool = False
    then: object = None
    times: int = 1


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    has_token: bool
    host: str


class HubServer:
    """The Hub (`url`) and the storage of large files, on two ports."""

    def __init__(self):
        self.repos: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        # Keys are names, with `models/` before those of models.
        self.private: set[str] = set()
        # What anyone may list, but whose files need the token of an account that has accepted the terms.
        self.gated: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.requests: list[Request] = []
        self.sent: Counter = Counter()
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.pause_at: int | None = None
        self.paused = threading.Event()
        self.released = threading.Event()
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), self.handler(is_hub)) for is_hub in (True, False)]
        ports = [server.server_address[1] for server in self.servers]
        # Another name: whoever goes by names takes it for another host.
        self.url, self.storage = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.release()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, repo: str, content: Path | dict[str, bytes], revision: str = "main") -> str:
        """A new commit of a revision; returns it."""
        if isinstance(content, Path):
            files = (path for path in sorted(content.rglob("*")) if path.is_file())
            content = {path.relative_to(content).as_posix(): path.read_bytes() for path in files}
        names = json.dumps([[path, digest(data)] for path, data in sorted(content.items())])
        commit = hashlib.sha1(f"{repo} {revision} {names}".encode()).hexdigest()
        with self.lock:
            self.commits[commit] = dict(content)
            self.repos.setdefault(repo, {})[revision] = commit
        return commit

    def fail(self, match: str, **fault: object) -> None:
        with self.lock:
            self.faults.append(Fault(match, **fault))

    def forget(self) -> None:
        """The requests so far."""
        with self.lock:
            self.requests.clear()
            self.sent.clear()

    def pause_after(self, num_bytes: int) -> None:
        """Content stops when so many bytes of it have been sent, until `release`."""
        with self.lock:
            self.sent.clear()
            self.paused.clear()
            self.released.clear()
            self.pause_at = num_bytes

    def release(self) -> None:
        with self.lock:
            self.pause_at = None
        self.released.set()

    def asked(self, text: str, method: str = "GET") -> list[Request]:
        """Requests whose path contains a text."""
        with self.lock:
            return [request for request in self.requests if text in request.path and request.method == method]

    def env(self, home: Path, **more: str) -> dict[str, str]:
        """What programs need to find it, and nothing of this machine's own settings."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", **more}

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.match in f"{method} {path}" and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def handler(self, is_hub: bool) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and content leave in one packet, and small answers at once.
            wbufsize = 1 << 16
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer()

            def do_GET(self):
                self.answer()

            def answer(self):
                authorization = self.headers.get("Authorization", "")
                request = Request(
                    self.command, self.path, self.headers.get("Range"), bool(authorization), self.headers["Host"]
                )
                with hub.lock:
                    hub.requests.append(request)
                fault = hub.fault_of(self.command, unquote(self.path))
                if fault and fault.status:
                    return self.send(fault.status, fault.headers, b'{"error": "planted"}')
                try:
                    if is_hub:
                        hub.of_hub(self, authorization, fault)
                    else:
                        hub.of_storage(self, fault)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                return None

            def send(self, status: int, headers: dict[str, str], body: bytes = b""):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.wfile.flush()

            def send_content(self, content: bytes, headers: dict[str, str], fault: Fault | None):
                start, end, status = 0, len(content), 200
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if asked and not (fault and fault.ignores_range):
                    start, status = int(asked[1]), 206
                    end = min(int(asked[2]) + 1 if asked[2] else len(content), len(content))
                    if start >= len(content):
                        return self.send(416, {"Content-Range": f"bytes */{len(content)}"})
                    headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(content)}"}
                body = content[start:end]
                if fault and fault.is_damaged:
                    body = body[:-1] + bytes([body[-1] ^ 1])
                if fault and fault.ends_after is not None:
                    body = body[: fault.ends_after]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body)), "Accept-Ranges": "bytes"}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return self.wfile.flush()
                broken = fault.breaks_after if fault and fault.breaks_after is not None else None
                for at in range(0, len(body), CHUNK):
                    part = body[at : min(at + CHUNK, len(body), broken if broken is not None else len(body))]
                    self.wfile.write(part)
                    self.wfile.flush()
                    hub.count(self.path, len(part))
                    if broken is not None and at + len(part) >= broken:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        self.close_connection = True
                        break
                if fault and fault.then:
                    fault.then()
                return None

        return Handler

    def count(self, path: str, num_bytes: int) -> None:
        with self.lock:
            self.sent[urlsplit(path).path] += num_bytes
            is_due = self.pause_at is not None and self.sent.total() >= self.pause_at
        if is_due:
            self.paused.set()
            self.released.wait(60)

    def of_hub(self, handler, authorization: str, fault: Fault | None) -> None:
        path = urlsplit(handler.path).path
        for old, new in self.renamed.items():
            if f"datasets/{old}/" in unquote(path):
                return handler.send(307, {"Location": handler.path.replace(quote(old), quote(new))})
        api = re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path)
        resolve = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not (api or resolve):
            return handler.send(404, {}, b'{"error": "Not found"}')
        is_model = api[1] == "models" if api else not resolve[1]
        name, revision = (api[2], api[4]) if api else (resolve[2], resolve[3])
        repo = f"models/{name}" if is_model else name
        revisions = self.repos.get(repo)
        if revisions is None or (repo in self.private and authorization != f"Bearer {TOKEN}"):
            headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return handler.send(401, headers, b'{"error": "Repository not found"}')
        if resolve and repo in self.gated and authorization != f"Bearer {TOKEN}":
            said = f"Access to model {name} is restricted"
            headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": said}
            return handler.send(403 if authorization else 401, headers, b'{"error": "restricted"}')
        commit = revisions.get(unquote(revision), unquote(revision))
        files = self.commits.get(commit)
        if files is None:
            return handler.send(404, {"X-Error-Code": "RevisionNotFound"}, b'{"error": "Invalid rev id"}')
        if resolve:
            return self.of_file(handler, commit, files, unquote(resolve[4]), fault)
        if api[3] == "revision":
            siblings = [{"rfilename": name} for name in sorted(files)]
            body = {"id": name, "sha": commit, "private": repo in self.private, "siblings": siblings, "tags": []}
            return handler.send(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        return self.of_tree(handler, path, files)

    def of_tree(self, handler, path: str, files: dict[str, bytes]) -> None:
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "meta"}]
        for name, content in sorted(files.items()):
            entry = {"type": "file", "oid": git_digest(content), "size": len(content), "path": name}
            if len(content) >= LARGE:
                entry["oid"] = git_digest(b"pointer")
                entry["lfs"] = {"oid": digest(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        first = int(parse_qs(urlsplit(handler.path).query).get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if first + PAGE < len(entries):
            headers["Link"] = f'<{self.url}{path}?recursive=true&cursor={first + PAGE}>; rel="next"'
        handler.send(200, headers, json.dumps(entries[first : first + PAGE]).encode())

    def of_file(self, handler, commit: str, files: dict[str, bytes], name: str, fault: Fault | None) -> None:
        content = files.get(name)
        if content is None:
            return handler.send(404, {"X-Error-Code": "EntryNotFound"}, b'{"error": "Entry not found"}')
        headers = {"X-Repo-Commit": commit}
        if len(content) < LARGE:
            return handler.send_content(content, {**headers, "ETag": f'"{digest(content)}"'}, fault)
        location = f"{self.storage}/{commit}/{quote(name)}?Signature={SIGNATURE}&Expires={time.time():.0f}"
        linked = {"X-Linked-Etag": f'"{digest(content)}"', "X-Linked-Size": str(len(content))}
        return handler.send(302, {**headers, **linked, "ETag": '"storage"', "Location": location})

    def of_storage(self, handler, fault: Fault | None) -> None:
        url = urlsplit(handler.path)
        _, commit, name = unquote(url.path).split("/", 2)
        content = self.commits.get(commit, {}).get(name)
        if content is None or SIGNATURE not in url.query:
            return handler.send(403, {}, b"AccessDenied")
        return handler.send_content(content, {"ETag": '"of-the-storage"'}, fault)
