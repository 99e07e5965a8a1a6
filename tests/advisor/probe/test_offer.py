"""The offer of a probe where it decides about the advice: what it costs, measures and decides, and when there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advisor import history
from advisor.history import PastRun, machine_mark
from advisor.probe.offer import (
    CLASSIFYING,
    KNOWLEDGE,
    MAX_FEW_SHOT_SECONDS,
    PASSING,
    SHOWING,
    ProbeOffer,
    offer_where_it_decides,
    price_of_probe,
)
from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import recommend_for_profile
from runners.resources.machine import detect_machine

ROWS = {"examples": "rows.jsonl", "labelled_examples": 400, "prompt_tokens": 30, "answer_tokens": 3}
KNOWN = {"task_needs_facts": "none", "behaviour_gap": "high", "output_format": "json"}
LABELS = {**ROWS, **KNOWN, "behaviour_gap": "none", "output_format": "labels"}
LARGE = {"model": "llama-3.3-70b", "model_params_b": 70.0}
"""A model that cannot be asked on a test machine."""


def offer_for(answers: dict[str, Any], labels: int = 0, probe: ProbeFacts | None = None) -> ProbeOffer | None:
    """Return the offer for answers, with 90 questions."""
    profile = Profile.of(answers, 90)
    facts = DataFacts(label_count=labels, rows_per_label=100.0) if labels else profile.data
    profile = replace(profile, data=facts, probe=probe or profile.probe)
    return offer_where_it_decides(recommend_for_profile(profile))


def test_offer_where_the_choice_depends_on_what_a_probe_answers() -> None:
    """It names the methods that the answer decides between, and has no probabilities."""
    offer = offer_for({**ROWS, "task_needs_facts": "none"})
    assert offer is not None
    assert offer.because == "the choice depends on behaviour_gap, which a probe can measure"
    assert offer.measures == (KNOWLEDGE, PASSING, SHOWING)
    assert "behaviour_gap" in offer.settles
    choices = {
        recommend_for_profile(
            Profile.of({**ROWS, "task_needs_facts": "none", "behaviour_gap": gap}, 90)
        ).choice
        for gap in ("none", "low", "high")
    }
    assert choices <= set(offer.rivals)
    assert offer.text.startswith(
        f"{offer.because}: let smollm2-135m-instruct answer some of your questions first."
    )
    assert f"takes about {offer.minutes} min here" in offer.text
    assert offer.to_json()["decides_between"] == dict.fromkeys(offer.rivals)
    assert offer_for({**ROWS, **KNOWN}) is None


def test_offer_where_a_measured_arm_is_a_close_rival() -> None:
    offer = offer_for(LABELS, labels=4)
    assert offer is not None
    assert "classifier" in offer.because
    assert CLASSIFYING in offer.measures
    assert {"classifier", recommend_for_profile(Profile.of(LABELS, 90)).choice} <= set(offer.rivals)


@pytest.mark.parametrize(
    ("answers", "probe"),
    [
        (LABELS, ProbeFacts(passes=ProbeShare(2, 40))),
        ({**LABELS, "examples": None, "model": "openai:tern@http://127.0.0.1:1/v1"}, None),
        # It cannot be asked here, a stand-in measures nothing of it, and no labels are there for a classifier.
        ({**ROWS, "task_needs_facts": "none", **LARGE}, None),
    ],
)
def test_no_offer_where_a_probe_decides_nothing(answers: dict[str, Any], probe: ProbeFacts | None) -> None:
    assert offer_for(answers, labels=4 if answers.get("output_format") else 0, probe=probe) is None


def test_no_offer_without_questions_or_examples_to_ask() -> None:
    profile = Profile.of({"task_needs_facts": "new", "documents": "docs"})
    assert offer_where_it_decides(recommend_for_profile(profile)) is None


def test_model_too_large_for_this_machine_leaves_the_classifier() -> None:
    offer = offer_for({**LABELS, **LARGE}, labels=4)
    assert offer is not None
    assert (offer.measures, offer.settles) == ((CLASSIFYING,), ())
    assert offer.rivals[1:] == ("classifier",)


def test_price_counts_what_is_asked_and_is_corrected_by_earlier_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger model is not asked again with examples where that would take minutes more."""
    monkeypatch.setenv(history.ENV, str(tmp_path / "history.jsonl"))
    rows = Profile.of(ROWS, 90)
    plain = price_of_probe(rows)
    assert plain.classifier == 0
    assert plain.corrected == ""
    documents = price_of_probe(Profile.of({**ROWS, "documents": "docs"}, 90))
    assert documents.asking > 2 * plain.asking
    assert documents.loading > plain.loading
    large = price_of_probe(Profile.of({**ROWS, "model_params_b": 40}, 90))
    assert large.few_shot > MAX_FEW_SHOT_SECONDS
    assert not large.with_few_shot
    assert large.seconds < large.asking + large.few_shot
    slow = {
        "id": "a",
        "day": "2026-11-27",
        "machine": machine_mark(detect_machine(tmp_path)).model_dump(),
        "model": "smollm2-135m-instruct",
        "choice": "lora",
        "plan": "p",
        "steps": [{"kind": "evaluate", "arm": "lora", "predicted": 10.0, "measured": 40.0}],
    }
    assert history.append_to_history(PastRun.model_validate(slow)) == ""
    corrected = price_of_probe(rows)
    assert corrected.asking == pytest.approx(2 * plain.asking)
    assert "from 1 earlier run here" in corrected.corrected
