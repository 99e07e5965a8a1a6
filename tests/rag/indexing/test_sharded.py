"""A build by shards without a cluster: equal bytes, what is there is skipped, damage and problems are named."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from rag.errors import BadInput, CannotRun, install_hint
from rag.index import Index
from rag.indexing.build import SHARDS_FOLDER, BuildReport
from rag.indexing.sharded.engine import SameProcess, ShardedBuild
from rag.indexing.sharded.ray_cluster import ActorOptions, RayCluster, fitting_actors
from rag.indexing.sharded.shards import (
    DamagedShard,
    DocumentShard,
    InputFile,
    input_runs,
    vectors_from_bytes,
    vectors_to_bytes,
)
from rag.loading.reader import read_files
from rag.object_storage import put_object
from rag.settings import IndexSettings
from rag.stores.text import TextStore


@dataclass(frozen=True)
class Given:
    """An embedder that is already in this process."""

    encoder: Any
    plain_tokens: ClassVar[bool] = False

    def load(self) -> Any:
        return self.encoder


SMALL_UNITS = IndexSettings(unit_chars=400)


class Interrupted(SameProcess):
    """Stops after some tasks, as if the driver was ended."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.tasks = 0

    def run(
        self, tasks: Sequence[dict[str, Any]], setup: Any, *, embedding: bool
    ) -> Iterator[dict[str, Any]]:
        for result in super().run(tasks, setup, embedding=embedding):
            self.tasks += 1
            yield result
            if self.tasks == self.after:
                raise KeyboardInterrupt


class BatchDependent:
    """An encoder whose vectors depend on the other texts of a batch, as those of a GPU do."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name, self.dimension, self.max_tokens = inner.name, inner.dimension, inner.max_tokens
        self.fingerprint, self.tokenizer, self.count_tokens = (
            inner.fingerprint,
            inner.tokenizer,
            inner.count_tokens,
        )

    def encode(self, texts: Sequence[str], *, query: bool = False, on_event: Any = None) -> np.ndarray:
        rows = self.inner.encode(texts, query=query)
        batch = hashlib.sha256("\n".join(texts).encode()).digest()[0]
        rows[:, 0] += np.float32(0 if query else batch * 1e-4)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def documents(corpus: Path) -> Path:
    """Files of several formats, some skipped, two documents of one id, a text in two places, hidden characters."""
    folder = corpus / "ferries"
    folder.mkdir()
    for n in range(10):
        text = (
            f"# Ferry {n}\n\nIt leaves at {n} o'clock.\n\n## Fares\n\nA seat is {n % 7} euros.\n\n"
            + "Bring a coat. " * 30
        )
        (folder / f"ferry-{n:02d}.md").write_text(text)
    rows = [
        {"id": f"row-{n}", "title": f"Row {n}", "text": f"Quay {n} is open.", "tags": ["quay"]}
        for n in range(12)
    ]
    rows.append({"id": "fares.md", "title": "Again", "text": "The id of a file."})
    lines = [*map(json.dumps, rows), "{broken"]
    (corpus / "quays.jsonl").write_text("\n".join(lines))
    (corpus / "notes.txt").write_text("Bring\u200b a coat. Caf\u00e9 on board.\n", encoding="utf-8")
    (corpus / "latin.txt").write_bytes("Caf\xe9 am Hafen, ge\xf6ffnet.\n".encode("latin-1"))
    (corpus / "front.md").write_text(
        "---\ntitle: Front\ndate: 2026-05-01\nprice: 2.50\n3: three\n---\nWith front matter.\n"
    )
    (corpus / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (corpus / ".hidden.md").write_text("hidden")
    (corpus / ".gitignore").write_text("*.log\n")
    (corpus / "server.log").write_text("ignored")
    return corpus


def contents(index: Path) -> dict[str, bytes]:
    """Every file of an index but the databases, whose rows are compared."""
    files = {path.relative_to(index).as_posix(): path for path in index.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if ".sqlite" not in name and ".writer" not in name
    }


def assert_equal_indexes(one: Path, other: Path) -> None:
    assert contents(one) == contents(other)
    with TextStore(one) as first, TextStore(other) as second:
        assert list(first.dump()) == list(second.dump())


def comparable(report: BuildReport) -> BuildReport:
    """A report without its time and the remark about shards."""
    remarks = tuple(remark for remark in report.remarks if "from before" not in remark)
    return replace(report, seconds=0.0, remarks=remarks)


Sharded = Callable[..., ShardedBuild]


@pytest.fixture
def sharded(tiny: Any) -> Sharded:
    def make(encoder: Any = None, runner: Any = None, **options: Any) -> ShardedBuild:
        options = {"run_files": 3, **options}
        return ShardedBuild(runner or SameProcess(), Given(encoder or tiny), **options)

    return make


@pytest.mark.parametrize("run_files", [1, 3, 1000])
def test_index_of_shards_is_the_local_one_to_the_byte(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded, run_files: int
) -> None:
    local = Index.build(tmp_path / "local", documents, tiny, SMALL_UNITS)
    build = sharded(run_files=run_files)
    report = Index.build(tmp_path / "shards", documents, tiny, SMALL_UNITS, engine=build)
    assert_equal_indexes(tmp_path / "local", tmp_path / "shards")
    assert comparable(report) == comparable(local)
    assert len(report.skipped) == 6
    assert build.counts.vectors > 5
    assert build.counts.documents > 5 or run_files == 1000
    assert not (tmp_path / "shards" / SHARDS_FOLDER).exists()


def test_vectors_that_depend_on_the_batch_are_the_local_ones(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    encoder = BatchDependent(tiny)
    Index.build(tmp_path / "local", documents, encoder, SMALL_UNITS)
    Index.build(tmp_path / "shards", documents, encoder, SMALL_UNITS, engine=sharded(encoder))
    assert_equal_indexes(tmp_path / "local", tmp_path / "shards")


def test_rebuild_embeds_what_was_never_embedded(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    for name in ("local", "shards"):
        Index.build(tmp_path / name, documents, tiny, SMALL_UNITS)
    (documents / "new.md").write_text("# New\n\nA new pier was opened.\n")
    settings = replace(SMALL_UNITS, k1=0.9)
    local = Index.build(tmp_path / "local", documents, tiny, settings)
    report = Index.build(tmp_path / "shards", documents, tiny, settings, engine=sharded())
    assert comparable(report) == comparable(local)
    assert (report.generation, report.embedded) == (2, 1)
    assert_equal_indexes(tmp_path / "local", tmp_path / "shards")
    Index.update(tmp_path / "local", documents, tiny)
    unchanged = Index.update(tmp_path / "shards", documents, tiny)
    assert unchanged.unchanged == local.indexed
    assert not unchanged.indexed


@pytest.mark.parametrize("after", [2, 9, 14])
def test_interrupted_build_goes_on_with_the_shards_that_are_there(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded, after: int
) -> None:
    index = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        Index.build(index, documents, tiny, SMALL_UNITS, engine=sharded(runner=Interrupted(after)))
    stored = sorted((index / SHARDS_FOLDER).iterdir())
    assert len(stored) == after
    times = [path.stat().st_mtime_ns for path in stored]
    runner = Interrupted(10**6)
    seen: list[dict[str, Any]] = []
    build = sharded(runner=runner)
    report = Index.build(index, documents, tiny, SMALL_UNITS, on_event=seen.append, engine=build)
    counts = build.counts
    assert counts.documents_present + counts.vectors_present == after
    assert runner.tasks == counts.documents + counts.vectors - after
    assert f"{counts.documents_present} from before" in report.remarks[-1]
    assert any("from before" in str(event.get("reason")) for event in seen)
    assert len(times) == after
    Index.build(tmp_path / "local", documents, tiny, SMALL_UNITS)
    assert_equal_indexes(tmp_path / "local", index)


def test_a_damaged_shard_is_made_again(documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded) -> None:
    kept = tmp_path / "kept"
    Index.build(tmp_path / "first", documents, tiny, SMALL_UNITS, engine=sharded(shards=str(kept)))
    by_kind = {kind: sorted(kept.glob(f"{kind}-*")) for kind in ("documents", "vectors")}
    for paths in by_kind.values():
        data = bytearray(paths[0].read_bytes())
        data[len(data) // 2] ^= 1
        paths[0].write_bytes(data)
        paths[1].write_bytes(paths[1].read_bytes()[:-7])
        paths[2].write_bytes(b"")
    build = sharded(shards=str(kept))
    Index.build(tmp_path / "second", documents, tiny, SMALL_UNITS, engine=build)
    assert build.counts.documents - build.counts.documents_present == 3
    assert build.counts.vectors - build.counts.vectors_present == 3
    assert_equal_indexes(tmp_path / "first", tmp_path / "second")


def test_a_new_file_changes_one_run(documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded) -> None:
    kept = str(tmp_path / "kept")
    Index.build(tmp_path / "first", documents, tiny, SMALL_UNITS, engine=sharded(shards=kept))
    (documents / "ferries" / "ferry-11a.md").write_text("# A new ferry\n\nIt leaves at noon.\n")
    build = sharded(shards=kept)
    Index.build(tmp_path / "second", documents, tiny, SMALL_UNITS, engine=build)
    assert 1 <= build.counts.documents - build.counts.documents_present <= 2
    Index.build(tmp_path / "local", documents, tiny, SMALL_UNITS)
    assert contents(tmp_path / "local") == contents(tmp_path / "second")
    other = sharded(shards=kept)
    Index.build(tmp_path / "third", documents, tiny, replace(SMALL_UNITS, max_tokens=40), engine=other)
    assert other.counts.documents_present == 0


def test_runs_end_by_name_length_and_size() -> None:
    files = [InputFile(f"{n}.md", f"/{n}.md", 10) for n in range(5000)]
    runs = list(input_runs(files))
    assert [file for run in runs for file in run] == files
    assert 50 < len(files) / len(runs) < 80
    assert max(map(len, runs)) <= 256
    assert [len(run) for run in input_runs(files[:3], run_bytes=20)] == [2, 1]
    assert list(input_runs([])) == []


def test_one_file_and_one_that_is_broken(tmp_path: Path, tiny: Any, sharded: Sharded) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"id": f"r{n}", "text": f"Row {n} is here."}) for n in range(50)))
    Index.build(tmp_path / "local", file, tiny, SMALL_UNITS)
    Index.build(tmp_path / "shards", file, tiny, SMALL_UNITS, engine=sharded())
    assert_equal_indexes(tmp_path / "local", tmp_path / "shards")
    file.write_text('{"id": "a", "text": "Fine."}\n{broken\n')
    messages = []
    for engine_ in (None, sharded()):
        with pytest.raises(BadInput) as raised:
            Index.build(tmp_path / "none", file, tiny, SMALL_UNITS, engine=engine_)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="has no document that can be loaded: it is empty"):
        Index.build(tmp_path / "none", empty, tiny, SMALL_UNITS, engine=sharded())
    with pytest.raises(BadInput, match="does not exist"):
        Index.build(tmp_path / "none", tmp_path / "missing", tiny, SMALL_UNITS, engine=sharded())


def test_a_file_that_changes_while_it_is_read_is_named_by_what_was_read(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    class Changing(SameProcess):
        def run(self, tasks: Sequence[Any], setup: Any, *, embedding: bool) -> Iterator[dict[str, Any]]:
            if not embedding:
                (documents / "fares.md").write_text("# Fares\n\nAll is new.\n")
            yield from super().run(tasks, setup, embedding=embedding)

    kept = str(tmp_path / "kept")
    Index.build(
        tmp_path / "shards", documents, tiny, SMALL_UNITS, engine=sharded(runner=Changing(), shards=kept)
    )
    Index.build(tmp_path / "local", documents, tiny, SMALL_UNITS)
    assert_equal_indexes(tmp_path / "local", tmp_path / "shards")
    build = sharded(shards=kept)
    Index.build(tmp_path / "again", documents, tiny, SMALL_UNITS, engine=build)
    assert build.counts.documents_present == build.counts.documents


def test_a_worker_that_does_not_see_the_documents_stops_the_build(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    class Elsewhere(SameProcess):
        def run(self, tasks: Sequence[Any], setup: Any, *, embedding: bool) -> Iterator[dict[str, Any]]:
            documents.rename(tmp_path / "moved")
            yield from super().run(tasks, setup, embedding=embedding)

    index = tmp_path / "shards"
    with pytest.raises(CannotRun, match="was readable where the build was started") as raised:
        Index.build(index, documents, tiny, SMALL_UNITS, engine=sharded(runner=Elsewhere()))
    assert "put the documents where every machine sees them" in raised.value.hint


def test_a_shard_that_does_not_arrive_stops_the_build(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    class OtherDisk(SameProcess):
        def run(self, tasks: Sequence[Any], setup: Any, *, embedding: bool) -> Iterator[dict[str, Any]]:
            elsewhere = replace(setup, storage=str(tmp_path / "other disk"))
            yield from super().run(tasks, elsewhere, embedding=embedding)

    with pytest.raises(CannotRun, match=r"the shard documents-\w+.jsonl.gz was written by .* and is not in"):
        Index.build(tmp_path / "shards", documents, tiny, SMALL_UNITS, engine=sharded(runner=OtherDisk()))


def test_a_build_that_failed_goes_on_with_the_shards_that_are_there(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    class Lost(Interrupted):
        def run(self, tasks: Sequence[Any], setup: Any, *, embedding: bool) -> Iterator[dict[str, Any]]:
            try:
                yield from super().run(tasks, setup, embedding=embedding)
            except KeyboardInterrupt:
                raise CannotRun("Ray stopped: the node was lost") from None

    index = tmp_path / "shards"
    with pytest.raises(CannotRun, match="the node was lost"):
        Index.build(index, documents, tiny, SMALL_UNITS, engine=sharded(runner=Lost(5)))
    build = sharded()
    Index.build(index, documents, tiny, SMALL_UNITS, engine=build)
    assert build.counts.documents_present + build.counts.vectors_present == 5
    with pytest.raises(KeyboardInterrupt):
        Index.build(tmp_path / "other", documents, tiny, SMALL_UNITS, engine=sharded(runner=Interrupted(5)))
    Index.build(tmp_path / "other", documents, tiny, SMALL_UNITS)
    assert not (tmp_path / "other" / SHARDS_FOLDER).exists()
    assert_equal_indexes(index, tmp_path / "other")


def test_other_embedder_and_other_version_are_refused(
    documents: Path, tmp_path: Path, tiny: Any, make_tiny: Any, sharded: Sharded
) -> None:
    with pytest.raises(CannotRun, match=r"this machine has another embedder: tiny-2.*\(on "):
        Index.build(
            tmp_path / "a", documents, tiny, SMALL_UNITS, engine=sharded(make_tiny(fingerprint="tiny-2"))
        )

    class Older(SameProcess):
        def run(self, tasks: Sequence[Any], setup: Any, *, embedding: bool) -> Iterator[dict[str, Any]]:
            yield from super().run(tasks, replace(setup, made_by="0.0.1"), embedding=embedding)

    with pytest.raises(CannotRun, match=r"the build was started by tunewise 0\.0\.1"):
        Index.build(tmp_path / "b", documents, tiny, SMALL_UNITS, engine=sharded(runner=Older()))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (MemoryError(), CannotRun, r"a worker ran out of memory \(on "),
        (OSError("disk of the node"), CannotRun, "a worker stopped: disk of the node"),
        (ZeroDivisionError("a fault"), RuntimeError, "(?s)a worker on .* failed:.*in encode.*a fault"),
    ],
)
def test_errors_of_a_worker(
    documents: Path,
    tmp_path: Path,
    tiny: Any,
    make_tiny: Any,
    sharded: Sharded,
    error: Exception,
    kind: Any,
    message: str,
) -> None:
    class Failing(make_tiny):
        def encode(self, *arguments: Any, **options: Any) -> np.ndarray:
            raise error

    with pytest.raises(kind, match=message):
        Index.build(tmp_path / "index", documents, tiny, SMALL_UNITS, engine=sharded(Failing()))


def test_documents_and_shards_behind_urls(
    documents: Path, tmp_path: Path, tiny: Any, sharded: Sharded
) -> None:
    for path in (documents / ".gitignore", documents / "server.log"):
        path.unlink()
    (documents / "node_modules").mkdir()
    (documents / "node_modules" / "generated.md").write_text("generated")
    url = f"memory://{uuid.uuid4().hex}"
    for path in documents.rglob("*"):
        if path.is_file():
            put_object(f"{url}/docs/{path.relative_to(documents).as_posix()}", path.read_bytes())
    local = Index.build(tmp_path / "local", documents, tiny, SMALL_UNITS)
    for name, present in (("first", False), ("second", True)):
        build = sharded(shards=f"{url}/shards")
        report = Index.build(tmp_path / name, f"{url}/docs", tiny, SMALL_UNITS, engine=build)
        assert (build.counts.documents_present == build.counts.documents) is present
        assert (build.counts.vectors_present == build.counts.vectors) is present
        assert report.chunks == local.chunks
        ours, theirs = contents(tmp_path / name), contents(tmp_path / "local")
        assert ours.pop("sources.json") != theirs.pop("sources.json")  # it holds the path of the documents
        assert ours == theirs
    report = Index.build(tmp_path / "one", f"{url}/docs/quays.jsonl", tiny, SMALL_UNITS, engine=sharded())
    assert (report.indexed, len(report.skipped)) == (13, 1)
    put_object(f"{url}/docs/.gitignore", b"*.md")
    with pytest.raises(BadInput, match="is not behind a URL"):
        Index.build(tmp_path / "third", f"{url}/docs", tiny, SMALL_UNITS, engine=sharded())
    with pytest.raises(BadInput, match="there is no object at"):
        Index.build(tmp_path / "fourth", f"{url}/nothing", tiny, SMALL_UNITS, engine=sharded())


def test_shards_hold_what_was_written(tmp_path: Path, tiny: Any) -> None:
    from rag.indexing.chunking import Chunker
    from rag.loading.scan import FoundFile

    file = tmp_path / "a.md"
    file.write_text("# A\n\nText of a file.\n")
    run = read_files([FoundFile("odd\udc80name.md", file)])
    shard = DocumentShard.of(run, Chunker(tiny, IndexSettings()))
    data = shard.to_bytes()
    assert DocumentShard.from_bytes(data) == shard
    assert data == DocumentShard.from_bytes(data).to_bytes()
    rows = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    again, cut = vectors_from_bytes(vectors_to_bytes(rows, 2))
    assert cut == 2
    assert np.array_equal(rows, again)
    for damaged in (b"", b"x" * 40, vectors_to_bytes(rows, 2)[:-1]):
        with pytest.raises(DamagedShard):
            vectors_from_bytes(damaged)
        with pytest.raises(DamagedShard):
            DocumentShard.from_bytes(damaged)


@pytest.mark.parametrize(
    ("options", "cpus", "gpus", "actors"),
    [
        (ActorOptions(), 2, 0, 2),
        (ActorOptions(), 64, 0, 64),
        (ActorOptions(cpus=1), 8, 0, 7),
        (ActorOptions(actors=3), 2, 0, 3),
        (ActorOptions(gpus=1), 32, 4, 4),
        (ActorOptions(gpus=0.5), 32, 4, 8),
        (ActorOptions(gpus=1), 2, 8, 3),
    ],
)
def test_actors_that_fit(options: ActorOptions, cpus: float, gpus: float, actors: int) -> None:
    assert fitting_actors(options, cpus, gpus) == actors


@pytest.mark.parametrize(
    ("options", "cpus", "gpus", "message"),
    [
        (ActorOptions(actors=4), 2, 0, "4 actors of 0.5 CPUs would take all 2 CPUs of Ray.*--actors 3"),
        (ActorOptions(actors=8, cpus=1), 8, 0, "8 actors of 1 CPUs would take all 8 CPUs.*--actors 7"),
        (ActorOptions(cpus=2), 2, 0, "one actor of 2 CPUs would take all 2 CPUs.*--actor-cpus 0.5"),
        (ActorOptions(gpus=1), 2, 0, "an actor of 1 GPUs does not fit: Ray has 0"),
        (
            ActorOptions(actors=5, gpus=1),
            32,
            4,
            "5 actors of 1 GPUs would need more than the 4 GPUs of Ray.*--actors 4",
        ),
    ],
)
def test_actors_that_do_not_fit(options: ActorOptions, cpus: float, gpus: float, message: str) -> None:
    with pytest.raises(CannotRun) as raised:
        fitting_actors(options, cpus, gpus)
    assert re.search(message, str(raised.value)), str(raised.value)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CannotRun, match="needs the extra `ray`") as raised:
        RayCluster().__enter__()
    assert raised.value.hint == install_hint("ray")
