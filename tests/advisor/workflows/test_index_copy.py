"""`tunewise index copy`: from a folder to a URL, what is printed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.cli import main
from rag.index import Index
from tests.rag.conftest import TinyEncoder

Capture = pytest.CaptureFixture[str]


def run(*words: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as end:
        main(["index", "copy", *words])
    return int(end.value.code or 0)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index folder of two documents."""
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "fares.md").write_text("# Fares\n\nA single costs 3 euros.\n")
    (documents / "dogs.md").write_text("# Dogs\n\nDogs travel on deck.\n")
    Index.build(tmp_path / "index", documents, TinyEncoder())
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("source", "target", "code", "words"),
    [
        ("index", "folder", 2, "--to folder is no URL"),
        ("index", "mysql://h/d", 2, "no backend for an index at mysql://"),
        ("missing", "lancedb:///nowhere", 3, "missing is not an index"),
        ("index", "lancedb+s3://key:secret@bucket/index", 2, ""),
    ],
)
def test_what_cannot_be_copied_is_said(
    index: Path, capsys: Capture, source: str, target: str, code: int, words: str
) -> None:
    assert run(str(index.parent / source), "--to", target) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert "secret" not in printed.err + printed.out


@pytest.mark.engines
def test_a_copy_is_made_and_said(index: Path, tmp_path: Path, capsys: Capture) -> None:
    url = f"lancedb://{tmp_path}/copy"
    assert run(str(index), "--to", url) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith(
        "copied 2 documents, 2 passages of 32 dimensions, generation 1, "
    )
    assert "all documents and passages equal, all vectors equal" in printed.out
    assert [line.split("] ")[1] for line in printed.err.splitlines()] == ["reading", "writing", "verifying"]
    assert run(str(index), "--to", url) == 3
    assert "has an index already, of 2 chunks" in capsys.readouterr().err
    assert run(str(index), "--to", url, "--overwrite", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == 1
    assert (report["chunks"], report["vectors"], report["generation"]) == (2, "equal", 2)
