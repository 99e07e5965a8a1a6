"""Objects behind URLs: conditional puts, folders that are there whole or not at all, one line for what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from rag.errors import BadInput, CannotRun, Problem
from rag.files import write_manifest
from rag.object_storage import (
    check_url,
    download_folder,
    exists,
    is_url,
    join_url,
    list_objects,
    put_new,
    put_object,
    read_bytes,
    remove_objects,
    storage_endpoint,
    upload_folder,
)
from tests.support.limits import HANG_S
from tests.support.object_server import ObjectServer, free_port

KIND = "test"


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.engines)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty place of each kind."""
    if request.param == "s3":
        yield request.getfixturevalue("bucket") + "/a folder"
    elif request.param == "file":
        yield f"file://{tmp_path}/place"
    else:
        yield f"memory://{uuid4().hex}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a manifest."""
    (tmp_path / "made" / "deep").mkdir(parents=True)
    (tmp_path / "made" / "one.txt").write_text("one")
    (tmp_path / "made" / "deep" / "zwei ü.bin").write_bytes(os.urandom(3000))
    write_manifest(tmp_path / "made", KIND)
    return tmp_path / "made"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_conditional_put_is_won_by_one(place: str, tmp_path: Path) -> None:
    url = join_url(place, "object")
    assert not exists(url)
    (tmp_path / "source").write_bytes(b"second")
    assert put_new(url, b"first")
    assert not put_new(url, tmp_path / "source")
    assert read_bytes(url) == b"first"
    put_object(url, tmp_path / "source")
    assert read_bytes(url) == b"second"

    wins: list[int] = []
    url = join_url(place, "race")
    threads = [
        threading.Thread(target=lambda n=n: wins.append(n) if put_new(url, b"%d" % n) else None)
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert read_bytes(url) == b"%d" % wins[0]
    assert list_objects(place) == {"object": 6, "race": 1}, "no temporary file is left"
    remove_objects(place, ["object", "race", "never there"])
    assert list_objects(place) == {}
    with pytest.raises(BadInput, match="there is no object"):
        read_bytes(url)


def test_folder_is_there_when_its_manifest_is(place: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no manifest\.json"):
        download_folder(place, tmp_path / "none")
    put_object(join_url(place, "one.txt"), b"what an interrupted upload left")
    assert upload_folder(folder, place)
    assert not upload_folder(folder, place), "a finished folder is left as it is"
    sizes = download_folder(place, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    assert sizes == {name: len(data) for name, data in contents(folder).items() if name != "manifest.json"}

    put_object(join_url(place, "one.txt"), b"two")
    with pytest.raises(BadInput, match="SHA-256 differs"):
        download_folder(place, tmp_path / "changed")
    assert not (tmp_path / "changed" / "one.txt").exists()
    put_object(join_url(place, "one.txt"), b"longer")
    with pytest.raises(BadInput, match=r"6 bytes, its manifest says 3"):
        download_folder(place, tmp_path / "changed")
    remove_objects(place, ["one.txt"])
    with pytest.raises(BadInput, match="there is no object"):
        download_folder(place, tmp_path / "changed")
    assert not (tmp_path / "changed" / "manifest.json").exists()


def test_folder_without_manifest_is_not_uploaded(place: str, folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(BadInput, match="it is incomplete"):
        upload_folder(folder, place)
    assert list_objects(place) == {}


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a\\b", "C:x", "a//b", ""])
def test_names_that_lead_out_of_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    place = f"memory://{uuid4().hex}"
    body = {"files": {name: {"bytes": 1, "sha256": ""}}}
    put_object(join_url(place, "manifest.json"), json.dumps(body).encode())
    with pytest.raises(BadInput, match="refused"):
        download_folder(place, tmp_path / "back")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://KEY:SECRET@bucket/x", "contains credentials"),
        ("s3://KEY:SEC/RET@bucket/x", "contains credentials"),
        ("s3://", "names no bucket"),
        ("https://bucket.example.com/x?X-Amz-Signature=SECRET", "https:// are not read"),
        ("s3://bucket/x?versionId=SECRET", "a query"),
        ("s3://bucket/../x", r"'\.\.'"),
        ("file://host/x", "another machine"),
    ],
)
def test_unusable_urls_are_refused_without_repeating_secrets(url: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as refused:
        check_url(url)
    message = str(refused.value).replace("AWS_SECRET_ACCESS_KEY", "")
    assert "SEC" not in message
    assert "RET" not in message


def test_urls_are_told_from_paths() -> None:
    assert is_url("s3://bucket/x")
    assert not is_url(Path("/tmp/x"))
    assert join_url("s3://bucket/x/", "a", "b") == "s3://bucket/x/a/b"
    assert storage_endpoint("file:///tmp") == storage_endpoint("memory://x") == ""
    with pytest.raises(BadInput, match="names a bucket, no object"):
        put_new("s3://bucket", b"")


def one_line(problem: Problem, *parts: str) -> None:
    """Assert that a problem is one short line that holds the parts."""
    assert "\n" not in str(problem)
    assert len(str(problem)) < 250
    for part in parts:
        assert part in str(problem)


def test_unreachable_endpoint_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    with pytest.raises(CannotRun) as refused:
        put_new("s3://bucket-one/x", b"")
    one_line(refused.value, "s3://bucket-one/x", "cannot be reached at 127.0.0.1:", "AWS_ENDPOINT_URL")
    assert "a-secret" not in str(refused.value)


@pytest.mark.engines
def test_missing_bucket_and_credentials_are_one_line(
    bucket: str,
    object_server: ObjectServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    missing = "s3://bucket-that-is-not-there/x"
    for use in (
        exists,
        read_bytes,
        list_objects,
        lambda url: put_new(url, b""),
        lambda url: put_object(url, b""),
    ):
        with pytest.raises(CannotRun) as refused:
            use(missing)
        one_line(refused.value, missing, "there is no bucket bucket-that-is-not-there")
    with pytest.raises(BadInput, match="no name of a bucket"):
        put_new("s3://Un_usable!/x", b"")
    assert storage_endpoint(bucket) == object_server.url

    # From now on moto checks signatures; the keys are of no user that it knows.
    httpx.post(f"{object_server.url}/moto-api/reset-auth", content=b"0").raise_for_status()
    try:
        with pytest.raises(CannotRun) as refused:
            put_new(f"{bucket}/x", b"")
        one_line(refused.value, f"access to {bucket}/x is denied (InvalidAccessKeyId)", "AWS_PROFILE")
    finally:
        httpx.post(f"{object_server.url}/moto-api/reset-auth", content=b"Infinity").raise_for_status()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CannotRun) as refused:
        put_new(f"{bucket}/x", b"")
    one_line(refused.value, f"there are no credentials for {bucket}/x")


@pytest.mark.engines
def test_killed_upload_leaves_no_folder_and_is_repeated(
    bucket: str,
    make_bucket: Callable[[], str],
    tmp_path: Path,
) -> None:
    source = tmp_path / "large"
    source.mkdir()
    for n in range(60):
        (source / f"{n:02}.bin").write_bytes(os.urandom(1 << 20))
    write_manifest(source, KIND)
    url = f"{bucket}/large"
    code = "import sys; from pathlib import Path; from rag.object_storage import upload_folder as u; "
    code += "u(Path(sys.argv[1]), sys.argv[2])"
    child = subprocess.Popen([sys.executable, "-c", code, str(source), url], stdin=subprocess.DEVNULL)
    while not list_objects(url):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait(HANG_S)
    left = list_objects(url)
    assert 0 < len(left) < 61
    assert set(left.values()) == {1 << 20}, "no object is half written"
    with pytest.raises(BadInput, match=r"has no manifest\.json"):
        download_folder(url, tmp_path / "back")
    assert upload_folder(source, url)
    download_folder(url, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(source)
    assert list_objects(make_bucket()) == {}
