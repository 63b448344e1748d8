"""A real HTTP server on this machine that misbehaves as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """`answer` handles a request; `seen` are the (method, path, Range) of all requests so far."""

    answer: Callable[["Request"], None]
    url: str = ""
    seen: list[tuple[str, str, str]] = field(default_factory=list)


class Request(BaseHTTPRequestHandler):
    """One request, with short ways to answer it."""

    protocol_version = "HTTP/1.1"
    site: Site
    stop: threading.Event

    def log_message(self, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length).decode()
        self.site.seen.append((self.command, self.path, self.headers.get("Range", "")))
        self.site.answer(self)

    do_GET = do_POST = _handle  # noqa: N815 - the names that http.server wants

    @property
    def number(self) -> int:
        """Counts requests from 1."""
        return len(self.site.seen)

    def say(self, code: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        """Answer with that body; `length` is what the header claims, if not the truth. Headers take `_` for `-`."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None and length != len(body):
            self.close_connection = True

    def page(self, code: int = 200) -> None:
        self.say(code, b"<!DOCTYPE html><title>Log in</title>", Content_Type="text/html; charset=utf-8")

    def file(self, content: bytes, upto: int | None = None, ranges: bool = True) -> None:
        """The file as a good server gives it, from where it is asked; cut off at `upto`."""
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges else 0
        if first >= len(content):
            self.say(416, Content_Range=f"bytes */{len(content)}")
            return
        headers = {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if asked and ranges else {}
        self.say(206 if headers else 200, content[first:upto], length=len(content) - first, **headers)


@contextmanager
def serve(answer: Callable[[Request], None]) -> Iterator[Site]:
    """A site at `Site.url` for as long as the block lasts."""
    site, stop = Site(answer), threading.Event()
    handler = type("Handler", (Request,), {"site": site, "stop": stop})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            stop.set()
            server.shutdown()
            thread.join()
