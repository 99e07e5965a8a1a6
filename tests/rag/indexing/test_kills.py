"""SIGKILL and a full disk at any moment: nothing acknowledged is lost, and continuing gives the same bytes."""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rag.index import Index
from rag.indexing import generations
from rag.indexing.segments import DELTA_FOLDER
from rag.stores.text import TextStore

CHILDREN = Path(__file__).parents[1] / "children.py"
Precomputed = runpy.run_path(str(CHILDREN))["Precomputed"]
POINTS, DEEP_POINTS = 20, 1000
SIZES = 10
SEED = 5
RunJob = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Scenario:
    """A sequence of steps, with the index before and after each."""

    steps: list[dict[str, Any]]
    states: list[Path]

    def expected(self, n: int) -> dict[str, str]:
        """Return the text of each document after n steps."""
        return (
            {path.name: path.read_text() for path in sorted(Path(self.steps[n - 1]["documents"]).iterdir())}
            if n
            else {}
        )


@pytest.fixture(scope="module")
def workspace(memory: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="module")
def run_job(root: Path) -> Iterator[RunJob]:
    server = subprocess.Popen(
        [sys.executable, "-P", str(CHILDREN)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )

    def send(**job: Any) -> dict[str, Any]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        answer: dict[str, Any] = json.loads(server.stdout.readline())
        return answer

    with server:
        yield send
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture(scope="module")
def scenario(workspace: Path, run_job: RunJob) -> Scenario:
    return uninterrupted(workspace, run_job)


@pytest.fixture(scope="module")
def delta_scenario(workspace: Path, run_job: RunJob) -> Scenario:
    """The same steps, whose updates are written as those of a large index."""
    return uninterrupted(workspace / "delta", run_job, delta=True)


def uninterrupted(workspace: Path, run_job: RunJob, *, delta: bool = False) -> Scenario:
    """Build, change and delete, change again, rebuild, purge: each once, without interruption."""
    texts = {
        f"{n}.md": f"# Ferry {n}\n\nIt leaves at {n} o'clock.\n\n## Fares\n\nA seat is {n} euros.\n"
        for n in range(6)
    }
    later = {name: text.replace("3 euros", "4 euros") for name, text in texts.items() if name != "5.md"}
    third = {**{n: t for n, t in later.items() if n != "0.md"}, "new.txt": "Bicycles ride free.\n"}
    last = {name: text for name, text in third.items() if name != "1.md"}
    plan = (("build", texts), ("update", later), ("update", third), ("build", third), ("update", last))
    steps: list[dict[str, Any]] = []
    states = [workspace / "state-0"]
    for n, (do, files) in enumerate(plan, 1):
        documents = workspace / f"documents-{n}"
        documents.mkdir(parents=True)
        for name, text in files.items():
            (documents / name).write_text(text)
        steps.append({"do": do, "documents": str(documents), "purge": n == len(plan), "delta": delta})
        state = workspace / f"state-{n}"
        if states[-1].exists():
            shutil.copytree(states[-1], state)
        assert run_job(index=str(state), step=steps[-1])["done"]
        states.append(state)
    return Scenario(steps, states)


def copied(state: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    if state.exists():
        shutil.copytree(state, to)
    return to


def indexed_texts(folder: Path) -> dict[str, str]:
    """Return every document's text; all chunks of the index, and no others, must be found by a search."""
    if not (folder / generations.CURRENT_POINTER).exists():
        return {}
    index = Index.open(folder, Precomputed())
    assert {hit.chunk for hit in index.search("Ferry", 99)} == set(index.chunks)
    return {doc: str(index.raw(doc)) for doc in sorted({chunk.doc for chunk in index.chunks})}


def bytes_and_rows(folder: Path) -> tuple[dict[str, bytes], list[tuple[object, ...]]]:
    """Return the bytes of the pointer and of all generations' files, and the rows of the text store."""
    parts = [folder / generations.CURRENT_POINTER, *sorted(folder.glob("gen-*/**/*"))]
    with TextStore(folder) as text:
        rows = list(text.dump())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in parts if path.is_file()}, rows


def kill_and_continue(scenario: Scenario, run_job: RunJob, workspace: Path, n: int, **how: Any) -> bool:
    """Kill step n, check the index, repeat the step, compare; return whether the process was killed at all."""
    folder = copied(scenario.states[n - 1], workspace / "killed")
    answer = run_job(index=str(folder), step=scenario.steps[n - 1], **how)
    texts = indexed_texts(folder)
    if answer["done"]:
        assert texts == scenario.expected(n)
    else:
        assert answer["killed"], answer
        assert texts in (scenario.expected(n - 1), scenario.expected(n)), f"step {n}, {how}"
    finished = folder.exists() and generations.current_generation(folder) == n
    again = run_job(
        index=str(folder), step={**scenario.steps[n - 1], **({"do": "update"} if finished else {})}
    )
    assert again["done"], again
    assert bytes_and_rows(folder) == bytes_and_rows(scenario.states[n]), f"step {n}, {how}"
    return bool(answer["killed"])


def points(
    scenario: Scenario, run_job: RunJob, workspace: Path, count: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield seeded moments over all steps: half at calls that touch a file, a quarter at any call, a quarter by time."""
    random.seed(SEED)
    totals = {}
    for n, step in enumerate(scenario.steps, 1):
        for kind in ("touching", "any"):
            folder = copied(scenario.states[n - 1], workspace / "counted")
            totals[n, kind] = run_job(index=str(folder), step=step, kind=kind)["calls"]
    for position in range(count):
        n = position % len(scenario.steps) + 1
        kind = ("touching", "touching", "any", "time")[position // len(scenario.steps) % 4]
        if kind == "time":
            yield n, {"kill_after": random.uniform(0, 0.04)}
        else:
            yield n, {"kind": kind, "kill_at": random.randint(1, totals[n, kind])}


def test_kill_during_any_step_keeps_acknowledged_data(
    scenario: Scenario, run_job: RunJob, workspace: Path
) -> None:
    killed = [
        kill_and_continue(scenario, run_job, workspace, n, **how)
        for n, how in points(scenario, run_job, workspace, POINTS)
    ]
    assert sum(killed) >= POINTS * 3 // 4


def test_killed_repair_can_be_repeated(scenario: Scenario, run_job: RunJob, workspace: Path) -> None:
    """Both the pointer and the vectors are damaged, and so is the cache in every second round."""
    draw = random.Random(SEED)
    step = {"do": "repair"}
    for turn in range(10):
        folder = copied(scenario.states[3], workspace / "damaged")
        (folder / generations.CURRENT_POINTER).write_text("damage")
        (folder / generations.generation_name(3) / "vectors.faiss").write_bytes(b"damage")
        if turn % 2:
            (folder / "vectors.sqlite").write_bytes(b"damage")
        calls = run_job(index=str(copied(folder, workspace / "counted")), step=step, kind="touching")["calls"]
        run_job(index=str(folder), step=step, kind="touching", kill_at=draw.randint(1, calls))
        assert run_job(index=str(folder), step=step)["done"]
        assert indexed_texts(folder) == scenario.expected(3)


def test_kill_during_the_update_of_a_large_index(
    delta_scenario: Scenario, run_job: RunJob, workspace: Path
) -> None:
    assert (delta_scenario.states[3] / generations.generation_name(3) / DELTA_FOLDER).is_dir()
    killed = [
        kill_and_continue(delta_scenario, run_job, workspace, n, **how)
        for n, how in points(delta_scenario, run_job, workspace, POINTS // 2)
        if n in (2, 3)
    ]
    assert sum(killed) >= len(killed) * 3 // 4


@pytest.mark.slow
def test_kill_at_many_more_points(scenario: Scenario, run_job: RunJob, workspace: Path) -> None:
    killed = [
        kill_and_continue(scenario, run_job, workspace, n, **how)
        for n, how in points(scenario, run_job, workspace, DEEP_POINTS)
    ]
    print(f"{sum(killed)} of {DEEP_POINTS} children were killed before they were done")
    assert sum(killed) >= DEEP_POINTS * 3 // 4


@pytest.mark.parametrize("n", [1, 2])
def test_full_disk_keeps_acknowledged_data(
    scenario: Scenario, run_job: RunJob, workspace: Path, n: int
) -> None:
    largest = max(path.stat().st_size for path in scenario.states[n].rglob("*") if path.is_file())
    rejected = 0
    for size in range(SIZES):
        folder = copied(scenario.states[n - 1], workspace / "full")
        answer = run_job(index=str(folder), step=scenario.steps[n - 1], limit=largest * size // SIZES)
        if not answer["done"]:
            rejected += 1
            assert answer["type"] == "CannotRun", answer
            assert "no space left" in answer["text"]
            assert "\n" not in answer["text"]
            assert n > 1 or not folder.exists()
        assert indexed_texts(folder) in (scenario.expected(n - 1), scenario.expected(n))
        finished = folder.exists() and generations.current_generation(folder) == n
        assert run_job(
            index=str(folder), step={**scenario.steps[n - 1], **({"do": "update"} if finished else {})}
        )["done"]
        assert bytes_and_rows(folder) == bytes_and_rows(scenario.states[n]), size
    assert rejected >= SIZES // 2
