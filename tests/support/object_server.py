"""An S3 server on this machine (moto's), and buckets in it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.limits import HANG_S


@dataclass(frozen=True)
class ObjectServer:
    """A running server, and what programs need in their environment to use it."""

    url: str
    environment: dict[str, str]


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """A server for the whole session; its absence is a failure, because the extra `test` installs it."""
    folder = tmp_path_factory.mktemp("object-server")
    port = free_port()
    program = Path(sys.executable).with_name("moto_server")
    assert program.exists(), (
        "moto's server is missing: pip install 'moto[server,s3]' (the extra `test` has it)"
    )
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(program), "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield ObjectServer(url, environment)
    finally:
        process.terminate()
        process.wait(HANG_S)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        assert process.poll() is None, f"moto's server ended: {log.read_text()[-2000:]}"
        try:
            httpx.get(f"{url}/moto-api/data.json", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"moto's server did not answer within {HANG_S:g} s: {log.read_text()[-2000:]}")


@pytest.fixture
def make_bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """The function that makes an empty bucket and returns its URL; the environment names the server."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)

    def make() -> str:
        from rag.object_storage import filesystem

        url = f"s3://bucket-{uuid4().hex[:12]}"
        fs, path = filesystem(url)
        fs.mkdir(path)
        return url

    return make


@pytest.fixture
def bucket(make_bucket: Callable[[], str]) -> str:
    """The URL of an empty bucket."""
    return make_bucket()
