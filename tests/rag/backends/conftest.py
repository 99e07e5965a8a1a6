"""Places for an index of every kind, and an index of synthetic vectors in each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.backends.copying import copy_index
from rag.index import Index
from rag.stores.bm25 import BM25Index, query_words
from tests.support.limits import HANG_S
from tests.support.object_server import ObjectServer, free_port

KINDS = ("files", "lancedb", "lancedb+s3", "postgresql")
ENGINES = [pytest.param(kind, marks=pytest.mark.engines) for kind in KINDS[1:]]
DIMENSION = 64


@dataclass(frozen=True)
class Places:
    """New places for indexes of one kind."""

    kind: str
    new: Callable[[], str]
    """Returns the folder or URL of an index that is not there yet."""


def make_places(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Places]:
    """Yield the places of a kind; servers run and their environment is set as long as it is used."""
    patch = pytest.MonkeyPatch()
    if kind == "files":
        yield Places(kind, lambda: str(folder / uuid4().hex[:8]))
    elif kind == "lancedb":
        yield Places(kind, lambda: f"lancedb://{folder}/{uuid4().hex[:8]}")
    elif kind == "lancedb+s3":
        server: ObjectServer = request.getfixturevalue("object_server")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        from rag.object_storage import filesystem

        bucket = f"bucket-{uuid4().hex[:12]}"
        filesystem(f"s3://{bucket}")[0].mkdir(bucket)
        yield Places(kind, lambda: f"lancedb+s3://{bucket}/{uuid4().hex[:8]}")
    else:
        postgres = request.getfixturevalue("postgres")
        yield Places(kind, lambda: postgres.url(index=f"i{uuid4().hex[:8]}"))
    patch.undo()


@pytest.fixture(scope="module", params=[KINDS[0], *ENGINES])
def places(request: pytest.FixtureRequest, memory: Path) -> Iterator[Places]:
    """Places of each kind in turn; all but index folders are engines."""
    yield from make_places(request.param, request, Path(tempfile.mkdtemp(dir=memory)))


@pytest.fixture(autouse=True, scope="module")
def build_cache(memory: Path) -> Iterator[None]:
    """Builds at URLs keep their vectors in a folder of the tests, not of the user."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TUNEWISE_CACHE", tempfile.mkdtemp(dir=memory))
    yield
    patch.undo()


class Synthetic:
    """Rows whose vectors are given: clusters as of embeddings, and words of a natural frequency (Zipf)."""

    name, dimension, max_tokens, fingerprint = "synthetic", DIMENSION, 60, "synthetic-1"

    def __init__(self, rows: int) -> None:
        draw = np.random.default_rng(7)
        centres = draw.standard_normal((200, DIMENSION))
        self.matrix = self._near(centres[draw.integers(0, 200, rows)], draw)
        self.questions = self._near(centres[draw.integers(0, 200, 40)], draw)
        words = 1 / np.arange(1, 3001)
        spelled = draw.choice(3000, (rows, 12), p=words / words.sum())
        self.texts = [f"item{n} " + " ".join(f"w{word}" for word in row) for n, row in enumerate(spelled)]
        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

    @staticmethod
    def _near(centres: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        near = (centres + 0.9 * draw.standard_normal(centres.shape)).astype(np.float32)
        return near / np.linalg.norm(near, axis=1, keepdims=True)

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> np.ndarray:
        return np.stack([self.matrix[int(re.findall(r"item(\d+)", text)[0])] for text in texts])

    def write(self, file: Path) -> None:
        """Write the rows as documents; a tenant has 0.5 % of them, a half 50 %."""
        rows = [
            {"id": f"r{n:05d}", "title": "Row", "text": text, "tenant": f"t{n % 200}", "half": n % 2}
            for n, text in enumerate(self.texts)
        ]
        file.write_text("\n".join(map(json.dumps, rows)), "utf-8")

    @cached_property
    def bm25(self) -> BM25Index:
        """The words of the rows as they are embedded."""
        return BM25Index.build([f"Row.\n{text}" for text in self.texts], 1.2, 0.75)

    @cached_property
    def word_questions(self) -> list[str]:
        """Questions of one to nine words of the rows; the first words repeat."""
        spelled = [self.texts[n * 37].split()[1:] for n in range(27)]
        questions = [" ".join([*row[: 1 + n % 9], row[0]]) for n, row in enumerate(spelled)]
        assert all(query_words(question) for question in questions)
        return questions


@dataclass(frozen=True)
class BuiltSynthetic:
    """The index folder of synthetic rows."""

    folder: Path
    rows: Synthetic


@pytest.fixture(scope="session")
def build_synthetic(memory: Path) -> Callable[[int], BuiltSynthetic]:
    """The function that builds an index folder of so many synthetic rows, once for each number."""
    built: dict[int, BuiltSynthetic] = {}

    def build(rows: int) -> BuiltSynthetic:
        if rows not in built:
            folder = Path(tempfile.mkdtemp(dir=memory))
            synthetic = Synthetic(rows)
            synthetic.write(folder / "rows.jsonl")
            Index.build(folder / "index", folder / "rows.jsonl", synthetic)
            built[rows] = BuiltSynthetic(folder / "index", synthetic)
        return built[rows]

    return build


@pytest.fixture(scope="module")
def synthetic(
    places: Places, build_synthetic: Callable[[int], BuiltSynthetic]
) -> Iterator[tuple[Index, Synthetic]]:
    """An index of synthetic rows of each kind: built in a folder, elsewhere copied from there."""
    built = build_synthetic(4_000 if places.kind == "files" else 12_000)
    location = str(built.folder)
    if places.kind != "files":
        location = places.new()
        report = copy_index(built.folder, location)
        assert (report.chunks, report.vectors) == (len(built.rows.texts), "equal")
        assert report.recall >= 0.99
    index = Index.open(location, built.rows)
    yield index, built.rows
    index.close()


class OwnObjectServer:
    """An S3 server with one bucket that a test may kill; what it holds is in its memory."""

    bucket = "lost-bucket"

    def __init__(self) -> None:
        self.port = free_port()

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = Path(sys.executable).with_name("moto_server")
        line = [sys.executable, str(program), "-H", "127.0.0.1", "-p", str(self.port)]
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(line, stdin=null, stdout=null, stderr=null)
        until = time.monotonic() + HANG_S
        while time.monotonic() < until:
            try:
                httpx.put(f"http://127.0.0.1:{self.port}/{self.bucket}", timeout=5).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError("moto's server did not answer")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait(HANG_S)


@pytest.fixture
def own_object_server(
    object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OwnObjectServer]:
    """Such a server; the environment names it."""
    server = OwnObjectServer()
    environment = {**object_server.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    server.start()
    yield server
    server.kill()
