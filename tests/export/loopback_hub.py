"""A hub of Hugging Face on this machine: it makes repositories, takes commits, and gives their files back."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


@dataclass
class Hub:
    """repositories: name -> path -> content.  tokens: those that requests came with.  refuse: a status for every commit."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    refuse: int = 0

    def sha(self, name: str) -> str:
        content = json.dumps({path: hashlib.sha1(data).hexdigest() for path, data in sorted(self.repositories[name].items())})
        return hashlib.sha1(content.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        path = unquote(urlparse(self.path).path).strip("/")
        parts = path.split("/")
        if path == "":
            self._say(200)
        elif path == "api/repos/create":
            self._create(json.loads(body))
        elif path == "api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif parts[:2] == ["api", "models"]:
            self._models("/".join(parts[2:4]), parts[4:], body)
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._say(404)

    do_GET = do_POST = do_HEAD = _handle  # noqa: N815 - the names that http.server wants

    def _create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if name in self.hub.repositories:
            self._json({"url": f"{self.hub.url}/{name}", "error": "exists"}, 409)
            return
        self.hub.repositories[name] = {".gitattributes": b""}
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        self._json({"url": f"{self.hub.url}/{name}"})

    def _models(self, name: str, rest: list[str], body: bytes) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            self._json([{"type": "file", "path": path, "size": len(data), "oid": _oid(data)} for path, data in files.items()])
        elif rest[:1] == ["preupload"]:
            asked = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]})
        elif rest[:1] == ["commit"]:
            self._commit(name, files, body)
        else:
            siblings = [{"rfilename": path} for path in files]
            self._json(
                {"id": name, "modelId": name, "sha": self.hub.sha(name), "siblings": siblings, "private": False, "tags": []}
            )

    def _commit(self, name: str, files: dict[str, bytes], body: bytes) -> None:
        if self.hub.refuse:
            self._json({"error": f"not with {self.headers.get('Authorization')}"}, self.hub.refuse)
            return
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                files.pop(line["value"]["path"])
        self._json({"success": True, "commitOid": self.hub.sha(name), "commitUrl": f"{self.hub.url}/{name}/commit/1"})

    def _file(self, name: str, path: str) -> None:
        data = self.hub.repositories.get(name, {}).get(path)
        if data is None:
            self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
        else:
            self._say(200, data, **{"ETag": f'"{_oid(data)}"', "X-Repo-Commit": self.hub.sha(name)})

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        self._say(status, json.dumps(value).encode(), **{"Content-Type": "application/json", **headers})

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    """A hub at `Hub.url` for as long as the block lasts."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub})) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
