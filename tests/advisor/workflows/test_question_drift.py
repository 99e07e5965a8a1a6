"""Questions unlike those that refusals were fitted on: said by run, eval, recheck and chat, and in /metrics."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from advisor.report.recheck_report import recheck_json
from advisor.workflows.ask import AskOptions
from advisor.workflows.chat import converse
from advisor.workflows.eval import report_evaluation
from benchmarks.recheck import make_run, write_rows
from runners.data.questions import Question
from runners.plan.schema import read_plan
from runners.recheck.recheck import RecheckRequest, recheck
from runners.run_folder import read_journal
from runners.runs.opened import OpenRun
from runners.serving.batch import answer_batch
from runners.serving.http.metrics import ServerMetrics
from runners.serving.request import AnswerRequest
from runners.serving.served_models import served_models
from runners.trial.evaluate import evaluate
from runners.trial.refusal_gate import question_drift
from runners.trial.trial import ANSWERS

COUNT = 44
LINE = "questions asked differ from the"
LONG = (
    "Hello there, we come from far away with a large family on a yellow boat of some age and would like to know, "
    "before we leave on Tuesday, whether berth {n} could perhaps be taken by somebody like us"
)


def questions() -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{n}",
            "question": f"How many berths has Pier {n}?",
            "answers": [str(100 + n)],
            "doc_id": f"pier{n:02}",
        }
        for n in range(COUNT)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small embedder and a model that reads; half of its questions are dev questions."""
    texts = [f"Pier {n} has {100 + n} berths for visitors." for n in range(COUNT)]
    documents = [{"id": f"pier{n:02}", "title": f"Pier {n}", "text": text} for n, text in enumerate(texts)]
    return make_run("piers", documents, questions(), tmp_path_factory.mktemp("drift"), dev_share=0.5).run


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A file of questions that are much longer than those of the run."""
    rows = [
        {"question": LONG.format(n=n), "answers": [str(100 + n)], "doc_id": f"pier{n:02}"} for n in range(24)
    ]
    return write_rows(tmp_path / "other.jsonl", rows)


def test_a_trial_like_its_dev_questions_does_not_differ(run: Path) -> None:
    rows = read_journal(run / "trial" / ANSWERS)
    assert all(("decision" in row) is (row["arm"] == "rag") for row in rows)
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert (report["drift"]["asked"], report["drift"]["differs"]) == (len(rows) // 2, False)
    assert not [line for line in report["warnings"] if LINE in line]


def test_a_trial_unlike_its_dev_questions_is_said(run: Path) -> None:
    plan = read_plan(run / "plan.yaml")
    rows = read_journal(run / "trial" / ANSWERS)
    for row in (row for row in rows if row["arm"] == "rag"):
        row["decision"]["signals"]["length"] += 20
    drift = question_drift(run, plan, rows)
    assert drift is not None
    assert (drift.signal, drift.sure) == ("length", True)
    for row in rows:  # as a journal of an earlier version
        row.pop("decision", None)
    assert question_drift(run, plan, rows) is None


def test_eval_says_that_its_questions_differ(run: Path, other: Path, tmp_path: Path) -> None:
    plan = read_plan(run / "plan.yaml")
    for _ in range(2):  # the second time all answers are in the journal already
        report = report_evaluation(run, plan, other, evaluate(run, other, out=tmp_path / "eval"))
        assert report.drift is not None
        assert (report.drift["asked"], report.drift["differs"]) == (24, True)
        (line,) = [line for line in report.warnings if LINE in line]
        assert "tunewise plan --wordings FILE" in line
    asked = evaluate(run, other, ["prompting"], tmp_path / "prompting")
    assert report_evaluation(run, plan, other, asked).drift is None


def test_recheck_compares_too(run: Path, tmp_path: Path) -> None:
    same = recheck_json(recheck(run, RecheckRequest(out=tmp_path / "same", arms=("rag",))), 0.0)
    assert (same["drift"]["asked"], same["drift"]["differs"]) == (COUNT // 2, False)
    assert not [line for line in same["notes"] if LINE in line]


def test_chat_says_it_once(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(LONG.format(n=n) + "\n" for n in range(45))
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    converse(run, AskOptions(arm="rag", as_json=True, server=False))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 45
    assert " ".join(printed.err.split()).count(LINE) == 1


def test_server_says_it_once_and_shows_it_in_its_metrics(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = OpenRun.open(run).obtain()
    metrics = ServerMetrics()
    metrics.watch_questions(lambda: session.retrieval.drift)
    assert b"tunewise_question_drift 0.0" in metrics.render()
    model = served_models(session, "rag")[0]["rag"]
    waiting: list[object] = []

    def ask(numbers: range) -> None:
        """Search for questions; the model's answers are not waited for."""
        for n in numbers:
            request = AnswerRequest(
                model, Question(f"q{n}", LONG.format(n=n)), waiting.append, waiting.append
            )
            answer_batch(
                session,
                [request],
                lambda **event: metrics.on_event(event),
                lambda request, work: waiting.append(work),
            )

    ask(range(19))
    assert b"tunewise_question_drift_sure 0.0" in metrics.render()
    ask(range(19, 45))
    assert len(waiting) == 45
    assert capsys.readouterr().err.count(LINE) == 1
    assert session.retrieval.drift is not None
    lines = [line for line in metrics.render().decode().splitlines() if line.startswith("tunewise_question")]
    assert lines == [
        f"tunewise_question_drift {session.retrieval.drift.distance}",
        "tunewise_question_drift_sure 1.0",
    ]
