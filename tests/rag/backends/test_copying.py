"""Copies of an index: nothing is embedded, everything is compared, differences are errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.backends import copying
from rag.backends.copying import copy_index
from rag.errors import BadInput, UsageProblem
from rag.index import Index

pytestmark = pytest.mark.engines


@pytest.fixture
def source(tmp_path: Path, corpus: Path, tiny) -> Path:
    (corpus / "long.md").write_text("# " + "A title of many words " * 30 + "\n\n## Under\n\nA short text.\n")
    Index.build(tmp_path / "source", corpus, tiny)
    return tmp_path / "source"


def test_a_copy_is_equal_and_goes_on(source: Path, tmp_path: Path, corpus: Path, tiny) -> None:
    url, further = f"lancedb://{tmp_path}/one", f"lancedb://{tmp_path}/two"
    events: list[dict] = []
    tiny.encoded.clear()
    report = copy_index(source, url, events.append)
    assert not tiny.encoded
    assert (report.vectors, report.recall, report.generation) == ("equal", 1.0, 1)
    assert {event["event"] for event in events} == {"copy.read", "copy.written", "copy.verified"}
    assert copy_index(url, further).chunks == report.chunks
    own, copied = Index.open(source, tiny), Index.open(further, tiny)
    assert own.chunks == copied.chunks
    assert [hit.to_json() for hit in own.search("adult single")] == [
        hit.to_json() for hit in copied.search("adult single")
    ]
    (corpus / "new.md").write_text("# New\n\nA new pier.\n")
    update = Index.update(further, corpus, tiny)
    assert (update.added, update.unchanged, update.embedded) == (1, 4, 1)
    ids = [chunk.id for chunk in Index.open(further).chunks]
    assert len(set(ids)) == len(ids)


def test_an_index_is_replaced_only_on_request(source: Path, tmp_path: Path) -> None:
    url = f"lancedb://{tmp_path}/one"
    copy_index(source, url)
    with pytest.raises(BadInput, match="has an index already"):
        copy_index(source, url)
    assert copy_index(source, url, overwrite=True).generation == 2
    with pytest.raises(UsageProblem, match="source and target"):
        copy_index(url, url)


def test_an_interrupted_copy_leaves_no_generation(source: Path, tmp_path: Path, monkeypatch) -> None:
    url = f"lancedb://{tmp_path}/one"

    def interrupt(event: dict) -> None:
        if event["event"] == "copy.written":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_index(source, url, interrupt)
    from rag.backends.lance import writer

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer.LancePublication, "_versions", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_index(source, url)
    with pytest.raises(BadInput, match="there is no index"):
        Index.open(url)
    monkeypatch.undo()
    assert copy_index(source, url).generation == 1


@pytest.mark.parametrize("damage", ["vector", "text", "document", "words"])
def test_differences_are_errors(source: Path, tmp_path: Path, damage: str, monkeypatch) -> None:
    """What is written is changed on its way; the comparison must say so."""
    real = copying._read

    def changed(*given):
        change = real(*given)
        first = change.rows.chunks_in[0]
        if damage == "vector":
            vector = change.vectors[first.embedded].copy()
            vector[0] = np.nextafter(vector[0], np.float32(2))
            return replace(change, vectors={**change.vectors, first.embedded: vector})
        if damage == "words":
            return replace(change, texts={**change.texts, first.embedded: "other words altogether"})
        if damage == "text":
            other = copying.StoredChunk(replace(first.chunk, text="another"), first.embedded, first.sha256)
            rows = replace(change.rows, chunks_in=(other, *change.rows.chunks_in[1:]))
        else:
            document = replace(change.rows.documents_in[0], raw="another")
            rows = replace(change.rows, documents_in=(document, *change.rows.documents_in[1:]))
        return replace(change, rows=rows)

    monkeypatch.setattr(copying, "_read", changed)
    said = {
        "vector": "the vector of chunk 1",
        "text": "differs",
        "document": "the document",
        "words": "by words",
    }
    with pytest.raises(BadInput, match=said[damage]):
        copy_index(source, f"lancedb://{tmp_path}/one")
