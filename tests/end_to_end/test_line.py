"""The line end to end, with the real base model and embedder: plan, run, verdict, ask, update."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.grounding.refusal import SIGNAL_NAMES
from runners.runs.run import open_session

pytestmark = pytest.mark.real

ARMS = ["prompting", "few-shot", "rag", "lora", "naive-stack", "hybrid"]
CITATION = {
    "n",
    "doc",
    "title",
    "page",
    "line_start",
    "line_end",
    "char_start",
    "char_end",
    "quote",
    "supported",
    "date",
    "valid_until",
    "expired",
    "support",
    "answer_start",
    "answer_end",
}
ANSWER = {
    "schema",
    "answer",
    "refused",
    "arm",
    "citations",
    "usage",
    "seconds",
    "conflicts",
    "searched",
    "nearest",
    "decision",
    "notes",
}
KNOWN = "What does entry to the Ropewalk Museum cost?"
UNKNOWN = "Who won the world chess championship of 1972?"


def test_ctrl_c_while_training_keeps_what_is_finished(line: Any, read_rows: Any) -> None:
    code, said = line.interrupted
    assert code == 130, said
    assert "interrupted" in said
    assert "tunewise run tiny.yaml --out run --resume" in said
    assert "Traceback" not in said
    events = read_rows(line.run / "events.jsonl")
    again = max(n for n, e in enumerate(events) if e["event"] == "run.start")
    before = [e["step"] for e in events[:again] if e["event"] == "step.done"]
    skipped = [e["step"] for e in events[again:] if e["event"] == "step.skip"]
    assert before == skipped == ["index", "evaluate:prompting", "evaluate:few-shot", "evaluate:rag"]


def test_a_run_goes_through_every_arm_to_a_verdict(line: Any, read_rows: Any) -> None:
    assert line.finished.returncode in (0, 5), line.finished.stderr
    report = json.loads(line.finished.stdout)
    assert report == json.loads((line.run / "report.json").read_text("utf-8"))
    assert {
        "schema": 1,
        "verdict": {},
        "arms": [],
        "paired": [],
        "predicted": {},
        "measured": {},
        "guards": {},
    }.keys() <= report.keys()
    verdict = report["verdict"]
    assert {"outcome", "strength", "recommended", "winner", "model", "text", "more_questions_needed"} <= set(
        verdict
    )
    assert verdict["outcome"] in ("confirmed", "overturned", "undecided")
    assert (verdict["recommended"], verdict["strength"]) == ("hybrid", "leaning")
    assert verdict["model"] == "smollm2-135m-instruct"
    assert sorted(arm["arm"] for arm in report["arms"]) == sorted(ARMS)
    for arm in report["arms"]:
        assert {"arm", "score", "scores", "n", "seconds_per_answer", "usd_per_1000"} <= set(arm)
        assert arm["n"] == 6
        assert 0 <= arm["score"]["low"] <= arm["score"]["mean"] <= arm["score"]["high"] <= 1
    assert all({"a", "b", "difference", "low", "high", "p"} <= set(pair) for pair in report["paired"])
    assert {"leakage", "forgetting", "staleness"} <= set(report["guards"])
    assert "<svg" in (line.run / "report.html").read_text("utf-8")
    answers = read_rows(line.run / "trial" / "answers.jsonl")
    assert sorted({(row["arm"], row["id"]) for row in answers}) == sorted(
        (row["arm"], row["id"]) for row in answers
    )
    assert len(answers) == len(ARMS) * 6


def test_a_run_folder_holds_what_the_contract_says(line: Any) -> None:
    expected = (
        "plan.yaml",
        "events.jsonl",
        "index/CURRENT",
        "adapters/lora-s0/adapter_model.safetensors",
        "adapters/hybrid-s0/adapter_model.safetensors",
        "trial/answers.jsonl",
        "trial/scores.json",
        "report.html",
        "report.json",
        "report.md",
        "manifest.json",
    )
    assert [name for name in expected if not (line.run / name).is_file()] == []
    manifest = json.loads((line.run / "manifest.json").read_text("utf-8"))
    assert manifest["kind"] == "run"
    assert len(manifest["split"]) == 64


def test_the_hybrid_is_trained_on_passages(line: Any, read_rows: Any) -> None:
    events = read_rows(line.run / "events.jsonl")
    account = next(e for e in events if e["event"] == "rows.prepared")
    assert account["rows"] + account["unsupported"] == 16
    assert account["with_gold"] + account["without_gold"] + account["refusals"] == account["rows"]
    shown = [
        row
        for row in read_rows(line.run / "trial" / "answers.jsonl")
        if row["arm"] == "hybrid" and row["prompt"]
    ]
    assert shown
    assert all("[1] " in row["prompt"][-1]["content"] for row in shown)


def test_the_report_verb_prints_the_same(line: Any, tunewise: Any) -> None:
    done = tunewise("report", "run", "--json", cwd=line.folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((line.run / "report.json").read_text("utf-8"))


def test_a_second_run_in_the_same_folder_is_refused(line: Any, tunewise: Any) -> None:
    before = (line.run / "events.jsonl").read_bytes()
    done = tunewise("run", "tiny.yaml", "--out", "run", cwd=line.folder)
    assert done.returncode == 2
    assert "run exists" in done.stderr
    assert "--resume" in done.stderr
    assert (line.run / "events.jsonl").read_bytes() == before


def test_resuming_a_finished_run_does_nothing_twice(line: Any, tunewise: Any, read_rows: Any) -> None:
    kept = ("trial/answers.jsonl", "trial/scores.json", "adapters/hybrid-s0/adapter_model.safetensors")
    before = {name: (line.run / name).read_bytes() for name in kept}
    started = time.monotonic()
    done = tunewise("run", "tiny.yaml", "--out", "run", "--resume", cwd=line.folder)
    assert done.returncode in (0, 5), done.stderr
    assert time.monotonic() - started < 30
    assert {name: (line.run / name).read_bytes() for name in kept} == before
    events = read_rows(line.run / "events.jsonl")
    again = max(n for n, e in enumerate(events) if e["event"] == "run.start")
    steps = [e for e in events[again:] if e["event"] in ("step.skip", "step.done")]
    assert {e["event"] for e in steps} == {"step.skip"}
    assert [e["step"] for e in steps][-1] == "forgetting"
    assert len(steps) == 10
    assert "hybrid" in done.stdout


def stands(span: str, citation: dict[str, Any]) -> bool:
    """Whether a quote is what its span of the file says; rows and marked-up text are quoted as they read."""
    if citation["doc"].endswith(".csv"):
        return all(cell in citation["quote"] for row in csv.reader([span]) for cell in row)
    if citation["doc"].endswith(".html"):
        return " ".join(citation["quote"].split()) in " ".join(
            html.unescape(re.sub("<[^>]*>", "", span)).split()
        )
    return span == citation["quote"]


@pytest.fixture(scope="module")
def answer(line: Any, tunewise: Any) -> Callable[..., dict[str, Any]]:
    """Ask the run and return what it printed as JSON."""

    def ask(question: str, *more: str) -> dict[str, Any]:
        done = tunewise("ask", "run", question, "--json", *more, cwd=line.folder)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return ask


def test_an_answer_cites_what_stands_in_the_file(
    answer: Callable[..., dict[str, Any]], example: Path
) -> None:
    found = answer(KNOWN, "--arm", "rag")
    assert set(found) == ANSWER
    assert set(found["usage"]) == {"prompt_tokens", "completion_tokens"}
    assert (found["schema"], found["arm"], found["refused"]) == (1, "rag", False)
    assert found["citations"]
    for citation in found["citations"]:
        assert set(citation) == CITATION
        assert citation["support"] in ("supported", "partly", "unsupported")
        assert citation["supported"] is (citation["support"] == "supported")
        said = found["answer"][citation["answer_start"] : citation["answer_end"]]
        assert said == said.strip() != ""
        if citation["support"] == "unsupported":
            continue
        raw = (example / "documents" / citation["doc"]).read_bytes().decode("utf-8")
        start, end = citation["char_start"], citation["char_end"]
        assert stands(raw[start:end], citation)
        assert citation["line_start"] == raw.count("\n", 0, start) + 1
        assert citation["line_end"] == raw.count("\n", 0, end - 1) + 1
        assert f"[{citation['n']}]" in found["answer"]


def test_every_citation_of_the_trial_stands_in_its_file(line: Any, read_rows: Any, example: Path) -> None:
    cited = [
        c
        for row in read_rows(line.run / "trial" / "answers.jsonl")
        for c in row["citations"]
        if c["supported"]
    ]
    assert cited
    for citation in cited:
        raw = (example / "documents" / citation["doc"]).read_bytes().decode("utf-8")
        assert stands(raw[citation["char_start"] : citation["char_end"]], citation)


def test_what_the_documents_do_not_hold_is_refused(answer: Callable[..., dict[str, Any]]) -> None:
    found = answer(UNKNOWN, "--arm", "hybrid")
    assert found["refused"] is True
    assert found["arm"] == "hybrid"
    assert found["citations"] == found["conflicts"] == []
    assert found["decision"]["refuse"] is True
    assert found["decision"]["score"] < 0
    assert set(found["decision"]["signals"]) == set(SIGNAL_NAMES)
    assert found["searched"]["documents"] > 40
    assert len(found["nearest"]) == 3
    assert all(passage["text"] and passage["doc"] for passage in found["nearest"])


def test_a_chat_makes_follow_ups_stand_alone(line: Any, tunewise: Any) -> None:
    turns = f"{KNOWN}\nAnd on Sundays?\n/quit\nnever asked\n"
    done = tunewise("chat", "run", "--arm", "rag", cwd=line.folder, stdin=turns)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("arm: rag") + done.stdout.count("do not hold an answer") == 2
    assert "asked as:" in done.stderr
    assert "Ropewalk Museum" in done.stderr


def test_the_same_plan_gives_the_same_answers(line: Any, tunewise: Any, shrink: Any, read_rows: Any) -> None:
    shrink(line.folder / "plan.yaml", line.folder / "two.yaml", ("prompting", "rag"))
    done = tunewise("run", "two.yaml", "--out", "two", "--json", cwd=line.folder)
    assert done.returncode in (0, 5), done.stderr

    def said(run: Path) -> dict[tuple[str, str], tuple[str, str]]:
        kept = [r for r in read_rows(run / "trial" / "answers.jsonl") if r["arm"] in ("prompting", "rag")]
        return {(r["arm"], r["id"]): (r["marked"], json.dumps(r["context"])) for r in kept}

    assert len(said(line.run)) == 12
    assert said(line.folder / "two") == said(line.run)


def test_an_updated_document_is_found_at_once(line: Any, tunewise: Any, example: Path) -> None:
    documents = line.folder / "documents"
    shutil.copytree(example / "documents", documents)
    shutil.copytree(example / "update" / "documents", documents, dirs_exist_ok=True)
    stale = json.loads((example / "update" / "stale.jsonl").read_text("utf-8").splitlines()[0])

    def passages() -> str:
        (found,) = open_session(line.run).context.retriever.find([stale["question"]])
        return str(found.passages)

    before = passages()
    assert stale["old_answers"][0] in before
    assert stale["answers"][0] not in before
    done = tunewise("index", "update", "run/index", "--documents", documents, "--json", cwd=line.folder)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["changed"] >= 12
    assert report["unchanged"] + report["changed"] + report["added"] == report["found"]
    assert report["embedded"] < report["chunks"] / 2
    after = passages()
    assert stale["answers"][0] in after
    assert stale["old_answers"][0] not in after
