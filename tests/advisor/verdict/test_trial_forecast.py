"""The forecast of a trial: intervals of what a probe measured, and forecast beside measurement in every view."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advisor import history
from advisor.display.trial_table import show_report
from advisor.evidence.trials import TrialArm, measured_trials, own_trials
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import recommend_for_profile
from advisor.report.markdown import report_markdown
from advisor.report.report import write_report
from advisor.verdict.predictions import remember_run
from advisor.verdict.trial_forecast import (
    expectation_against,
    expected_of_trials,
    forecast_sentence,
    forecast_trial,
    predictive_interval,
    right_text,
    trials_like,
)
from runners.plan.schema import parse_plan
from runners.report.json_records import to_json
from runners.report.trial_report import Share
from runners.run_folder import RunFolder
from runners.trial.trial import ArmScores, write_scores
from tests.support.reports import written

BODY: dict[str, Any] = {
    "name": "sorting",
    "choice": "few-shot",
    "model": {"name": "smollm2-135m-instruct"},
    "data": {"examples": "e", "questions": "q"},
    "steps": [
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "few-shot", "shots": 3},
        {"kind": "evaluate", "arm": "classifier", "classifier": True},
    ],
    "weights": {"style": 1},
    "answers": {
        "gpu_kind": {"value": "none", "source": "detected"},
        "goal": {"value": "sort letters", "source": "flag"},
        "model": {"value": "/models/tern", "source": "flag"},
        "labelled_examples": {"value": 300, "source": "counted"},
        "probe": {"value": {"reply_f1": 0.2}, "source": "probed"},
    },
}
PROBED = ProbeFacts(passes=ProbeShare(12, 40), classifier=ProbeShare(276, 300))
MEANS = (0.5, 0.6, 0.7, 0.65)
PREDICTED: dict[str, Any] = {
    "choice": "few-shot",
    "confidence": "medium",
    "probability": 0.7,
    "also_measure_probability": {"classifier": 0.3},
    "ranked": [{"method": "few-shot", "probability": 0.5}, {"method": "prompting", "probability": 0.2}],
}
SHARE = {
    "low": 0.5,
    "likely": 0.6,
    "high": 0.7,
    "because": "probe: 24 of 40 right labels in cross-validation",
}
TRIAL: dict[str, Any] = {
    "probability": 0.7,
    "questions": 40,
    "minutes": 3.0,
    "corrected": None,
    "arms": [
        {"arm": "few-shot", "probability": 0.5, "rank": 1, "right": None, "minutes": 1.5},
        {"arm": "classifier", "probability": 0.3, "rank": 2, "right": SHARE, "minutes": 0.5},
        {"arm": "prompting", "probability": 0.2, "rank": 3, "right": None, "minutes": 1.0},
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run in which the classifier is right most often."""
    folder = RunFolder.create(tmp_path / "run", parse_plan(BODY))
    folder.write({"event": "run.start", "split": "abc"})
    ids = tuple(f"q{n}" for n in range(40))
    arms = []
    for arm, right in (("prompting", 4), ("few-shot", 12), ("classifier", 36)):
        folder.write({"event": "step.start", "step": f"evaluate:{arm}", "number": 1, "total": 3})
        folder.finish(f"evaluate:{arm}", {}, {})
        values = tuple(float(n < right) for n in range(40))
        scores = tuple({"right": value, "style": 1.0} for value in values)
        arms.append(ArmScores(arm, ids, scores, values, (0.2,) * 40, (50,) * 40, (20,) * 40))
    write_scores(arms, folder.path / "trial" / "scores.json")
    return folder


def test_interval_of_further_cases_is_wider_than_that_of_the_rate() -> None:
    low, high = predictive_interval(ProbeShare(20, 40), 100)
    assert 0.28 < low < 0.36
    assert 0.64 < high < 0.72
    few = predictive_interval(ProbeShare(20, 40), 10)
    assert few[0] < low
    assert few[1] > high
    assert predictive_interval(ProbeShare(0, 30), 100)[0] == 0


def test_arms_without_a_probe_are_forecast_from_trials_of_the_like() -> None:
    """Same model, form of answers and presence of documents; three trials or more."""
    labels = Profile.of({"output_format": "labels", "model": "smollm2-135m-instruct"}, 300)
    like = [t for t in measured_trials() if trials_like(labels, (t,))]
    assert all(t.features["output_format"] == "labels" and not t.features.get("has_documents") for t in like)
    made_up = [
        replace(
            measured_trials()[0],
            arms=(TrialArm(arm="lora", mean=m, low=0, high=1, n=100, right=round(100 * m)),),
        )
        for m in MEANS
    ]
    expected = expected_of_trials("lora", made_up)
    assert expected is not None
    assert expected["low"] < min(MEANS) < expected["likely"] < max(MEANS) < expected["high"]
    assert expected["because"] == "4 trials of the like"
    assert expected_of_trials("lora", made_up[:2]) is None
    assert expected_of_trials("rag", made_up) is None


def test_equal_forecasts_and_equal_scores_are_ties(run: RunFolder) -> None:
    """Neither arm of such a pair was forecast, or came out, as the better one."""
    arms = [{**row, "probability": 0.25} if row["rank"] > 1 else row for row in TRIAL["arms"]]
    forecast = write_report(
        run, parse_plan({**BODY, "predicted": {**PREDICTED, "trial": {**TRIAL, "arms": arms}}})
    ).forecast
    assert forecast is not None
    assert (forecast.pairs_in_order, forecast.pairs, forecast.ties) == (1, 2, 1)
    assert "In 1 of 2 pairs of arms the better one was forecast. 1 pair was a tie." in forecast_sentence(
        forecast
    )


def test_forecast_is_beside_measurement_in_every_view(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = parse_plan({**BODY, "predicted": {**PREDICTED, "trial": TRIAL}})
    report = write_report(run, plan)
    forecast = report.forecast
    assert forecast is not None
    assert [(row.arm, row.rank, row.measured_rank) for row in forecast.arms] == [
        ("few-shot", 1, 2),
        ("classifier", 2, 1),
        ("prompting", 3, 3),
    ]
    classifier = forecast.arms[1]
    assert classifier.right is not None
    assert classifier.right.inside is False
    assert classifier.measured_right is not None
    assert classifier.measured_right.likely == 0.9
    assert forecast.best == "classifier"
    assert (forecast.pairs_in_order, forecast.pairs) == (2, 3)
    sentence = forecast_sentence(forecast)
    assert f"probability of 0.70; it is now {report.verdict.outcome}. classifier scored best." in sentence
    screen = io.StringIO()
    show_report(report, Console(file=screen, width=150))
    pages = (screen.getvalue(), report_markdown(report), (run.path / "report.html").read_text("utf-8"))
    for page in pages:
        assert "chance of being best" not in page
        assert "outside" in page
        assert "In 2 of 3 pairs of arms the better one was forecast" in " ".join(page.split())
    monkeypatch.setenv(history.ENV, str(tmp_path / "history.jsonl"))
    assert remember_run(run, plan, report) == ""
    (past,) = history.read_history().runs
    assert (past.confidence, past.probability) == ("medium", 0.7)
    assert past.features == {"gpu_kind": "none", "model": "tern", "labelled_examples": 300}
    (trial,) = own_trials([past.model_dump(mode="json")])
    assert trial.best() == TrialArm(arm="classifier", **to_json(report.arms[0].score), n=40)
    surely = trial.difference("few-shot", "classifier")
    assert surely is not None
    assert (surely.paired, surely.sure) == (True, -1)


def test_arms_are_ranked_as_the_advice_ranks_them(run: RunFolder) -> None:
    """The advised arm alone has a probability; one that the ranking does not weigh comes last, without a rank."""
    profile = Profile.of({"task_needs_facts": "none", "behaviour_gap": "none"}, 90)
    recommendation = recommend_for_profile(replace(profile, probe=PROBED))
    plan = parse_plan({**BODY, "choice": recommendation.choice})
    forecast = forecast_trial(plan, recommendation, 300, 90)
    scores = {scored.method.name: scored.score for scored in recommendation.ranking.methods}
    assert [(row["arm"], row["probability"], row["fit"], row["rank"]) for row in forecast["arms"]] == [
        ("prompting", 0.7116, scores["prompting"], 1),
        ("few-shot", None, scores["few-shot"], 2),
        ("classifier", None, None, None),
    ]
    assert forecast["ahead"] == expectation_against(recommendation)
    assert forecast["ahead"].startswith(
        "classifier is expected to do better than prompting, which is advised: 0.92 of "
    )
    equal = replace(profile, probe=replace(PROBED, passes=ProbeShare(35, 40)))
    assert expectation_against(recommend_for_profile(equal)) == ""
    assert (
        expectation_against(recommend_for_profile(replace(profile, probe=PROBED, question_count=None))) == ""
    )
    report = write_report(
        run, parse_plan({**plan.model_dump(mode="json"), "predicted": {**PREDICTED, "trial": forecast}})
    )
    assert report.forecast is not None
    assert [(row.arm, row.rank) for row in report.forecast.arms] == [
        ("prompting", 1),
        ("few-shot", 2),
        ("classifier", None),
    ]


def test_order_alone_is_that_of_the_scores(run: RunFolder) -> None:
    """A plan that code drafted records the ranking; the rate stands beside the choice alone."""
    ranked = [
        {"method": "prompting", "feasible": True, "score": 0.4, "probability": None},
        {"method": "few-shot", "feasible": True, "score": 0.6, "probability": 0.7},
        {"method": "lora", "feasible": False, "score": 0.9, "probability": None},
    ]
    predicted = {**PREDICTED, "also_measure_probability": {"classifier": None}, "ranked": ranked}
    data = written(run, parse_plan({**BODY, "predicted": predicted}))
    rows = [
        (row["arm"], row.get("probability"), row.get("fit"), row.get("rank"))
        for row in data["forecast"]["arms"]
    ]
    assert rows == [("few-shot", 0.7, 0.6, 1), ("prompting", None, 0.4, 2), ("classifier", None, None, None)]


def test_an_interval_wider_than_half_is_left_out() -> None:
    """It says too little; what was measured outside of it is marked all the same."""
    wide = Share(likely=0.47, low=0.0, high=1.0)
    assert right_text(wide) == "0.47"
    assert right_text(wide, inside=False) == "0.47, outside"
    assert right_text(Share(likely=0.52, low=0.45, high=0.59)) == "0.52 (0.45–0.59)"
    assert right_text(None) == "–"


def test_plan_without_minutes_or_probabilities_still_has_a_report(run: RunFolder) -> None:
    """A plan that was drafted by code has the probabilities alone; one of an earlier version has none."""
    data = written(run, parse_plan({**BODY, "predicted": PREDICTED}))
    assert [(row["arm"], row["minutes"]) for row in data["forecast"]["arms"]] == [
        ("few-shot", None),
        ("classifier", None),
        ("prompting", None),
    ]
    old = written(run, parse_plan({**BODY, "predicted": {"choice": "few-shot"}}))
    assert "forecast" not in old
    assert "Forecast against measured" not in (run.path / "report.html").read_text("utf-8")
