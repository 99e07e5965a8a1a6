"""Walking a documents path: every file is accounted for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag.errors import BadInput
from rag.load.walk import load_documents


def test_every_file_is_loaded_or_skipped_with_a_reason(corpus: Path, tmp_path: Path) -> None:
    (corpus / "sub").mkdir()
    (corpus / "sub" / "b.txt").write_text("hello")
    (corpus / ".hidden").write_text("x")
    (corpus / "image.png").write_bytes(b"x")
    (corpus / "empty.md").write_text(" \n")
    (corpus / "latin.txt").write_bytes(b"caf\xe9")
    (corpus / "rows.jsonl").write_text('{"id": "r1", "text": "row"}\n{broken\n')
    outside = tmp_path / "outside.md"
    outside.write_text("secret")
    (corpus / "leaving.md").symlink_to(outside)
    (corpus / "inner.md").symlink_to(corpus / "fares.md")
    os.mkfifo(corpus / "pipe.md")
    loaded = load_documents(corpus)
    assert [d.id for d in loaded.documents] == ["fares.md", "hours.html", "r1", "sub/b.txt", "times.csv"]
    reasons = {s.path: s.reason for s in loaded.skipped}
    assert set(reasons) == {
        ".hidden", "empty.md", "image.png", "inner.md", "latin.txt", "leaving.md", "pipe.md", "rows.jsonl:2",
    }  # fmt: skip
    assert reasons["leaving.md"] == "a link that leaves the folder"
    assert reasons["pipe.md"] == "not a regular file"
    assert "not UTF-8" in reasons["latin.txt"]
    assert loaded.found == 13
    assert loaded == load_documents(corpus)


def test_one_file_may_be_the_documents(corpus: Path) -> None:
    assert [d.id for d in load_documents(corpus / "fares.md").documents] == ["fares.md"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("rows.jsonl", b'{"id": "a", "text": "x"}\n{"id": "b"}\n', "rows.jsonl:2: no 'text' key"),
        ("x.txt", b"\xff", "not UTF-8"),
        ("x.png", b"x", "no loader for .png"),
    ],
)
def test_a_named_file_must_be_readable_as_a_whole(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=said):
        load_documents(tmp_path / name)


def test_nothing_to_load_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load_documents(tmp_path / "no")
    with pytest.raises(BadInput, match="it is empty"):
        load_documents(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(BadInput, match="no loader"):
        load_documents(tmp_path)
