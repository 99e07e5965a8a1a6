"""Exports at URLs: whole or not readable, replaced on request only, kept at home where the data must be."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from advisor import cli
from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import check_manifest
from rag.object_storage import (
    download_folder,
    filesystem,
    join_url,
    list_objects,
    put_new,
    put_object,
    read_bytes,
    remove_objects,
)
from runners.export.bundle import unbundle
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.export.upload import UPLOAD_MARK, check_may_upload
from runners.plan.schema import parse_plan
from runners.runs.opened import OpenRun
from tests.support.limits import HANG_S

QUESTION = "How many berths has the Amber Pier?"


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.engines)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty place of each kind."""
    if request.param == "s3":
        return request.getfixturevalue("bucket") + "/exports/harbour"
    return f"file://{tmp_path}/place" if request.param == "file" else f"memory://{uuid4().hex}"


def bundle(run: Path, url: str, **options: Any) -> Any:
    """Export a run as a bundle to a URL."""
    return export(run, ExportRequest("bundle", out=url, **options))


def test_bundle_goes_to_a_url_and_answers_when_it_is_back(place: str, llama: Any, tmp_path: Path) -> None:
    result = bundle(llama.path, place + "/")
    assert result.out == place
    assert set(result.files) == {"harbour.zip"}
    assert set(list_objects(place)) == {"README.md", "harbour.zip", "manifest.json"}
    again = bundle(llama.path, place)
    assert again.again
    assert "compared by size" in again.notes[-1]
    run = Path(unbundle(place, tmp_path / "run").out)
    session = OpenRun.open(run).obtain()
    (answer,) = session.ask([QUESTION], session.arm("lora"))
    first = OpenRun.open(llama.path).obtain()
    assert answer.text == first.ask([QUESTION], first.arm("lora"))[0].text
    unbundle(f"{place}/harbour.zip", tmp_path / "by-name")
    with pytest.raises(BadInput, match=r"does not list other\.zip"):
        unbundle(f"{place}/other.zip", tmp_path / "other")


def test_every_file_is_checked_when_it_is_read(place: str, llama: Any, tmp_path: Path) -> None:
    bundle(llama.path, place)
    whole = read_bytes(join_url(place, "harbour.zip"))
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for data, message in ((changed, "SHA-256 differs"), (whole[:-1], "its manifest says")):
        put_object(join_url(place, "harbour.zip"), data)
        with pytest.raises(BadInput, match=message):
            unbundle(place, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(BadInput, match=r"is damaged: harbour\.zip has"):
        bundle(llama.path, place)
    bundle(llama.path, place, overwrite=True)
    assert read_bytes(join_url(place, "harbour.zip")) == whole
    remove_objects(place, ["manifest.json"])
    with pytest.raises(
        BadInput, match=r"has no manifest\.json: it is no bundle, or its upload did not finish"
    ):
        unbundle(place, tmp_path / "run")


def test_only_exports_and_unfinished_uploads_are_replaced(place: str, llama: Any) -> None:
    put_new(join_url(place, "mine.txt"), b"mine")
    for overwrite in (False, True):
        with pytest.raises(UsageProblem, match=r"has 'mine\.txt' and is not an export"):
            bundle(llama.path, place, overwrite=overwrite)
    put_new(join_url(place, "manifest.json"), b'{"files": {}}')
    with pytest.raises(UsageProblem, match="of something other than an export"):
        bundle(llama.path, place, overwrite=True)
    assert set(list_objects(place)) == {"mine.txt", "manifest.json"}
    remove_objects(place, ["mine.txt", "manifest.json"])

    bundle(llama.path, place)
    with pytest.raises(UsageProblem, match="was made from something else"):
        export(llama.path, ExportRequest("peft", "lora", out=place))
    export(llama.path, ExportRequest("peft", "lora", out=place, overwrite=True))
    assert "harbour.zip" not in list_objects(place), "files of the one before are gone"
    assert UPLOAD_MARK not in list_objects(place)

    # What a killed upload leaves: the mark, and some of the files it names.
    remove_objects(place, ["manifest.json"])
    mark = {"kind": "tunewise-upload", "begun": "2026-01-01", "files": [*list_objects(place), "gone.bin"]}
    put_new(join_url(place, UPLOAD_MARK), json.dumps(mark).encode())
    with pytest.raises(UsageProblem, match="began at 2026-01-01 and has not finished"):
        bundle(llama.path, place)
    put_new(join_url(place, "mine.txt"), b"mine")
    with pytest.raises(UsageProblem, match=r"has 'mine\.txt', which no export wrote"):
        bundle(llama.path, place, overwrite=True)
    remove_objects(place, ["mine.txt"])
    bundle(llama.path, place, overwrite=True)
    assert set(list_objects(place)) == {"README.md", "harbour.zip", "manifest.json"}


@pytest.mark.parametrize(
    ("to", "arm"),
    [("peft", "lora"), ("gguf", "lora"), ("vllm", "lora"), ("index", None), ("provider-jsonl", "lora")],
)
def test_other_targets_go_to_urls_too(llama: Any, tmp_path: Path, to: str, arm: str | None) -> None:
    place = f"memory://{uuid4().hex}"
    result = export(llama.path, ExportRequest(to, arm, out=place))
    sizes = download_folder(place, tmp_path / "back")
    assert sizes == dict(result.files)
    kind = json.loads((tmp_path / "back" / "manifest.json").read_text("utf-8"))["kind"]
    check_manifest(tmp_path / "back", kind)
    assert "memory" not in result.line
    card = read_bytes(join_url(place, "README.md")).decode()
    assert "tmp" not in card.lower().replace("tmp_", "")


def test_data_that_must_stay_local_goes_to_no_public_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {
        "name": "x",
        "model": {"name": "m"},
        "choice": "prompting",
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
    }
    body |= {"weights": {"token_f1": 1}, "data": {"questions": "questions.jsonl"}}
    yes = {"data_must_stay_local": {"value": True, "source": "flag"}}
    local, free = (parse_plan({**body, **extra}) for extra in ({"answers": yes}, {}))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    with pytest.raises(
        BadInput, match=r"must stay local, and s3://bucket/x is at s3\.eu-north-1\.amazonaws\.com"
    ):
        check_may_upload("s3://bucket/x", local)
    check_may_upload("s3://bucket/x", free)
    check_may_upload("file:///anywhere", local)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.168.7.7:9000")
    check_may_upload("s3://bucket/x", local)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://storage.example.com")
    with pytest.raises(BadInput, match=r"is at storage\.example\.com"):
        check_may_upload("s3://bucket/x", local)


def test_command_line_names_what_is_wrong_in_one_line(
    llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main(["export", *arguments])
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) <= 3, lines
        return int(stop.value.code or 0), " ".join(lines)

    code, text = refusal(str(llama.path), "--to", "bundle", "--out", "s3://KEY:SECRET@bucket/x")
    assert (code, "contains credentials" in text, "SECRET@" in text) == (3, True, False)
    code, text = refusal(str(llama.path), "--to", "bundle", "--out", "gs://bucket/x")
    assert (code, "there are: s3://" in text) == (3, True)
    code, text = refusal("memory://none", "--to", "run", "--out", str(tmp_path / "x"))
    assert (code, "has no manifest.json" in text) == (3, True)
    code, text = refusal("memory://none", "--to", "run", "--out", "memory://x")
    assert (code, "give a path with --out" in text) == (2, True)
    with pytest.raises(UsageProblem, match="give the URL as text"):
        export(llama.path, ExportRequest("bundle", out=Path("s3://bucket/x")))


class HoldingProxy(socketserver.ThreadingTCPServer):
    """A proxy before an S3 server that passes half of the request that puts one object, and then nothing more of it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, server: str, name: bytes) -> None:
        self.target = (str(urlsplit(server).hostname), int(urlsplit(server).port or 80))
        self.name, self.held = name, threading.Event()
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: HoldingProxy

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as upstream:
            threading.Thread(target=self.back, args=(upstream,), daemon=True).start()
            while data := self.request.recv(1 << 14):
                line = data.split(b"\r\n", 1)[0]
                if line.startswith(b"PUT ") and self.server.name in line:
                    upstream.sendall(data[: len(data) // 2])
                    self.server.held.set()
                    threading.Event().wait(HANG_S)
                upstream.sendall(data)

    def back(self, upstream: socket.socket) -> None:
        try:
            while data := upstream.recv(1 << 16):
                self.request.sendall(data)
        except OSError:
            pass


@pytest.fixture
def holding(object_server: Any) -> Iterator[HoldingProxy]:
    """A proxy that lets no archive through."""
    proxy = HoldingProxy(object_server.url, b"harbour.zip")
    threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.engines
def test_killed_upload_is_read_by_nothing_and_is_repeated(
    bucket: str, holding: HoldingProxy, llama: Any, tmp_path: Path
) -> None:
    """The whole command, killed while the archive is on its way; then everything a user would do next."""
    url = f"{bucket}/harbour"

    def tunewise(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "advisor", "export", *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": str(tmp_path), **environment},
        )  # fmt: skip

    def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
        out, err = process.communicate(timeout=HANG_S)
        return process.returncode, out + err

    child = tunewise(llama.path, "--to", "bundle", "--out", url, AWS_ENDPOINT_URL=holding.url)
    assert holding.held.wait(HANG_S), finish(child)
    child.send_signal(signal.SIGKILL)
    assert finish(child)[0] == -signal.SIGKILL
    assert set(list_objects(url)) == {"README.md", UPLOAD_MARK}, "no half of an archive"
    code, text = finish(tunewise(url, "--to", "run", "--out", tmp_path / "run"))
    assert (code, "its upload did not finish" in text) == (3, True), text
    code, text = finish(tunewise(llama.path, "--to", "bundle", "--out", url))
    assert (code, "has not finished" in text, "--overwrite" in text) == (2, True, True), text
    code, text = finish(tunewise(llama.path, "--to", "bundle", "--out", url, "--overwrite"))
    assert (code, f"tunewise export {url} --to run" in text) == (0, True), text
    assert set(list_objects(url)) == {"README.md", "harbour.zip", "manifest.json"}
    code, text = finish(tunewise(url, "--to", "run", "--out", tmp_path / "run"))
    assert code == 0, text
    assert (tmp_path / "run" / "plan.yaml").read_bytes() == (llama.path / "plan.yaml").read_bytes()
    fs, path = filesystem(url)
    assert len(fs.find(path)) == 3


@pytest.mark.engines
def test_missing_bucket_is_noticed_before_anything_is_made(
    object_server: Any, bucket: str, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotRun, match="there is no bucket bucket-not-there"):
        bundle(llama.path, "s3://bucket-not-there/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CannotRun, match=r"cannot be reached at 127\.0\.0\.1:9"):
        bundle(llama.path, f"{bucket}/x")
