"""A model hub of our own on loopback."""

import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LoopbackHub:
    """What `huggingface_hub` asks of a hub; names in `status` answer with that status and error code instead."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # claimed instead of the true ones
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, path):
        """(status, headers, body) for a request's path."""
        self.asked.append(path)
        parts = path.partition("?")[0].strip("/").split("/")
        datasets = "datasets" in parts[:2]
        if parts[0] == "api":
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[1:3] if datasets else parts[:2]), parts[3:] if datasets else parts[2:]
        status, code = self.status.get(name, (200, ""))
        if status != 200 or name not in self.files:
            status = status if status != 200 else 404
            return status, {"X-Error-Code": code or ("RepoNotFound" if status == 404 else "")}, b"{}"
        files = self.files[name]
        if parts[0] != "api":  # NAME/resolve/COMMIT/FILE
            body = files["/".join(rest[2:])]
            etag = hashlib.sha256(body).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": file, "size": len(body), "oid": "0" * 40}
                for file, body in files.items()
            ]
            return 200, {}, json.dumps(entries).encode()
        siblings = [
            {"rfilename": file, "size": self.sizes.get(file, len(body))} for file, body in files.items()
        ]
        return 200, {}, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, headers, body = self.server.hub.answer(self.path)
        self.send_response(status)
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def online(tmp_path, monkeypatch):
    """Downloads are allowed, into an empty cache. The library read its settings at its import."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    return monkeypatch


@pytest.fixture
def hub(online):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = LoopbackHub(url=f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    online.setenv("HF_ENDPOINT", server.hub.url)
    yield server.hub
    server.shutdown()
    server.server_close()
