"""Fixtures of rag's tests: a tiny encoder, a small corpus, and the folder of the default embedder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.types import Chunk
from tests.support.object_server import bucket, make_bucket, object_server  # noqa: F401


class TinyEncoder:
    """An encoder that counts hashed words: one token per word, deterministic and fast."""

    name = "tiny"
    dimension = 32

    def __init__(self, max_tokens: int = 60, fingerprint: str = "tiny-1") -> None:
        self.max_tokens = max_tokens
        self.fingerprint = fingerprint
        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self.encoded: list[str] = []

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text).ids)

    def encode(
        self,
        texts: Sequence[str],
        *,
        query: bool = False,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> np.ndarray:
        self.encoded += [] if query else list(texts)
        rows = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in "".join(char if char.isalnum() else " " for char in text.lower()).split():
                row[hashlib.sha256(word.encode()).digest()[0] % self.dimension] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory where the system has one: fsync is fast there, and SIGKILL loses nothing."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    """A new folder in memory, because rag's tests write and sync thousands of files."""
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture
def tiny() -> TinyEncoder:
    return TinyEncoder()


@pytest.fixture
def make_tiny() -> type[TinyEncoder]:
    return TinyEncoder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three small files of three formats."""
    folder = tmp_path / "documents"
    folder.mkdir()
    fares = "# Fares\n\nAn adult single costs 14.50 euros.\n\n## Dogs\n\nDogs travel on deck for 3 euros.\n"
    page = "<h1>Opening hours</h1><p>The office is open from 7 am to 9 pm.</p><p>It is closed on Sundays.</p>"
    table = "Route,Departs,Price\nMoss Line,08:15,6\nHeather Line,09:40,8\n"
    (folder / "fares.md").write_text(fares, encoding="utf-8")
    (folder / "hours.html").write_text(page, encoding="utf-8")
    (folder / "times.csv").write_text(table, encoding="utf-8")
    return folder


@pytest.fixture
def make_chunk() -> Callable[..., Chunk]:
    def make(text: str, doc: str = "a.md", title: str = "A", id: int = 1, **fields: Any) -> Chunk:
        position = {"ordinal": 0, "start": 0, "end": len(text), **fields}
        return Chunk(id=id, doc=doc, title=title, text=text, **position)

    return make


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of all-minilm-l6-v2, downloaded once and cached."""
    from runners.models.resolve import resolve_model

    return resolve_model("all-minilm-l6-v2").folder


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> Any:
    from rag.embedding.embedder import Embedder

    return Embedder(minilm_folder, name="all-minilm-l6-v2")
