"""What 0.2.0 made works with today's verbs; what an older version made is refused, and files of a newer schema too."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor import cli
from advisor.report.data import read_report, read_scores
from rag.errors import BadInput
from rag.files import MANIFEST, SCHEMA, check_manifest, sha256_file, write_manifest
from rag.index import Index
from rag.stores import text
from runners.export.source import ExportSource
from runners.models import adapters
from runners.plan.schema import parse_plan, read_plan
from runners.run_folder import open_run_folder, read_journal
from runners.runs.listing import find_runs
from runners.runs.opened import OpenRun
from runners.runs.run import load

FIXTURES = Path(__file__).with_name("0.2.0")
"""Made by make_0_2_0.py."""
ORIGINAL_FOLDER = "/tmp/tunewise-0.2.0"
"""The folder in which the fixtures were made: a run's plan holds the absolute paths of its data."""
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text("utf-8"))
PLAN: dict[str, Any] = {
    "name": "piers",
    "choice": "prompting",
    "model": {"name": "openai:none@http://127.0.0.1:9/v1"},
    "data": {"questions": "questions.jsonl"},
    "steps": [{"kind": "evaluate", "arm": "prompting"}],
    "weights": {"token_f1": 1},
}
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
    """Run a verb in the folder and return what it printed, an error on stderr; it must end with the exit code."""

    def run(*arguments: object, code: int = 0) -> str:
        capsys.readouterr()
        try:
            cli.main([str(argument) for argument in arguments])
            ended: object = 0
        except SystemExit as end:
            ended = end.code or 0
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed.err if code == BadInput.exit_code else printed.out

    return run


def change(path: Path, before: str, after: str) -> None:
    """Replace a text that a file has."""
    content = path.read_text("utf-8")
    assert before in content
    path.write_text(content.replace(before, after), "utf-8")


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
    report = json.loads(tunewise("report", "run", "--json"))
    assert_holds(report, EXPECTED["report"])
    assert "question_words" not in report, "0.2.0 did not look at the words of questions"


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
    """Nothing is indexed, trained or answered again, and the report stays."""
    log = folder / "run" / "events.jsonl"
    before = read_journal(log)
    # no arm of this tiny run cites anything, though the answers demand it: exit code 5, the results stay
    report = json.loads(tunewise("run", "plan.yaml", "--out", "run", "--resume", "--json", code=5))
    later = read_journal(log)[len(before) :]
    steps = {event["step"] for event in later if event["event"] == "step.start"}
    assert steps
    assert {event["step"] for event in later if event["event"] == "step.skip"} == steps
    for now, then in zip(report["arms"], EXPECTED["report"]["arms"], strict=True):
        assert_holds(now, then)
    assert report["verdict"]["winner"] is report["verdict"]["use"] is None, (
        "the winner is the arm to use, since 0.3.0"
    )


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
    flags = ("--examples", "examples.jsonl", "--rank", 2, "--seed", 1, "--epochs", 40)
    again = ("--checkpoint-steps", 2, "--out", "interrupted", "--resume", "--json")
    result = json.loads(tunewise("train", *flags, *again))
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
    assert len(data["arms"]) == len(EXPECTED["report"]["arms"])


OLDER = "was made by a tunewise before 0.2.0, whose files are not read"


def make_older(folder: Path, name: str) -> None:
    """Change a part of the fixtures into what versions before 0.2.0 wrote."""
    if name == "plan.yaml":
        change(folder / name, "\nweights:", "\nhouse_style: true\nweights:")
    elif name == "index":
        generation = folder / "index" / "gen-000001"
        change(generation / MANIFEST, '"made_by": "0.2.0"', '"made_by": "0.1.0"')
        (folder / "index" / "CURRENT").write_text(f"gen-000001 {sha256_file(generation / MANIFEST)}\n")
    elif name == "adapter":
        manifest = json.loads((folder / name / MANIFEST).read_text("utf-8"))
        del manifest["config"]["kernels"]
        (folder / name / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    else:
        change(folder / name / "events.jsonl", '"tunewise": "0.2.0"', '"tunewise": "0.1.0"')


@pytest.mark.parametrize(
    ("name", "verb", "next_step"),
    [
        ("plan.yaml", ("run", "plan.yaml", "--out", "new"), "make it again: tunewise plan"),
        ("index", ("index", "search", "index", "parking"), "build the index again: tunewise index build"),
        (
            "index",
            ("index", "update", "index", "--documents", "documents"),
            "build the index again: tunewise index build",
        ),
        ("adapter", ("adapters", "show", "adapter"), "train it again"),
        (
            "adapter",
            ("train", "--examples", "examples.jsonl", "--init-adapter", "adapter", "--out", "new"),
            "train it again",
        ),
        ("run", ("ask", "run", "What does parking cost?"), "run it again: tunewise run PLAN"),
        ("run", ("report", "run"), "run it again: tunewise run PLAN"),
        ("run", ("runs", "show", "run"), "run it again: tunewise run PLAN"),
        ("run", ("recheck", "run"), "run it again: tunewise run PLAN"),
        ("run", ("run", "run", "--resume"), "run it again: tunewise run PLAN"),
        ("run", ("export", "run", "--to", "peft", "--arm", "lora", "--out", "new"), "run it again"),
    ],
)
def test_what_an_older_version_made_is_refused(
    tunewise: Tunewise, folder: Path, name: str, verb: tuple[str, ...], next_step: str
) -> None:
    """In one line, that names it, and one that says how it is made again."""
    make_older(folder, name)
    message, hint = tunewise(*verb, code=BadInput.exit_code).splitlines()[-2:]
    assert name in message
    assert OLDER in message
    assert hint.startswith(f"  next: {next_step}")


def test_index_of_an_older_version_is_built_again(tunewise: Tunewise, folder: Path) -> None:
    make_older(folder, "index")
    tunewise("index", "build", "index", "--documents", "documents")
    result = json.loads(tunewise("index", "search", "index", "What does parking cost?", "--json"))
    assert result["hits"][0]["text"] == EXPECTED["search"]["hits"][0]["text"]


def test_run_of_an_older_version_is_listed_and_removed(tunewise: Tunewise, folder: Path) -> None:
    make_older(folder, "run")
    (listed,) = [run for run in find_runs(folder) if run.name == "run"]
    assert (listed.state, OLDER in listed.problem) == ("damaged", True)
    tunewise("runs", "rm", "run")
    assert not (folder / "run").exists()


def test_report_of_an_older_version_is_refused(folder: Path) -> None:
    """They name a winner and no arm to use."""
    report = json.loads((folder / "run" / "report.json").read_text("utf-8"))
    del report["verdict"]["use"]
    (folder / "run" / "report.json").write_text(json.dumps(report), "utf-8")
    with pytest.raises(BadInput, match=OLDER):
        read_report(folder / "run")


@pytest.mark.parametrize("name", ["plan", "report", "scores", "run", "adapter", "index"])
def test_newer_schema_is_refused_with_an_update_hint(folder: Path, name: str) -> None:
    """Exit code 3, both schema numbers, and the hint to update tunewise."""
    files = {
        "plan": "run/plan.yaml",
        "report": "run/report.json",
        "scores": "run/trial/scores.json",
        "run": f"run/{MANIFEST}",
        "adapter": f"adapter/{MANIFEST}",
    }
    if name == "index":
        with sqlite3.connect(folder / "index" / "text.sqlite") as db:
            db.execute("pragma user_version = 2")
    else:
        newer(folder / files[name])
    run = folder / "run"
    opens: dict[str, Callable[[], Any]] = {
        "plan": lambda: load(run),
        "report": lambda: read_report(run),
        "scores": lambda: read_scores(run),
        "run": lambda: load(run).folder.check(),
        "index": lambda: Index.open(folder / "index"),
    }
    if name == "adapter":
        assert "newer tunewise" in adapters.read_adapter(folder / "adapter").problem
        return
    with pytest.raises(BadInput, match=r"newer tunewise.*reads up to 1") as refused:
        opens[name]()
    assert refused.value.exit_code == 3
    assert "install a newer tunewise" in refused.value.hint


def newer(path: Path) -> None:
    """Give a file a schema number that this version does not know."""
    change(path, *(("schema: 1", "schema: 7") if path.suffix == ".yaml" else ('"schema": 1', '"schema": 7')))


@pytest.mark.parametrize("name", ["plan.yaml", "report.json", MANIFEST])
def test_newer_file_of_a_run_is_not_reported_as_damaged(tunewise: Tunewise, folder: Path, name: str) -> None:
    """The verb that shows a run advises an update and not to overwrite it."""
    newer(folder / "run" / name)
    message = tunewise("runs", "show", "run", code=BadInput.exit_code)
    assert "install a newer tunewise" in message
    assert "--overwrite" not in message
    assert "is damaged" not in message


def test_newer_weights_are_not_to_be_trained_again(tunewise: Tunewise, folder: Path) -> None:
    newer(folder / "adapter" / MANIFEST)
    message = tunewise("adapters", "show", "adapter", code=BadInput.exit_code)
    assert "install a newer tunewise" in message
    assert "train it again" not in message


def test_ask_and_export_refuse_a_newer_report(folder: Path) -> None:
    run = folder / "run"
    newer(run / "report.json")
    (run / MANIFEST).unlink()
    for opens in (lambda: OpenRun.open(run).arm(), lambda: ExportSource(run)):
        with pytest.raises(BadInput, match="newer tunewise: report of schema 7"):
            opens()


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", None, True, 2**40], ids=str)
def test_invalid_schema_number_of_a_plan_is_damage(number: object) -> None:
    with pytest.raises(BadInput, match="damaged"):
        parse_plan({**PLAN, "schema": number})


def test_text_store_tables_match_their_schema_number() -> None:
    """A change of the tables needs a higher schema number of the text store, and a change of this line."""
    assert (SCHEMA, zlib.crc32(text._TABLES.encode()) & 0x7FFFFFFF) == (1, 1_529_774_588)


@pytest.mark.parametrize("number", [0, -1, 2**30], ids=str)
def test_invalid_schema_number_of_a_text_store_is_damage(folder: Path, number: int) -> None:
    with sqlite3.connect(folder / "index" / "text.sqlite") as db:
        db.execute(f"pragma user_version = {number}")
    with pytest.raises(BadInput, match="damaged") as refused:
        Index.open(folder / "index")
    assert "tunewise index build" in refused.value.hint


def test_manifest_is_written_with_its_schema_number(tmp_path: Path) -> None:
    """Of every kind, also one that has no entry in the table of formats."""
    for kind in ("run", "checkpoint"):
        assert write_manifest(tmp_path, kind)["schema"] == 1
        assert json.loads((tmp_path / MANIFEST).read_text("utf-8"))["schema"] == 1
        assert check_manifest(tmp_path, kind)["kind"] == kind
