"""Answers of the questionnaire that a probe settled: what they change in the advice, and whether they are about the current
model.

They are a layer of their own among the answers, with the source ``probed``; a person's own answer wins over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.history import own_decided_trials
from advisor.questionnaire.answers import Answer, Answers, names_a_path
from advisor.questionnaire.gather import Situation, complete_situation
from advisor.questionnaire.probe_facts import PROBE_FACTS, ProbeFacts
from advisor.recommendation.recommend import BaseRecommendation, recommend_for_profile
from runners.models.registry import hub_id

PROBE_SOURCE = "probed"
CLASSIFIER_NOTE = "cross-validated on the examples, with the embedder"
"""Note on measured values that hold for every model: those of a classifier alone."""
_NOTE_START = "probe of "


def settled_answers(settled: Mapping[str, Any], because: Mapping[str, str], model: str) -> dict[str, Answer]:
    """Return what a probe settled as answers.

    Args:
        settled: values by question id.
        because: the measurement that each rests on, by question id.
        model: name of the model that was probed, which the notes of the answers mention.
    """
    return {
        key: Answer(value, PROBE_SOURCE, f"{_NOTE_START}{model}: {because[key]}")
        for key, value in settled.items()
    }


def without_probe(answers: Answers) -> Answers:
    """Return the answers without those of a probe."""
    return replace(
        answers, layers={name: layer for name, layer in answers.layers.items() if name != PROBE_SOURCE}
    )


def counted_answers(answers: Answers) -> dict[str, Answer]:
    """Return the answers of a probe that count, because no person answered the same question."""
    return {key: answers[key] for key in answers if answers[key].source == PROBE_SOURCE}


def overridden_answers(answers: Answers) -> dict[str, tuple[Answer, Answer]]:
    """Return where a person's answer differs from the probe's, as (the person's, the probe's) by question id."""
    probed_answers = answers.layers.get(PROBE_SOURCE, {})
    return {
        key: (answers[key], probed)
        for key, probed in probed_answers.items()
        if answers[key].source != PROBE_SOURCE and answers[key].value != probed.value
    }


def answers_of_this_model(answers: Answers) -> tuple[Answers, str]:
    """Return the answers without those that a probe of another model settled.

    Of what such a probe measured only the classifier stays, which needs no language model.

    Returns:
        The answers, and a line about the dropped ones; "" when none were dropped.
    """
    layer = answers.layers.get(PROBE_SOURCE, {})
    model = answers["model"].value if "model" in answers else None
    dropped = {
        key: probed_model
        for key, answer in layer.items()
        if (probed_model := _probed_model(answer)) and model and not _same_model(str(model), probed_model)
    }
    if not dropped:
        return answers, ""
    probed_models = ", ".join(dict.fromkeys(dropped.values()))
    classifier = ProbeFacts(classifier=answers.probe.classifier)
    answers = answers.drop(PROBE_SOURCE, dropped)
    if PROBE_FACTS in dropped and classifier != ProbeFacts():
        answers = answers.add(
            PROBE_SOURCE, {PROBE_FACTS: Answer(classifier.to_json(), PROBE_SOURCE, CLASSIFIER_NOTE)}
        )
    names = ", ".join("its measurements" if key == PROBE_FACTS else key for key in dropped)
    return answers, (
        f"not used: {names}, measured with {probed_models}; this plan is for {model}: run tunewise probe with that one"
    )


def recommendation_before(situation: Situation) -> BaseRecommendation | None:
    """Return the recommendation without the probe; None when nothing of a probe counts."""
    if not counted_answers(situation.answers) and situation.answers.probe == ProbeFacts():
        return None
    profile = complete_situation(without_probe(situation.answers)).profile
    return recommend_for_profile(profile, own=own_decided_trials())


def probe_change(before: BaseRecommendation, after: BaseRecommendation, answers: Answers) -> dict[str, Any]:
    """Return what the probe changed, as ``plan --json`` and ``probe --json`` print it."""
    settled = {
        key: {"value": answer.value, "note": answer.note} for key, answer in counted_answers(answers).items()
    }
    scores = {scored.method.name: scored.score for scored in before.ranking.methods}
    return {
        "settled": settled,
        "facts": answers.probe.to_json(),
        "choice_before": before.choice,
        "choice": after.choice,
        "probability_before": round(before.probability.value, 3),
        "probability": round(after.probability.value, 3),
        "changed": before.choice != after.choice,
        "scores": {
            scored.method.name: {
                "before": round(scores[scored.method.name], 4),
                "after": round(scored.score, 4),
            }
            for scored in after.ranking.methods
        },
    }


def probe_json(situation: Situation, after: BaseRecommendation) -> dict[str, Any]:
    """Return the key ``probe`` of ``plan --json``; {} when no probed answer counts."""
    before = recommendation_before(situation)
    return {"probe": probe_change(before, after, situation.answers)} if before else {}


def _same_model(a: str, b: str) -> bool:
    """Return whether two names are the same known model, or the same folder."""
    if hub_id(a).lower() == hub_id(b).lower():
        return True
    return names_a_path(a) and names_a_path(b) and Path(a).expanduser().samefile(Path(b).expanduser())


def _probed_model(answer: Answer) -> str:
    """Return the model that the note of a probed answer names; "" if it names none."""
    if not answer.note.startswith(_NOTE_START):
        return ""
    text = answer.note.removeprefix(_NOTE_START)
    # The name of an endpoint contains colons: it ends at the first colon that is followed by a space.
    return text.partition(": ")[0]
