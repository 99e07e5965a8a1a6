"""Build, update, open, search and check an index with a tiny encoder."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BadInput, CannotRun
from rag.index import Index
from rag.indexing import generations
from rag.settings import IndexSettings
from tests.rag.conftest import TinyEncoder


def derived(folder: Path) -> dict[str, bytes]:
    """Return all bytes of the current generation."""
    current = folder / (folder / "CURRENT").read_text().split()[0]
    return {
        str(file.relative_to(current)): file.read_bytes()
        for file in sorted(current.rglob("*"))
        if file.is_file()
    }


def test_build_search_and_check(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    events: list[dict] = []
    report = Index.build(tmp_path / "index", corpus, tiny, on_event=events.append)
    assert report.to_json() | {"seconds": 0} == {
        "schema": 1,
        "found": 3,
        "indexed": 3,
        "added": 3,
        "changed": 0,
        "removed": 0,
        "unchanged": 0,
        "skipped": [],
        "chunks": 5,
        "embedded": 5,
        "cached": 0,
        "generation": 1,
        "store": "flat",
        "seconds": 0,
    }
    assert [e["event"] for e in events] == ["index.loaded", "index.chunked", "index.published"]
    index = Index.open(tmp_path / "index", tiny)
    assert [c.id for c in index.chunks] == [1, 2, 3, 4, 5]
    best = index.search("Do dogs travel on deck?", 2)
    assert best[0].chunk.text == "Dogs travel on deck for 3 euros."
    assert best[0].score >= best[1].score
    assert best[0].lexical > 0
    assert index.search("dogs on deck", 5, without=["fares.md"])[0].chunk.doc != "fares.md"
    assert len(index.search("dogs", 99)) <= 5
    raw = index.raw("fares.md")
    assert raw is not None
    assert raw[best[0].chunk.start : best[0].chunk.end] == best[0].chunk.text
    assert index.raw("nothing.md") is None
    assert index.check()["chunks"] == 5
    with pytest.raises(BadInput, match="k is 0"):
        index.search("x", 0)
    with pytest.raises(BadInput, match="without an embedder"):
        Index.open(tmp_path / "index").search("x")


def test_build_is_deterministic(corpus: Path, tmp_path: Path, make_tiny: type[TinyEncoder]) -> None:
    for name in ("a", "b"):
        Index.build(tmp_path / name, corpus, make_tiny())
    assert derived(tmp_path / "a") == derived(tmp_path / "b")


def test_update_embeds_only_changed_chunks(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    old = Index.open(folder, tiny)
    assert Index.update(folder, corpus, tiny).generation == 1
    tiny.encoded.clear()
    text = (corpus / "fares.md").read_text()
    (corpus / "fares.md").write_text("Updated in May.\n\n" + text.replace("14.50", "15.20"))
    (corpus / "hours.html").unlink()
    (corpus / "new.txt").write_text("Bicycles ride free.")
    report = Index.update(folder, corpus, tiny)
    assert (report.found, report.added, report.changed, report.removed, report.unchanged) == (3, 1, 1, 1, 1)
    assert report.indexed + report.unchanged + len(report.skipped) == report.found
    assert (report.generation, report.embedded, report.chunks) == (2, len(tiny.encoded), 6)
    assert not any("Dogs" in text for text in tiny.encoded)
    new = Index.open(folder, tiny)
    dogs = {index.generation: next(c for c in index.chunks if "Dogs" in c.text) for index in (old, new)}
    assert dogs[1].id == dogs[2].id
    assert dogs[2].start == dogs[1].start + len("Updated in May.\n\n")
    assert not {c.id for c in new.chunks if "15.20" in c.text} & {c.id for c in old.chunks}
    assert all(hit.chunk.doc != "hours.html" for hit in new.search("office open hours", 9))
    assert old.search("office open")[0].chunk.doc == "hours.html"
    assert new.check()["generation"] == 2


def test_updated_index_equals_rebuilt_index_in_search(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder
) -> None:
    Index.build(tmp_path / "a", corpus, tiny)
    (corpus / "fares.md").write_text("# Fares\n\nDogs pay 4 euros.\n")
    Index.update(tmp_path / "a", corpus, tiny)
    Index.build(tmp_path / "b", corpus, tiny)
    a, b = (Index.open(tmp_path / name, tiny) for name in "ab")
    for question in ("dogs", "office", "moss line departs"):
        hits = [[(h.chunk.text, round(h.score, 6)) for h in index.search(question, 4)] for index in (a, b)]
        assert sorted(hits[0]) == sorted(hits[1])


def test_chunk_ids_are_not_reused_and_two_generations_stay(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder
) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    seen = {c.id for c in Index.open(folder).chunks}
    for n in range(4):
        (corpus / "new.txt").write_text(f"Version {n}.")
        Index.update(folder, corpus, tiny)
        (new,) = {c.id for c in Index.open(folder).chunks if c.doc == "new.txt"}
        assert new not in seen
        seen.add(new)
    Index.build(folder, corpus, tiny)
    assert not {c.id for c in Index.open(folder).chunks} & seen
    assert sorted(file.name for file in folder.glob("gen-*")) == [
        "gen-000005",
        "gen-000006",
    ]
    with sqlite3.connect(folder / "text.sqlite") as db:
        assert db.execute("select count(*) from documents where died <= 5").fetchone() == (0,)


def test_interrupted_update_is_rolled_back(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder, other = tmp_path / "index", tmp_path / "other"
    Index.build(folder, corpus, tiny)
    Index.build(other, corpus, tiny)
    (corpus / "new.txt").write_text("Bicycles ride free.")

    class Dying(TinyEncoder):
        def encode(self, *args: Any, **more: Any) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Index.update(folder, corpus, Dying())
    assert "Bicycles" not in str(Index.open(folder).chunks)
    for index_folder in (folder, other):
        Index.update(index_folder, corpus, tiny)
    assert derived(folder) == derived(other)
    assert Index.open(folder, tiny).check()["generation"] == 2


def test_open_and_update_reject_another_embedder(
    corpus: Path, tmp_path: Path, make_tiny: type[TinyEncoder]
) -> None:
    Index.build(tmp_path / "index", corpus, make_tiny())
    other = make_tiny(fingerprint="tiny-2")
    for use in (
        lambda: Index.open(tmp_path / "index", other),
        lambda: Index.update(tmp_path / "index", corpus, other),
    ):
        with pytest.raises(BadInput, match=r"tiny-1.*tiny-2") as caught:
            use()
        assert "rebuild" in caught.value.hint
    Index.build(tmp_path / "index", corpus, other)
    Index.open(tmp_path / "index", other)


def test_open_rejects_damaged_files(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    for path in [file for file in (folder / "gen-000001").rglob("*") if file.is_file()]:
        intact = path.read_bytes()
        for damaged in (
            intact[:-1],
            intact[: len(intact) // 2] + b"\x7f" + intact[len(intact) // 2 + 1 :],
            b"",
        ):
            if damaged == intact:
                continue
            path.write_bytes(damaged)
            with pytest.raises(BadInput):
                Index.open(folder, tiny)
        path.write_bytes(intact)
    Index.open(folder, tiny).check()
    with sqlite3.connect(folder / "text.sqlite") as db:
        db.execute("update chunks set text = 'Dogs travel free.' where text like 'Dogs%'")
    with pytest.raises(BadInput, match="chunk 2 differs"):
        Index.open(folder, tiny)


def test_open_update_and_build_reject_other_folders(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    with pytest.raises(BadInput, match="not an index"):
        Index.open(tmp_path / "no", tiny)
    with pytest.raises(BadInput, match="nothing to update"):
        Index.update(tmp_path / "no", corpus, tiny)
    with pytest.raises(BadInput, match=r"contains fares\.md"):
        Index.build(corpus, corpus, tiny)
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "CURRENT").write_text("../../etc")
    with pytest.raises(BadInput, match="CURRENT is damaged"):
        Index.open(tmp_path / "index", tiny)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "text.sqlite").write_bytes(
        b"not a database, at all, but long enough to be read" * 50
    )
    with pytest.raises((BadInput, CannotRun)):
        Index.build(tmp_path / "junk", corpus, tiny)


def test_index_can_be_moved(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    Index.build(tmp_path / "index", corpus, tiny)
    moved = (tmp_path / "index").rename(tmp_path / "moved")
    assert Index.open(moved, tiny).search("dogs")
    assert {file.name for file in moved.iterdir()} <= {
        "CURRENT",
        "gen-000001",
        "text.sqlite",
        "vectors.sqlite",
        "sources.json",
        ".writer.lock",
    }
    assert generations.current_generation(moved) == 1


@pytest.mark.parametrize(
    "setting", [{"max_tokens": 3}, {"overlap": 1}, {"fusion": "magic"}, {"lexical_weight": -1}]
)
def test_index_settings_reject_values_out_of_range(setting: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(setting))):
        IndexSettings(**setting)
    assert IndexSettings.from_json(IndexSettings().to_json()) == IndexSettings()
    with pytest.raises(BadInput, match="unknown index setting 'depth'"):
        IndexSettings.from_json({"depth": 1})
