"""A run that assigns labels: a classifier and a remote model, trained, measured and asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.report.report import judge
from rag.errors import BadInput
from runners.classification.files import read_classifier
from runners.export.bundle import unbundle
from runners.export.export import export
from runners.export.job import ExportRequest
from runners.inference.types import LabelProbability
from runners.plan.schema import parse_plan
from runners.run_folder import TRIAL, read_journal
from runners.runs.opened import OpenRun
from runners.trial.execute import run_plan

pytestmark = pytest.mark.real  # the embedder

TEXTS = {
    "refund": ("I want my money back.", "Please refund my ticket.", "Can I get my fare returned?"),
    "lost": ("I left my bag on the ferry.", "Has anyone handed in a blue coat?", "My umbrella is gone."),
}
QUESTIONS = {"Give me back what I paid.": "refund", "I forgot my gloves on board.": "lost"}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_classifier_is_trained_measured_and_asked(tmp_path: Path, server: Any) -> None:
    pairs = [{"prompt": text, "completion": label} for label, texts in TEXTS.items() for text in texts]
    examples = write_rows(tmp_path / "examples.jsonl", pairs)
    rows = [{"question": text, "reference": label} for text, label in QUESTIONS.items()]
    plan = parse_plan(
        {
            "name": "p",
            "choice": "prompting",
            "model": {"name": f"openai:tern-2@{server.url}"},
            "data": {"examples": examples, "test_questions": write_rows(tmp_path / "questions.jsonl", rows)},
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "classifier", "classifier": True},
                {"kind": "evaluate", "arm": "similar", "shots": 2, "bank": "similar"},
            ],
            "checks": [{"kind": "labels", "value": ["refund", "lost"]}],
            "weights": {"exact_match": 1},
        }
    )
    run = run_plan(plan, tmp_path / "run")
    answers = read_journal(run.path / TRIAL / "answers.jsonl")
    assert {r["question"]: r["answer"] for r in answers if r["arm"] == "classifier"} == QUESTIONS
    scores = json.loads((run.path / TRIAL / "scores.json").read_text("utf-8"))["arms"]
    assert [row["combined"] for row in scores["classifier"].values()] == [1.0, 1.0]
    shown = {r["question"]: r["prompt"][-2]["content"] for r in answers if r["arm"] == "similar"}
    assert shown == QUESTIONS, "the nearest example is last"
    requests = len(server.seen)
    session = OpenRun.open(run.path).obtain()
    answer = session.ask(["My scarf is still on the boat."], session.arm("classifier"))[0]
    assert (answer.text, answer.refused, answer.citations) == ("lost", False, ())
    assert list(session.stream("Refund please.", session.arm("classifier"))) == ["refund"]
    assert len(server.seen) == requests, "the classifier sends no request"
    session.ask(["Refund please."], session.arm("similar"))
    assert [m["content"] for m in server.seen[-1]["messages"]][-2] == "refund"
    stored = [row for row in answers if row["arm"] == "classifier"]
    assert all(row["labels"][0]["label"] == row["answer"] for row in stored), (
        "the likeliest label is the answer"
    )
    exported = export(run.path, ExportRequest("classifier", "classifier", out=tmp_path / "exported"))
    assert {Path(name).suffix for name in exported.files} <= {".json", ".safetensors"}
    read, encoder = read_classifier(tmp_path / "exported", lambda: session.models.embedder)
    vectors = encoder.encode(list(QUESTIONS)) if encoder else None
    scores = read.scores(list(QUESTIONS), vectors)
    assert [read.head.labels[n] for n in scores.argmax(axis=1)] == list(QUESTIONS.values())
    judge(run.path)
    bundle = export(run.path, ExportRequest("bundle", out=tmp_path / "bundle"))
    unbundle(Path(bundle.out) / "p.zip", tmp_path / "unpacked")
    again = OpenRun.open(tmp_path / "unpacked").obtain().ask(list(QUESTIONS), session.arm("classifier"))
    assert [a.completion.labels for a in again] == [
        tuple(LabelProbability(**one) for one in row["labels"])
        for row in sorted(stored, key=lambda row: list(QUESTIONS).index(row["question"]))
    ]
    with pytest.raises(BadInput, match="is no classifier"):
        export(run.path, ExportRequest("classifier", "prompting", out=tmp_path / "other"))
    weights = next((run.path / "classifiers").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(BadInput, match="damaged"):
        session.ask(["Refund please."], session.arm("classifier"))
