"""Prediction beside measurement: ratios where both are about the same work, and the reason where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor import history
from advisor.evidence.trials import own_trials
from advisor.report.data import measured_facts
from advisor.report.report import write_report
from advisor.verdict import predictions
from advisor.verdict.predictions import past_run, remember_run, time_corrections
from runners.plan.schema import Plan, parse_plan
from runners.report.json_records import to_json
from runners.report.trial_report import Measured
from runners.resources.machine import Machine, detect_machine
from runners.resources.usage import busy_note
from runners.run_folder import RunFolder
from runners.trial.trial import ArmScores, write_scores
from tests.support.reports import records_of, written

BODY: dict[str, Any] = {
    "name": "desk",
    "choice": "lora",
    "model": {"name": "smollm2-135m-instruct"},
    "data": {"examples": "e", "questions": "q"},
    "steps": [
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "train", "arm": "lora", "seeds": [0, 1]},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
    ],
    "weights": {"style": 1},
    "gate": {"must_beat": ["prompting"]},
    "answers": {
        "labelled_examples": {"value": 300, "source": "counted"},
        "gpu_kind": {"value": "none", "source": "detected"},
    },
    "predicted": {
        "ranked": [
            {
                "method": "lora",
                "estimate": {
                    "hours": {"low": 0.1, "likely": 0.5, "high": 1},
                    "memory_gib": {"low": 1, "likely": 2.0, "high": 3},
                    "assumptions": ["9 training tokens", "1 x 1024 tokens at a time"],
                },
            }
        ]
    },
}
TRAINED = [
    {
        "seconds": s,
        "peak_gib": p,
        "held_gib": p - g,
        "own_gib": g,
        "expected_gib": 0.8,
        "method": "lora",
        "rows": 300,
    }
    for s, p, g in ((900.0, 4.0, 1.0), (2700.0, 3.0, 1.2))
]
"""The process was larger at first, and training took less of it: index and embedder were still there."""


def plan(**changes: Any) -> Plan:
    return parse_plan({**BODY, **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run whose two seeds trained for an hour together."""
    folder = RunFolder.create(tmp_path / "run", plan())
    folder.write({"event": "run.start", "split": "abc"})
    steps: tuple[tuple[str, dict[str, Any]], ...] = (
        ("evaluate:prompting", {}),
        ("train:lora", {"trained": TRAINED}),
        ("evaluate:lora", {}),
    )
    for number, (name, result) in enumerate(steps):
        start = {"event": "step.start", "step": name, "number": number + 1, "total": 3}
        folder.write(start)
        if name == "evaluate:lora":
            folder.write(start)  # it was interrupted, and gone on with
        folder.finish(name, {}, result)
    ids = tuple(f"q{n}" for n in range(40))
    arms = [
        ArmScores(
            arm,
            ids,
            tuple({"style": v} for _ in ids),
            tuple(v + n % 3 / 30 for n in range(40)),
            (0.2,) * 40,
            (50,) * 40,
            (20,) * 40,
        )
        for arm, v in (("prompting", 0.1), ("lora", 0.8))
    ]
    write_scores(arms, folder.path / "trial" / "scores.json")
    return folder


def test_report_holds_prediction_ratios(run: RunFolder) -> None:
    memory = written(run, plan())["measured"]
    assert (memory["memory_gib"], memory["memory_expected_gib"]) == (1.2, 0.8)
    assert (memory["process_gib"], memory["held_gib"]) == (4.0, pytest.approx(1.8))
    assert memory["hours"] == 0.5
    assert memory["ratios"] == {"time": 1.0, "memory": 1.5}
    assert {step["arm"] for step in memory["steps"]} <= {"prompting", "lora"}
    assert [step for step in memory["steps"] if step["kind"] == "evaluate" and step["arm"] == "lora"] == []


def test_prediction_line_shows_predicted_and_measured(run: RunFolder) -> None:
    said = predictions.prediction_line(write_report(run, plan()))
    assert said == [
        "order predicted lora; measured lora",
        "training: predicted 0.5 h, measured 0.5 h",
        "memory of training: estimated 0.8 GiB, measured 1.2 GiB",
        "the whole process used 4 GiB at its peak, 1.8 of it before training (libraries, index, embedder)",
        "the plan estimated 2 GiB for 1 x 1024 tokens at a time, 0.8 of it needed on a GPU only",
    ]
    data = write_report(run, plan(predicted={}, answers={"gpu_kind": {"value": "cuda", "source": "asked"}}))
    lines = predictions.prediction_line(data)
    assert lines[:2] == [
        "no prediction is at hand: the plan was run without a forecast file",
        "training: not predicted, measured 0.5 h",
    ]
    assert predictions.prediction_line(data)[-1].startswith("not compared further: predicted for a machine")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data": {**BODY["data"], "max_examples": 50}}, "trained on 50 of the 300 examples"),
        ({"answers": {"gpu_kind": {"value": "cuda", "source": "flag"}}}, "a machine that a person described"),
        ({"answers": {"model": {"value": "qwen3-8b", "source": "flag"}}}, "another model"),
    ],
)
def test_different_work_is_not_compared(run: RunFolder, changes: dict[str, Any], why: str) -> None:
    ratios = written(run, plan(**changes))["measured"]["ratios"]
    assert ratios["time"] is None
    assert ratios["memory"] is None
    assert why in ratios["not_compared"]


def test_quick_run_is_recognised_by_its_reasons() -> None:
    from runners.trial.execute import quick_plan

    assert (
        predictions.why_incomparable(quick_plan(plan()), proxy=False)
        == "a quick run trains on at most 120 rows, once"
    )
    assert predictions.why_incomparable(plan(), proxy=False) == ""


def measured_of(tested: Plan, **result: Any) -> Measured:
    """Return what a run took whose training of lora had this result."""
    done = {"event": "step.done", "step": "train:lora", "result": {"trained": [result]}}
    return measured_facts(records_of(tested, done), 40, False)


def test_measurement_without_prediction_or_peak() -> None:
    measured = measured_of(plan(predicted={}), seconds=60.0)
    assert (measured.memory_gib, to_json(measured.ratios), measured.steps) == (
        None,
        {"time": None, "memory": None},
        (),
    )
    rag = plan(choice="prompting", gate={})
    assert measured_of(rag, seconds=60.0).hours is None


def test_memory_that_is_known_of_the_process_alone() -> None:
    run = {"seconds": 60.0, "peak_gib": 4.0}
    measured = measured_of(plan(), **run)
    assert (measured.memory_gib, measured.process_gib, measured.ratios.memory) == (None, 4.0, None)
    assert predictions.memory_lines(predictions.largest_memory([run]), None) == [
        "memory of training: not measured separately from the process",
        "the whole process used 4 GiB at its peak",
    ]


def test_memory_text_of_a_gpu_run() -> None:
    run = {
        "own_gib": 1.0,
        "expected_gib": 1.0,
        "peak_gib": 1.4,
        "held_gib": 0.0,
        "method": "qlora",
        "on_gpu": True,
    }
    memory = predictions.largest_memory([run])
    assert memory.whole == "torch had reserved 1.4 GiB of the GPU at the peak"
    assert memory.expected_range is not None
    low, likely, high = memory.expected_range
    assert low < likely < high
    assert predictions.largest_memory([]) == predictions.MeasuredMemory()


def test_finished_run_is_stored_once_and_corrects_estimates(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laptop: Machine
) -> None:
    monkeypatch.setenv(history.ENV, str(tmp_path / "history.jsonl"))
    data = write_report(run, plan())
    assert remember_run(run, plan(), data) == remember_run(run, plan(), data) == ""
    (entry,) = history.read_history().runs
    assert (entry.outcome, entry.winner, entry.strength, entry.questions) == (
        "confirmed",
        "lora",
        "measured",
        40,
    )
    assert (entry.hours, entry.memory_gib) == (
        history.PredictedMeasured(predicted=0.5, measured=0.5),
        history.PredictedMeasured(predicted=0.8, measured=1.2),
    )
    assert entry == past_run(run, plan(), data, "run", detect_machine(run.path))
    (trial,) = own_trials([entry.model_dump(mode="json")])
    best = trial.best()
    assert best is not None
    assert (best.arm, best.n, trial.outcome, trial.own) == ("lora", 40, "confirmed", True)
    assert str(tmp_path) not in (tmp_path / "history.jsonl").read_text("utf-8")
    assert time_corrections("smollm2-135m-instruct")["hours"].runs == 1
    assert time_corrections("smollm2-135m-instruct", laptop)["hours"].runs == int(
        history.machine_mark(laptop) == entry.machine
    )


def test_times_of_a_busy_machine_are_reported_but_not_stored(run: RunFolder) -> None:
    run.write({"event": "step.start", "step": "train:lora", "number": 2, "total": 3})
    run.finish("train:lora", {}, {"trained": TRAINED}, lost=0.4)
    data = write_report(run, plan())
    assert data.measured.busy == {"train:lora": 0.4}
    assert data.measured.hours == 0.5
    stored = past_run(run, plan(), data, "run", detect_machine(run.path))
    assert stored.hours is None
    assert "train:lora" not in [step.name for step in stored.steps]
    assert stored.memory_gib is not None, "memory does not depend on what others do"
    assert busy_note(data.measured.busy) == (
        "train:lora: the machine was busy: other programs took 40% of the processor time that this needed; "
        "the time is too long, and is not kept for later estimates"
    )
    run.finish("train:lora", {}, {"trained": TRAINED}, lost=0.1)
    assert write_report(run, plan()).measured.busy == {}, "a tenth is no reason, and the last time counts"


def test_report_has_the_reasons_of_training_settings(run: RunFolder) -> None:
    steps = [
        {**step, "reasons": {"rank": "16 because"}} if step["kind"] == "train" else step
        for step in BODY["steps"]
    ]
    assert write_report(run, plan(steps=steps)).training_reasons == {"lora": {"rank": "16 because"}}
    assert write_report(run, plan()).training_reasons == {}


def test_prediction_of_a_changed_plan_is_not_compared(run: RunFolder) -> None:
    outdated = {**BODY["predicted"], "outdated": "plan.yaml was changed after plan.forecast.json was made"}
    data = written(run, plan(predicted=outdated))
    assert data["measured"]["ratios"] == {"time": None, "memory": None, "not_compared": outdated["outdated"]}


def test_the_steps_of_a_teacher_have_its_own_corrections() -> None:
    """A teacher that is none of the plan's models is asked too, in arms named after it."""
    taught = plan(teacher="openai:big@http://127.0.0.1:9/v1")
    rows, _ = predictions.corrected_step_times(taught, examples=20, questions=10)
    assert "evaluate:prompting@teacher" in [name for name, _, _ in rows]
