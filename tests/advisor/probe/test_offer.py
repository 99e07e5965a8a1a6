"""The offer of a probe where the advice is unsure: what it costs, measures and decides, and when there is none."""

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
    PROBE_BELOW,
    SHOWING,
    offer_when_unsure,
    price_of_probe,
)
from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from advisor.questionnaire.profile import Profile
from advisor.recommendation.probability import AdviceProbability
from runners.resources.machine import detect_machine

ROWS = {"examples": "rows.jsonl", "labelled_examples": 400, "prompt_tokens": 30, "answer_tokens": 3}
UNSURE = AdviceProbability(0.6, {"lora": 0.5, "few-shot": 0.3, "classifier": 0.16, "qlora": 0.04})


def test_offer_names_price_measures_and_rivals() -> None:
    profile = replace(Profile.of(ROWS, 90), data=DataFacts(label_count=4))
    offer = offer_when_unsure(profile, "lora", UNSURE)
    assert offer is not None
    assert offer.measures == (KNOWLEDGE, PASSING, SHOWING, CLASSIFYING)
    assert offer.rivals == {"lora": 0.5, "few-shot": 0.3, "classifier": 0.16}
    assert offer.settles == ("behaviour_gap", "prompting_pass_rate", "task_needs_facts")
    assert f"takes about {offer.minutes} min here" in offer.text
    assert "the advice is unsure between lora .50, few-shot .30 and classifier .16" in offer.text
    own = offer_when_unsure(
        replace(profile, sources=Profile.of({"behaviour_gap": "low"}).sources), "lora", UNSURE
    )
    assert own is not None
    assert own.settles == ("prompting_pass_rate", "task_needs_facts")


@pytest.mark.parametrize(
    ("changes", "probability"),
    [
        ({}, AdviceProbability(PROBE_BELOW, UNSURE.shares)),
        ({"probe": ProbeFacts(passes=ProbeShare(2, 40))}, UNSURE),
        ({"examples": None, "question_count": None}, UNSURE),
        ({"model": "openai:tern@http://127.0.0.1:1/v1"}, UNSURE),
        ({}, AdviceProbability(0.6, {"lora": 0.98, "few-shot": 0.02})),
        # It cannot be asked here, a stand-in measures nothing of it, and no labels are there for a classifier.
        ({"model": "llama-3.3-70b", "model_params_b": 70.0}, UNSURE),
    ],
)
def test_no_offer_where_a_probe_decides_nothing(
    changes: dict[str, Any], probability: AdviceProbability
) -> None:
    assert offer_when_unsure(replace(Profile.of(ROWS, 90), **changes), "lora", probability) is None


def test_model_too_large_for_this_machine_leaves_the_classifier() -> None:
    profile = replace(
        Profile.of(ROWS, 90), data=DataFacts(label_count=4), model="llama-3.3-70b", model_params_b=70.0
    )
    offer = offer_when_unsure(profile, "lora", UNSURE)
    assert offer is not None
    assert (offer.measures, offer.settles) == ((CLASSIFYING,), ())
    assert offer.rivals == {"lora": 0.5, "classifier": 0.16}


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
