"""`tunewise eval`: a finished run on other questions, scored as in the trial, with no question asked twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from advisor.workflows.eval import report_evaluation, show_evaluation
from rag.errors import BadInput
from runners.data.questions import Question
from runners.runs.dataset import read_data
from runners.runs.opened import OpenRun
from runners.trial.evaluate import evaluate

pytestmark = pytest.mark.real


def write_questions(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write questions as JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_row(question: Question) -> dict[str, Any]:
    """The row of a question in its file."""
    return {
        "id": question.id,
        "question": question.question,
        "answers": list(question.answers),
        "reference": question.reference,
        "doc_id": question.doc_id,
        "spans": [{"start": s, "end": e} for s, e in question.spans],
        "answerable": question.answerable,
    }


@pytest.fixture(scope="module")
def run(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the session's run."""
    return Path(shutil.copytree(pipeline.run, tmp_path_factory.mktemp("eval") / "run"))


@pytest.fixture(scope="module")
def trial(run: Path) -> list[dict[str, Any]]:
    """The trial's own questions, in their order there."""
    return [as_row(q) for q in read_data(OpenRun.open(run).plan).split.test]


def test_eval_of_the_trials_questions_equals_the_trial(
    run: Path, trial: list[dict[str, Any]], tunewise: Any, tmp_path: Path
) -> None:
    """From the command line, and again from Python without asking the model; the run's files do not change."""
    report = json.loads((run / "report.json").read_text("utf-8"))
    file = write_questions(tmp_path / "mine.jsonl", trial)
    manifest = (run / "manifest.json").read_bytes()
    arms = ("--arm", "hybrid", "--arm", "rag")
    done = tunewise("eval", run, "--questions", file, *arms, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    scores, trial_scores = ({arm["arm"]: arm["scores"] for arm in data["arms"]} for data in (body, report))
    assert scores == {name: trial_scores[name] for name in ("hybrid", "rag")}
    means = {arm["arm"]: arm["score"]["mean"] for arm in report["arms"]}
    assert body["trial"] == pytest.approx(means)
    pair = next(pair for pair in report["paired"] if pair["b"] == "rag")
    assert [p["difference"] for p in body["paired"]] == [pair["difference"]]
    assert "must beat, were not measured" in body["verdict"]["text"]
    assert body["questions"] == {
        "file": str(file),
        "asked": 6,
        "near": 0,
        "dev": 0,
        "trial": 6,
        "unchecked": "",
    }
    assert body["warnings"] == ["6 of 6 are questions of the trial itself"]
    assert (run / "manifest.json").read_bytes() == manifest
    answers = Path(body["folder"]) / "answers.jsonl"
    before = answers.read_bytes()
    again = evaluate(run, file, ("hybrid", "rag"))
    assert again.folder == Path(body["folder"]), "the folder is named by the questions' file and content"
    assert answers.read_bytes() == before
    assert json.loads((again.folder / "eval.json").read_text("utf-8")) == body


def test_eval_without_the_recommended_arm_has_no_verdict(run: Path, tmp_path: Path, capsys: Any) -> None:
    """New questions, into a given folder; only arms whose index has changed are asked again."""
    from rag.index import Index

    rows = [{"question": "Who won the world chess championship of 1972?", "answerable": False}]
    file, plan, out = write_questions(tmp_path / "new.jsonl", rows), OpenRun.open(run).plan, tmp_path / "kept"
    evaluation = evaluate(run, file, ("rag", "prompting"), out)
    report = report_evaluation(run, plan, file, evaluation)
    assert report.verdict is None
    show_evaluation(report)
    printed = capsys.readouterr().out
    assert "in the run's own trial: " in printed
    assert not any(word in printed for word in ("UNDECIDED", "CONFIRMED", "OVERTURNED", "warning"))
    assert not list((run / "evals").glob("new-*"))
    documents = Path(shutil.copytree(plan.data.documents or "", tmp_path / "documents"))
    (documents / "chess.md").write_text("# Chess\n\nBobby Fischer won the championship of 1972.\n", "utf-8")
    Index.update(run / "index", documents, OpenRun.open(run).models.embedder)
    events: list[dict[str, Any]] = []
    assert evaluate(run, file, ("rag", "prompting"), out, events.append).generation == 2
    assert [e["arm"] for e in events if e["event"] == "answers.batch"] == ["rag"]


@pytest.mark.parametrize("fault", ["leak", "empty", "arm", "row"])
def test_invalid_questions_or_arms_are_refused(run: Path, tmp_path: Path, fault: str) -> None:
    from runners.data.examples import load_examples

    plan = OpenRun.open(run).plan
    rows, arms, message = [{"question": "How high is the lighthouse?"}], ["rag"], ""
    if fault == "leak":
        examples = load_examples(plan.data.examples or "").rows
        rows = [{"question": row.question} for row in examples]
        message = "also occur in the examples"
    elif fault == "empty":
        rows, message = [], "has no rows"
    elif fault == "arm":
        arms, message = ["nope"], "no arm 'nope'"
    else:
        rows, message = [{"doc_id": "x"}], "not a question row"
    with pytest.raises(BadInput, match=message):
        evaluate(run, write_questions(tmp_path / "q.jsonl", rows), arms)


def test_missing_training_data_is_reported_as_unchecked(run: Path, tmp_path: Path) -> None:
    """A run that was moved to another machine can be evaluated there."""
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    (moved / "manifest.json").unlink()
    plan = (moved / "plan.yaml").read_text("utf-8")
    (moved / "plan.yaml").write_text(plan.replace("/examples.jsonl", "/nowhere.jsonl"), "utf-8")
    file = write_questions(tmp_path / "new.jsonl", [{"question": "Is the pier open at night?"}])
    evaluation = evaluate(moved, file, ["prompting"])
    assert "nowhere.jsonl" in evaluation.asked.unchecked
    assert evaluation.asked.unchecked.startswith(
        "whether the run was trained on these questions is not checked"
    )
