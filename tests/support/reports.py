"""Reports of runs that did not happen: records made from the few keys of report.json that a test is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advisor.report.report import write_report
from advisor.verdict.run_records import RunRecords
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.report.json_records import from_json
from runners.report.report_file import report_json
from runners.report.trial_report import TrialReport
from runners.run_folder import RunFolder

_ARM: dict[str, Any] = {
    "retrieval": False,
    "weights": None,
    "score": {"mean": 0.5, "low": 0.4, "high": 0.6},
    "scores": {},
    "right": None,
    "n": 40,
    "documents": 1,
    "seeds": [],
    "seconds_per_answer": 0.2,
    "ms_per_answer": 200.0,
    "prompt_tokens": 50.0,
    "completion_tokens": 20.0,
    "usd_per_1000": None,
    "usd_basis": "",
    "alone": None,
    "batch": None,
}
_PAIR: dict[str, Any] = {"a": "rag", "p": 0.01, "p_holm": 0.01, "units": 40, "n": 40}
_VERDICT: dict[str, Any] = {
    "outcome": "confirmed",
    "strength": "measured",
    "recommended": "rag",
    "winner": "rag",
    "model": "smollm2-135m-instruct",
    "text": "",
    "taught": "",
    "advised": "rag",
    "use": "rag",
    "use_reason": "",
    "excluded": {},
    "compared": {"today": None, "alternative": None},
    "conclusion": ["Use rag."],
}
_MEASURED: dict[str, Any] = {
    "seconds": {},
    "training": {},
    "busy": {},
    "answering": {},
    "ratios": {"time": None, "memory": None},
    "steps": [],
}
_REPORT: dict[str, Any] = {
    "name": "desk",
    "warnings": [],
    "arms": [],
    "paired": [],
    "cost_order": [],
    "weights": {},
    "weight_reasons": {},
    "training_reasons": {},
    "predicted": {},
    "dev_budget": [],
    "task": {"goal": "", "answers": {}, "prompt": True},
    "environment": {},
    "data": {
        "plan": "",
        "model": "",
        "seed": 0,
        "training_seeds": [],
        "longest_answer_tokens": 48,
        "files": {},
    },
}
_LEAKAGE: dict[str, Any] = {"overlapping_questions": None, "split": None}


def report_from(body: Mapping[str, Any]) -> TrialReport:
    """Return the report with these keys of report.json; the others are those of a run without results."""
    arms = [
        _ARM | arm | {"right": (arm.get("right") or None) and _right(arm["right"])}
        for arm in body.get("arms", ())
    ]
    whole = {
        **_REPORT,
        **body,
        "verdict": _verdict(body.get("verdict", {})),
        "arms": arms,
        "paired": [_PAIR | pair for pair in body.get("paired", ())],
        "measured": _MEASURED | body.get("measured", {}),
        "guards": {"leakage": _LEAKAGE} | body.get("guards", {}),
        "task": _REPORT["task"] | body.get("task", {}),
    }
    return from_json(TrialReport, whole)


def written(run: RunFolder, plan: Plan, questions: Sequence[Question] = ()) -> dict[str, Any]:
    """Write the report of a run, and return the content of its report.json."""
    return report_json(write_report(run, plan, questions))


def records_of(plan: Plan, *events: Mapping[str, Any]) -> RunRecords:
    """Return the records of a run without answers."""
    return RunRecords(path=Path("run"), plan=plan, events=events, answers=())


def _right(counts: Mapping[str, Any]) -> dict[str, Any]:
    count = {"n": counts["n"], "of": counts["of"]}
    return {"low": 0.0, "high": 1.0, "answered": count, "refused": {"n": 0, "of": 0}, **counts}


def _verdict(keys: Mapping[str, Any]) -> dict[str, Any]:
    margin = keys.get("margin")
    return {**_VERDICT, **keys, "margin": margin and {"p": 0.01, "p_holm": 0.01, **margin}}
