"""What every backend holds to: files, LanceDB in a folder and on S3, PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.backends.base import backend_class
from rag.backends.lance.storage import LanceAddress, writer_of
from rag.errors import BadInput, CannotRun
from rag.files import writer_lock
from rag.grounding.citations import cite
from rag.grounding.refusal import default_threshold
from rag.index import Index, newest_generation
from rag.search.backend import ChunkSelection
from rag.search.filters import Condition
from rag.search.query import Query
from rag.types import Results
from tests.rag.backends.conftest import Places, Synthetic
from tests.rag.conftest import TinyEncoder
from tests.support.limits import HANG_S, wait_until

TODAY = date(2026, 11, 27)
DEPTH = 50
FILTERS = {
    "no filter": (Query(), 0.99),
    "0.5 %": (Query(where=(Condition.parse("tenant=t7"),)), 0.95),
    "50 %": (Query(where=(Condition.parse("half=1"),)), 0.95),
    "without": (Query(without=("r00003", "r00004", "unknown")), 0.99),
}


def _rows(index: Index, selection: ChunkSelection) -> np.ndarray:
    """Return the synthetic rows that a selection allows; ids are in the order of the rows, from 1."""
    ids = index.backend.allowed_ids(selection)
    assert len(ids) == selection.count
    return ids - 1


@pytest.mark.parametrize("name", FILTERS)
def test_the_nearest_vectors_are_found(synthetic: tuple[Index, Synthetic], name: str) -> None:
    index, rows = synthetic
    query, wanted = FILTERS[name]
    selection = index.backend.select(query, TODAY)
    allowed = _rows(index, selection)
    expected = {"no filter": 1.0, "0.5 %": 0.005, "50 %": 0.5, "without": 1 - 2 / len(rows.texts)}[name]
    assert len(allowed) == round(expected * len(rows.texts))
    found = index.backend.by_vector(rows.questions, DEPTH, [selection] * len(rows.questions))
    recalls = []
    for question, ids in zip(rows.questions, found, strict=True):
        nearest = allowed[np.argsort(-(rows.matrix[allowed] @ question), kind="stable")[:DEPTH]]
        assert len(ids) == len(nearest)
        recalls.append(len(np.intersect1d(ids - 1, nearest)) / len(nearest))
        assert np.isin(ids - 1, allowed).all()
    assert np.mean(recalls) >= wanted


@pytest.mark.parametrize("name", FILTERS)
def test_word_scores_are_those_of_bm25(synthetic: tuple[Index, Synthetic], name: str) -> None:
    index, rows = synthetic
    selection = index.backend.select(FILTERS[name][0], TODAY)
    allowed = _rows(index, selection)
    for question in rows.word_questions:
        exact = rows.bm25.scores(question)
        matches = index.backend.by_words(question, DEPTH, selection)
        best = np.sort(exact[allowed])[::-1][:DEPTH]
        # the true best: the same scores rank by rank
        np.testing.assert_allclose(exact[matches.ids - 1], best[best > 0], atol=1e-5)
        others = np.union1d(matches.ids, np.arange(1, 30))
        np.testing.assert_allclose(matches.scores_of(others), exact[others - 1], atol=1e-5)


def test_stored_rows_are_returned_by_id(synthetic: tuple[Index, Synthetic]) -> None:
    index, rows = synthetic
    ids = [5, 3000, 17]
    np.testing.assert_array_equal(index.backend.vectors(np.array(ids)), rows.matrix[np.array(ids) - 1])
    assert [chunk.text for chunk in index.backend.chunks(ids)] == [rows.texts[id - 1] for id in ids]
    for method in (index.backend.chunks, lambda ids: index.backend.vectors(np.array(ids))):
        with pytest.raises((KeyError, BadInput)):  # in a folder it is damage
            method([5, 10**9])
    assert [chunk.doc for chunk in index.backend.chunks_of("r00016")] == ["r00016"]
    assert index.backend.chunks_of("unknown") == []
    assert index.backend.raw("unknown") is None
    assert index.backend.document_ids()[:2] == ("r00000", "r00001")


def test_an_empty_filter_says_why(synthetic: tuple[Index, Synthetic]) -> None:
    index, rows = synthetic
    query = Query(where=(Condition.parse("tenant=nobody"),))
    selection = index.backend.select(query, TODAY)
    assert selection.count == 0
    assert selection.notes[0].startswith("no document has tenant=nobody: the values of tenant are ")
    assert selection.notes[-1] == f"nothing is left to search of {len(rows.texts)} documents"
    assert not len(index.backend.by_vector(rows.questions[:1], DEPTH, [selection])[0])
    assert not len(index.backend.by_words("w1 w2", DEPTH, selection).ids)
    assert index.find("item5 w1", query).hits == ()


DOCUMENTS = {
    "fares.md": "---\ndate: 2025-01-05\ntags: [money]\n---\n# Fares\n\nAn adult single costs 14.50 euros.\n\n"
    "## Dogs\n\nDogs travel on deck for 3 euros.\n",
    "fares-2024.md": "---\ndate: 2024-01-05\nvalid_until: 2024-12-31\ntags: [money]\n---\n# Fares\n\n"
    "An adult single costs 13 euros.\n",
    "summer.md": "---\ndate: 2027-06-01\n---\n# Summer\n\nFrom June the ferry sails every hour.\n",
    "hours.html": "<h1>Opening hours</h1><p>The office is open from 7 am to 9 pm.</p><p>It is closed on Sundays.</p>",
    "times.csv": "Route,Departs,Price\nMoss Line,08:15,6\nHeather Line,09:40,8\nGorse Line,10:20,9\n",
    "rules.md": "# Rules\n\n"
    + "\n\n".join(f"Rule {n}: luggage of {n} bags needs {n} tags." for n in range(30)),
}
QUESTIONS = (
    "What does an adult single cost?",
    "When is the office open on Sundays?",
    "How many tags do 7 bags need?",
    "Which line departs at 09:40?",
    "Does the ferry sell ice cream in Norwegian?",
)
QUERIES = (
    Query(),
    Query(k=3, neighbours=1),
    Query(k=8, per_source=1),
    Query(expired=True),
    Query(as_of=date(2024, 6, 1)),
    Query(where=(Condition.parse("tags=money"), Condition.parse("date>=2025"))),
    Query(where=(Condition.parse("title>5"),)),
    Query(without=("rules.md",), collapse=0.9, lexical_weight=0.7),
)


def _write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def _shown(results: Results) -> list[Any]:
    """Return what a search shows without times and ids; scores to five places."""
    body = results.to_json()
    hits = [{k: round(v, 5) if isinstance(v, float) else v for k, v in hit.items()} for hit in body["hits"]]
    return [hits, body.get("notes")]


def _same_answers(index: Index, other: Index) -> None:
    for query in QUERIES:
        for own, expected in zip(
            index.find_many(QUESTIONS, query), other.find_many(QUESTIONS, query), strict=True
        ):
            assert _shown(own) == _shown(expected)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return _write(tmp_path / "documents", DOCUMENTS)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a test opens."""
    with ExitStack() as stack:
        yield stack


def test_hits_notes_citations_and_refusals_are_those_of_files(
    places: Places, documents: Path, tmp_path: Path, tiny: TinyEncoder, opened: ExitStack
) -> None:
    location = places.new()
    report = Index.build(location, documents, tiny)
    Index.build(tmp_path / "reference", documents, tiny)
    index, reference = (Index.open(place, tiny) for place in (location, tmp_path / "reference"))
    opened.callback(index.close)
    assert (report.added, report.chunks, index.generation) == (6, len(reference.chunks), 1)
    _same_answers(index, reference)
    threshold = default_threshold()
    for question in QUESTIONS:
        own, expected = (place.find(question).hits for place in (index, reference))
        answer = "An adult single costs 14.50 euros. The office is open from 7 am to 9 pm. It sails daily."
        assert [c.to_json() for c in cite(answer, own)] == [c.to_json() for c in cite(answer, expected)]
        decisions = [threshold.decide(question, hits) for hits in (own, expected)]
        assert decisions[0].refuse == decisions[1].refuse
    assert index.check()["chunks"] == report.chunks


def test_an_update_equals_a_rebuild(
    places: Places, documents: Path, tiny: TinyEncoder, opened: ExitStack
) -> None:
    location, rebuilt = places.new(), places.new()
    Index.build(location, documents, tiny)
    before = Index.open(location, tiny)
    opened.callback(before.close)
    old_hits = [_shown(results) for results in before.find_many(QUESTIONS)]
    changed = {
        **DOCUMENTS,
        "fares.md": DOCUMENTS["fares.md"].replace("14.50", "15"),
        "new.md": "# New\n\nA pier.",
    }
    del changed["summer.md"]
    _write(documents, changed)
    report = Index.update(location, documents, tiny)
    assert (report.added, report.changed, report.removed, report.generation) == (1, 1, 1, 2)
    Index.build(rebuilt, documents, tiny)
    after, fresh = (Index.open(place, tiny) for place in (location, rebuilt))
    opened.callback(after.close)
    opened.callback(fresh.close)
    _same_answers(after, fresh)
    assert after.backend.raw("fares.md") == changed["fares.md"]
    assert set(after.backend.document_ids()) == set(changed)
    # what was opened before stays as it was, and says that there is something newer
    assert [_shown(results) for results in before.find_many(QUESTIONS)] == old_hits
    assert (before.generation, before.backend.current_generation()) == (1, 2)
    assert Index.update(location, documents, tiny).embedded == 0
    assert newest_generation(location) == 2


def test_readers_see_an_update_whole_or_not_at_all(
    places: Places, documents: Path, tiny: TinyEncoder
) -> None:
    def write(version: int) -> Path:
        return _write(documents, {f"d{n}.md": f"# D{n}\n\nText of version{version}." for n in range(8)})

    location = places.new()
    Index.build(location, write(0), tiny)
    seen: list[set[str]] = []
    stop = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                index = Index.open(location)
                texts = [chunk.text.split()[-1] for chunk in index.backend.all_chunks()]
                seen.append(set(texts))
                assert len(texts) == 8
                index.close()
        except BaseException as error:
            errors.append(error)

    def read_again(before: int) -> bool:
        return len(seen) > before or bool(errors)

    reader = threading.Thread(target=read)
    reader.start()
    for version in (1, 2, 3):
        Index.update(location, write(version), tiny)
        wait_until(partial(read_again, len(seen)))
    stop.set()
    reader.join(HANG_S)
    assert not errors, errors
    assert seen
    assert all(len(versions) == 1 for versions in seen)


def test_a_second_writer_is_refused(places: Places, documents: Path, tiny: TinyEncoder) -> None:
    location = places.new()
    Index.build(location, documents, tiny)
    holding = writer_lock(location) if places.kind == "files" else backend_class(location).writer(location)
    with holding, pytest.raises(BadInput, match=r"written by another") as refusal:
        Index.update(location, documents, tiny)
    assert "\n" not in str(refusal.value)
    assert Index.update(location, documents, tiny).unchanged == len(DOCUMENTS)


def test_another_embedder_is_refused(
    places: Places, documents: Path, tiny: TinyEncoder, make_tiny: type[TinyEncoder]
) -> None:
    location = places.new()
    Index.build(location, documents, tiny)
    other = make_tiny(fingerprint="other-1")
    for use in (lambda: Index.open(location, other), lambda: Index.update(location, documents, other)):
        with pytest.raises(BadInput, match="was built with another embedder"):
            use()
    assert newest_generation(location) == 1


def test_a_place_without_an_index_is_said(places: Places) -> None:
    location = places.new()
    with pytest.raises(BadInput, match="index") as error:
        Index.open(location)
    assert "build it first" in error.value.hint


_UPDATE = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from tests.rag.conftest import TinyEncoder
from rag.index import Index
import rag.backends.lance.backend, rag.backends.postgresql.backend
print("ready", flush=True)
sys.stdin.readline()
Index.update(sys.argv[1], Path(sys.argv[2]), TinyEncoder())
"""


def _killed_update(location: str, documents: Path, seconds: float) -> None:
    """Start an update in a process of its own and kill it after some time."""
    root = str(Path(__file__).resolve().parents[3])
    command = [sys.executable, "-c", _UPDATE, location, str(documents), root]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.stdin.write("\n")
    child.stdin.flush()
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    child.wait(HANG_S)
    child.stdin.close()
    child.stdout.close()


@pytest.mark.engines
@pytest.mark.parametrize("seconds", [0.03, 0.12])
def test_a_killed_writer_leaves_a_whole_generation(
    places: Places, documents: Path, tiny: TinyEncoder, seconds: float
) -> None:
    location = places.new()
    Index.build(location, documents, tiny)
    before = {chunk.text for chunk in Index.open(location).chunks}
    changed = {
        name: text.replace("euros", "crowns").replace("bags", "trunks") for name, text in DOCUMENTS.items()
    }
    _write(documents, changed)
    _killed_update(location, documents, seconds)
    texts = {chunk.text for chunk in Index.open(location).chunks}
    assert texts == before or not any("euros" in text for text in texts)
    deadline = time.monotonic() + HANG_S
    while True:  # PostgreSQL notices only after a moment that the killed process is gone
        try:
            if places.kind == "lancedb+s3":  # its lock is free when it was not renewed for some time
                with writer_of(replace(LanceAddress.parse(str(location)), lock_seconds=0)):
                    pass
            Index.update(location, documents, tiny)
            break
        except BadInput:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    index = Index.open(location, tiny)
    assert not any("euros" in chunk.text for chunk in index.chunks)
    assert index.check()["chunks"] == len(index.chunks)


@pytest.mark.engines
@pytest.mark.parametrize("kind", ["postgresql", "lancedb+s3"])
def test_a_lost_server_is_one_line(
    kind: str, documents: Path, tiny: TinyEncoder, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Any = request.getfixturevalue("postgres" if kind == "postgresql" else "own_object_server")
    location = server.url(index="lost") if kind == "postgresql" else f"lancedb+s3://{server.bucket}/index"
    Index.build(location, documents, tiny)
    index = Index.open(location, tiny)
    server.kill()
    try:
        for use in (
            lambda: index.find("What does an adult single cost?"),
            lambda: Index.open(location, tiny),
            lambda: Index.update(location, documents, tiny),
        ):
            with pytest.raises(CannotRun) as error:
                use()
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 400
    finally:
        server.start()
    if kind == "postgresql":  # moto holds its objects in memory
        assert Index.open(location, tiny).find("What does an adult single cost?").hits
