"""The page's server: on the loopback, for who has the address with its random token, and for no other page."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files

from licodec.errors import as_ours
from licodec.view.entries import Gallery

# nothing from elsewhere, no scripts but the page's own
POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'"
)


class Server(ThreadingHTTPServer):
    """Serves a gallery at `url` until it is shut down."""

    daemon_threads = True

    def __init__(self, gallery: Gallery, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.gallery = gallery
        self.token = secrets.token_urlsafe(16)
        self.facts = json.dumps(gallery.facts()).encode()
        self.page = files("licodec.view").joinpath("page.html").read_bytes()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def answer(self, path: str) -> tuple[str, bytes]:
        """Content type and body. Raises LookupError for what there is not, LicodecError for what cannot be shown."""
        token, _, name = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise LookupError
        if name == "":
            return "text/html; charset=utf-8", self.page
        if name == "facts.json":
            return "application/json", self.facts
        match = re.fullmatch(r"(\d{1,6})/(decoded\.png|original\.png|psnr\.json)", name)
        if not match or int(match[1]) >= len(self.gallery.entries):
            raise LookupError
        index, entry = int(match[1]), self.gallery.entries[int(match[1])]
        needs = {
            "decoded.png": entry.coded,
            "original.png": entry.original,
            "psnr.json": entry.coded and entry.original,
        }
        if not needs[match[2]]:
            raise LookupError
        if match[2] == "psnr.json":
            return "application/json", json.dumps(self.gallery.psnr(index)).encode()
        return "image/png", self.gallery.png(index, match[2] == "original.png")


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, kind, body = 200, "text/plain; charset=utf-8", b""
        # another site's page can make its name point here, but then the browser says that name
        if self.headers.get("Host") not in (
            f"127.0.0.1:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            status = 403
        else:
            try:
                kind, body = self.server.answer(self.path.partition("?")[0])
            except LookupError:
                status = 404
            except Exception as error:
                status, body = 500, str(as_ours(error)).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the page was left before it was there
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
