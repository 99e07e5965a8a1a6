"""What is LanceDB's own: URLs, conditions, the lock on S3, errors, IVF_PQ, other BM25 settings, many updates."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from rag.backends.base import backend_class
from rag.backends.copying import copy_index
from rag.backends.files import GenerationReplaced
from rag.backends.lance import storage
from rag.backends.lance.storage import LanceAddress, lance_errors
from rag.backends.lance.tables import numbers_condition, texts_condition
from rag.backends.lance.vectors import VectorIndexSizes, vector_remark, wants_index
from rag.errors import BadInput, CannotRun, Problem, UsageProblem
from rag.index import Index
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.stores.bm25 import BM25Index
from tests.rag.backends.conftest import BuiltSynthetic
from tests.rag.conftest import TinyEncoder


@pytest.mark.parametrize(
    ("url", "uri", "search"),
    [
        ("lancedb:///data/my%20index/", "/data/my index", "auto"),
        ("lancedb:///data/index?search=exact", "/data/index", "exact"),
        ("lancedb+s3://bucket/a/b?search=ivf_pq", "s3://bucket/a/b", "ivf_pq"),
    ],
)
def test_urls(url: str, uri: str, search: str) -> None:
    address = LanceAddress.parse(url)
    assert (address.uri, address.search) == (uri, search)
    assert (address.folder is None) == uri.startswith("s3:")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("lancedb://data/index", "names no folder of this machine"),
        ("lancedb:///", "names no folder of this machine"),
        ("lancedb+s3://bucket", "names no folder in a bucket"),
        ("lancedb+s3://key:secret@bucket/index", "contains credentials"),
        ("lancedb+s3://bucket:9000/index", "credentials or a port"),
        ("lancedb:///data/../etc", "write the whole path"),
        ("lancedb:///data/index?serach=exact", "serach is no parameter"),
        ("lancedb:///data/index?search=hnsw", "search=hnsw is no parameter"),
    ],
)
def test_refused_urls(url: str, said: str) -> None:
    with pytest.raises(UsageProblem, match=said) as error:
        LanceAddress.parse(url)
    assert "secret" not in str(error.value)


def test_conditions() -> None:
    assert numbers_condition("n", []) == "false"
    assert numbers_condition("n", [], inside=False) == "true"
    assert numbers_condition("n", [4, 1, 2, 3, 9, 10]) == "((n >= 1 AND n <= 4) OR (n >= 9 AND n <= 10))"
    assert numbers_condition("n", [4, 1, 7], inside=False) == "n NOT IN (1,4,7)"
    assert texts_condition("t", ["it's", 'a "b"']) == "t IN ('it''s','a \"b\"')"


def test_sizes_of_the_vector_index() -> None:
    assert VectorIndexSizes.of(100_000, 384) == VectorIndexSizes(316, 48)
    assert VectorIndexSizes.of(100, 7) == VectorIndexSizes(10, 1)
    assert [wants_index(rows, "auto") for rows in (100_000, 100_001)] == [False, True]
    assert [wants_index(1000, search) for search in ("exact", "ivf_pq")] == [False, True]
    rejected = {"rejected": {"recall": 0.8, "recall_at": 50, "queries": 64}, "rows": 300}
    assert vector_remark(rejected).startswith("vectors are searched exactly: IVF_PQ found 0.800")


@pytest.mark.parametrize(
    ("text", "said", "kind"),
    [
        (
            "lance error: IO: Status { status: 404, body: <Code>NoSuchBucket</Code>",
            "no such bucket",
            CannotRun,
        ),
        ("Failed to get AWS credentials: ProviderError", "no credentials of S3", CannotRun),
        ("<Code>InvalidAccessKeyId</Code>", "refuses these credentials", CannotRun),
        ("source: hyper_util::Error(Connect, ConnectError(tcp connect error", "cannot be reached", CannotRun),
        ("reqwest::Error { kind: Request, source: TimedOut }", "does not answer", CannotRun),
        ("Os { code: 28, message: No space left on device }", "no space left", CannotRun),
        ("Dataset at path x was not found: version 7", "no longer has all files", BadInput),
        ("something\nunexpected " + "x" * 1000, "LanceDB failed at", CannotRun),
    ],
)
def test_errors_are_one_line(text: str, said: str, kind: type[Problem]) -> None:
    with pytest.raises(kind, match=said) as error, lance_errors(LanceAddress.parse("lancedb:///data/index")):
        raise RuntimeError(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_plain_http_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://storage.example.org")
    with pytest.raises(CannotRun, match="is not encrypted"):
        Index.open("lancedb+s3://bucket/index")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"lancedb://{tmp_path}/index"


def test_a_foreign_folder_is_left_alone(tmp_path: Path, corpus: Path, tiny: TinyEncoder) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"contains thesis\.txt"):
        Index.build(f"lancedb://{tmp_path}/index", corpus, tiny)
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["thesis.txt"]


@pytest.mark.engines
def test_a_foreign_database_is_left_alone(tmp_path: Path, corpus: Path, tiny: TinyEncoder) -> None:
    import lancedb

    lancedb.connect(str(tmp_path / "index")).create_table("mine", [{"a": 1}])
    with pytest.raises(BadInput, match="it has the table mine"):
        Index.build(f"lancedb://{tmp_path}/index", corpus, tiny)


@pytest.mark.engines
def test_ivf_pq_is_refined_and_its_recall_recorded(
    build_synthetic: Callable[[int], BuiltSynthetic], place: str
) -> None:
    built = build_synthetic(4_000)
    report = copy_index(built.folder, f"{place}?search=ivf_pq")
    assert report.recall >= 0.99
    backend = backend_class(place).open(place)
    recorded = dict(backend.vector_index)  # type: ignore[attr-defined]
    assert recorded["kind"] == "ivf_pq"
    assert recorded["recall"] >= 0.99
    selection = backend.select(Query(), datetime.now(UTC).date())
    found = backend.by_vector(built.rows.questions, 50, [selection] * len(built.rows.questions))
    exact = np.argsort(-(built.rows.questions @ built.rows.matrix.T), axis=1, kind="stable")[:, :50] + 1
    assert np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(found, exact, strict=True)]) >= 0.97


@pytest.mark.engines
def test_other_settings_of_bm25_are_exact_too(place: str, tmp_path: Path, tiny: TinyEncoder) -> None:
    draw = np.random.default_rng(3)
    chances = 1 / np.arange(1, 200)
    rows = [
        " ".join(f"w{n}" for n in draw.choice(199, draw.integers(3, 40), p=chances / chances.sum()))
        for _ in range(600)
    ]
    (tmp_path / "documents").mkdir()
    for n, row in enumerate(rows):
        (tmp_path / "documents" / f"d{n:03}.txt").write_text(row)
    settings = IndexSettings(k1=2.0, b=0.3)
    Index.build(place, tmp_path / "documents", tiny, settings)
    index = Index.open(place, tiny)
    texts = [f"d{n:03}.\n{row}" for n, row in enumerate(rows)]
    assert len(index.chunks) == len(rows)
    bm25 = BM25Index.build(texts, 2.0, 0.3)
    every = index.backend.select(Query(), datetime.now(UTC).date())
    for question in ("w1 w2 w3", "w7", "w0 w50 w100 w0 w8"):
        matches = index.backend.by_words(question, 20, every)
        wanted = np.sort(bm25.scores(question))[::-1][:20]
        np.testing.assert_allclose(matches.scores_of(matches.ids), wanted[wanted > 0], atol=1e-5)


@pytest.mark.engines
def test_many_updates_are_tidied_up(place: str, tmp_path: Path, tiny: TinyEncoder) -> None:
    """Files are joined, rows of words are added up, and only two generations stay; the answers are those of a rebuild."""
    documents = tmp_path / "documents"
    documents.mkdir()
    for n in range(20):
        (documents / f"d{n}.md").write_text(f"# D{n}\n\nThe ferry {n} costs {n} euros.")
    Index.build(place, documents, tiny, IndexSettings(max_fragments=3, max_unindexed=4))
    old = Index.open(place, tiny)
    for round in range(7):
        if round == 4:
            time.sleep(1.2)  # files go when they are a second older than the oldest generation that stays
        (documents / f"d{round}.md").write_text(
            f"# D{round}\n\nThe harbour {round} was closed in round {round}."
        )
        Index.update(place, documents, tiny)
    Index.build(tmp_path / "rebuilt", documents, tiny)
    index, rebuilt = Index.open(place, tiny), Index.open(tmp_path / "rebuilt", tiny)
    assert index.generation == 8
    with pytest.raises(GenerationReplaced, match="open the index again"):
        old.search("euros")
    assert index.check()["documents"] == 20
    for question in ("ferry 12", "which harbour was closed in round 3?", "euros"):
        own, expected = (each.search(question, k=20) for each in (index, rebuilt))
        np.testing.assert_allclose([h.lexical for h in own], [h.lexical for h in expected], atol=1e-5)
    record = index.backend._record  # type: ignore[attr-defined]
    assert record.word_rows < 2 * record.distinct_words + 4 + 20
    writer = backend_class(place).writer(place)
    with writer as held:
        assert [r.number for r in held._records] == [7, 8]  # type: ignore[attr-defined]


@pytest.mark.engines
def test_the_lock_on_s3_expires(bucket: str, corpus: Path, tiny: TinyEncoder) -> None:
    url = bucket.replace("s3://", "lancedb+s3://") + "/index"
    writer = backend_class(url).writer(url)
    writer.__enter__()  # never left, as by a killed process
    with pytest.raises(BadInput, match="written by another process") as refusal:
        Index.build(url, corpus, tiny)
    assert "free after 300 s" in refusal.value.hint
    address = storage.LanceAddress.parse(url)
    with (
        pytest.raises(BadInput, match="written by another process"),
        storage.writer_of(replace(address, lock_seconds=600)),
    ):
        pass
    time.sleep(1.1)  # the storage dates objects by the second
    with storage.writer_of(replace(address, lock_seconds=0)) as check_lock:
        check_lock()
    assert Index.build(url, corpus, tiny).generation == 1
