"""The one rate of right advice: its sets, the weight of own trials, its interval; and what is open about an advice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from advisor import history
from advisor.advice import recommend
from advisor.history import NO_OWN_TRIALS, OwnTrials, own_decided_trials
from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.questionnaire.profile import Profile
from advisor.recommendation.confidence import AdviceDoubts
from advisor.recommendation.probability import (
    PRIOR_TRIALS,
    UNSEEN,
    UNSEEN_BASELINES,
    UNSEEN_RIGHT,
    UNSEEN_SETS,
    AdviceRate,
    unseen_text,
)
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import arms_to_measure, recommend_for_profile
from benchmarks.scorers.advice_cases import cases_json, read_cases, score_cases
from rag.evaluation.statistics import WilsonShare
from tests.advisor.recommendation.test_properties import PROFILES
from tests.advisor.test_history import past_run


def doubts(profile: Profile) -> AdviceDoubts:
    """Return what is open about the advice on a profile."""
    return AdviceDoubts(profile, rank_methods(profile), arms_to_measure(profile))


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"task_needs_facts": "new", "facts_change": "fast", "must_cite": True, "corpus_tokens": 20_000},
        {
            "task_needs_facts": "none",
            "behaviour_gap": "high",
            "labelled_examples": 600,
            "output_format": "labels",
        },
    ],
)
def test_every_advice_states_the_same_rate(answers: dict[str, Any]) -> None:
    """The choice has it and no other arm a probability; nothing but the rate is a number between 0 and 1 in the words."""
    data = recommend_for_profile(Profile.of(answers)).to_json()
    assert (data["probability"], data["confidence"]) == (0.712, "low")
    assert [row["probability"] for row in data["ranked"]] == [0.712] + [None] * (len(data["ranked"]) - 1)
    assert set(data["also_measure_probability"]) == set(data["also_measure"])
    assert set(data["also_measure_probability"].values()) <= {None}
    assert data["own_trials"] is None
    assert data["confidence_because"].startswith(f"advice was right in {unseen_text()}")
    assert "0." not in data["confidence_because"]


def test_stated_figures_are_those_of_the_sets(root: Path) -> None:
    """The words, the interval, the recorded first score, and the pages."""
    share = WilsonShare.of(UNSEEN_RIGHT, UNSEEN)
    rates = [right / n for right, n in UNSEEN_SETS.values()]
    shown = (
        f"{share.rate:.2f}, {share.low:.2f} to {share.high:.2f}; by set {min(rates):.2f} to {max(rates):.2f}"
    )
    shown = shown.replace("0.", ".")
    thumb = "of 115 of them in 77, a rule of thumb in 63"
    assert unseen_text() == f"153 of 215 decisions that no rule had seen ({shown}; {thumb})"
    unseen = root / "benchmarks" / "unseen"
    first = UNSEEN_SETS["62 in benchmarks/unseen"]
    assert len(read_cases(unseen / "cases.json")) == first[1]
    assert f'"accepted": {first[0]},' in (unseen / "first_score.json").read_text("utf-8")
    for name in ("docs/how-it-decides.md", "docs/accuracy.md"):
        assert unseen_text() in " ".join((root / name).read_text("utf-8").split())


def test_baselines_are_those_of_the_files(root: Path, shared: Path) -> None:
    """What eval-advice counts for the rule of thumb and the best constant method, on the sets that are at hand."""
    files = (shared / "cases" / "decision_fresh.json", root / "benchmarks" / "unseen" / "cases.json")
    for (thumb, method, constant), path in zip(UNSEEN_BASELINES.values(), files, strict=True):
        found = cases_json(score_cases(read_cases(path)))["baselines"]
        assert found["rule_of_thumb"]["accepted"] == thumb
        assert found["best_constant"] == {"method": method, "accepted": constant}


def test_weight_of_the_prior_is_the_moment_fit_of_the_sets() -> None:
    """Kleinman 1973: the weighted variance of the sets' rates, less what chance alone gives, as intraclass correlation."""
    right, n = np.array(list(UNSEEN_SETS.values()), float).T
    rate, total = right.sum() / n.sum(), n.sum()
    spread = (n * (right / n - rate) ** 2).sum() / (rate * (1 - rate))
    free = len(n) - 1
    correlation = (spread - free) / (total - (n**2).sum() / total - free)
    assert (1 - correlation) / correlation == pytest.approx(PRIOR_TRIALS, abs=0.05)


@pytest.mark.parametrize("trials", [1, 4, 12])
def test_interval_with_own_trials_covers_users_who_differ_as_the_sets_do(trials: int) -> None:
    """95 of 100, for users whose true rates are of the fitted distribution, or are one of the four sets'."""
    rng = np.random.default_rng(38)
    mean = UNSEEN_RIGHT / UNSEEN
    intervals = np.array([AdviceRate(OwnTrials(right, trials)).interval for right in range(trials + 1)])
    of_sets = rng.choice([right / n for right, n in UNSEEN_SETS.values()], 20_000)
    of_fit = rng.beta(PRIOR_TRIALS * mean, PRIOR_TRIALS * (1 - mean), 20_000)
    for rates, low, high in ((of_fit, 0.945, 0.955), (of_sets, 0.945, 1.0)):
        drawn = intervals[rng.binomial(trials, rates)]
        assert low <= ((drawn[:, 0] <= rates) & (rates <= drawn[:, 1])).mean() <= high


def test_own_trials_move_the_rate_and_are_shown() -> None:
    own = AdviceRate(OwnTrials(3, 4))
    assert own.value == pytest.approx((PRIOR_TRIALS * UNSEEN_RIGHT / UNSEEN + 3) / (PRIOR_TRIALS + 4))
    assert own.text.endswith("; with your own 3 of 4 decided trials .73 (.42 to .95)")
    assert AdviceRate(OwnTrials(0, 1)).text.endswith("with your own 0 of 1 decided trial .59 (.22 to .91)")
    values = [AdviceRate(OwnTrials(right, 8)).value for right in range(9)]
    assert values == sorted(set(values))
    assert AdviceRate(OwnTrials(40, 40)).level == "high"
    data = recommend_for_profile(Profile.of({}), own=OwnTrials(3, 4)).to_json()
    assert data["probability"] == data["ranked"][0]["probability"] == 0.729
    assert data["own_trials"] == {"right": 3, "n": 4, "low": 0.416, "high": 0.947}


def test_history_of_decided_trials_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest trial of each plan; undecided ones, another model, the demo and dry runs do not count."""
    monkeypatch.setenv(history.ENV, str(tmp_path / "history.jsonl"))
    assert own_decided_trials() == NO_OWN_TRIALS
    runs = [
        past_run(0, plan="a", outcome="overturned"),
        past_run(1, plan="a"),
        past_run(2, plan="b", outcome="overturned"),
        past_run(3, plan="c", outcome="undecided"),
        past_run(4, plan="d", strength="proxy"),
        past_run(5, plan="e", label="demo"),
        past_run(6, plan="f", label="dry-run", outcome=None),
    ]
    assert [history.append_to_history(run) for run in runs] == [""] * len(runs)
    assert own_decided_trials() == OwnTrials(1, 2)
    first, again = (recommend({"must_cite": True}).to_json() for _ in range(2))
    assert first == again
    assert first["own_trials"]["n"] == 2
    monkeypatch.setenv(history.ENV, str(tmp_path))  # a folder: it cannot be read
    assert own_decided_trials() == NO_OWN_TRIALS


@given(PROFILES)
def test_knowing_an_answer_takes_it_from_what_is_open(answers: dict[str, Any]) -> None:
    unknown = Profile.of({**answers, "behaviour_gap": None})
    assert "behaviour_gap" in doubts(unknown).missing
    for value in ("none", "low", "high"):
        known = doubts(unknown.change("behaviour_gap", value))
        assert "behaviour_gap" not in {*known.missing, *known.deciding}
        assert "behaviour_gap" not in " ".join((*known.against(), *known.settling()))


def test_an_unknown_answer_that_decides_is_named_until_it_is_known() -> None:
    """A tiny model with new facts: whether the gap is small decides between rag and hybrid."""
    answers = {"task_needs_facts": "new", "labelled_examples": 300, "corpus_tokens": 300_000}
    tiny = Profile.of({**answers, "model": "smollm2-135m-instruct"})
    choice = rank_methods(tiny).choice
    values = [rank_methods(tiny.change("behaviour_gap", value)).choice for value in ("none", "low", "high")]
    assert doubts(tiny).deciding == {"behaviour_gap": frozenset(values) - {choice}}
    assert next(doubts(tiny).against()) == "the choice depends on behaviour_gap, which is not known"
    assert next(doubts(tiny).settling()) == "an answer to behaviour_gap"


def test_examples_that_a_probe_measured_to_help_are_not_given_up_for_tuning() -> None:
    """Many labels with few examples each: that prompting alone fails says nothing against showing examples."""
    answers = {
        "task_needs_facts": "none",
        "behaviour_gap": "high",
        "output_format": "labels",
        "labelled_examples": 120,
        "model_params_b": 70,
    }
    profile = replace(Profile.of(answers), data=DataFacts(label_count=40, rows_per_label=3.0))
    measured = ProbeFacts(passes=ProbeShare(1, 40), few_shot=ProbeShare(29, 40))
    probed = replace(profile.change("prompting_pass_rate", 0.025), probe=measured)
    assert rank_methods(profile).choice == rank_methods(probed).choice == "few-shot"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            {"behaviour_gap": "high", "labelled_examples": 120, "model_params_b": 0.1},
            "120 examples are not many",
        ),
        (
            {"behaviour_gap": "high", "labelled_examples": 3000, "model_params_b": 8, "gpu_kind": "none"},
            "lora would fit better but cannot be done here",
        ),
        (
            {"behaviour_gap": "low", "labelled_examples": 0, "gpu_memory_gib": 48},
            "there is a GPU that could train",
        ),
    ],
)
def test_reasons_against_are_in_words(answers: dict[str, Any], words: str) -> None:
    profile = Profile.of({"task_needs_facts": "none", **answers})
    assert words in recommend_for_profile(profile).confidence.because


def test_classifier_is_named_unless_a_probe_found_it_no_better_than_one_half() -> None:
    answers = {
        "task_needs_facts": "none",
        "behaviour_gap": "high",
        "labelled_examples": 600,
        "output_format": "labels",
    }
    profile = replace(Profile.of(answers), data=DataFacts(label_count=4, rows_per_label=150.0))
    for right, named in ((None, True), (40, False), (95, True)):
        probe = ProbeFacts() if right is None else ProbeFacts(classifier=ProbeShare(right, 100))
        assert ("a classifier may do better" in doubts(replace(profile, probe=probe)).against()) is named
