"""A finished run on other questions: scored as the trial scores, kept beside it, and nothing asked twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from advisor.workflows.eval import evaluation_json, show_evaluation
from rag.errors import BadInput
from runners.data.questions import Question
from runners.runs.dataset import read_data
from runners.runs.run import open_session
from runners.trial.evaluate import evaluate

pytestmark = pytest.mark.real


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write questions; return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def as_row(question: Question) -> dict[str, Any]:
    """A question as its file has it."""
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
def run(line: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the session's run, to be examined."""
    return Path(shutil.copytree(line.run, tmp_path_factory.mktemp("eval") / "run"))


@pytest.fixture(scope="module")
def trial(run: Path) -> list[dict[str, Any]]:
    """The trial's own questions, in the order they were asked in."""
    return [as_row(q) for q in read_data(open_session(run).plan)[1].test]


def test_the_trials_own_questions_score_what_they_scored(
    run: Path, trial: list[dict[str, Any]], tunewise: Any, tmp_path: Path
) -> None:
    """From the command line, and a second time without asking anything; the run itself stays whole."""
    report = json.loads((run / "report.json").read_text("utf-8"))
    file = write(tmp_path / "mine.jsonl", trial)
    manifest = (run / "manifest.json").read_bytes()
    arms = ("--arm", "hybrid", "--arm", "rag")
    done = tunewise("eval", run, "--questions", file, *arms, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    now, then = ({arm["arm"]: arm["scores"] for arm in data["arms"]} for data in (said, report))
    assert now == {name: then[name] for name in ("hybrid", "rag")}
    means = {arm["arm"]: arm["score"]["mean"] for arm in report["arms"]}
    assert said["trial"] == pytest.approx(means)
    pair = next(pair for pair in report["paired"] if pair["b"] == "rag")
    assert [p["difference"] for p in said["paired"]] == [pair["difference"]]
    assert "which it must beat, were not measured" in said["verdict"]["text"]
    assert said["questions"] == {
        "file": str(file),
        "asked": 6,
        "near": 0,
        "dev": 0,
        "trial": 6,
        "unchecked": "",
    }
    assert said["warnings"] == ["6 of 6 are questions of the trial itself"]
    assert (run / "manifest.json").read_bytes() == manifest
    answers = Path(said["folder"]) / "answers.jsonl"
    before = answers.read_bytes()
    again = evaluate(run, file, ("hybrid", "rag"))
    assert again.folder == Path(said["folder"]), "in the run, by name and content"
    assert answers.read_bytes() == before
    assert json.loads((again.folder / "eval.json").read_text("utf-8")) == said


def test_without_the_recommended_arm_there_is_no_verdict(run: Path, tmp_path: Path, capsys: Any) -> None:
    """On new questions, into the caller's folder; asked again only of arms whose index has changed."""
    from rag.index import Index

    rows = [{"question": "Who won the world chess championship of 1972?", "answerable": False}]
    file, plan, kept = write(tmp_path / "new.jsonl", rows), open_session(run).plan, tmp_path / "kept"
    found = evaluate(run, file, ("rag", "prompting"), kept)
    said = evaluation_json(run, plan, file, found)
    assert said["verdict"] is None
    show_evaluation(said)
    printed = capsys.readouterr().out
    assert "in the run's own trial: " in printed
    assert not any(word in printed for word in ("UNDECIDED", "CONFIRMED", "OVERTURNED", "warning"))
    assert not list((run / "evals").glob("new-*"))
    documents = Path(shutil.copytree(plan.data.documents or "", tmp_path / "documents"))
    (documents / "chess.md").write_text("# Chess\n\nBobby Fischer won the championship of 1972.\n", "utf-8")
    Index.update(run / "index", documents, open_session(run).context.embedder)
    heard: list[dict[str, Any]] = []
    assert evaluate(run, file, ("rag", "prompting"), kept, heard.append).generation == 2
    assert [e["arm"] for e in heard if e["event"] == "answers.batch"] == ["rag"]


@pytest.mark.parametrize("break_it", ["leak", "empty", "arm", "row"])
def test_what_cannot_be_asked_is_said(run: Path, tmp_path: Path, break_it: str) -> None:
    from runners.data.examples import load_examples

    plan = open_session(run).plan
    rows, arms, words = [{"question": "How high is the lighthouse?"}], ["rag"], ""
    if break_it == "leak":
        example = load_examples(plan.data.examples or "").rows
        rows = [{"question": row.question} for row in example]
        words = "also occur in the examples"
    elif break_it == "empty":
        rows, words = [], "holds no rows"
    elif break_it == "arm":
        arms, words = ["nope"], "no arm 'nope'"
    else:
        rows, words = [{"doc_id": "x"}], "not a question row"
    with pytest.raises(BadInput, match=words):
        evaluate(run, write(tmp_path / "q.jsonl", rows), arms)


def test_without_the_runs_data_it_says_that_nothing_was_checked(run: Path, tmp_path: Path) -> None:
    """A run that was moved to another machine can be examined there."""
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    (moved / "manifest.json").unlink()
    plan = (moved / "plan.yaml").read_text("utf-8")
    (moved / "plan.yaml").write_text(plan.replace("/examples.jsonl", "/nowhere.jsonl"), "utf-8")
    file = write(tmp_path / "new.jsonl", [{"question": "Is the pier open at night?"}])
    found = evaluate(moved, file, ["prompting"])
    assert "nowhere.jsonl" in found.asked.unchecked
    assert found.asked.unchecked.startswith("whether the run was trained on these questions is not checked")
