"""Loading a documents path: every file is accounted for, and nothing outside the folder is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rag.errors import BadInput
from rag.loading.base import printable
from rag.loading.reader import KnownFile, LoadedDocuments, load_documents
from rag.loading.sandbox import Limits


def reasons(loaded: LoadedDocuments) -> dict[str, str]:
    return {item.path: item.reason for item in loaded.skipped}


def test_every_file_is_loaded_or_skipped_with_its_reason(corpus: Path, tmp_path: Path) -> None:
    (corpus / "sub").mkdir()
    (corpus / "sub" / "b.txt").write_text("hello")
    (corpus / ".hidden").write_text("x")
    (corpus / "image.png").write_bytes(b"x")
    (corpus / "empty.md").write_text(" \n")
    (corpus / "nothing.md").write_bytes(b"")
    (corpus / "latin.txt").write_bytes(b"caf\xe9")
    (corpus / "rows.jsonl").write_text('{"id": "r1", "text": "row"}\n{broken\n')
    outside = tmp_path / "outside.md"
    outside.write_text("secret")
    (corpus / "leaving.md").symlink_to(outside)
    (corpus / "inner.md").symlink_to(corpus / "fares.md")
    (corpus / "nowhere.md").symlink_to(corpus / "gone.md")
    os.mkfifo(corpus / "pipe.md")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(corpus / "s.md"))
        loaded = load_documents(corpus)
    assert [d.id for d in loaded.documents] == [
        "fares.md",
        "hours.html",
        "latin.txt",
        "r1",
        "sub/b.txt",
        "times.csv",
    ]
    skipped = reasons(loaded)
    assert set(skipped) == {
        ".hidden",
        "empty.md",
        "image.png",
        "inner.md",
        "leaving.md",
        "nothing.md",
        "nowhere.md",
        "pipe.md",
        "rows.jsonl:2",
        "s.md",
    }
    assert skipped["leaving.md"] == "a link to outside the folder"
    assert skipped["pipe.md"] == skipped["s.md"] == "not a regular file"
    assert loaded.documents[2].metadata == {"encoding": "cp1252"}
    assert loaded.total == 16 == len(loaded.documents) + len(loaded.skipped)
    assert {d.source for d in loaded.documents} >= {"rows.jsonl", "sub/b.txt"}
    assert all(len(d.source_sha256) == 64 for d in loaded.documents)
    assert loaded.remarks == ("not plain UTF-8 (cp1252): 1 document: latin.txt",)


def test_ignored_folders_and_files_are_listed_once(tmp_path: Path) -> None:
    for name in (
        "node_modules/a/b.md",
        ".git/c.md",
        "drafts/d.md",
        "keep/e.md",
        "keep/f.tmp.md",
        "keep/g.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    for name in ("built/h.md", "built.md", "kept.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / ".tunewiseignore").write_text("# ours\ndrafts/\n*.tmp.md\ng.md\n!/kept.md\n")
    (tmp_path / ".gitignore").write_text("/built/\n/built.md\n/kept.md\n")
    (tmp_path / "keep" / ".tunewiseignore").write_text("!g.md\n")
    loaded = load_documents(tmp_path)
    assert [d.id for d in loaded.documents] == ["keep/e.md", "keep/g.md", "kept.md"]
    assert reasons(loaded) == {
        ".git/": "hidden",
        ".gitignore": "hidden",
        ".tunewiseignore": "hidden",
        "built.md": "ignored by .gitignore",
        "built/": "ignored by .gitignore",
        "drafts/": "ignored by .tunewiseignore",
        "keep/.tunewiseignore": "hidden",
        "keep/f.tmp.md": "ignored by .tunewiseignore",
        "node_modules/": "a folder of generated files",
    }


@pytest.mark.parametrize("name", [".gitignore", ".tunewiseignore"])
def test_unreadable_ignore_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.md").write_text("text")
    (tmp_path / name).write_bytes(b"private/\n\xff\xfe\n")
    with pytest.raises(BadInput, match=rf"cannot use .*{name}"):
        load_documents(tmp_path)


def test_links_inside_the_folder_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / ".versions" / "3").mkdir(parents=True)
    (tmp_path / ".versions" / "3" / "a.md").write_text("text")
    (tmp_path / ".versions" / "3" / "up").symlink_to(tmp_path)
    (tmp_path / "current").symlink_to(tmp_path / ".versions" / "3")
    (tmp_path / "again").symlink_to(tmp_path / ".versions" / "3")
    (tmp_path / "self").symlink_to("self")
    loaded = load_documents(tmp_path)
    assert [d.id for d in loaded.documents] == ["again/a.md"]
    skipped = reasons(loaded)
    assert skipped["current/"] == "a folder that was already read under another name"
    assert "link" in skipped["again/up/"]
    assert "self" in skipped


def test_unusual_file_names_become_printable_ids(tmp_path: Path) -> None:
    names = [
        b"new\nline.md",
        b"broken\xff.md",
        b"esc\x1b[31m.md",
        "right\u202eleft.md".encode(),
        b"x" * 252 + b".md",
    ]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("text")  # noqa: PTH118
    ids = [d.id for d in load_documents(tmp_path).documents]
    assert ids == sorted(
        ["new\\x0aline.md", "broken\\xff.md", "esc\\x1b[31m.md", "right\\u202eleft.md", "x" * 252 + ".md"]
    )
    assert all(id.isprintable() for id in ids)
    assert printable("plain/ü.md") == "plain/ü.md"


def test_unreadable_and_too_large_files_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ok.md").write_text("text")
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(2 << 20)
    deep = tmp_path / "deep"
    deep.mkdir()
    monkeypatch.chdir(deep)
    for _ in range(60):
        os.mkdir("d" * 100)  # noqa: PTH102 - deeper than a path may be long
        os.chdir("d" * 100)
    monkeypatch.chdir(tmp_path)
    loaded = load_documents(tmp_path, Limits(file_mib=1))
    skipped = reasons(loaded)
    assert skipped["large.txt"] == "larger than 1 MiB: 2 MiB"
    assert any("cannot be l" in reason for path, reason in skipped.items() if path.startswith("deep/"))
    if os.geteuid():
        (tmp_path / "ok.md").chmod(0)
        with pytest.raises(BadInput, match="Permission denied"):
            load_documents(tmp_path / "ok.md")


def test_single_file_is_loaded(corpus: Path) -> None:
    assert [d.id for d in load_documents(corpus / "fares.md").documents] == ["fares.md"]


def test_unchanged_files_are_not_parsed_again(corpus: Path) -> None:
    first = load_documents(corpus)
    known = {d.source: KnownFile(d.source_sha256) for d in first.documents}
    (corpus / "fares.md").write_text("# Fares\n\nNew.\n")
    second = load_documents(corpus, known=known)
    assert [d.id for d in second.documents] == ["fares.md"]
    assert second.unchanged == ("hours.html", "times.csv")
    assert second.total == first.total
    assert load_documents(corpus, known=known, trusted=known).unchanged == tuple(sorted(known))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b'{"id": "a", "text": "x"}\n{"id": "b"}\n', "rows.jsonl:2: no 'text' key"),
        ("x.txt", b"\xff\xfe\xff", "not text"),
        ("x.png", b"x", "no loader for .png"),
        ("x.pdf", b"%PDF-1.4 rubbish", "not a readable PDF"),
    ],
)
def test_single_file_must_be_readable_as_a_whole(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=message):
        load_documents(tmp_path / name)


def test_path_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        load_documents(tmp_path / "no")
    with pytest.raises(BadInput, match="it is empty"):
        load_documents(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(BadInput, match="no loader"):
        load_documents(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="not a regular file"):
        load_documents(tmp_path / "pipe")
