"""A build by actors of a real Ray: equal bytes, an actor that is killed, a driver that is killed, shards on S3."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.embedding.embedder import Embedder
from rag.errors import CannotRun
from rag.index import Index
from rag.indexing.build import SHARDS_FOLDER
from rag.indexing.sharded.engine import ShardedBuild
from rag.indexing.sharded.ray_cluster import ActorOptions, RayCluster, fitting_actors
from rag.indexing.sharded.worker import EmbedderFolderSource
from rag.object_storage import list_objects, put_object
from rag.settings import IndexSettings
from rag.stores.text import TextStore
from tests.support.limits import HANG_S
from tests.support.object_server import ObjectServer

pytestmark = [pytest.mark.engines, pytest.mark.xdist_group("ray")]
SETTINGS = IndexSettings(unit_chars=6000)
WORDS = [f"word{n}" for n in range(300)]


@pytest.fixture(scope="module")
def folder(memory: Path, little_bert: Callable[..., Path]) -> Path:
    """A folder with documents and an embedder, whose results the packed path computes."""
    place = Path(tempfile.mkdtemp(dir=memory))
    (place / "documents").mkdir()
    (place / "embedder").mkdir()
    draw = random.Random(3)
    for n in range(90):
        paragraphs = [" ".join(draw.choices(WORDS, k=draw.randint(3, 60))) for _ in range(6)]
        (place / "documents" / f"{n:03d}.md").write_text(
            f"# Document {n}\n\n" + "\n\n".join(paragraphs) + "\n"
        )
    (place / "documents" / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    tokenizer = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(["?", "[PAD]", *WORDS])}, unk_token="?")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    little_bert(place / "embedder", tokenizer)
    return place


@pytest.fixture(scope="module")
def library_folder(folder: Path) -> Path:
    """The same embedder with another pooling, which sentence-transformers computes."""
    other = folder / "library embedder"
    shutil.copytree(folder / "embedder", other)
    (other / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    return other


@pytest.fixture(scope="module")
def cluster(object_server: ObjectServer) -> Iterator[RayCluster]:
    """Two actors, which take the server of S3 from the environment that Ray was started in."""
    with pytest.MonkeyPatch.context() as environment, ExitStack() as stack:
        for name, value in object_server.environment.items():
            environment.setenv(name, value)
        started = stack.enter_context(RayCluster(ActorOptions(actors=2)))
        assert started.actors == 2
        yield started


def assert_equal_indexes(one: Path, other: Path, but: str = "") -> None:
    def contents(index: Path) -> dict[str, bytes]:
        files = (path for path in index.rglob("*") if path.is_file() and path.name != but)
        named = {path.relative_to(index).as_posix(): path for path in files}
        return {
            name: path.read_bytes()
            for name, path in named.items()
            if ".sqlite" not in name and "writer" not in name
        }

    assert contents(one) == contents(other)
    with TextStore(one) as first, TextStore(other) as second:
        assert list(first.dump()) == list(second.dump())


def local_build(folder: Path, embedder: Path) -> Path:
    index = folder / f"local of {embedder.name}"
    if not index.exists():
        Index.build(index, folder / "documents", Embedder(embedder, device="cpu"), SETTINGS)
    return index


def cluster_cpus() -> float:
    import ray

    return float(ray.cluster_resources()["CPU"])


def actors() -> list[psutil.Process]:
    processes = psutil.Process().children(recursive=True)
    return [process for process in processes if "MapWorker" in " ".join(process.cmdline())]


def test_index_is_the_local_one_to_the_byte_though_an_actor_is_killed(
    folder: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    killed: list[int] = []

    def kill_one(event: dict[str, Any]) -> None:
        phase = {"index.shards": 0, "embed.batch": 1}.get(event["event"])
        if phase is not None and len(killed) == phase and event["done"] < event["total"] / 2:
            killed.append(actors()[0].pid)
            os.kill(killed[-1], signal.SIGKILL)

    embedder = Embedder(folder / "embedder", device="cpu")
    build = ShardedBuild(cluster, EmbedderFolderSource.of(embedder), run_files=2)
    report = Index.build(
        tmp_path / "ray", folder / "documents", embedder, SETTINGS, on_event=kill_one, engine=build
    )
    assert len(killed) == 2
    assert build.counts.documents > 30
    assert build.counts.vectors > 10
    assert report.indexed == 90
    assert [item.path for item in report.skipped] == ["broken.pdf"]
    assert_equal_indexes(local_build(folder, folder / "embedder"), tmp_path / "ray")
    assert Index.open(tmp_path / "ray", embedder).find("word3 word5 word8").hits
    cpus = cluster_cpus()
    with pytest.raises(CannotRun, match=f"would take all {cpus:g} CPUs of Ray"):
        fitting_actors(ActorOptions(actors=int(2 * cpus)), cpus, 0)


def test_path_of_sentence_transformers_with_documents_and_shards_on_s3(
    folder: Path, library_folder: Path, tmp_path: Path, cluster: RayCluster, bucket: str
) -> None:
    embedder = Embedder(library_folder, device="cpu")
    assert embedder.path == "library"
    for path in (folder / "documents").iterdir():
        put_object(f"{bucket}/documents/{path.name}", path.read_bytes())
    local = local_build(folder, library_folder)
    source = EmbedderFolderSource.of(embedder)
    for name, whole in (("ray", False), ("again", True)):
        build = ShardedBuild(cluster, source, shards=f"{bucket}/shards")
        report = Index.build(tmp_path / name, f"{bucket}/documents", embedder, SETTINGS, engine=build)
        assert report.indexed == 90
        assert (build.counts.documents_present == build.counts.documents) is whole
        assert (build.counts.vectors_present == build.counts.vectors) is whole
        # sources.json holds the path of the documents
        assert_equal_indexes(local, tmp_path / name, but="sources.json")
    assert len(list_objects(f"{bucket}/shards")) == build.counts.documents + build.counts.vectors


@dataclass(frozen=True)
class Ending:
    """An embedder whose loading ends the process, as where memory is too small for it."""

    plain_tokens: ClassVar[bool] = False

    def load(self) -> Any:
        os._exit(1)


def test_a_task_that_always_ends_its_process_ends_the_build(
    folder: Path, tmp_path: Path, cluster: RayCluster
) -> None:
    """Ray by itself would start the actor anew for ever."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    build = ShardedBuild(cluster, Ending(), run_files=1000)
    with pytest.raises(CannotRun, match="Ray stopped: ") as raised:
        Index.build(
            tmp_path / "none", folder / "documents", Embedder(folder / "embedder", device="cpu"), engine=build
        )
    assert "run the same command to continue" in raised.value.hint


DRIVER = """
    import sys
    from rag.embedding.embedder import Embedder
    from rag.index import Index
    from rag.indexing.sharded.engine import ShardedBuild
    from rag.indexing.sharded.ray_cluster import ActorOptions, RayCluster
    from rag.indexing.sharded.worker import EmbedderFolderSource
    from rag.settings import IndexSettings

    settings = IndexSettings(unit_chars={chars})
    index, documents, folder = sys.argv[1:]
    embedder = Embedder(folder, device="cpu")
    with RayCluster(ActorOptions(actors=2)) as cluster:
        build = ShardedBuild(cluster, EmbedderFolderSource.of(embedder), run_files=2)
        report = Index.build(index, documents, embedder, settings, engine=build)
    print(report.remarks[-1])
"""


def test_a_killed_driver_goes_on_with_the_shards_that_are_there(
    folder: Path, tmp_path: Path, root: Path
) -> None:
    index = tmp_path / "ray"
    code = textwrap.dedent(DRIVER.format(chars=SETTINGS.unit_chars))
    command = [
        sys.executable,
        "-P",
        "-c",
        code,
        str(index),
        str(folder / "documents"),
        str(folder / "embedder"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    # a folder of the user's that has the name of the package must not be imported by the actors
    (tmp_path / "here" / "rag").mkdir(parents=True)
    (tmp_path / "here" / "rag" / "__init__.py").write_text("raise SystemExit('shadowed')")
    driver = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, cwd=tmp_path / "here")
    try:
        deadline = time.monotonic() + HANG_S
        while len(list((index / SHARDS_FOLDER).glob("vectors-*"))) < 3:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    assert not (index / "CURRENT").exists()
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    numbers = list(map(int, re.findall(r"\d+", done.stdout.splitlines()[-1])))
    runs, runs_before, shards, shards_before = numbers
    assert runs_before == runs > 30
    assert 3 <= shards_before < shards
    assert not (index / SHARDS_FOLDER).exists()
    assert_equal_indexes(local_build(folder, folder / "embedder"), index)
