"""Hashes kept between starts: used while a file is unchanged, never after, and computed anew by `models verify`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from rag.errors import BadInput, CannotRun
from runners.models import digests, resolve
from runners.models.fingerprint import fingerprint
from runners.models.resolve import Model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / digests.FOLDER


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file large enough that its hash is kept."""
    file = tmp_path / "weights.bin"
    file.write_bytes(os.urandom(digests.MIN_BYTES))
    return file


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def started(max_kept: int = digests.MAX_KEPT) -> digests.KeptDigests:
    """Return what a new process knows: only what is in the cache folder; files count as settled at once."""
    return digests.KeptDigests(settled_seconds=-1.0, max_kept=max_kept)


def test_unchanged_file_is_not_read_again(cache: Path, large: Path) -> None:
    assert started().file_sha256(large) == sha256(large)
    (kept,) = cache.glob("*.json")
    body = json.loads(kept.read_text("utf-8"))
    kept.write_text(json.dumps(body | {"digest": "of the first start"}), "utf-8")
    second = started()
    assert second.file_sha256(large) == "of the first start", "taken from the cache folder"
    with digests.recomputed():
        assert second.file_sha256(large) == sha256(large)
    assert started().file_sha256(large) == sha256(large), "the wrong one was replaced"


@pytest.mark.parametrize("change", ["content", "content and time restored", "other file", "time", "longer"])
def test_changed_file_is_read_again(cache: Path, large: Path, change: str) -> None:
    process = started()
    before = process.file_sha256(large)
    stat = large.stat()
    time.sleep(0.05)  # more than a tick of the file system's clock
    if change.startswith("content"):
        with large.open("r+b") as stream:
            stream.write(b"\0\1\2\3\4\5\6\7")
        if change.endswith("restored"):
            os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            assert (large.stat().st_size, large.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    elif change == "other file":
        other = large.with_suffix(".new")
        other.write_bytes(os.urandom(stat.st_size))
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(large)
    elif change == "time":
        os.utime(large, ns=(0, 0))
    else:
        large.write_bytes(large.read_bytes() + b"x")
    for kept in (process, started(), started()):
        assert kept.file_sha256(large) == sha256(large)
    assert (sha256(large) == before) == (change == "time")


def test_fresh_and_small_files_are_not_kept(cache: Path, tmp_path: Path) -> None:
    fresh, small = tmp_path / "fresh", tmp_path / "small"
    fresh.write_bytes(os.urandom(digests.MIN_BYTES))
    small.write_bytes(b"x")
    assert [digests.file_sha256(fresh), digests.file_sha256(small)] == [sha256(fresh), sha256(small)]
    assert not cache.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 1}', '{"files": [], "digest": "x"}'])
def test_damaged_kept_hash_is_not_used(cache: Path, large: Path, text: str) -> None:
    started().file_sha256(large)
    (kept,) = cache.glob("*.json")
    kept.write_text(text, "utf-8")
    assert started().file_sha256(large) == sha256(large)


def test_number_of_kept_hashes_is_bounded(cache: Path, large: Path) -> None:
    kept = started(max_kept=3)
    for number in range(6):
        kept.digest(f"name {number}", (large,), lambda: "0")
    assert len(list(cache.glob("*.json"))) == 3


def test_verify_reads_a_folder_again(cache: Path, tiny: Model, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny.folder, tmp_path / "copy")
    assert resolve.verify_model(str(copy)).fingerprint == fingerprint(copy) == tiny.fingerprint
    with pytest.raises(CannotRun, match="is not on this machine"):
        resolve.verify_model("smollm2-135m-instruct")
    with pytest.raises(BadInput, match="unknown model"):
        resolve.verify_model("smollm9")


@pytest.mark.real
def test_verify_finds_damage_that_a_start_would_miss(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept hash says nothing of a disk that changes bytes by itself; reading everything again does."""
    monkeypatch.delenv("TUNEWISE_CACHE")
    whole = resolve.resolve_model("all-minilm-l6-v2")
    folder = shutil.copytree(whole.folder, tmp_path / "cache" / "models" / whole.name)
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    time.sleep(digests.SETTLED_SECONDS + 0.1)  # hashes are kept of files that have settled
    assert resolve.verify_model(whole.name).fingerprint == whole.fingerprint
    file = folder / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\0\1\2")
    good = whole.folder / "model.safetensors"
    for kept in cache.glob("*.json"):  # as if the file still had the state it was hashed in
        body = json.loads(kept.read_text("utf-8"))
        state = [digests.file_states((Path(row[0]),))[0] for row in body["files"]]
        kept.write_text(json.dumps(body | {"files": state}), "utf-8")
    assert resolve.resolve_model(whole.name).fingerprint == whole.fingerprint
    assert sha256(file) != sha256(good)
    with pytest.raises(BadInput, match=r"SHA-256 of model\.safetensors differs"):
        resolve.verify_model(whole.name)
