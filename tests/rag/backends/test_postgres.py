"""An index in PostgreSQL with pgvector: filters, updates seen whole, two writers, a killed server, TLS, halfvec."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.backends import SETTINGS, DrawnEncoder, ExactSearch, questions, recalls, write_documents
from rag.backends.build import build_at, build_folder, publish_at, update_at
from rag.backends.files import GenerationReplaced
from rag.backends.postgresql.backend import PostgresBackend
from rag.backends.postgresql.connection import PostgresAddress
from rag.errors import BadInput, CannotRun, Problem
from rag.index import Index
from rag.indexing.build import UpdateOptions
from rag.search.filters import Condition
from rag.search.query import Query
from rag.settings import IndexSettings
from tests.support.postgres_server import PASSWORD, PostgresServer, make_certificates

pytestmark = pytest.mark.engines


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Vectors of builds are kept in a folder of these tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWISE_CACHE", str(folder))
        yield folder


def write_rows(file: Path, count: int, **changes: Any) -> Path:
    """Write rows of documents, one chunk each, with metadata of every kind."""
    rows = [
        {
            "id": f"area{n % 3}/d{n}.md",
            "text": f"Ferry {n} leaves pier {n % 7} at {n % 24} hours. {changes.get(f'd{n}', '')}",
            "tags": ["even", "Pier"] if n % 2 == 0 else ["odd"],
            "price": n,
            "date": f"2026-0{1 + n % 9}",
            **({"valid_until": "2026-01-31"} if n % 10 == 0 else {}),
        }
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


@pytest.fixture
def small(postgres: PostgresServer, tmp_path: Path) -> tuple[str, Path, DrawnEncoder]:
    """An index of 60 documents: its URL, the documents, the encoder."""
    encoder = DrawnEncoder(16)
    documents = write_rows(tmp_path / "documents.jsonl", 60)
    url = postgres.url(f"t{abs(hash(tmp_path))}")
    build_at(url, documents, encoder, SETTINGS)
    return url, documents, encoder


def same_results(a: Index, b: Index, query: Query) -> bool:
    """Whether two indexes give the same hits with the same scores and notes."""
    for question in ("when does ferry 12 leave from pier 5", "who are you", "unheard words"):
        one, other = a.find(question, query), b.find(question, query)
        rows = [
            [(h.chunk, round(h.score, 5), h.lexical, h.expired, dict(h.metadata)) for h in results.hits]
            for results in (one, other)
        ]
        if rows[0] != rows[1] or one.notes != other.notes:
            return False
    return True


QUERIES = [
    Query(k=8),
    Query(expired=True),
    Query(as_of=date(2026, 4, 1)),
    Query(without=("area1/d1.md", "none.md")),
    Query(neighbours=1, per_source=1),
    *(
        Query(where=tuple(map(Condition.parse, texts)))
        for texts in (
            ("tags=PIER",),
            ("tags!=odd",),
            ("price<=20",),
            ("price=20.0",),
            ("price>cheap",),
            ("date>=2026-05",),
            ("doc=area1",),
            ("doc=*7.md",),
            ("title=d?.md",),
            ("tags=even", "price>30"),
            ("tags=none",),
            ("nokey=1",),
            ("tags<3",),
        )
    ),
]


def test_results_and_notes_equal_those_of_files_before_and_after_updates(
    small: tuple[str, Path, DrawnEncoder], tmp_path: Path
) -> None:
    url, documents, encoder = small
    folder = tmp_path / "index"
    Index.build(folder, documents, encoder, SETTINGS)
    files, database = Index.open(folder, encoder), Index.open(url, encoder)
    assert [query for query in QUERIES if not same_results(files, database, query)] == []
    write_rows(documents, 55, d4="It was delayed.", d11="It was delayed.")
    report = update_at(url, documents, encoder)
    assert (report.changed, report.removed, report.embedded, report.generation) == (2, 5, 2, 2)
    assert [q for q in QUERIES if not same_results(files, database, q)] == [], "an open generation is pinned"
    Index.update(folder, documents, encoder)
    newer_files, newer = Index.open(folder, encoder), Index.open(url, encoder)
    assert [query for query in QUERIES if not same_results(newer_files, newer, query)] == []
    assert newer.chunks == newer_files.chunks
    assert newer.check()["chunks"] == 55
    write_rows(documents, 54, d4="It was delayed.", d11="It was delayed.")
    update_at(url, documents, encoder)
    with pytest.raises(GenerationReplaced, match="has been replaced twice"):
        database.find("ferry")
    assert update_at(url, documents, encoder).generation == 3, "nothing changed"
    assert build_at(url, documents, encoder, SETTINGS).embedded == 0, "vectors of the index are used again"
    assert publish_at(url, documents, encoder, SETTINGS).unchanged == 54


@pytest.fixture(scope="module")
def large(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Index]]:
    """An index of 11,000 chunks with HNSW: its URL, and the open index."""
    encoder = DrawnEncoder(48)
    documents = tmp_path_factory.mktemp("large") / "documents"
    write_documents(documents, 11_000, words_of_chunk=12)
    url = postgres.url("large")
    report = build_at(url, documents, encoder, IndexSettings(max_tokens=16, overlap=0.0))
    assert report.remarks[-1].startswith("HNSW index of 11,000 vectors of 48 dimensions as vector: ")
    assert "MiB of the server's memory" in report.remarks[-1]
    index = Index.open(url, encoder)
    yield url, index
    index.close()


def test_filtered_searches_find_what_exact_search_finds(large: tuple[str, Index]) -> None:
    url, index = large
    exact, asked = ExactSearch(index), questions(40)
    shares = recalls(index, exact, asked, 10)
    assert shares["all"] >= 0.99
    assert shares["0.5 %"] == 1
    assert shares["50 %"] >= 0.95
    # the same with filters too wide for a scan: HNSW deeper than asked, and filtered afterwards
    wide = Index(url, PostgresBackend.open(url, exact_chunks=20), index.encoder, None)
    by_hnsw = recalls(wide, exact, asked, 10)
    assert min(by_hnsw.values()) >= 0.95
    wide.close()
    scanned = Index.open(f"{url}&search=exact", index.encoder)
    assert recalls(scanned, exact, asked, 10)["all"] == 1
    scanned.close()


def test_word_matches_under_filters_are_the_best_of_all(large: tuple[str, Index]) -> None:
    url, _ = large
    for limit in (50_000, 20):
        backend = PostgresBackend.open(url, exact_chunks=limit)
        for where in (("tenant=7",), ("half=1",), ("half=1", "tenant!=7")):
            selection = backend.select(Query(where=tuple(map(Condition.parse, where))), date(2026, 1, 1))
            allowed = backend.allowed_ids(selection)
            assert len(allowed) == selection.count
            for question in questions(5):
                matches = backend.by_words(question, 50, selection)
                scores = np.sort(matches.scores_of(allowed))[::-1]
                best = matches.scores_of(matches.ids)
                assert np.array_equal(best, scores[scores > 0][:50])
        backend.close()


def test_readers_see_an_update_whole_or_not_at_all(small: tuple[str, Path, DrawnEncoder]) -> None:
    """A reader opens and searches again and again while another thread publishes; it never mixes two generations."""
    url, documents, encoder = small
    write_rows(documents, 60, **{f"d{n}": "State before" for n in range(60)})
    update_at(url, documents, encoder)
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            index = Index.open(url, encoder)
            try:
                texts = {chunk.text.rpartition(". ")[2].strip() for chunk in index.backend.all_chunks()}
                hits = index.search("when does ferry 12 leave", k=60)
                marks = {hit.chunk.text.rpartition(". ")[2].strip() for hit in hits}
                if len(texts) != 1 or not marks <= texts or not hits:
                    wrong.append((texts, marks))
            except GenerationReplaced:
                pass
            finally:
                index.close()

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(4):
        write_rows(documents, 60, **{f"d{n}": f"State {number}" for n in range(60)})
        update_at(url, documents, encoder)
    done.set()
    reader.join()
    assert not wrong


def test_a_change_that_fails_leaves_nothing(
    postgres: PostgresServer, small: tuple[str, Path, DrawnEncoder]
) -> None:
    """The database refuses the last statement of the change, which deletes old generations."""
    url, documents, encoder = small
    before = Index.open(url, encoder)
    schema = PostgresAddress.parse(url).schema
    body = "begin raise exception 'stopped by a trigger'; end"
    postgres.run(f"create function {schema}.stop() returns trigger language plpgsql as $${body}$$")
    postgres.run(
        f"create trigger stopped before delete on {schema}.generations execute function {schema}.stop()"
    )
    write_rows(documents, 20)
    with pytest.raises(Problem, match="stopped by a trigger"):
        update_at(url, documents, encoder)
    postgres.run(f"drop function {schema}.stop cascade")
    after = Index.open(url, encoder)
    assert (after.generation, after.check()["chunks"]) == (before.generation, 60)
    assert update_at(url, documents, encoder).removed == 40


def test_a_second_writer_is_refused_in_one_line(small: tuple[str, Path, DrawnEncoder]) -> None:
    url, documents, encoder = small
    with PostgresBackend.writer(url), pytest.raises(BadInput, match="is being written by another process"):
        update_at(url, documents, encoder)
    update_at(url, documents, encoder)


def test_another_embedder_is_refused(small: tuple[str, Path, DrawnEncoder]) -> None:
    url, documents, _ = small
    other = DrawnEncoder(8)
    for refused in (lambda: Index.open(url, other), lambda: update_at(url, documents, other)):
        with pytest.raises(BadInput, match="was built with another embedder"):
            refused()


def test_purge_leaves_no_row_of_what_was_removed(
    small: tuple[str, Path, DrawnEncoder], postgres: PostgresServer
) -> None:
    url, documents, encoder = small
    write_rows(documents, 30)
    report = update_at(url, documents, encoder, options=UpdateOptions(purge=True))
    assert "area2/d59.md" in report.gone
    schema = url.partition("index=")[2]
    for table in ("documents", "texts", "chunks", "vectors"):
        assert postgres.run(f"select count(*) from {schema}.{table}_1") == [(30,)]
    assert postgres.run(f"select count(*) from {schema}.removed_1") == [(0,)]
    assert Index.open(url, encoder).check()["documents"] == 30


def test_words_are_counted_again_after_a_new_version(
    small: tuple[str, Path, DrawnEncoder], postgres: PostgresServer
) -> None:
    url, documents, encoder = small
    schema = url.partition("index=")[2]
    postgres.run(
        f"update {schema}.postings_1 set counts = offsets; update {schema}.generations set facts = "
        'replace(facts, \'"made_by":"\', \'"made_by":"0.0.\')'
    )
    write_rows(documents, 59)
    update_at(url, documents, encoder)
    changed = Index.open(url, encoder)
    build_at(url, documents, encoder, SETTINGS)
    rebuilt = Index.open(url, encoder)
    scores = [[hit.lexical for hit in index.search("ferry 12 pier 5", k=10)] for index in (changed, rebuilt)]
    assert scores[0] == scores[1]
    assert scores[0][0] > 0


def test_half_precision_vectors_are_rounded_and_said(postgres: PostgresServer, tmp_path: Path) -> None:
    encoder = DrawnEncoder(32)
    documents = write_rows(tmp_path / "documents.jsonl", 40)
    half, whole = postgres.url("half", vectors="halfvec"), postgres.url("full")
    build_at(half, documents, encoder, SETTINGS)
    build_at(whole, documents, encoder, SETTINGS)
    a, b = Index.open(half, encoder), Index.open(whole, encoder)
    ids = [chunk.id for chunk in a.chunks]
    assert 0 < np.abs(a.vectors(ids) - b.vectors(ids)).max() < 2**-11
    assert [h.chunk.doc for h in a.search("ferry 3", k=3)] == [h.chunk.doc for h in b.search("ferry 3", k=3)]
    assert a.check()["vectors"] == "halfvec"
    write_rows(documents, 39)
    with pytest.raises(BadInput, match="stores vectors as halfvec"):
        update_at(half.replace("vectors=halfvec", "vectors=vector"), documents, encoder)


def test_a_killed_build_goes_on_from_its_vectors(postgres: PostgresServer, tmp_path: Path) -> None:
    encoder, url = DrawnEncoder(16), postgres.url("resumed")
    documents = write_rows(tmp_path / "documents.jsonl", 30)

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "index.writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_at(url, documents, encoder, SETTINGS, interrupt)
    assert build_folder(url).is_dir()
    with pytest.raises(BadInput, match="there is no index"):
        Index.open(url, encoder)
    report = build_at(url, documents, encoder, SETTINGS)
    assert (report.embedded, report.cached) == (0, 30)


def problem_of(action: Callable[[], object]) -> str:
    """Return the text of the problem that an action raises, which is one line without the password."""
    with pytest.raises(Problem) as problem:
        action()
    text = str(problem.value)
    assert "\n" not in text
    assert PASSWORD not in text.replace("secretary", "")
    return text


def test_connection_problems_say_what_to_do(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(url: str) -> str:
        return problem_of(lambda: PostgresBackend.open(url))

    assert "does not exist" in opened(postgres.url("a", database="nowhere"))
    assert "Connection refused" in opened("postgresql://tune@127.0.0.1:9/tunewise")
    assert "does not support SSL" in opened(postgres.url("a", sslmode="require"))
    assert "there is no index" in opened(postgres.url("empty"))
    postgres.run("create schema taken; create table taken.mine (n int)")

    def written(url: str) -> str:
        return problem_of(lambda: PostgresBackend.writer(url).__enter__())

    assert "has other tables" in written(postgres.url("taken"))
    postgres.run("create database bare owner tune", "postgres")
    assert "create extension vector" in written(postgres.url("a", database="bare"))
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "check the user, and the password in PGPASSWORD" in opened(postgres.url("a"))
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    assert "give the password by PGPASSWORD" in opened(postgres.url("a"))


def test_a_killed_server_is_one_line_and_found_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    encoder = DrawnEncoder(16)
    documents = write_rows(tmp_path / "documents.jsonl", 30)
    with PostgresServer() as server:
        url = server.url("desk")
        build_at(url, documents, encoder, SETTINGS)
        index = Index.open(url, encoder)
        index.search("ferry")
        server.kill()
        assert "the connection to" in problem_of(lambda: index.search("ferry"))
        line = [sys.executable, "-m", "advisor", "index", "search", url, "ferry"]
        done = subprocess.run(line, cwd=root, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == CannotRun.exit_code
        assert "Connection refused" in done.stderr
        assert "Traceback" not in done.stderr
        server.start()
        assert index.search("ferry"), "the pool connects again"
        with PostgresBackend.writer(url) as writer:
            server.kill()
            assert "nothing is half written" in problem_of(writer.documents)


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    files = make_certificates(tmp_path)
    with PostgresServer(certificates=files) as server:
        good = server.url("desk", sslmode="verify-full", sslrootcert=str(files["ca"]))
        build_at(good, write_rows(tmp_path / "documents.jsonl", 5), DrawnEncoder(16), SETTINGS)
        assert Index.open(good, DrawnEncoder(16)).search("ferry")
        other_host = good.replace("127.0.0.1", "localhost")
        assert "PGSSLROOTCERT=FILE" in problem_of(lambda: PostgresBackend.open(other_host))
        (tmp_path / "other").mkdir()
        other = make_certificates(tmp_path / "other")
        unknown = good.replace(str(files["ca"]), str(other["ca"]))
        assert "certificate verify failed" in problem_of(lambda: PostgresBackend.open(unknown))
