"""A thousand broken files (``--deep``: ten thousand): no traceback, no hang, and every one accounted for."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from rag.loading.reader import LoadedDocuments, load_documents
from rag.loading.sandbox import Limits

BATCH = 500
SLOWEST = 5.0


def broken(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """Return the bytes with one to three mutations: flips, cuts, zeros, foreign bytes, another file's parts."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(made) + 1)
        size = chance.choice([1, 4, 64, 1024])
        kind = chance.randrange(7)
        if kind == 0:
            for _ in range(chance.choice([1, 2, 8, 64])):
                if made:
                    made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del made[at:]
        elif kind == 2:
            made[at : at + size] = bytes(len(made[at : at + size]))
        elif kind == 3:
            made[at:at] = chance.randbytes(size)
        elif kind == 4:
            del made[at : at + size]
        elif kind == 5:
            other = chance.choice(seeds)
            made[at:at] = other[chance.randrange(len(other)) :]
        else:
            part = bytes(made[at : at + size])
            made[at:at] = part * chance.choice([2, 50])
    return bytes(made)


def fuzzed(folder: Path, seeds: dict[str, bytes], numbers: range) -> LoadedDocuments:
    """Write the broken files of these numbers and load the folder."""
    (folder / "valid.md").write_text("text")
    for number in numbers:
        chance = random.Random(number)
        name = chance.choice(list(seeds))
        ending = chance.choice([name[1:]] * 8 + ["", ".txt", ".pdf"])
        data = broken(seeds[name], list(seeds.values()), chance)
        (folder / f"f{number:06}{ending}").write_bytes(data)
    return load_documents(folder, Limits(seconds=SLOWEST))


def check(folder: Path, loaded: LoadedDocuments) -> None:
    """Every file is there at least once, whole or skipped for a reason that a person understands."""
    names = {path.name for path in folder.iterdir()}
    reasons = {item.path: item.reason for item in loaded.skipped}
    loaded_from = {document.source for document in loaded.documents}
    rows = {path.rpartition(":")[0] for path in reasons}
    repeating = {
        item.reason.split(" repeats ")[0] for item in loaded.skipped if " repeats the id " in item.reason
    }
    assert names == (loaded_from | set(reasons) | rows | repeating) & names
    assert loaded.found == len(loaded.documents) + len(loaded.skipped)
    assert loaded.found >= len(names)
    bad = {
        p: r for p, r in reasons.items() if any(w in r for w in ("loader failed", "crashed", "longer than"))
    }
    assert not bad, list(bad.items())[:5]
    assert all(reason.strip() and reason.isprintable() for reason in reasons.values())
    for document in loaded.documents:
        for block in document.blocks:
            assert 0 <= block.start <= block.end <= len(document.raw)
            assert not block.offsets or len(block.offsets) == len(block.text)
        document.raw.encode("utf-8")


def test_a_thousand_broken_files(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    for start in range(0, 1000, BATCH):
        folder = tmp_path / str(start)
        folder.mkdir()
        loaded = fuzzed(folder, seeds, range(start, start + BATCH))
        check(folder, loaded)
        kinds = Counter(document.media for document in loaded.documents)
        assert len(kinds) >= 10, kinds
        assert loaded.skipped


@pytest.mark.slow
def test_ten_thousand_broken_files(tmp_path: Path, seeds: dict[str, bytes]) -> None:
    began = time.monotonic()
    for start in range(1000, 11_000, BATCH):
        folder = tmp_path / str(start)
        folder.mkdir()
        check(folder, fuzzed(folder, seeds, range(start, start + BATCH)))
    print(f"10,000 files in {time.monotonic() - began:.0f} s")
