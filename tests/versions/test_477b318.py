"""Plans, runs, indexes, adapters and checkpoints made by commit 477b318 work with today's verbs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor import cli
from rag.files import MANIFEST, sha256_file
from runners.plan.schema import parse_plan, read_plan
from runners.run_folder import open_run_folder, read_journal

FIXTURES = Path(__file__).with_name("477b318")
ORIGINAL_FOLDER = "/tmp/tunewise-477b318"
"""The folder in which the fixtures were made: a run's plan holds the absolute paths of its data."""
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text("utf-8"))
Tunewise = Callable[..., str]


def restore(folder: Path) -> Path:
    """Copy the fixtures into a new folder as if they had been created there; return it.

    Only the data paths in the run's plan are replaced, and that file's entry in the run's manifest.
    """
    shutil.copytree(FIXTURES, folder)
    run = folder / "run"
    plan = (run / "plan.yaml").read_text("utf-8")
    assert ORIGINAL_FOLDER in plan
    (run / "plan.yaml").write_text(plan.replace(ORIGINAL_FOLDER, str(folder)), "utf-8")
    manifest = json.loads((run / MANIFEST).read_text("utf-8"))
    size = (run / "plan.yaml").stat().st_size
    manifest["files"]["plan.yaml"] = {"bytes": size, "sha256": sha256_file(run / "plan.yaml")}
    (run / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the fixtures, the current folder, with its own cache of models."""
    copy = restore(tmp_path / "copy")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("TUNEWISE_CACHE", str(copy / "cache"))
    return copy


@pytest.fixture
def tunewise(folder: Path, capsys: pytest.CaptureFixture[str]) -> Tunewise:
    """Run a verb in the folder and return its standard output; it must end with exit code 0 or the given one."""

    def run(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
            ended: object = 0
        except SystemExit as end:
            ended = end.code or 0
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed.out

    return run


def test_fixtures_match_their_manifests_and_are_small() -> None:
    """The files of the run have the sizes and hashes of its manifest, and all fixtures take less than 2 MiB."""
    open_run_folder(FIXTURES / "run").check()
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < 2 << 20


def test_plan_opens_with_the_same_digest(folder: Path) -> None:
    loaded = yaml.safe_load((folder / "plan.yaml").read_text("utf-8"))
    assert parse_plan(loaded).digest() == EXPECTED["plan_digest"]
    plan = read_plan(folder / "plan.yaml")
    assert plan.data.documents == folder / "documents"
    assert {step.kind for step in plan.steps} == {"index", "train", "evaluate"}


def test_report_json_has_the_recorded_values(tunewise: Tunewise) -> None:
    """Every recorded key has its value; keys may be added."""
    assert_holds(json.loads(tunewise("report", "run", "--json")), EXPECTED["report"])


def assert_holds(now: Any, then: Any, where: str = "") -> None:
    """Assert that ``now`` has every key and value of ``then``, and the same list lengths."""
    if isinstance(then, dict):
        for key, value in then.items():
            assert key in now, f"{where}.{key} is missing"
            assert_holds(now[key], value, f"{where}.{key}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for number, (item, recorded) in enumerate(zip(now, then, strict=True)):
            assert_holds(item, recorded, f"{where}[{number}]")
    else:
        assert now == then, where


@pytest.mark.parametrize("arm", ["rag", "hybrid"])
def test_ask_answers_from_the_run(tunewise: Tunewise, arm: str) -> None:
    """With an arm that only retrieves, and with one that also loads tuned weights."""
    answer = json.loads(tunewise("ask", "run", "What does parking cost?", "--arm", arm, "--json"))
    assert answer["arm"] == arm
    assert answer["answer"]


def test_eval_gives_the_recorded_scores(tunewise: Tunewise, folder: Path) -> None:
    """The questions of the trial get the scores in an arm that they got in the trial."""
    asked = {
        row["id"] for row in read_journal(folder / "run" / "trial" / "answers.jsonl") if row["arm"] == "rag"
    }
    rows = [row for row in read_journal(folder / "questions.jsonl") if row["id"] in asked]
    (folder / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    result = json.loads(tunewise("eval", "run", "--questions", "again.jsonl", "--arm", "rag", "--json"))
    then = {arm["arm"]: arm for arm in EXPECTED["report"]["arms"]}
    assert [arm["arm"] for arm in result["arms"]] == ["rag"]
    assert result["arms"][0]["n"] == then["rag"]["n"]
    for name, score in then["rag"]["scores"].items():
        if name in result["arms"][0]["scores"]:
            assert result["arms"][0]["scores"][name]["mean"] == pytest.approx(score["mean"]), name


@pytest.mark.parametrize("target", ["peft", "index", "bundle"])
def test_export_of_the_run(tunewise: Tunewise, folder: Path, target: str) -> None:
    """The adapter's weights byte for byte, the index with its passages, the whole run in one archive."""
    arm = ("--arm", "lora") if target == "peft" else ()
    assert json.loads(tunewise("export", "run", "--to", target, *arm, "--out", "out", "--json"))
    written = {path.name for path in (folder / "out").rglob("*") if path.is_file()}
    if target == "peft":
        weights = folder / "run" / "adapters" / "lora-s0" / "adapter_model.safetensors"
        assert (folder / "out" / weights.name).read_bytes() == weights.read_bytes()
    else:
        ending = {"index": ".parquet", "bundle": ".zip"}[target]
        assert [name for name in written if name.endswith(ending)], written


def test_runs_show_and_diff_open_the_run(tunewise: Tunewise, folder: Path) -> None:
    shown = json.loads(tunewise("runs", "show", "run", "--json"))
    assert shown["outcome"] == EXPECTED["report"]["verdict"]["outcome"]
    shutil.copytree(folder / "run", folder / "other")
    assert json.loads(tunewise("runs", "diff", "run", "other", "--json"))["plan"] == []


def test_resumed_run_skips_every_finished_step(tunewise: Tunewise, folder: Path) -> None:
    """Nothing is indexed, trained or answered again, and the scores of the report stay."""
    log = folder / "run" / "events.jsonl"
    before = read_journal(log)
    # no arm of this tiny run cites anything, though the answers demand it: exit code 5, the results stay
    report = json.loads(tunewise("run", "plan.yaml", "--out", "run", "--resume", "--json", code=5))
    later = read_journal(log)[len(before) :]
    steps = {event["step"] for event in later if event["event"] == "step.start"}
    assert steps
    assert {event["step"] for event in later if event["event"] == "step.skip"} == steps
    for now, then in zip(report["arms"], EXPECTED["report"]["arms"], strict=True):
        # The refusal of a report is balanced over both kinds of questions since; its two parts stay.
        kept = {name: score for name, score in then["scores"].items() if name != "refusal"}
        assert_holds(now, {**then, "scores": kept})
        parts = now["scores"]["correct_refusal"]["mean"], 1 - now["scores"]["false_refusal"]["mean"]
        assert now["scores"]["refusal"]["mean"] == pytest.approx(sum(parts) / 2)
    assert report["verdict"]["winner"] == EXPECTED["report"]["verdict"]["winner"]


def test_index_is_searched_checked_and_updated_as_recorded(tunewise: Tunewise, folder: Path) -> None:
    result = json.loads(tunewise("index", "search", "index", "What does parking cost?", "--json"))
    hits = [[(hit["doc"], hit["text"]) for hit in search["hits"]] for search in (result, EXPECTED["search"])]
    assert hits[0] == hits[1]
    assert json.loads(tunewise("index", "check", "index", "--json"))
    (folder / "documents" / "parking.md").unlink()
    (folder / "documents" / "lamps.md").write_text("# Lamps\n\nThe pier has nine lamps.\n", "utf-8")
    update = json.loads(tunewise("index", "update", "index", "--documents", "documents", "--json"))
    assert (update["added"], update["removed"]) == (1, 1)
    again = json.loads(tunewise("index", "search", "index", "How many lamps has the pier?", "--json"))
    assert "lamps.md" in {hit["doc"] for hit in again["hits"]}


def test_adapter_is_shown_and_training_continues_from_it(tunewise: Tunewise, folder: Path) -> None:
    assert_holds(json.loads(tunewise("adapters", "show", "adapter", "--json")), EXPECTED["adapter"])
    flags = ("--examples", "examples.jsonl", "--epochs", 1, "--seed", 2)
    result = json.loads(tunewise("train", *flags, "--init-adapter", "adapter", "--out", "further", "--json"))
    assert result["rows"] == EXPECTED["adapter"]["rows"]
    shown = json.loads(tunewise("adapters", "show", "further", "--json"))
    assert (shown["problem"], shown["rank"]) == ("", 2)


def test_interrupted_training_resumes_from_its_checkpoint(tunewise: Tunewise, folder: Path) -> None:
    """The same command continues after the saved step, and keeps the losses of the steps before it."""
    saved = max((folder / ".interrupted.work").glob("step-*"))
    progress = json.loads((saved / "progress.json").read_text("utf-8"))
    flags = (
        "--examples",
        "examples.jsonl",
        "--rank",
        2,
        "--seed",
        1,
        "--epochs",
        40,
        "--checkpoint-steps",
        2,
    )
    result = json.loads(tunewise("train", *flags, "--out", "interrupted", "--resume", "--json"))
    assert result["steps"] > progress["step"] > 0
    log = read_journal(folder / "interrupted" / "training.jsonl")
    losses = [row["loss"] for row in log if "loss" in row]
    assert losses[: progress["step"]] == pytest.approx(progress["losses"], abs=1e-4)
    assert not (folder / ".interrupted.work").exists()


def test_run_can_be_rechecked(tunewise: Tunewise, folder: Path) -> None:
    """Today's prompts are those of then: every recorded answer is taken over; newer packages are only noted."""
    data = json.loads(tunewise("recheck", "run", "--all-arms", "--json"))
    assert data["outcome"] == "unchanged"
    assert {change["kind"] for change in data["changes"]} <= {"environment"}
    assert {arm["asked_again"] for arm in data["arms"]} == {0}
    assert len(data["arms"]) == 7
