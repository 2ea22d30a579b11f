"""A model hub on this machine that speaks the endpoints of huggingface_hub, with faults on request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "a" * 34


@dataclass
class Repository:
    """Commits by id, oldest first; branches and tags to commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> str | None:
        """The commit of a revision."""
        found = self.branches.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the server holds and was asked.

    Attributes:
        faults: Pattern of ``METHOD /path`` to what happens instead, a status, ``cut`` or ``hang``; each happens once.
        hanging: Set where a request hangs.
        asked: ``METHOD /path`` of every request.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, int | str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    hanging: threading.Event = field(default_factory=threading.Event)

    def fault(self, line: str) -> int | str | None:
        """The fault of a request, if it has one."""
        for at, (pattern, what) in enumerate(self.faults):
            if re.search(pattern, line):
                del self.faults[at]
                return what
        return None


@contextmanager
def hub_here() -> Iterator[Hub]:
    """A hub on a free port of this machine; it ends with the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers with what the server's `hub` holds."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _do(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.asked.append(line)
        fault = self.hub.fault(line)
        if fault == "hang":
            # Nothing is done and nobody answers, as long as the other side waits.
            self.hub.hanging.set()
            self.connection.settimeout(60)
            while self.connection.recv(65536):
                pass
            self.close_connection = True
            return
        if fault == "cut":
            # A part of what was sent is read, then nobody answers.
            self.rfile.read(min(10, int(self.headers.get("Content-Length") or 0)))
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if isinstance(fault, int):
            self._answer({"error": "on purpose"}, fault)
        elif not path.startswith("/objects/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid credentials"}, 401)
        else:
            self._route(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _do

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _route(self, path: str, body: bytes) -> None:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            there = name in self.hub.repositories
            self.hub.repositories.setdefault(name, Repository())
            self._answer({"url": f"{self.hub.url}/{name}", "id": name}, 409 if there else 200)
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path == "/api/whoami-v2":
            self._answer({"name": "tester", "type": "user", "orgs": []})
        elif path.startswith("/objects/"):
            oid = path.removeprefix("/objects/")
            # What arrived of an upload that was cut is no object.
            if whole := hashlib.sha256(body).hexdigest() == oid:
                self.hub.objects[oid] = body
            self._answer({}, 200 if whole else 400)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._batch(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+))?(?:/(.+))?", path):
            self._of_repository(found[1], found[2] or "revision", found[3] or "main", body)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        else:
            self._answer({"error": "unknown"}, 404)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            action = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}", "header": {}}}
            objects.append({**one, **({} if one["oid"] in self.hub.objects else {"actions": action})})
        self._answer({"transfer": "basic", "objects": objects})

    def _of_repository(self, name: str, what: str, revision: str, body: bytes) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        if what == "refs":
            refs = {
                kind: [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in found.items()]
                for kind, found in (("branches", repository.branches), ("tags", repository.tags))
            }
            self._answer({**refs, "converts": []})
            return
        if what == "branch":
            there = revision in repository.branches
            repository.branches.setdefault(revision, repository.branches["main"])
            self._answer({}, 409 if there else 200)
            return
        commit = repository.at(revision.split("/")[0])
        if commit is None:
            self._answer({"error": "no revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif what == "preupload":
            known = {path: _entry(path, content) for path, content in repository.commits[commit].items()}
            files = [
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": known.get(path, {}).get("lfs", known.get(path, {})).get("oid"),
                }
                for path in (one["path"] for one in json.loads(body)["files"])
            ]
            self._answer({"files": files})
        elif what == "commit":
            self._commit(name, repository, revision, commit, body)
        elif what == "tag":
            tag = json.loads(body)["tag"]
            there = tag in repository.tags
            repository.tags.setdefault(tag, commit)
            self._answer({}, 409 if there else 200)
        elif what == "tree":
            self._answer([_entry(p, c) for p, c in sorted(repository.commits[commit].items())])
        else:
            files = [{"rfilename": path} for path in sorted(repository.commits[commit])]
            self._answer({"id": name, "modelId": name, "sha": commit, "siblings": files, "private": True, "tags": []})

    def _commit(self, name: str, repository: Repository, branch: str, parent: str, body: bytes) -> None:
        files = dict(repository.commits[parent])
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        parts = [f"{path} {hashlib.sha1(content).hexdigest()}" for path, content in sorted(files.items())]
        commit = hashlib.sha1("\n".join([parent, *parts]).encode()).hexdigest()
        repository.commits[commit] = files
        repository.branches[branch] = commit
        url = f"{self.hub.url}/{name}/commit/{commit}"
        self._answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        commit = repository.at(revision) if repository else None
        if repository is None or commit is None or path not in repository.commits[commit]:
            self._answer({"error": "no entry"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.commits[commit][path]
        etag = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._answer(content, 200, headers)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def use(monkeypatch: Any, url: str) -> None:
    """What HF_ENDPOINT does to a process that begins."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
