"""Durable writes, manifests and the writer lock."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rag import files
from rag.errors import BadInput, CannotRun, system_reason


def test_write_replaces_the_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_json(path, {"b": 1})
    files.write_json(path, {"ä": [1, 2]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ä": [1, 2]}
    assert [child.name for child in path.parent.iterdir()] == ["a.json"]


def test_full_disk_names_path_and_size_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    files.write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CannotRun, match=r"big\.bin.*5000 bytes"):
            files.write_bytes(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_append_line_closes_a_torn_line_first(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    files.append_line(path, {"n": 1})
    with path.open("ab") as stream:
        stream.write(b'{"n": 2, "to')
    files.append_line(path, {"n": 3})
    assert path.read_text().splitlines() == ['{"n": 1}', '{"n": 2, "to', '{"n": 3}']


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "a.txt").unlink(), r"a\.txt is missing"),
        (lambda folder: (folder / "a.txt").write_text("longer than it was"), "bytes"),
        (lambda folder: (folder / "a.txt").write_text("bye"), "SHA-256 of a.txt"),
        (lambda folder: (folder / "new.txt").write_text("x"), r"new\.txt is not listed"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "incomplete"),
    ],
)
def test_check_manifest_detects_changed_files(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    (tmp_path / "a.txt").write_text("hey")
    written = files.write_manifest(tmp_path, "thing", {"extra": 1})
    assert files.check_manifest(tmp_path, "thing") == written
    with pytest.raises(BadInput, match="is a 'thing'"):
        files.check_manifest(tmp_path, "other")
    damage(tmp_path)
    with pytest.raises(BadInput, match=message):
        files.check_manifest(tmp_path, "thing")


def test_check_manifest_accepts_allowed_unlisted_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hey")
    written = files.write_manifest(tmp_path, "thing")
    files.append_line(tmp_path / "events.jsonl", {"event": "x"})
    files.write_text(tmp_path / "index" / "gen" / "a.txt", "hey")
    assert files.check_manifest(tmp_path, "thing", ("events.jsonl", "index")) == written
    with pytest.raises(BadInput, match=r"index/gen/a\.txt is not listed"):
        files.check_manifest(tmp_path, "thing", ("events.jsonl",))


def test_manifest_cannot_list_files_outside_its_folder(tmp_path: Path) -> None:
    entry = {"bytes": 1, "sha256": "x"}
    files.write_json(tmp_path / "manifest.json", {"schema": 1, "kind": "t", "files": {"../a": entry}})
    with pytest.raises(BadInput, match="malformed"):
        files.check_manifest(tmp_path, "t")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write error in vectors.faiss: 90030 != 410112 (No space left on device)"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_full_disk_errors_of_libraries_become_cannot_run(error: Exception) -> None:
    with (
        pytest.raises(CannotRun, match="into somewhere: no space left"),
        files.disk_full_as_problem("somewhere"),
    ):
        raise error
    with pytest.raises(KeyError), files.disk_full_as_problem("somewhere"):
        raise KeyError("another error")


def test_writer_lock_refuses_a_second_writer_with_the_pid(tmp_path: Path) -> None:
    script = (
        "import sys, rag.files as files\n"
        "with files.writer_lock(sys.argv[1]):\n print('held', flush=True); sys.stdin.read()"
    )
    root = str(Path(files.__file__).parents[1])
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match=f"pid {owner.pid}"), files.writer_lock(tmp_path):
            pass
        owner.kill()
        owner.wait()
        with files.writer_lock(tmp_path):
            pass


def test_canonical_json_of_equal_objects_is_equal() -> None:
    assert files.canonical_json({"b": 1, "a": "é"}) == files.canonical_json({"a": "é", "b": 1})


def test_check_manifest_leaves_editable_files_alone(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for name in ("weights/README.md", "weights/model.bin"):
        (tmp_path / name).write_text("first", "utf-8")
    files.write_manifest(tmp_path, "thing", {}, ["weights/README.md", "weights/model.bin"])
    (tmp_path / "weights" / "README.md").write_text("a longer text, edited", "utf-8")
    with pytest.raises(BadInput, match=r"README\.md"):
        files.check_manifest(tmp_path, "thing")
    files.check_manifest(tmp_path, "thing", editable=("README.md",))
    (tmp_path / "weights" / "README.md").unlink()
    files.check_manifest(tmp_path, "thing", editable=("README.md",))
    (tmp_path / "weights" / "model.bin").unlink()
    with pytest.raises(BadInput, match=r"model\.bin is missing"):
        files.check_manifest(tmp_path, "thing", editable=("README.md",))


def test_system_reason_has_no_error_number() -> None:
    assert system_reason(OSError(98, "Address already in use")) == "address already in use"
    assert system_reason(ValueError("not a number")) == "not a number"
