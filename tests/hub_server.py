"""A server on loopback that speaks what huggingface_hub asks of the hub: data sets and models, read and written."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

Files = dict[str, bytes]


class HubServer:
    """Repositories, each a list of commits.

    Attributes:
        url: its address.
        commits: ("datasets" or "models", "user/name") -> commit, in order -> files.
        requests: what has come in, as (method, path).
        token: what must be given to write; None lets everybody.
        private: names of those that were made so.
    """

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, Files]] = {}
        self.requests: list[tuple[str, str]] = []
        self.token: str | None = None
        self.private: set[str] = set()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_POST = do_GET

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, kind: str, name: str, files: Files) -> str:
        """Add a commit with these files, and no others; returns its number."""
        history = self.commits.setdefault((kind, name), {})
        digest = hashlib.sha1(f"{name} {len(history)}".encode()).hexdigest()
        history[digest] = files
        return digest

    def files(self, kind: str, name: str) -> Files:
        """Of the last commit."""
        return [*self.commits[kind, name].values()][-1]

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append((request.command, path))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        status, headers, content = self._reply(request.command, path, body, request.headers.get("Authorization"))
        request.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _reply(self, method: str, path: str, body: bytes, given: str | None) -> tuple[int, dict[str, str], bytes]:
        if method == "POST" and self.token is not None and given != f"Bearer {self.token}":
            return _failure(401, "", "Invalid credentials")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            kind = f"{asked.get('type', 'model')}s"
            if asked.get("private") or asked.get("visibility") == "private":
                self.private.add(name)
            if (kind, name) not in self.commits:
                self.commit(kind, name, {".gitattributes": b""})
            return _json({"url": f"{self.url}/{kind}/{name}"})
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/([a-z]+)/([^/]+))?", path):
            return self._of_repository(match[1], match[2], match[3] or "revision", match[4] or "main", body)
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file("datasets" if match[1] else "models", match[2], match[3], match[4])
        return _failure(404, "", "not spoken here")

    def _of_repository(
        self, kind: str, name: str, what: str, revision: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        found = self._commit(kind, name, revision)
        if isinstance(found, tuple):
            return found
        files = self.commits[kind, name][found]
        if what == "revision":
            return _json({"id": name, "sha": found, "siblings": [{"rfilename": file} for file in files]})
        if what == "tree":
            rows = [{"type": "file", "path": p, "size": len(c), "oid": _oid(c)} for p, c in sorted(files.items())]
            return _json(rows)
        if what == "preupload":
            asked = json.loads(body)["files"]
            return _json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        assert what == "commit"
        rows = [json.loads(line) for line in body.splitlines()]
        new = {row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in rows if row["key"] == "file"}
        digest = self.commit(kind, name, {**files, **new})
        return _json({"commitUrl": f"{self.url}/{name}/commit/{digest}", "commitOid": digest, "hookOutput": ""})

    def _file(self, kind: str, name: str, revision: str, path: str) -> tuple[int, dict[str, str], bytes]:
        found = self._commit(kind, name, revision)
        if isinstance(found, tuple):
            return found
        content = self.commits[kind, name][found].get(path)
        if content is None:
            return _failure(404, "EntryNotFound", "Entry not found")
        return 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": found}, content

    def _commit(self, kind: str, name: str, revision: str) -> str | tuple[int, dict[str, str], bytes]:
        history = self.commits.get((kind, name))
        if history is None:
            return _failure(404, "RepoNotFound", "Repository not found")
        digest = [*history][-1] if revision == "main" else revision
        return digest if digest in history else _failure(404, "RevisionNotFound", "Invalid rev id")


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _failure(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode()


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that huggingface_hub talks to, with an empty cache and no token."""
    from huggingface_hub import constants

    server = HubServer()
    cache = tmp_path_factory.mktemp("hub")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.close()
