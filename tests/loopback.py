"""A model hub on loopback: what `huggingface_hub` asks of a hub, and the ways in which one can fail."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".gguf", ".parquet", ".arrow", ".gz", ".zst")
"""What a hub keeps in Git LFS: known by its sha256. All else is known by Git's own sha1."""

API = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>.+?)(?:/(?P<verb>revision|tree)/.*)?$")
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<name>.+?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")


@dataclass
class Fault:
    """What goes wrong with requests whose path holds `path`, a regular expression, so many `times`."""

    path: str
    times: float = 1
    status: int = 0  # answered in place of 200
    code: str = ""  # the hub's own name of the error, for example GatedRepo
    headers: dict[str, str] = field(default_factory=dict)
    cut_bytes: int | None = None  # so much of the body, then the connection ends
    stall_seconds: float = 0  # silence before the body, or behind `cut_bytes` of it
    length: int | None = None  # the Content-Length that is said
    wrong: bool = False  # as many bytes as there should be, but others
    body: bytes | None = None  # in place of the right one


@dataclass(frozen=True)
class Request:
    """One question, as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    proxied: bool


class LoopbackHub:
    """Repositories by kind and name, a script of faults, and what was asked. A context manager that serves."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.gated: set[str] = set()  # names whose files need a token of `tokens`
        self.private: set[str] = set()  # names that nobody is told of without one
        self.tokens: set[str] = set()
        self.moved: dict[str, str] = {}  # an old name: the new one, as wikitext is Salesforce/wikitext
        self.sizes: dict[str, int] = {}  # a file's name: the size that is claimed for it
        self.checksums = True  # whether listings tell them
        self.ignores_ranges = False  # and sends whole files always
        self.storage = ""  # address that large files are redirected to
        self._stopped = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def add_model(self, name: str, files: Path | Mapping[str, bytes]) -> None:
        """Serve a folder's files, or these, as the model `name`."""
        self.models[name] = _content(files)

    def add_dataset(self, name: str, files: Path | Mapping[str, bytes]) -> None:
        """Serve a folder's files, or these, as the data set `name`."""
        self.datasets[name] = _content(files)

    def fail(self, path: str, **what: object) -> None:
        """Put a fault into the script: `hub.fail("model.safetensors", cut_bytes=10, times=2)`."""
        self.faults.append(Fault(path, **what))  # type: ignore[arg-type]

    @property
    def asked(self) -> list[str]:
        """Paths of all requests."""
        return [request.path for request in self.requests]

    @property
    def fetched(self) -> list[str]:
        """Names of the files that were asked for."""
        return [match["file"] for path in self.asked if (match := FILE.match(path))]

    def __enter__(self) -> LoopbackHub:
        serve = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        serve.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_for(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def answer(self, path: str, token: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        if match := API.match(path):
            kind, name = match["kind"], match["name"]
            if name in self.moved:
                return 307, {"Location": path.replace(name, self.moved[name], 1)}, b""
            files = getattr(self, kind).get(name)
            if files is None or (name in self.private and token not in self.tokens):
                return 404 if token else 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
            listing = self._tree(files) if match["verb"] == "tree" else self._info(name, files)
            return 200, {"Content-Type": "application/json"}, json.dumps(listing).encode()
        if match := FILE.match(path):
            kind, name = "datasets" if match["kind"] else "models", match["name"]
            if name in self.moved:
                return 307, {"Location": path.replace(name, self.moved[name], 1)}, b""
            return self._file(path, getattr(self, kind).get(name), name, match["file"], token)
        return 404, {}, b"{}"

    def _file(
        self, path: str, files: dict[str, bytes] | None, name: str, file: str, token: str
    ) -> tuple[int, dict[str, str], bytes]:
        if files is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if name in self.gated | self.private and token not in self.tokens:
            return 403 if token else 401, {"X-Error-Code": "GatedRepo"}, b"{}"
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        body = files[file]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{checksum(file, body)}"'}
        if self.storage and file.endswith(LARGE):
            linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(body))}
            return 302, headers | linked | {"Location": self.storage + path}, b""
        return 200, headers, body

    def _info(self, name: str, files: dict[str, bytes]) -> dict[str, object]:
        siblings = [self._sibling(file, body) for file, body in files.items()]
        gated = "manual" if name in self.gated else False
        return {"id": name, "sha": COMMIT, "gated": gated, "siblings": siblings}

    def _sibling(self, file: str, body: bytes) -> dict[str, object]:
        size = self.sizes.get(file, len(body))
        if not self.checksums:
            return {"rfilename": file, "size": size}
        entry: dict[str, object] = {"rfilename": file, "size": size, "blobId": git_sha1(body)}
        if file.endswith(LARGE):
            sha256 = hashlib.sha256(body).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        return entry

    def _tree(self, files: dict[str, bytes]) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": file, "size": len(body), "oid": git_sha1(body)}
            for file, body in files.items()
        ]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        hub: LoopbackHub = self.server.hub  # type: ignore[attr-defined]
        parts = urlsplit(self.path)  # a proxy is asked for whole addresses
        path = unquote(parts.path)
        hub.requests.append(
            Request(
                self.command,
                path,
                {key.title(): value for key, value in self.headers.items()},
                bool(parts.scheme),
            )
        )
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        status, headers, body = hub.answer(path, token)
        fault = hub.fault_for(path) or Fault("")
        if fault.status:
            status, headers, body = fault.status, {"X-Error-Code": fault.code}, b"{}"
        if fault.body is not None:
            body = fault.body
        if fault.wrong:
            body = bytes(255 - byte for byte in body)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and status == 200 and not hub.ignores_ranges:
            start = int(asked[1])
            status, whole, body = 206, len(body), body[start:]
            headers = headers | {"Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
        self.send_response(status)
        for key, value in {**headers, **fault.headers}.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if fault.length is None else fault.length))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body if fault.cut_bytes is None else body[: fault.cut_bytes]
        try:
            if fault.cut_bytes is not None:
                self.wfile.write(sent)
                self.wfile.flush()
            if fault.stall_seconds:
                hub.wait(fault.stall_seconds)
            if fault.cut_bytes is None:
                self.wfile.write(sent)
        except OSError:  # who asked has gone
            pass

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


def checksum(file: str, body: bytes) -> str:
    """What a hub knows a file by."""
    return hashlib.sha256(body).hexdigest() if file.endswith(LARGE) else git_sha1(body)


def git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _content(files: Path | Mapping[str, bytes]) -> dict[str, bytes]:
    if not isinstance(files, Path):
        return dict(files)
    found = sorted(file for file in files.rglob("*") if file.is_file())
    return {file.relative_to(files).as_posix(): file.read_bytes() for file in found}
