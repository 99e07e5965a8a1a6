"""Gold documents that questions name in another form than the documents have."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.errors import BadInput
from rag.evaluation.gold_documents import match_documents, require_match
from rag.loading.reader import list_document_ids, load_documents

QUESTIONS = Path("questions.jsonl")


@pytest.mark.parametrize(
    ("name", "documents", "id"),
    [
        ("wifi.md", ["wifi.md", "a/wifi.md"], "wifi.md"),
        ("files/wifi.md", ["wifi.md", "vpn.md"], "wifi.md"),
        ("wifi.md", ["docs/wifi.md", "docs/vpn.md"], "docs/wifi.md"),
        ("a/b/x.md", ["x.md", "b/x.md"], "b/x.md"),
        ("files\\b\\x.md", ["b/x.md"], "b/x.md"),
        ("./x.md", ["x.md"], "x.md"),
        ("wifi", ["docs/wifi.md", "docs/vpn.md"], "docs/wifi.md"),
        ("files/wifi.html", ["wifi.md"], "wifi.md"),
        ("wifi.md", ["a/wifi.md", "b/wifi.md"], None),
        ("wifi", ["wifi.md", "wifi.pdf"], None),
        ("fi.md", ["wifi.md"], None),
        ("v1.2", ["v1.3"], None),
        ("hotel_02", ["hotel_01", "hotel_03"], None),
        ("", ["wifi.md"], None),
    ],
)
def test_a_name_means_the_one_document_with_its_end(name: str, documents: list[str], id: str | None) -> None:
    """Folder by folder, in either direction; the file ending counts unless only one document is left without it."""
    match = match_documents([name], documents)
    assert match.ids.get(name) == id
    assert match.unmatched == (() if id else (name,))


def test_lines_say_how_names_were_understood() -> None:
    """With the counts of each way, and an example."""
    match = match_documents(["files/a.pdf", "files/b.pdf", "c.md", "gone.md"], ["a.pdf", "b.pdf", "c.md"])
    renamed, missing = match.lines(QUESTIONS)
    assert renamed == (
        "questions.jsonl: 2 of 4 doc_ids are written differently in the documents: 2 match without 'files/' "
        "(files/a.pdf is a.pdf)"
    )
    assert "1 of 4 doc_ids are not among the documents" in missing
    assert "gone.md" in missing
    assert match_documents(["c.md"], ["c.md"]).lines(QUESTIONS) == []
    require_match(match, QUESTIONS, "docs")


def test_names_of_which_none_is_a_document_are_refused() -> None:
    """With some of both."""
    match = match_documents(["p1", "p2", "p3", "p4"], ["wifi.md", "vpn.md"])
    with pytest.raises(BadInput, match="none of 4 doc_ids is among the documents of docs") as refused:
        require_match(match, QUESTIONS, "docs")
    assert "p1, p2, p3, ...; the documents are vpn.md, wifi.md, ..." in refused.value.message
    require_match(match_documents([], ["wifi.md"]), QUESTIONS, "docs")


def test_ids_are_listed_without_parsing(tmp_path: Path) -> None:
    """They are those that loading gives, for files in folders and for rows."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.md").write_text("# X\n\nText.\n", "utf-8")
    (tmp_path / "y.html").write_text("<p>Words of y.</p>", "utf-8")
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "r1", "text": "One."}\n{"id": 2, "text": "Two."}\n\nbroken\n', "utf-8"
    )
    loaded = {document.id for document in load_documents(tmp_path).documents}
    assert set(list_document_ids(tmp_path)) == loaded == {"a/x.md", "y.html", "r1", "2"}
    assert list_document_ids(tmp_path / "rows.jsonl") == ("r1", "2")
    assert list_document_ids(tmp_path / "y.html") == ("y.html",)
