"""Updates: what is embedded, reused and removed; the vector cache; repair; concurrent readers and writers."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag import files
from rag.embedding.protocol import Encoder
from rag.errors import BadInput, CannotRun
from rag.files import sha256_file, sha256_text, write_manifest
from rag.index import Index, watch_documents
from rag.indexing.build import CutDocuments
from rag.indexing.chunking import Chunker
from rag.indexing.vectors import embed_units
from rag.loading import incremental
from rag.loading.base import CUT_VERSION
from rag.loading.reader import load_documents
from rag.settings import IndexSettings
from rag.stores import vector_cache as caches
from rag.stores.base import stored_class
from rag.stores.exact import ExactStore
from rag.stores.text import TextStore
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent
from rag.version import __version__
from tests.rag.conftest import TinyEncoder


def derived(folder: Path) -> dict[str, bytes]:
    """All bytes of the current generation, but the manifest, which holds its number."""
    current = folder / (folder / "CURRENT").read_text().split()[0]
    files = (file for file in sorted(current.rglob("*")) if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(current)): file.read_bytes() for file in files}


def test_update_embeds_only_new_chunks_of_a_changed_document(tmp_path: Path, tiny: TinyEncoder) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    sections = [f"## Pier {n}\n\nBoat {n} lies here.\n" for n in range(20)]
    (documents / "piers.md").write_text("# Piers\n\n" + "\n".join(sections))
    Index.build(tmp_path / "index", documents, tiny)
    tiny.encoded.clear()
    sections[7] = "## Pier 7\n\nNo boat lies here.\n"
    sections.insert(0, "## Office\n\nOpen daily.\n")
    (documents / "piers.md").write_text("# Piers\n\n" + "\n".join(sections))
    report = Index.update(tmp_path / "index", documents, tiny)
    assert (report.changed, report.chunks, report.embedded) == (1, 21, 2)
    assert sorted(tiny.encoded) == ["Piers > Office.\nOpen daily.", "Piers > Pier 7.\nNo boat lies here."]


class EarlierCut:
    """An engine that gives documents other hashes, as a version did that cut them otherwise."""

    cut = 0

    def read(
        self,
        folder: Path,
        documents: Path | str,
        encoder: Encoder,
        settings: IndexSettings,
        on_event: OnEvent,
    ) -> CutDocuments:
        loaded = load_documents(Path(documents))
        earlier = tuple(replace(doc, sha256=sha256_text(f"2 {doc.sha256}")) for doc in loaded.documents)
        chunker = Chunker(encoder, settings)
        return CutDocuments(replace(loaded, documents=earlier), chunker, Path(documents))

    def embed(
        self, encoder: Encoder, units: Sequence[Sequence[str]], on_event: OnEvent
    ) -> Iterable[np.ndarray]:
        return embed_units(encoder, units, on_event)

    def remarks(self) -> Sequence[str]:
        return ()


def test_update_cuts_again_after_a_change_of_the_chunker(tmp_path: Path, tiny: TinyEncoder) -> None:
    """Files that have not changed too; what is the same keeps its id, and nothing of it is embedded."""
    folder, corpus = tmp_path / "index", tmp_path / "documents"
    corpus.mkdir()
    for name in ("fares", "piers"):  # of a kind that is read in this process
        (corpus / f"{name}.md").write_text(f"# {name}\n\nAll about {name}.\n\n## More\n\nAnd more.\n")
    Index.build(folder, corpus, tiny, engine=EarlierCut())
    state = folder / incremental.SCAN_STATE_FILE
    body = state.read_text().partition("\n")[2].removesuffix("\n")
    assert f'"cut":{CUT_VERSION},' in body
    body = body.replace(f'"cut":{CUT_VERSION},', f'"cut":{CUT_VERSION - 1},')
    state.write_text(f"{sha256_text(body)}\n{body}\n")
    ids = {c.id: c.text for c in Index.open(folder, tiny).chunks}
    report = Index.update(folder, corpus, tiny)
    assert (report.changed, report.unchanged, report.embedded) == (report.found, 0, 0)
    assert {c.id: c.text for c in Index.open(folder, tiny).chunks} == ids
    assert Index.update(folder, corpus, tiny).unchanged == report.found


def test_reverted_change_and_rebuild_use_cached_vectors(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder
) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    text = (corpus / "fares.md").read_text()
    (corpus / "fares.md").write_text(text.replace("14.50", "15.20"))
    assert Index.update(folder, corpus, tiny).embedded == 1
    shutil.rmtree(folder / "gen-000001")
    (corpus / "fares.md").write_text(text)
    report = Index.update(folder, corpus, tiny)
    assert (report.embedded, report.cached) == (0, 1)
    report = Index.build(folder, corpus, tiny, IndexSettings(max_tokens=50))
    assert (report.embedded, report.chunks) == (0, 5)


def test_interrupted_build_resumes_after_the_last_unit(tmp_path: Path, make_tiny: type[TinyEncoder]) -> None:
    size, unit = 1000, 20
    settings = IndexSettings(unit_chars=unit * size)
    rows = [{"id": str(n), "text": f"Boat {n} lies here. {'x' * size}"[:size]} for n in range(2 * unit + 10)]
    (tmp_path / "boats.jsonl").write_text("\n".join(map(json.dumps, rows)))

    class Dying(TinyEncoder):
        def encode(self, texts: Sequence[str], **more: Any) -> np.ndarray:
            if len(self.encoded) >= unit:
                raise KeyboardInterrupt
            return super().encode(texts, **more)

    folder = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        Index.build(folder, tmp_path / "boats.jsonl", Dying(), settings)
    with pytest.raises(BadInput, match="not an index"):
        Index.open(folder)
    report = Index.build(folder, tmp_path / "boats.jsonl", make_tiny(), settings)
    assert (report.embedded, report.cached) == (unit + 10, unit)
    Index.build(tmp_path / "undisturbed", tmp_path / "boats.jsonl", make_tiny(), settings)
    assert derived(folder) == derived(tmp_path / "undisturbed")


def test_vector_cache_survives_damage_and_is_trimmed(tmp_path: Path, tiny: TinyEncoder) -> None:
    texts = [f"{n:064x}" for n in range(9)]
    rows = tiny.encode(texts)
    with VectorCache(tmp_path, "one", 32) as cache:
        cache.put(texts, rows)
        assert all((cache.get(texts)[text] == row).all() for text, row in zip(texts, rows, strict=True))
    with VectorCache(tmp_path, "another", 32) as cache:
        assert cache.get(texts) == {}
    with sqlite3.connect(tmp_path / caches.CACHE_DATABASE) as db:
        db.execute("update vectors set vector = zeroblob(128) where rowid = 3")
    with VectorCache(tmp_path, "one", 32) as cache:
        assert set(cache.get(texts)) == {*texts[:2], *texts[3:]}
        assert cache.check() == (9, 1)
        assert cache.trim(texts[-2:], fewest=2) == 4
        assert set(cache.get(texts)) == set(texts[-4:])
        assert cache.trim(texts[-1:], purge=True) == 3
    (tmp_path / caches.CACHE_DATABASE).write_bytes(b"nonsense" * 1000)
    with VectorCache(tmp_path, "one", 32) as cache:
        assert cache.was_reset
        assert cache.get(texts) == {}


def test_update_does_not_parse_unchanged_files(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = tmp_path / "index"
    (corpus / "rows.jsonl").write_text('{"id": "r1", "text": "One."}\n{"id": 1.5, "text": "No id."}\n')
    first = Index.build(folder, corpus, tiny)
    same = Index.update(folder, corpus, tiny)
    assert (same.found, same.unchanged, same.skipped) == (first.found, 4, first.skipped)
    assert set(incremental.read_scan_state(folder, __version__)) == {
        "fares.md",
        "hours.html",
        "rows.jsonl",
        "times.csv",
    }
    stamp = (corpus / "fares.md").stat()
    Index.update(folder, corpus, tiny, trust_mtime=True)
    (corpus / "fares.md").write_text((corpus / "fares.md").read_text().replace("14.50", "15.20"))
    os.utime(corpus / "fares.md", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert Index.update(folder, corpus, tiny, trust_mtime=True).changed == 0, (
        "as asked: size and time are believed"
    )
    assert Index.update(folder, corpus, tiny).changed == 1
    (folder / incremental.SCAN_STATE_FILE).write_text("nonsense")
    report = Index.update(folder, corpus, tiny)
    assert (report.changed, report.unchanged) == (0, 4)


@pytest.mark.parametrize("large", [False, True])
def test_purge_removes_deleted_text_from_all_files(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder, large: bool
) -> None:
    # the update of a large one that deletes it is written as a delta
    settings = IndexSettings(large_chunks=1) if large else IndexSettings()
    folder = tmp_path / "index"
    (corpus / "secret.txt").write_text("Xylophonequartz lives in Zanzibarstreet.")
    Index.build(folder, corpus, tiny, settings)
    (corpus / "secret.txt").unlink()
    assert Index.update(folder, corpus, tiny).gone == ("secret.txt",)

    def everywhere() -> bytes:
        return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file()).lower()

    assert b"xylophonequartz" in everywhere()
    (removed,) = tiny.encode([text for text in tiny.encoded if "Xylo" in text])
    assert removed.tobytes() in (folder / caches.CACHE_DATABASE).read_bytes()
    report = Index.update(folder, corpus, tiny, purge=True)
    assert (report.generation, report.gone) == (3 if large else 2, ("secret.txt",))
    assert b"xylo" not in everywhere()
    assert b"secret.txt" not in everywhere()
    assert removed.tobytes() not in (folder / caches.CACHE_DATABASE).read_bytes()
    assert [file.name for file in folder.glob("gen-*")] == [f"gen-00000{report.generation}"]
    assert Index.open(folder, tiny).check()["documents"] == 3


def test_generation_record_has_embedder_and_settings(
    corpus: Path, tmp_path: Path, make_tiny: type[TinyEncoder]
) -> None:
    Index.build(tmp_path / "index", corpus, make_tiny())
    with TextStore(tmp_path / "index") as text:
        record = text.record(1)
    assert record is not None
    facts = record.facts
    assert (facts["embedder"], facts["fingerprint"], facts["dimension"]) == ("tiny", "tiny-1", 32)
    assert (facts["settings"]["max_tokens"], facts["settings"]["overlap"]) == (200, 0.25)
    with pytest.raises(BadInput, match=r"tiny-1.*tiny-2") as caught:
        Index.open(tmp_path / "index", make_tiny(fingerprint="tiny-2"))
    assert "tunewise index build" in caught.value.hint


def test_failed_first_build_removes_its_files(
    corpus: Path, tmp_path: Path, make_tiny: type[TinyEncoder]
) -> None:
    class Broken(TinyEncoder):
        def encode(self, texts: Sequence[str], **more: Any) -> np.ndarray:
            raise CannotRun("no memory for the embedder")

    class Wild(TinyEncoder):
        def encode(self, texts: Sequence[str], **more: Any) -> np.ndarray:
            return np.asarray(super().encode(texts, **more) * float("nan"))

    deep = tmp_path / "not" / "there" / "yet"
    (tmp_path / "empty").mkdir()
    for encoder, error in ((Broken(), CannotRun), (Wild(), BadInput)):
        for folder in (deep, tmp_path / "empty"):
            with pytest.raises(error):
                Index.build(folder, corpus, encoder)
    with pytest.raises(BadInput):
        Index.build(deep, tmp_path / "no-documents", make_tiny())
    assert not (tmp_path / "not").exists()
    assert {file.name for file in (tmp_path / "empty").iterdir()} <= {".writer.lock"}
    Index.build(tmp_path / "empty", corpus, make_tiny())
    (corpus / "new.txt").write_text("Bicycles ride free.")
    with pytest.raises(CannotRun):
        Index.update(tmp_path / "empty", corpus, Broken())
    assert Index.open(tmp_path / "empty", make_tiny()).check()["generation"] == 1


@pytest.mark.parametrize("name", ["vectors.faiss", "lexical/terms.npy", "manifest.json"])
def test_repair_restores_files_without_the_embedder(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder, name: str
) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    files_before = derived(folder)
    (folder / "gen-000001" / name).write_bytes(b"damage")

    def never() -> None:
        raise AssertionError("the embedder was asked for")

    with pytest.raises(BadInput, match="damaged") as caught:
        Index.open(folder, tiny)
    assert "--repair" in caught.value.hint
    report = Index.repair(folder, never)  # type: ignore[arg-type]
    assert (report.generation, report.embedded, len(report.damage)) == (2, 0, 1)
    assert derived(folder) == files_before
    assert Index.open(folder, tiny).check()["generations"] == [2]
    assert Index.repair(folder, never).damage == ()  # type: ignore[arg-type]


def test_repair_embeds_vectors_that_are_lost_everywhere(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder, make_tiny: type[TinyEncoder]
) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    files_before = derived(folder)
    (folder / "gen-000001" / "vectors.faiss").unlink()
    (folder / caches.CACHE_DATABASE).unlink()
    with pytest.raises(BadInput, match="another embedder"):
        Index.repair(folder, lambda: make_tiny(fingerprint="tiny-2"))
    assert Index.repair(folder, make_tiny).embedded == 5
    assert derived(folder) == files_before


def test_rebuild_after_damaged_text_reuses_vectors(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    last = Index.open(folder).chunks[-1].id
    (folder / "text.sqlite").write_bytes(b"damage" * 999)
    with pytest.raises(BadInput, match="damaged") as caught:
        Index.repair(folder, lambda: tiny)
    assert "tunewise index build" in caught.value.hint
    report = Index.build(folder, corpus, tiny)
    assert (report.generation, report.embedded, report.cached) == (2, 0, 5)
    assert min(chunk.id for chunk in Index.open(folder).chunks) > last, "ids are never used again"


def test_open_index_is_not_affected_by_updates(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    pinned = Index.open(folder, tiny)
    before = [(hit.chunk, hit.score) for hit in pinned.search("office open", 9)]
    with files.writer_lock(folder), pytest.raises(BadInput, match="pid"):
        Index.update(folder, corpus, tiny)
    with files.writer_lock(folder):
        assert Index.open(folder, tiny).generation == 1
    for n in range(3):
        (corpus / "hours.html").write_text(f"<p>Closed for {n} weeks.</p>")
        Index.update(folder, corpus, tiny)
        assert [(hit.chunk, hit.score) for hit in pinned.search("office open", 9)] == before
    assert not (folder / "gen-000001").exists()
    with pytest.raises(BadInput, match="replaced"):
        pinned.raw("hours.html")


def test_concurrent_readers_see_one_generation_each(
    corpus: Path, tmp_path: Path, make_tiny: type[TinyEncoder]
) -> None:
    folder = tmp_path / "index"
    names = [f"{n}.txt" for n in range(3)]

    def write(version: int) -> None:
        for name in names:
            (corpus / name).write_text(f"Notice {version} of the harbour.")

    write(0)
    Index.build(folder, corpus, make_tiny())
    seen: list[set[str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            hits = Index.open(folder, make_tiny()).search("notice harbour", 3)
            seen.append({hit.chunk.text for hit in hits})

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for version in range(1, 15):
            write(version)
            Index.update(folder, corpus, make_tiny())
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert len(seen) > 10
    assert all(len(texts) == 1 for texts in seen), "never two versions in one answer, never an error"


def test_unwritable_index_raises_one_line_error(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    with pytest.raises(CannotRun, match=r"fares\.md.*[Nn]ot a directory"):
        Index.build(corpus / "fares.md" / "index", corpus, tiny)


def test_documents_can_be_removed_with_every_store(tmp_path: Path, tiny: TinyEncoder) -> None:
    rows = [f'{{"id": "{n}", "text": "Boat {n} lies at pier {n % 7}."}}' for n in range(1100)]
    path = tmp_path / "boats.jsonl"
    path.write_text("\n".join(rows))
    report = Index.build(tmp_path / "index", path, tiny, IndexSettings(store="ivf"))
    assert [m.store for m in report.stores] == ["flat", "ivf"]
    path.write_text("\n".join(rows[:-50]))
    report = Index.update(tmp_path / "index", path, tiny)
    assert (report.removed, report.embedded, report.store, report.stores) == (50, 0, "ivf", ())
    index = Index.open(tmp_path / "index", tiny)
    assert {hit.chunk.doc for hit in index.search("Boat 1099 lies", 60)} <= {str(n) for n in range(1050)}
    assert index.check()["chunks"] == 1050


@pytest.mark.parametrize("older", ["exact", "hnsw", "sq8"])
def test_index_with_a_store_of_0_2_0_is_read_and_written_anew(
    corpus: Path, tmp_path: Path, tiny: TinyEncoder, older: str
) -> None:
    """Its exact vectors are searched; the first update writes them as a flat store and says so."""
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    hits = Index.open(folder, tiny).search("Dogs on board", 3)
    generation = folder / "gen-000001"
    flat = stored_class("flat").load(generation, tiny.dimension)
    exact = ExactStore(tiny.dimension)
    exact.add(flat.ids, flat.vectors(flat.ids))
    exact.save(generation)
    (generation / "vectors.faiss").unlink()
    manifest = json.loads((generation / "manifest.json").read_text("utf-8"))
    names = {*manifest.pop("files"), "ids.npy", "vectors.npy"} - {"vectors.faiss"}
    extra = {**manifest, "store": older, "settings": {**manifest["settings"], "store": older}}
    write_manifest(generation, manifest["kind"], extra, names)
    (folder / "CURRENT").write_text(f"gen-000001 {sha256_file(generation / 'manifest.json')}\n")
    again = Index.open(folder, tiny).search("Dogs on board", 3)
    assert [hit.chunk for hit in again] == [hit.chunk for hit in hits]
    assert [hit.dense for hit in again] == pytest.approx([hit.dense for hit in hits])
    (corpus / "new.txt").write_text("Bicycles ride free.")
    report = Index.update(folder, corpus, tiny)
    assert (report.store, report.added) == ("flat", 1)
    assert report.remarks == (
        f"its vectors were in the store {older}, which is no longer written: they are in flat now",
    )
    assert Index.update(folder, corpus, tiny).remarks == ()
    assert Index.open(folder, tiny).check()["chunks"] == 6


def test_watch_documents_updates_the_index(corpus: Path, tmp_path: Path, tiny: TinyEncoder) -> None:
    folder = tmp_path / "index"
    Index.build(folder, corpus, tiny)
    outcomes: list[object] = []
    actions = iter(["change", "vanish", "return", ""])

    def sleep(seconds: float) -> None:
        assert seconds == 3
        action = next(actions)
        if action == "change":
            (corpus / "new.txt").write_text("Bicycles ride free.")
        elif action == "vanish":
            corpus.rename(tmp_path / "elsewhere")
        elif action == "return":
            (tmp_path / "elsewhere").rename(corpus)

    def on_report(outcome: object) -> bool:
        outcomes.append(outcome)
        return len(outcomes) < 4

    watch_documents(folder, corpus, tiny, on_report, every=3, sleep=sleep)
    first, second, third, fourth = outcomes
    assert (first.indexed, second.added, fourth.indexed) == (0, 1, 0)  # type: ignore[attr-defined]
    assert isinstance(third, BadInput)
