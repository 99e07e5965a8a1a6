"""A thousand broken files (``--deep``: ten thousand): no traceback, no hang, and each is loaded or skipped."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from rag.loading.reader import LoadedDocuments, load_documents
from rag.loading.sandbox import Limits

BATCH = 500
MAX_SECONDS = 60.0
"""A file that takes longer is the fault that is looked for: the costliest takes a fraction of a second."""


def mutate(data: bytes, seeds: list[bytes], rng: random.Random) -> bytes:
    """Return the bytes with one to three mutations: flips, cuts, zeros, random bytes, parts of another file."""
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(mutated) + 1)
        size = rng.choice([1, 4, 64, 1024])
        kind = rng.randrange(7)
        if kind == 0:
            for _ in range(rng.choice([1, 2, 8, 64])):
                if mutated:
                    mutated[rng.randrange(len(mutated))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del mutated[at:]
        elif kind == 2:
            mutated[at : at + size] = bytes(len(mutated[at : at + size]))
        elif kind == 3:
            mutated[at:at] = rng.randbytes(size)
        elif kind == 4:
            del mutated[at : at + size]
        elif kind == 5:
            other = rng.choice(seeds)
            mutated[at:at] = other[rng.randrange(len(other)) :]
        else:
            part = bytes(mutated[at : at + size])
            mutated[at:at] = part * rng.choice([2, 50])
    return bytes(mutated)


def load_mutated(folder: Path, seeds: dict[str, bytes], numbers: range) -> LoadedDocuments:
    """Write the broken files of these numbers and load the folder."""
    (folder / "valid.md").write_text("text")
    for number in numbers:
        rng = random.Random(number)
        name = rng.choice(list(seeds))
        ending = rng.choice([name[1:]] * 8 + ["", ".txt", ".pdf"])
        data = mutate(seeds[name], list(seeds.values()), rng)
        (folder / f"f{number:06}{ending}").write_bytes(data)
    return load_documents(folder, Limits(seconds=MAX_SECONDS))


def assert_accounted_for(folder: Path, loaded: LoadedDocuments) -> None:
    """Assert that every file is loaded or skipped for a readable reason, and that all offsets are valid."""
    names = {path.name for path in folder.iterdir()}
    reasons = {item.path: item.reason for item in loaded.skipped}
    loaded_from = {document.source for document in loaded.documents}
    rows = {path.rpartition(":")[0] for path in reasons}
    repeating = {
        item.reason.split(" repeats ")[0] for item in loaded.skipped if " repeats the id " in item.reason
    }
    assert names == (loaded_from | set(reasons) | rows | repeating) & names
    assert loaded.total == len(loaded.documents) + len(loaded.skipped)
    assert loaded.total >= len(names)
    bad = {
        path: reason
        for path, reason in reasons.items()
        if any(words in reason for words in ("loader failed", "crashed", "longer than"))
    }
    assert not bad, list(bad.items())[:5]
    assert all(reason.strip() and reason.isprintable() for reason in reasons.values())
    for document in loaded.documents:
        for block in document.blocks:
            assert 0 <= block.start <= block.end <= len(document.raw)
            assert not block.offsets or len(block.offsets) == len(block.text)
        document.raw.encode("utf-8")


def test_thousand_broken_files_are_loaded_or_skipped(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    for start in range(0, 1000, BATCH):
        folder = tmp_path / str(start)
        folder.mkdir()
        loaded = load_mutated(folder, seeds, range(start, start + BATCH))
        assert_accounted_for(folder, loaded)
        kinds = Counter(document.media for document in loaded.documents)
        assert len(kinds) >= 10, kinds
        assert loaded.skipped


@pytest.mark.slow
def test_ten_thousand_broken_files_are_loaded_or_skipped(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    began = time.monotonic()
    for start in range(1000, 11_000, BATCH):
        folder = tmp_path / str(start)
        folder.mkdir()
        assert_accounted_for(folder, load_mutated(folder, seeds, range(start, start + BATCH)))
    print(f"10,000 files in {time.monotonic() - began:.0f} s")
