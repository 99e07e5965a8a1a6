"""The measured table that ships with the program, and the sentences that rules cite from it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from advisor.evidence.claims import TUNING, claim_text, count_claim
from advisor.evidence.trials import measured_trials, own_trials, trial_of_row
from advisor.rules.registry import RULES


def _row(name: str, outcome: str = "confirmed", **means: float) -> dict[str, Any]:
    return {
        "set": name,
        "model": "m",
        "date": "2026-11-27",
        "questions": 100,
        "advised": "full",
        "outcome": outcome,
        "features": {"behaviour_gap": "high", "labelled_examples": 300, "data.label_count": 7},
        "arms": [
            {"arm": arm, "mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 100}
            for arm, mean in means.items()
        ],
    }


def test_shipped_trials_are_whole_and_cited() -> None:
    trials = measured_trials()
    assert trials
    assert len({(trial.name, trial.model) for trial in trials}) == len(trials)
    for trial in trials:
        assert trial.kind
        # Without examples no tuning can be measured, whatever was advised: then nothing is decided.
        assert trial.arm(trial.advised) or trial.outcome == "undecided"
        assert trial.profile.model == trial.model
        assert all(0 <= arm.low <= arm.mean <= arm.high <= 1 for arm in trial.arms)
        for pair in trial.differences:
            first, second = trial.arm(pair.first), trial.arm(pair.second)
            assert first is not None
            assert second is not None
            assert pair.difference == pytest.approx(first.mean - second.mean, abs=0.01)
    cited = {rule.code(): rule.measured() for rule in RULES}
    assert all(not lines for code, lines in cited.items() if not _rule(code).claim)
    assert "public trials of this kind" in cited["BE001"][0]
    assert _rule("BE001").all_evidence()[-1] == cited["BE001"][0]


def _rule(code: str) -> Any:
    return next(rule for rule in RULES if rule.code() == code)


def test_claims_are_counted_in_the_table() -> None:
    """Paired differences count before the arms' own intervals, in either direction."""
    ahead = _row("a", "confirmed", full=0.8, **{"few-shot": 0.5})
    behind = _row("b", "confirmed", full=0.3, **{"few-shot": 0.5})
    close = _row("c", "confirmed", full=0.52, **{"few-shot": 0.5})
    paired = {
        **close,
        "differences": [{"a": "few-shot", "b": "full", "difference": -0.02, "low": -0.03, "high": -0.01}],
    }
    one_sided = _row("d", full=0.5)
    trials = [trial_of_row(row) for row in (ahead, behind, close, paired, one_sided)]
    counts = count_claim(TUNING, trials)
    assert (counts.ahead, counts.behind, counts.undecided, counts.n) == (2, 1, 1, 4)
    text = claim_text(TUNING, _rule("BE001").applies_to_trial, trials)
    assert "in 2 of 4 public trials of this kind, 1 clearly worse, 1 undecided (on m)" in text
    assert claim_text(TUNING, lambda trial: False, trials) == ""
    assert trials[0].profile.data.label_count == 7


def test_own_runs_count_when_they_hold_the_scores_of_their_arms() -> None:
    run = {
        "id": "1",
        "day": "2026-11-27",
        "model": "m",
        "choice": "full",
        "outcome": "confirmed",
        "questions": 100,
    }
    arms = [
        {"arm": "full", "mean": 0.8, "low": 0.7, "high": 0.9, "n": 100},
        {"arm": "rag", "mean": 0.2, "low": 0.1, "high": 0.3, "n": 100},
    ]
    features = {"behaviour_gap": "high"}
    trials = own_trials(
        [run, {**run, "arms": arms, "features": features}, {**run, "arms": arms, "label": "demo"}]
    )
    assert [trial.questions for trial in trials] == [100]
    text = claim_text(TUNING, _rule("BE001").applies_to_trial, trials)
    assert text.endswith("in 1 of 1 of your own trials of this kind (on m)")


def test_the_table_is_read_without_heavy_libraries() -> None:
    code = (
        "import sys; from advisor.evidence.trials import measured_trials; measured_trials(); "
        "import json; print(json.dumps(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == []
