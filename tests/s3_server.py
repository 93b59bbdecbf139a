"""A server that speaks the S3 protocol on loopback, which can be told to fail and to be slow."""

from __future__ import annotations

import itertools
import logging
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """The server, and the requests that have come in as (method, path)."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer
        from werkzeug.serving import WSGIRequestHandler

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        WSGIRequestHandler.log_request = lambda *_: None  # type: ignore[method-assign,assignment]
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], int | float | None] = lambda method, path: None
        wrapped = self._server._server.app  # type: ignore[union-attr]

        def app(environ: dict[str, Any], start_response: Any) -> Any:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.requests.append((method, path))
            fault = self.fault(method, path)
            if isinstance(fault, int):
                start_response(f"{fault} Injected", [("Content-Length", "0")])
                return [b""]
            if fault is not None:
                time.sleep(fault)
            return wrapped(environ, start_response)

        self._server._server.app = app  # type: ignore[union-attr]

    def make_bucket(self, name: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()

    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def stop(self) -> None:
        self._server.stop()


_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket on a server that works as it should."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(_numbers)}"
    s3_server.fault = lambda method, path: None  # the last test's may still be there
    s3_server.make_bucket(bucket)
    s3_server.requests.clear()
    return f"s3://{bucket}"
