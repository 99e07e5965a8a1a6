"""SIGKILL and a full disk at any moment: nothing acknowledged is lost, and going on gives the same bytes."""

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
from rag.stores.text import TextStore

CHILDREN = Path(__file__).parents[1] / "children.py"
Precomputed = runpy.run_path(str(CHILDREN))["Precomputed"]
POINTS, DEEP_POINTS = 60, 1000
SIZES = 25
SEED = 5
Ask = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Line:
    """A line of steps, with the index as it is before and after each."""

    steps: list[dict[str, Any]]
    states: list[Path]

    def expected(self, n: int) -> dict[str, str]:
        """Texts by document after n steps."""
        return (
            {p.name: p.read_text() for p in sorted(Path(self.steps[n - 1]["documents"]).iterdir())}
            if n
            else {}
        )


@pytest.fixture(scope="module")
def place(memory: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="module")
def ask(root: Path) -> Iterator[Ask]:
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
def line(place: Path, ask: Ask) -> Line:
    """Build, change and delete, change again, rebuild, purge: each once, undisturbed."""
    texts = {
        f"{n}.md": f"# Ferry {n}\n\nIt leaves at {n} o'clock.\n\n## Fares\n\nA seat is {n} euros.\n"
        for n in range(6)
    }
    later = {name: text.replace("3 euros", "4 euros") for name, text in texts.items() if name != "5.md"}
    third = {**{n: t for n, t in later.items() if n != "0.md"}, "new.txt": "Bicycles ride free.\n"}
    last = {name: text for name, text in third.items() if name != "1.md"}
    plan = (("build", texts), ("update", later), ("update", third), ("build", third), ("update", last))
    steps: list[dict[str, Any]] = []
    states = [place / "state-0"]
    for n, (do, files) in enumerate(plan, 1):
        documents = place / f"documents-{n}"
        documents.mkdir()
        for name, text in files.items():
            (documents / name).write_text(text)
        steps.append({"do": do, "documents": str(documents), "purge": n == len(plan)})
        state = place / f"state-{n}"
        if states[-1].exists():
            shutil.copytree(states[-1], state)
        assert ask(index=str(state), step=steps[-1])["done"]
        states.append(state)
    return Line(steps, states)


def copied(state: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    if state.exists():
        shutil.copytree(state, to)
    return to


def holds(folder: Path) -> dict[str, str]:
    """What an index answers with: every document's text; all its chunks, and no others, can be found."""
    if not (folder / generations.CURRENT_POINTER).exists():
        return {}
    index = Index.open(folder, Precomputed())
    assert {hit.chunk for hit in index.search("Ferry", 99)} == set(index.chunks)
    return {doc: str(index.raw(doc)) for doc in sorted({chunk.doc for chunk in index.chunks})}


def bytes_and_rows(folder: Path) -> tuple[dict[str, bytes], list[tuple[object, ...]]]:
    """The derived files of all generations and the pointer byte by byte, the text store row by row."""
    parts = [folder / generations.CURRENT_POINTER, *sorted(folder.glob("gen-*/**/*"))]
    with TextStore(folder) as text:
        rows = list(text.dump())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in parts if p.is_file()}, rows


def kill_and_go_on(line: Line, ask: Ask, place: Path, n: int, **how: Any) -> bool:
    """Kill step n, look at what is left, go on, compare; return whether the child was killed at all."""
    folder = copied(line.states[n - 1], place / "killed")
    answer = ask(index=str(folder), step=line.steps[n - 1], **how)
    found = holds(folder)
    if answer["done"]:
        assert found == line.expected(n)
    else:
        assert answer["killed"], answer
        assert found in (line.expected(n - 1), line.expected(n)), f"step {n}, {how}"
    finished = folder.exists() and generations.current_generation(folder) == n
    again = ask(index=str(folder), step={**line.steps[n - 1], **({"do": "update"} if finished else {})})
    assert again["done"], again
    assert bytes_and_rows(folder) == bytes_and_rows(line.states[n]), f"step {n}, {how}"
    return bool(answer["killed"])


def points(line: Line, ask: Ask, place: Path, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield seeded moments over all steps: half at calls that touch a file, a quarter at any call, a quarter by time."""
    random.seed(SEED)
    totals = {}
    for n, step in enumerate(line.steps, 1):
        for kind in ("touching", "any"):
            folder = copied(line.states[n - 1], place / "counted")
            totals[n, kind] = ask(index=str(folder), step=step, kind=kind)["calls"]
    for at in range(count):
        n = at % len(line.steps) + 1
        kind = ("touching", "touching", "any", "time")[at // len(line.steps) % 4]
        if kind == "time":
            yield n, {"kill_after": random.uniform(0, 0.04)}
        else:
            yield n, {"kind": kind, "kill_at": random.randint(1, totals[n, kind])}


def test_kill_during_any_step_keeps_acknowledged_data(line: Line, ask: Ask, place: Path) -> None:
    killed = [kill_and_go_on(line, ask, place, n, **how) for n, how in points(line, ask, place, POINTS)]
    assert sum(killed) >= POINTS * 3 // 4


def test_killed_repair_can_be_repeated(line: Line, ask: Ask, place: Path) -> None:
    """Both the pointer and the vectors are damaged, and so is the cache in every second round."""
    draw = random.Random(SEED)
    step = {"do": "repair"}
    for turn in range(10):
        folder = copied(line.states[3], place / "damaged")
        (folder / generations.CURRENT_POINTER).write_text("damage")
        (folder / generations.generation_name(3) / "vectors.faiss").write_bytes(b"damage")
        if turn % 2:
            (folder / "vectors.sqlite").write_bytes(b"damage")
        calls = ask(index=str(copied(folder, place / "counted")), step=step, kind="touching")["calls"]
        ask(index=str(folder), step=step, kind="touching", kill_at=draw.randint(1, calls))
        assert ask(index=str(folder), step=step)["done"]
        assert holds(folder) == line.expected(3)


@pytest.mark.slow
def test_kill_at_many_more_points(line: Line, ask: Ask, place: Path) -> None:
    killed = [kill_and_go_on(line, ask, place, n, **how) for n, how in points(line, ask, place, DEEP_POINTS)]
    print(f"{sum(killed)} of {DEEP_POINTS} children were killed before they were done")
    assert sum(killed) >= DEEP_POINTS * 3 // 4


@pytest.mark.parametrize("n", [1, 2])
def test_full_disk_keeps_acknowledged_data(line: Line, ask: Ask, place: Path, n: int) -> None:
    largest = max(p.stat().st_size for p in line.states[n].rglob("*") if p.is_file())
    refused = 0
    for size in range(SIZES):
        folder = copied(line.states[n - 1], place / "full")
        answer = ask(index=str(folder), step=line.steps[n - 1], limit=largest * size // SIZES)
        if not answer["done"]:
            refused += 1
            assert answer["type"] == "CannotRun", answer
            assert "no space left" in answer["text"]
            assert "\n" not in answer["text"]
            assert n > 1 or not folder.exists()
        assert holds(folder) in (line.expected(n - 1), line.expected(n))
        finished = folder.exists() and generations.current_generation(folder) == n
        assert ask(index=str(folder), step={**line.steps[n - 1], **({"do": "update"} if finished else {})})[
            "done"
        ]
        assert bytes_and_rows(folder) == bytes_and_rows(line.states[n]), size
    assert refused >= SIZES // 2
