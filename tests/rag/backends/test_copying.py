"""Copies of an index: nothing is embedded, everything is compared, differences are errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pytest

from rag.backends.copying import copy_index
from rag.backends.lance.storage import LanceAddress, connect_lance
from rag.backends.lance.tables import CHUNKS, DOCUMENTS, GENERATIONS, read_records
from rag.errors import BadInput, UsageProblem
from rag.index import Index
from tests.rag.conftest import TinyEncoder

pytestmark = pytest.mark.engines


@pytest.fixture
def source(tmp_path: Path, corpus: Path, tiny: TinyEncoder) -> Path:
    (corpus / "long.md").write_text("# " + "A title of many words " * 30 + "\n\n## Under\n\nA short text.\n")
    Index.build(tmp_path / "source", corpus, tiny)
    return tmp_path / "source"


def test_a_copy_is_equal_and_goes_on(source: Path, tmp_path: Path, corpus: Path, tiny: TinyEncoder) -> None:
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


def test_an_interrupted_copy_leaves_no_generation(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"lancedb://{tmp_path}/one"

    def interrupt(event: dict) -> None:
        if event["event"] == "copy.written":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_index(source, url, interrupt)

    def killed(table: object, *_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lancedb.table.LanceTable, "create_index", killed)  # when all rows are written
    with pytest.raises(KeyboardInterrupt):
        copy_index(source, url)
    assert {path.name for path in (tmp_path / "one").iterdir()} >= {"chunks.lance", "documents.lance"}
    with pytest.raises(BadInput, match="there is no index"):
        Index.open(url)
    monkeypatch.undo()
    assert copy_index(source, url).generation == 1


def change_rows(url: str, table_name: str, where: str, values: Mapping[str, object]) -> None:
    """Change rows of the newest generation of a LanceDB index."""
    address = LanceAddress.parse(url)
    database = connect_lance(address)
    table = database.open_table(table_name)
    table.update(where=where, values=dict(values))
    record = read_records(database, address)[-1]
    changed = replace(record, versions={**record.versions, table_name: table.version})
    merge = database.open_table(GENERATIONS).merge_insert("number").when_matched_update_all()
    merge.execute(changed.row())


@pytest.mark.parametrize("damage", ["vector", "text", "document", "words"])
def test_differences_are_errors(source: Path, tmp_path: Path, damage: str) -> None:
    """What was written is changed before it is compared; the comparison must say so."""
    url = f"lancedb://{tmp_path}/one"
    vector = Index.open(source).backend.vectors(np.array([1]))[0].copy()
    vector[0] = np.nextafter(vector[0], np.float32(2))

    def change(event: dict) -> None:
        if event["event"] == "copy.verified" and not event["done"]:
            if damage == "vector":
                change_rows(url, CHUNKS, "id = 1", {"vector": vector.tolist()})
            elif damage == "document":
                change_rows(url, DOCUMENTS, "number = 1", {"raw": "another"})
            else:
                changed = {"text": "another"} if damage == "text" else {"words": "other words altogether"}
                change_rows(url, CHUNKS, "id = 1", changed)

    said = {
        "vector": "the vector of chunk 1",
        "text": "differs",
        "document": "the document",
        "words": "by words",
    }
    with pytest.raises(BadInput, match=said[damage]):
        copy_index(source, url, change)
