"""Google Drive and a bucket on the loopback: a proxy that answers for their names, with a certificate of its own."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import trustme

HOSTS = ("drive.google.com", "drive.usercontent.google.com", "bucket.example")
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try again later.</p>
</body></html>"""
CONFIRM = (  # the form is on one line, as Drive has it
    "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="submit" id="uc-download-link" value="Download anyway"/>'
    '<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="77-aa"></form></body></html>'
)


class Cloud:
    """Files by their Drive id, or by their path in the bucket.

    Attributes:
        folders: by id, names with the ids of files; those of Seafile have paths for names.
        page: served in place of every file's contents.
        status: answered to every request for a file, if not 0.
        die_after: one per transfer: end after so many bytes.
        ranges: whether a range is honoured; without, the whole file comes.
        calls, asked: what was requested, how often; and the ranges asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.folders: dict[str, dict[str, str]] = {}
        self.page: str | None = None
        self.status = 0
        self.die_after: list[int] = []
        self.ranges = True
        self.calls: Counter[str] = Counter()
        self.asked: list[str] = []
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS).configure_cert(self.context)
        cloud = self

        class Handler(_Handler):
            owner = cloud

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        proxy = f"http://127.0.0.1:{self.server.server_port}"
        self.env = {
            "HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": "",
            "REQUESTS_CA_BUNDLE": str(folder / "authority.pem"), "LICODEC_OFFLINE": "0",
        }  # fmt: skip

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Cloud
    protocol_version = "HTTP/1.1"
    host = ""

    def log_message(self, *_) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        if self.host not in HOSTS:
            self.close_connection = True
            return
        self.connection = self.owner.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self) -> None:
        url = urlparse(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        place = f"{self.host}{url.path}"
        self.owner.calls[place] += 1
        if place == "drive.google.com/uc":
            self._send(303, b"", {"Location": f"https://drive.usercontent.google.com/download?id={query['id']}"})
        elif place == "drive.google.com/embeddedfolderview":
            self._html(self._folder(query["id"]))
        elif place == "drive.usercontent.google.com/download":
            if self.owner.page is not None:
                self._html(self.owner.page)
            elif query.get("confirm") != "t":
                self._html(CONFIRM.format(id=query["id"]))
            else:
                self._file(query["id"], {"Content-Disposition": 'attachment; filename="ckpt.pth.tar"'})
        elif self.owner.page is not None:
            self._html(self.owner.page)
        elif match := re.fullmatch(r"/api/v2.1/share-links/(\w+)/dirents/", url.path):
            self._send(200, self._seafile(match[1], query["path"]), {"Content-Type": "application/json"})
        elif match := re.fullmatch(r"/d/(\w+)/files/", url.path):
            self._file(self.owner.folders[match[1]][query["p"]], {})
        else:
            self._file(url.path, {})

    def _seafile(self, token: str, folder: str) -> bytes:
        """What lies in a folder of a share."""
        files = self.owner.folders[token]
        inner = {f"{folder}{path.removeprefix(folder).split('/')[0]}/" for path in files
                 if path.startswith(folder) and "/" in path.removeprefix(folder)}  # fmt: skip
        entries = [{"is_dir": True, "folder_path": path} for path in sorted(inner)]
        entries += [{"is_dir": False, "file_path": path} for path in files if path.rpartition("/")[0] + "/" == folder]
        return json.dumps({"dirent_list": entries}).encode()

    def _folder(self, name: str) -> str:
        links = [
            f'<a href="https://drive.google.com/file/d/{file}/view?usp=drive_web">{title}</a>'
            for title, file in self.owner.folders[name].items()
        ]
        return f"<html><head><title>weights</title></head><body>{''.join(links)}</body></html>"

    def _html(self, text: str) -> None:
        self._send(200, text.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str, headers: dict[str, str]) -> None:
        cloud = self.owner
        if cloud.status or name not in cloud.files:
            self._send(cloud.status or 404, b"<html><title>Error</title></html>", {})
            return
        cloud.calls["file"] += 1
        body, start = cloud.files[name], 0
        if wanted := self.headers.get("Range"):
            cloud.asked.append(wanted)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if cloud.ranges else 0
        part = body[start:]
        self.send_response(206 if start else 200)
        etag = hashlib.sha256(body).hexdigest()[:16]
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(part)), **headers}
        for key, value in {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(key, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        end = cloud.die_after.pop(0) if cloud.die_after else len(part)
        self.wfile.write(part[:end])
        if end < len(part):
            self.close_connection = True
