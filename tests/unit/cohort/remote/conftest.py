"""A prepared cohort at URLs: on a real S3 server, and on an HTTP server that is slow and fails on purpose."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from foundation.files.cache import CacheConfig
from foundation.files.store import Patience, Store

QUICK = Patience(attempts=4, first_wait=0.01, stalled_after=0.5)


@dataclass
class Server:
    """Files over HTTP, and how it fails.

    Attributes:
        url: Of the folder.
        fails: Path to how often it is answered with `status` before it works; -1 for always.
        cuts: Path to how often half of it comes.
        stalls: Path to how often nothing comes.
        delay: Seconds before every answer.
        down: Whether every answer is `status` now.
        asked: Path to how often it was asked for.
    """

    url: str = ""
    status: int = 503
    fails: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    stalls: Counter[str] = field(default_factory=Counter)
    delay: float = 0.0
    down: Callable[[], bool] = lambda: False
    asked: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)

    def due(self, kind: Counter[str], path: str) -> bool:
        """Whether this failure is due, which it then is once less."""
        due = kind[path] != 0
        kind[path] -= kind[path] > 0
        return due


class Handler(SimpleHTTPRequestHandler):
    """Answers as its server says."""

    def __init__(self, *arguments, server_state: Server, **keywords) -> None:
        self.state = server_state
        super().__init__(*arguments, **keywords)

    def do_GET(self) -> None:
        """Fail, cut, stall, or give the file."""
        state, path = self.state, self.path.lstrip("/")
        state.asked[path] += 1
        time.sleep(state.delay)
        if state.due(state.stalls, path):
            state.stop.wait(5)
        elif state.down() or state.due(state.fails, path):
            self.send_error(state.status)
        elif state.due(state.cuts, path):
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().do_GET()

    def log_message(self, *arguments) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    """Serve a folder over HTTP."""
    running = []

    def start(folder: Path) -> Server:
        state = Server()
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder), server_state=state))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        running.append((server, thread, state))
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        return state

    yield start
    for server, thread, state in running:
        state.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    """An empty cache with room for everything."""
    return CacheConfig(folder=tmp_path / "cache", gigabytes=1)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundation.cohort.files.Store", partial(Store, patience=QUICK))


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A real S3 server with an empty bucket called `bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    session = boto3.Session("test", "test", region_name="us-east-1")
    client = session.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="bucket")
    client.close()
    yield url
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same, with credentials where the tools of the store look for them."""
    import s3fs

    names = {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
    for name, value in {**names, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3_server
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def upload(s3: str) -> Callable[[Path], str]:
    """Copy a folder into the bucket."""

    def copy(folder: Path, to: str = "cohort") -> str:
        import boto3

        client = boto3.client("s3")
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", f"{to}/{path.relative_to(folder)}")
        client.close()
        return f"s3://bucket/{to}"

    return copy
