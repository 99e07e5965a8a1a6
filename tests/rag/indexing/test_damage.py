"""A damaged index is refused or mended, never answered from: every file, cut short, flipped and zeroed."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest

from rag.errors import BadInput, Problem
from rag.index import Index
from rag.settings import IndexSettings

MUTATIONS, DEEP_MUTATIONS = 300, 900
QUESTIONS = ("When does ferry 3 leave?", "seat euros", "bicycles", "nothing of the kind")
Answers = tuple[list[list[tuple[object, ...]]], dict[str, str | None]]


@pytest.fixture(scope="module")
def place(memory: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture
def documents(place: Path) -> Path:
    folder = place / "documents"
    if not folder.exists():
        folder.mkdir()
        for n in range(8):
            text = f"# Ferry {n}\n\nIt leaves at {n} o'clock.\n\n## Fares\n\nA seat is {n} euros.\n"
            (folder / f"{n}.md").write_text(text)
    return folder


@pytest.fixture(params=["flat", "exact"])
def whole(request: pytest.FixtureRequest, place: Path, documents: Path, tiny) -> Path:
    """An index with two generations."""
    folder = place / f"whole-{request.param}"
    if not folder.exists():
        Index.build(folder, documents, tiny, IndexSettings(store=request.param))
        (documents / "new.txt").write_text("Bicycles ride free.")
        Index.update(folder, documents, tiny)
    return folder


def answers(folder: Path, tiny) -> Answers:
    """Everything that an index says."""
    index = Index.open(folder, tiny)
    found = [
        [
            (h.chunk, round(h.score, 6), round(h.dense, 6), round(h.lexical, 6))
            for h in index.search(question, 5)
        ]
        for question in QUESTIONS
    ]
    return found, {doc: index.raw(doc) for doc in sorted({chunk.doc for chunk in index.chunks})}


def harmed(data: bytes, kind: str, draw: random.Random) -> bytes:
    """Return the bytes truncated, with one byte changed, or with up to 64 bytes zeroed."""
    at = draw.randrange(len(data))
    if kind == "truncate":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    return data[:at] + b"\0" * min(64, len(data) - at) + data[at + 64 :]


def mutate(whole: Path, documents: Path, place: Path, make_tiny, count: int) -> tuple[int, int, int]:
    """Harm one file after the other; return how often it was refused, mended, and built again."""
    draw = random.Random(5)
    names = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.stat().st_size)
    wanted = answers(whole, make_tiny())
    refused = mended = rebuilt = 0
    for n in range(count):
        folder = place / "harmed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / names[n % len(names)]
        kind = ("truncate", "flip", "zero")[n // len(names) % 3]
        path.write_bytes(harmed(path.read_bytes(), kind, draw))
        told = f"{kind} of {names[n % len(names)]}"
        try:
            assert answers(folder, make_tiny()) == wanted, told
        except Problem:
            refused += 1
        try:
            repair = Index.repair(folder, make_tiny)
            mended += bool(repair.damage)
        except BadInput:
            Index.build(folder, documents, make_tiny(), IndexSettings(store=whole.name.split("-")[1]))
            rebuilt += 1
            again = answers(folder, make_tiny())
            assert again[1] == wanted[1], told
            assert [[hit[1:] for hit in hits] for hits in again[0]] == [
                [hit[1:] for hit in hits] for hits in wanted[0]
            ], told
        else:
            assert answers(folder, make_tiny()) == wanted, told
        Index.open(folder).check()
    return refused, mended, rebuilt


def test_damaged_index_never_returns_wrong_results(whole: Path, documents: Path, place: Path, make_tiny) -> None:
    refused, mended, rebuilt = mutate(whole, documents, place, make_tiny, MUTATIONS // 2)
    assert refused + mended + rebuilt > MUTATIONS // 4


@pytest.mark.slow
def test_damaged_index_many_more_cases(whole: Path, documents: Path, place: Path, make_tiny) -> None:
    print(mutate(whole, documents, place, make_tiny, DEEP_MUTATIONS // 2))
