"""A run is opened in one way: `tunewise ask`, `tunewise export` and `runners.load` see the same run or the same fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import runners
from advisor import cli
from rag.errors import BadInput, Problem, UsageProblem
from runners.export.source import ExportSource
from runners.models.resolve import Model
from runners.runs.opened import OpenRun

QUESTION = "How many berths has the Amber Pier?"


@dataclass(frozen=True)
class Opened:
    """What one way of opening a run found, in comparable values."""

    arm: str
    winner: str | None
    weights: Path | None
    seed: int | None
    base: str
    index: Path


@pytest.fixture
def run(llama: Any, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    shutil.copytree(llama.path, tmp_path / "run")
    return tmp_path / "run"


def by_export(run: Path, arm: str | None, seed: int | None = None) -> Opened:
    """As `tunewise export` does."""
    source = ExportSource(run)
    source.select_arm(arm, seed, False)
    assert source.arm is not None
    index = source.run.path / "index"
    base = source.base.fingerprint
    return Opened(source.arm.arm, source.session.default_arm, source.weights, source.seed, base, index)


def by_session(run: Path, arm: str | None, seed: int | None = None) -> Opened:
    """As `tunewise chat` and `tunewise serve` do."""
    session = OpenRun.open(run).obtain()
    step = session.arm(arm)
    base = session.models.base_of(step)
    assert isinstance(base, Model)
    index = session.folder.path / "index"
    weights, found = session.weights(step, seed), session.seed(step, seed)
    return Opened(step.arm, session.default_arm, weights, found, base.fingerprint, index)


def asked(run: Path, capsys: pytest.CaptureFixture[str], *flags: object) -> dict[str, Any]:
    """What `tunewise ask --json` prints."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["ask", str(run), QUESTION, "--json", *map(str, flags)])
    said = capsys.readouterr()
    assert not stop.value.code, said.err
    return dict(json.loads(said.out))


def fault(opens: Callable[[], object]) -> tuple[type, str, str]:
    """The class, message and hint of the problem that opening a run meets."""
    with pytest.raises(Problem) as refused:
        opens()
    return type(refused.value), refused.value.message, refused.value.hint or ""


def faults(run: Path, arm: str | None, capsys: pytest.CaptureFixture[str]) -> list[tuple[type, str, str]]:
    """The problem that each way meets; `ask` must print it and end with the exit code of bad input."""
    ways = [
        fault(lambda: by_export(run, arm)),
        fault(lambda: by_session(run, arm)),
        fault(lambda: runners.load(run).ask(QUESTION, arm)),
    ]
    flags = ["--arm", arm] if arm else []
    with pytest.raises(SystemExit) as stop:
        cli.main(["ask", str(run), QUESTION, "--json", *flags])
    printed = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 3
    assert all(" ".join(message.split()) in printed for _, message, _ in ways)
    return ways


@pytest.mark.parametrize("arm", ["rag", "lora", "qlora", "full", "hybrid"])
def test_every_way_finds_the_same_arm_weights_and_models(
    llama: Any, arm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = by_export(llama.path, arm)
    assert by_session(llama.path, arm) == exported
    loaded = runners.load(llama.path)
    answer = loaded.ask(QUESTION, arm)
    printed = asked(llama.path, capsys, "--arm", arm)
    assert loaded.arm(arm).arm == answer.arm == printed["arm"] == exported.arm
    assert answer.marked == printed["answer"]
    assert [c.to_json() for c in answer.citations] == printed["citations"]


def test_without_an_arm_to_use_every_way_wants_one_named(
    llama: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model answers nothing right, so the verdict names no arm to use."""
    refused = [fault(lambda: by_export(llama.path, None)), fault(lambda: by_session(llama.path, None))]
    assert len(set(refused)) == 1
    assert refused[0][0] is UsageProblem
    assert "--arm" in refused[0][2]
    with pytest.raises(SystemExit) as stop:
        cli.main(["ask", str(llama.path), QUESTION])
    assert stop.value.code == 2
    assert "--arm" in capsys.readouterr().err


def test_a_seed_is_found_and_an_unknown_one_refused_alike(llama: Any) -> None:
    assert by_export(llama.path, "lora", 3) == by_session(llama.path, "lora", 3)
    assert by_export(llama.path, "lora", 3).seed == 3
    one, other = (fault(partial(way, llama.path, "lora", 7)) for way in (by_export, by_session))
    assert one == other == (BadInput, "the arm lora has no weights of seed 7", "its seeds: 0, 3")


def test_an_unknown_arm_is_refused_alike(llama: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = faults(llama.path, "loar", capsys)
    assert len(set(found)) == 1
    assert found[0][1] == "this run has no arm 'loar'"


def test_without_a_report_every_way_takes_the_plans_choice(run: Path, llama: Any) -> None:
    (run / "manifest.json").unlink()
    (run / "report.json").unlink()
    found = by_export(run, None)
    assert found == by_session(run, None)
    assert found.arm == found.winner == llama.plan.choice == runners.load(run).arm().arm


def test_a_damaged_report_is_refused_alike(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "manifest.json").unlink()
    (run / "report.json").write_text("{", "utf-8")
    found = faults(run, None, capsys)
    assert len(set(found)) == 1
    assert "report.json is damaged" in found[0][1]


@pytest.mark.parametrize("file", ["plan.yaml", "manifest.json"])
def test_files_that_differ_from_the_manifest_are_refused_alike(
    run: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / file).write_text(
        (run / file).read_text("utf-8").replace('"schema": 1', '"schema": 1x') + "\n# x", "utf-8"
    )
    found = faults(run, "rag", capsys)
    assert len(set(found)) == 1
    assert file in found[0][1] or "damaged" in found[0][1]


def test_missing_weights_are_refused_alike(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "adapters" / "lora-s0")
    found = faults(run, "lora", capsys)
    assert len(set(found)) == 1
    assert found[0][1] == "the run has no weights for the arm lora (lora-s0 is missing)"


def test_a_base_that_is_gone_is_refused_alike(
    run: Path, llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "manifest.json").unlink()
    for name in ("plan.yaml", "events.jsonl"):
        text = (run / name).read_text("utf-8").replace(str(llama.base), str(tmp_path / "gone"))
        (run / name).write_text(text, "utf-8")
    found = faults(run, "rag", capsys)
    assert len(set(found)) == 1
    assert "does not exist" in found[0][1]
    assert "--model FOLDER" in found[0][2]
    loaded = runners.load(run)
    assert loaded.arm("rag").arm == "rag", "which arms a run has is known without its models"
    assert loaded.scores()


def test_a_run_holds_one_inner_object(llama: Any) -> None:
    loaded = runners.load(llama.path)
    assert [type(value) for value in vars(loaded).values()] == [OpenRun]
