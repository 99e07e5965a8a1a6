"""A damaged index is rejected or repaired, never searched: every file truncated, with a flipped bit, and zeroed."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest

from rag.errors import BadInput, Problem
from rag.index import Index
from rag.settings import IndexSettings
from rag.types import Chunk
from tests.rag.conftest import TinyEncoder

MUTATIONS, DEEP_MUTATIONS = 100, 900
SETTINGS = {
    "flat": IndexSettings(store="flat"),
    "delta": IndexSettings(store="flat", large_chunks=1, added_share=10),
}
QUESTIONS = ("When does ferry 3 leave?", "seat euros", "bicycles", "nothing of the kind")
Answers = tuple[list[list[tuple[Chunk, float, float, float]]], dict[str, str | None]]


@pytest.fixture(scope="module")
def workspace(memory: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture
def documents(workspace: Path) -> Path:
    folder = workspace / "documents"
    if not folder.exists():
        folder.mkdir()
        for n in range(8):
            text = f"# Ferry {n}\n\nIt leaves at {n} o'clock.\n\n## Fares\n\nA seat is {n} euros.\n"
            (folder / f"{n}.md").write_text(text)
    return folder


@pytest.fixture(params=["flat", "delta"])
def intact(request: pytest.FixtureRequest, workspace: Path, documents: Path, tiny: TinyEncoder) -> Path:
    """An index with two generations, the second one written beside the first one's files for "delta"."""
    folder = workspace / f"whole-{request.param}"
    if not folder.exists():
        (documents / "new.txt").unlink(missing_ok=True)
        Index.build(folder, documents, tiny, SETTINGS[request.param])
        (documents / "new.txt").write_text("Bicycles ride free.")
        Index.update(folder, documents, tiny)
    return folder


def answers(folder: Path, tiny: TinyEncoder) -> Answers:
    """Return the hits of all questions and the texts of all documents."""
    index = Index.open(folder, tiny)
    hits = [
        [
            (h.chunk, round(h.score, 6), round(h.dense, 6), round(h.lexical, 6))
            for h in index.search(question, 5)
        ]
        for question in QUESTIONS
    ]
    return hits, {doc: index.raw(doc) for doc in sorted({chunk.doc for chunk in index.chunks})}


def damaged(data: bytes, kind: str, draw: random.Random) -> bytes:
    """Return the bytes truncated, with one byte changed, or with up to 64 bytes zeroed."""
    offset = draw.randrange(len(data))
    if kind == "truncate":
        return data[:offset]
    if kind == "flip":
        return data[:offset] + bytes([data[offset] ^ (1 << draw.randrange(8))]) + data[offset + 1 :]
    return data[:offset] + b"\0" * min(64, len(data) - offset) + data[offset + 64 :]


def mutate(
    intact: Path, documents: Path, workspace: Path, make_tiny: type[TinyEncoder], count: int
) -> tuple[int, int, int]:
    """Damage one file after the other; return how often the index was rejected, repaired, and built again."""
    draw = random.Random(5)
    names = sorted(
        file.relative_to(intact) for file in intact.rglob("*") if file.is_file() and file.stat().st_size
    )
    wanted = answers(intact, make_tiny())
    rejected = repaired = rebuilt = 0
    for n in range(count):
        folder = workspace / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(intact, folder)
        path = folder / names[n % len(names)]
        kind = ("truncate", "flip", "zero")[n // len(names) % 3]
        path.write_bytes(damaged(path.read_bytes(), kind, draw))
        case = f"{kind} of {names[n % len(names)]}"
        try:
            assert answers(folder, make_tiny()) == wanted, case
        except Problem:
            rejected += 1
        try:
            repair = Index.repair(folder, make_tiny)
            repaired += bool(repair.damage)
        except BadInput:
            Index.build(folder, documents, make_tiny(), SETTINGS[intact.name.split("-")[1]])
            rebuilt += 1
            again = answers(folder, make_tiny())
            assert again[1] == wanted[1], case
            assert [[hit[1:] for hit in hits] for hits in again[0]] == [
                [hit[1:] for hit in hits] for hits in wanted[0]
            ], case
        else:
            assert answers(folder, make_tiny()) == wanted, case
        Index.open(folder).check()
    return rejected, repaired, rebuilt


def test_damaged_index_never_returns_wrong_results(
    intact: Path, documents: Path, workspace: Path, make_tiny: type[TinyEncoder]
) -> None:
    rejected, repaired, rebuilt = mutate(intact, documents, workspace, make_tiny, MUTATIONS // 2)
    assert rejected + repaired + rebuilt > MUTATIONS // 4


@pytest.mark.slow
def test_damaged_index_many_more_cases(
    intact: Path, documents: Path, workspace: Path, make_tiny: type[TinyEncoder]
) -> None:
    print(mutate(intact, documents, workspace, make_tiny, DEEP_MUTATIONS // 2))
