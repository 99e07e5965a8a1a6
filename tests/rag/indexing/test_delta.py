"""Updates of large indexes: written beside the base, with the results of a new build, and damage is noticed."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.errors import BadInput
from rag.files import sha256_file
from rag.index import Index
from rag.indexing import file_hashes, generations
from rag.indexing.segments import DELTA_FOLDER
from rag.search.filters import Condition
from rag.search.query import Query
from rag.settings import IndexSettings
from tests.rag.conftest import TinyEncoder

QUESTIONS = ("When does ferry 3 leave the harbour?", "a seat in euros", "bicycles bicycles", "dog", "the of")
WORDS = [
    *("ferry", "harbour", "seat", "euros", "bicycle", "dog", "cabin", "night"),
    *("fare", "island", "winter", "summer", "timetable", "luggage", "child"),
]


LARGE = IndexSettings(large_chunks=1, added_share=10)
"""Small indexes take the paths of large ones."""


def write_document(folder: Path, number: int, draw: random.Random) -> None:
    paragraphs = [
        " ".join(draw.choices(WORDS, k=draw.randint(4, 70))) + f" number {number}."
        for _ in range(draw.randint(1, 4))
    ]
    head = f"---\nteam: team{number % 3}\nvalid_until: {'2020' if number % 7 == 0 else '2099'}-01-01\n---\n"
    text = "\n\n".join(f"## Part {n}\n\n{text}" for n, text in enumerate(paragraphs))
    (folder / f"{number}.md").write_text(f"{head}# Ferry {number}\n\n{text}\n")


def change(folder: Path, draw: random.Random, next_number: int) -> int:
    """Change, add and delete a few documents; return the next free number."""
    present = sorted(folder.iterdir())
    for path in draw.sample(present, 2):
        path.write_text(path.read_text() + f"\n\nMore {' '.join(draw.choices(WORDS, k=9))}.\n")
    draw.choice(present).unlink()
    # moved lines change a row, but neither its vector nor its words
    path = draw.choice(sorted(folder.iterdir()))
    path.write_text(path.read_text().replace("\n# ", "\n\n\n# ", 1))
    for _ in range(draw.randint(0, 2)):
        write_document(folder, next_number, draw)
        next_number += 1
    return next_number


def results(index: Index, query: Query) -> list[list[tuple[object, ...]]]:
    """Return place, text and scores of each hit; ids differ between an update and a new build."""
    return [
        sorted(
            (h.chunk.doc, h.chunk.ordinal, h.chunk.text, round(h.dense, 4), round(h.lexical, 4), h.expired)
            for h in found.hits
        )
        for found in index.find_many(QUESTIONS, query)
    ]


QUERIES = (
    Query(k=5),
    Query(k=200),
    Query(k=5, where=(Condition.parse("team=team1"),)),
    Query(k=5, where=(Condition.parse("doc=4.md"),), expired=True),
    Query(k=5, without=("3.md", "8.md")),
    Query(k=3, neighbours=1),
    Query(k=5, where=(Condition.parse("team=nobody"),)),
)


@pytest.mark.parametrize(("store", "rounds"), [("flat", 5), ("ivf", 2)])
def test_updates_give_the_results_of_a_new_build(
    tmp_path: Path, tiny: TinyEncoder, store: str, rounds: int
) -> None:
    draw = random.Random(4)
    documents = tmp_path / "documents"
    documents.mkdir()
    for number in range(40):
        write_document(documents, number, draw)
    next_number = 40
    settings = replace(LARGE, store=store)
    Index.build(tmp_path / "index", documents, tiny, settings)
    for round_number in range(rounds):
        next_number = change(documents, draw, next_number)
        report = Index.update(tmp_path / "index", documents, tiny)
        updated = Index.open(tmp_path / "index", tiny)
        assert (tmp_path / "index" / generations.generation_name(report.generation) / DELTA_FOLDER).is_dir()
        Index.build(tmp_path / f"new{round_number}", documents, tiny, settings)
        rebuilt = Index.open(tmp_path / f"new{round_number}", tiny)
        assert report.chunks == len(updated.chunks) == len(rebuilt.chunks)
        assert updated.backend.facts.documents == rebuilt.backend.facts.documents
        for query in QUERIES:
            assert results(updated, query) == results(rebuilt, query), query
        for question in QUESTIONS:
            own, whole = updated.find(question), rebuilt.find(question)
            assert own.notes == whole.notes
            assert np.allclose(
                [h.lexical for h in own.hits], [h.lexical for h in whole.hits], atol=1e-5, rtol=1e-5
            )
        assert {updated.raw(doc) for doc in updated.backend.document_ids()} == {
            rebuilt.raw(doc) for doc in rebuilt.backend.document_ids()
        }
        assert updated.check()["chunks"] == report.chunks


def test_many_changes_and_purge_write_a_whole_generation(tmp_path: Path, tiny: TinyEncoder) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    draw = random.Random(1)
    for number in range(30):
        write_document(documents, number, draw)
    index = tmp_path / "index"
    Index.build(index, documents, tiny, LARGE)
    change(documents, draw, 30)
    first = Index.update(index, documents, tiny)
    assert (index / generations.generation_name(first.generation) / DELTA_FOLDER).is_dir()
    unchanged = Index.update(index, documents, tiny)
    assert (unchanged.generation, unchanged.chunks) == (first.generation, first.chunks)
    purged = Index.update(index, documents, tiny, purge=True)
    assert (purged.generation, purged.added) == (first.generation + 1, 0)
    assert not (index / generations.generation_name(purged.generation) / DELTA_FOLDER).exists()
    Index.build(index, documents, tiny, replace(LARGE, most_removed=0))
    change(documents, draw, 40)
    whole = Index.update(index, documents, tiny)
    folder = index / generations.generation_name(whole.generation)
    assert not (folder / DELTA_FOLDER).exists()
    Index.build(tmp_path / "new", documents, tiny, LARGE)
    updated, rebuilt = Index.open(index, tiny), Index.open(tmp_path / "new", tiny)
    assert results(updated, Query(k=9)) == results(rebuilt, Query(k=9))
    words = (
        set(json.loads((path / "lexical" / "terms.json").read_text()))
        for path in (folder, tmp_path / "new" / generations.generation_name(1))
    )
    assert next(words) == next(words)


def test_a_pinned_generation_keeps_its_results(tmp_path: Path, tiny: TinyEncoder) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    draw = random.Random(2)
    for number in range(12):
        write_document(documents, number, draw)
    Index.build(tmp_path / "index", documents, tiny, LARGE)
    pinned = Index.open(tmp_path / "index", tiny)
    before = results(pinned, Query(k=9))
    change(documents, draw, 12)
    Index.update(tmp_path / "index", documents, tiny)
    assert results(pinned, Query(k=9)) == before
    change(documents, draw, 20)
    Index.update(tmp_path / "index", documents, tiny)
    with pytest.raises(BadInput, match="replaced twice"):
        results(pinned, Query(k=99))


def test_large_files_are_read_once(tmp_path: Path) -> None:
    def recorded(path: Path) -> str:
        return file_hashes.FileHashes(tmp_path, large_bytes=10).sha256(path)

    large, record = tmp_path / "large", tmp_path / file_hashes.RECORD_FILE
    large.write_bytes(b"x" * 100)
    first = recorded(large)
    assert first == sha256_file(large)
    record.write_text(record.read_text().replace(first, "of the first reading"))
    assert recorded(large) == "of the first reading", "the file is not read again"
    large.write_bytes(b"y" * 100)
    assert recorded(large) == sha256_file(large) != first
    record.write_text("no json")
    assert recorded(large) == sha256_file(large)
    small = tmp_path / "small"
    small.write_bytes(b"z" * 9)
    assert recorded(small) not in record.read_text()


def test_repair_of_a_damaged_delta(tmp_path: Path, tiny: TinyEncoder) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    draw = random.Random(3)
    for number in range(12):
        write_document(documents, number, draw)
    index = tmp_path / "index"
    Index.build(index, documents, tiny, LARGE)
    change(documents, draw, 12)
    report = Index.update(index, documents, tiny)
    before = results(Index.open(index, tiny), Query(k=9))
    removed = index / generations.generation_name(report.generation) / DELTA_FOLDER / "removed.npy"
    data = bytearray(removed.read_bytes())
    data[-1] ^= 1
    removed.write_bytes(bytes(data))
    with pytest.raises(BadInput, match="damaged"):
        Index.open(index, tiny)
    repaired = Index.repair(index, lambda: tiny)
    assert repaired.generation == report.generation + 1
    assert repaired.embedded == 0
    assert results(Index.open(index, tiny), Query(k=9)) == before
