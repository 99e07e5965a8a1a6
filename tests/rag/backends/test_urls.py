"""URLs of indexes in databases, and what needs no server: refusals, defaults, the folder that stands for a URL, sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.backends.base import (
    BACKEND_FILE,
    check_backend_url,
    is_backend_url,
    shown_url,
    write_backend_file,
)
from rag.backends.build import build_folder
from rag.backends.consent import INDEX_HOSTS, index_location, stored_url
from rag.backends.postgresql.connection import PostgresAddress
from rag.backends.postgresql.filters import date_columns, value_rows
from rag.backends.postgresql.words import Postings, best_rows, posting_rows, scored_matches
from rag.backends.word_scores import CollectionStatistics, WordCounts
from rag.errors import BadInput, UsageProblem
from rag.index import Index
from rag.stores.bm25 import BM25Index, query_words
from rag.stores.capacity import hnsw_bytes
from tests.rag.conftest import TinyEncoder

HOST = "postgresql://tune@db.example.org:5433/desk"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://tune:secret@h/d", "must not contain a password"),
        ("postgresql://tune@h/d?password=secret", "must not contain a password"),
        ("postgresql://tune@h/d?sslpassword=secret", "must not contain sslpassword"),
        ("postgresql://tune@h/d?index=pg_mine", "cannot be the name of an index"),
        ('postgresql://tune@h/d?index=a"b', "cannot be the name of an index"),
        ("postgresql://tune@h/d?vectors=int8", "vectors=int8"),
        ("postgresql://tune@h/d?search=ivf", "search=ivf"),
        ("postgresql://tune@h/d?sllmode=require", "sllmode"),
        ("mysql://h/d", "no backend for an index at mysql://"),
    ],
)
def test_unusable_urls_are_refused_without_repeating_a_secret(url: str, words: str) -> None:
    with pytest.raises(UsageProblem, match=words) as refusal:
        PostgresAddress.parse(url)
    assert "secret" not in str(refusal.value)


def test_a_url_names_index_settings_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    address = PostgresAddress.parse(f"{HOST}?index=fares&vectors=halfvec&search=exact&sslrootcert=/ca.pem")
    assert (address.index, address.vectors, address.search) == ("fares", "halfvec", "exact")
    assert address.shown == f"{HOST}?index=fares"
    parameters = address.parameters
    assert (parameters["host"], parameters["port"], parameters["dbname"]) == (
        "db.example.org",
        "5433",
        "desk",
    )
    assert (parameters["sslmode"], parameters["sslrootcert"]) == ("verify-full", "/ca.pem")
    assert not {"index", "vectors", "search", "password"} & set(parameters)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        (HOST, "verify-full"),
        (f"{HOST}?sslmode=require", "require"),
        ("postgresql://tune@127.0.0.1/d", None),
        ("postgresql://tune@[::1]/d", None),
        ("postgresql://tune@localhost/d", None),
        ("postgresql:///d?host=/run/postgresql", None),
        ("postgresql://tune@localhost,db.example.org/d", "verify-full"),
    ],
)
def test_servers_elsewhere_are_verified_by_default(
    url: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    assert PostgresAddress.parse(url).parameters.get("sslmode") == mode


def test_urls_are_told_from_folders_and_shown_without_parameters() -> None:
    assert is_backend_url(HOST)
    assert not is_backend_url("runs/desk/index")
    assert (
        shown_url("postgresql://tune:secret@h/d?sslmode=require&index=a") == "postgresql://tune@h/d?index=a"
    )
    assert shown_url("runs/desk/index") == "runs/desk/index"
    check_backend_url("lancedb:///srv/index")


def test_builds_at_one_index_share_a_folder_whoever_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path))
    folder = build_folder(f"{HOST}?index=a")
    assert folder.parent == tmp_path / "indexes"
    assert folder == build_folder(f"{HOST.replace('tune@', 'other@')}?sslmode=require&index=a")
    assert folder != build_folder(f"{HOST}?index=b")


def test_a_folder_can_stand_for_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index_location(tmp_path) == tmp_path
    assert stored_url(tmp_path) is None
    write_backend_file(tmp_path, HOST, 3)
    assert stored_url(tmp_path) == HOST
    monkeypatch.setenv(INDEX_HOSTS, "db.example.org")
    assert str(index_location(tmp_path)).startswith(f"{HOST}?sslmode=verify-full&require_auth=scram-sha-256")
    with pytest.raises(UsageProblem, match="is in a database"):
        Index.repair(tmp_path, TinyEncoder)
    (tmp_path / BACKEND_FILE).write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        index_location(tmp_path)


def test_sizes_of_hnsw_indexes_equal_measured_ones() -> None:
    """195 and 112 MiB were measured for 100,000 rows of 384 dimensions as vector and as halfvec."""
    for vectors, measured in (("vector", 195), ("halfvec", 112)):
        assert hnsw_bytes(100_000, 384, vectors) / (1 << 20) == pytest.approx(measured, rel=0.01)
    assert hnsw_bytes(10, 2000) > 10 * 8192


def test_posting_blocks_give_the_scores_of_the_files_index() -> None:
    draw = np.random.default_rng(3)
    texts = [" ".join(f"w{n}" for n in draw.zipf(1.5, 30) % 50) for _ in range(400)] + ["x" * 3000]
    rows = list(posting_rows((id, WordCounts.of(text)) for id, text in enumerate(texts, start=16_200)))
    assert {row.block for row in rows} == {0, 1}
    total = sum(WordCounts.of(text).length for text in texts)
    statistics = CollectionStatistics(len(texts), total, 1.2, 0.75)
    files = BM25Index.build(texts, 1.2, 0.75)
    for question in ("w1 w2 w2 w40", "unknown", f"w3 {'x' * 3000}"):
        ids, scores = scored_matches(query_words(question), rows_of(question, rows), statistics)
        expected_rows, expected = files.matches(question)
        assert np.array_equal(ids - 16_200, expected_rows)
        assert np.array_equal(scores, expected)
        best = best_rows(scores, 5)
        assert np.array_equal(best, np.argsort(-scores, kind="stable")[:5])


def rows_of(question: str, rows: list) -> list:
    from rag.backends.postgresql.words import word_key

    keys = {word_key(word) for word in query_words(question)}
    return [row for row in rows if row.word in keys]


def test_posting_blocks_lose_removed_chunks_and_gain_new_ones() -> None:
    old, new = (next(posting_rows([(id, WordCounts.of("a"))])) for id in (5, 3))
    changed = Postings.read(old).changed(np.array([5]), Postings.read(new))
    assert changed.offsets.tolist() == [3]


def test_rows_of_metadata_cover_items_folders_and_missing_values() -> None:
    metadata = {"tags": ["Ferry", "Pier"], "price": 3, "none": None, "page_starts": [0, 9]}
    fields = {"title": "T", "media": "md", "source": "a/b.md", "metadata": metadata}
    rows = list(value_rows("a/b.md", fields))
    assert [row[1] for row in rows if row[5]] == ["title", "media", "source", "tags", "tags", "price", "doc"]
    assert sum(row[1] == "doc" for row in rows) == 2, "the path and the folder above it"
    assert [row[4] for row in rows if row[1] == "price"] == [3.0]
    assert [row[1:4:2] for row in rows if row[1] == "none"] == [("none", None)]
    assert date_columns({"date": "2026-05", "valid_until": "soon"})[1:] == (False, None, True)
