"""A Hugging Face Hub on the loopback: what the client asks for to read a file and to publish one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

CHUNK = 1 << 16


class Hub:
    """Repositories in memory. Attributes `fail_*` make the server misbehave; `calls` counts requests by kind."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.blobs: dict[str, bytes] = {}
        self.calls: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.fail_status = 0  # answer every resolve with this
        self.fail_after: list[int] = []  # one per download: die after so many bytes
        self.delay = 0.0  # seconds between chunks of a download
        self.hang = threading.Event()  # set: never answer
        self.token: str | None = None
        hub = self

        class Handler(_Handler):
            owner = hub

        # files come from another host than the answers about them, as from the real Hub
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.hang.clear()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Add files to a repository; returns the commit."""
        history = self.commits.setdefault(repo, {})
        everything = {**(list(history.values())[-1] if history else {}), **files}
        name = hashlib.sha1(f"{repo} {len(history)} {sorted(everything)}".encode()).hexdigest()
        history[name] = everything
        return name

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        history = self.commits.get(repo)
        if not history:
            return None
        return list(history.values())[-1] if revision == "main" else history.get(revision)


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.owner
        path = urlparse(self.path).path
        if hub.hang.is_set():
            hub.calls["hang"] += 1
            threading.Event().wait(5)
            self.close_connection = True
            return
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        elif match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            self._download(hub.blobs[match[1]])
        elif path == "/api/whoami-v2":
            self._json({"name": "me", "type": "user", "orgs": []})
        else:
            self._refuse(404, "RepoNotFound")

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        hub = self.owner
        hub.calls[f"{self.command} resolve"] += 1
        if hub.fail_status:
            return self._refuse(hub.fail_status, "Failing")
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._refuse(401, "RepoNotFound")
        if repo not in hub.commits:
            return self._refuse(404, "RepoNotFound")
        files = hub.files(repo, revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        if name not in files:
            return self._refuse(404, "EntryNotFound")
        commit = revision if revision != "main" else list(hub.commits[repo])[-1]
        body = files[name]
        digest = hashlib.sha256(body).hexdigest()
        hub.blobs[digest] = body
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
        if not name.endswith(".safetensors"):
            return self._send(200, body, headers)
        linked = {"X-Linked-Size": str(len(body)), "X-Linked-ETag": f'"{digest}"'}
        return self._send(302, b"", {**headers, **linked, "Location": f"{hub.cdn}/cdn/{digest}"})

    def _download(self, body: bytes) -> None:
        hub = self.owner
        hub.calls["download"] += 1
        start = 0
        if wanted := self.headers.get("Range"):
            hub.ranges.append(wanted)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        part = body[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = hub.fail_after.pop(0) if hub.fail_after else len(part)
        for position in range(0, min(end, len(part)), CHUNK):
            time.sleep(hub.delay)
            self.wfile.write(part[position : min(position + CHUNK, end)])
        if end < len(part):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        body = self._body()
        self.owner.blobs[hashlib.sha256(body).hexdigest()] = body
        self._send(200)

    def do_POST(self) -> None:
        hub = self.owner
        path, body = urlparse(self.path).path, self._body()
        hub.calls[f"POST {path.split('/')[-2]}"] += 1
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo in hub.commits:
                return self._json({"error": "You already created this model repo", "url": f"{hub.url}/{repo}"}, 409)
            hub.commit(repo, {".gitattributes": b""})
            return self._json({"url": f"{hub.url}/{repo}", "name": repo})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            wanted = json.loads(body)["objects"]
            offers = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}}
                for o in wanted
            ]
            return self._json({"transfer": "basic", "objects": offers})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            files = {}
            for line in body.splitlines():
                item = json.loads(line)
                value = item["value"]
                if item["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif item["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
            name = hub.commit(match[1], files)
            url = f"{hub.url}/{match[1]}/commit/{name}"
            return self._json({"success": True, "commitOid": name, "commitUrl": url, "hookOutput": ""})
        assert not parse_qs(self.path), path
        return self._refuse(404, "RepoNotFound")
