"""Answers that a probe settled: what they changed in the advice, and whether they still speak of the model at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.questionnaire.answers import Answer, Answers, names_a_path
from advisor.questionnaire.gather import Situation, complete_situation
from advisor.recommendation.recommend import BaseRecommendation, recommend_for_profile
from runners.models.registry import find_known_model

PROBE_SOURCE = "probed"
_LEAD = "probe of "


def settled_answers(settled: Mapping[str, Any], because: Mapping[str, str], model: str) -> dict[str, Answer]:
    """Return what a probe settled as answers whose notes name the model that was asked."""
    return {
        key: Answer(value, PROBE_SOURCE, f"{_LEAD}{model}: {because[key]}") for key, value in settled.items()
    }


def without_probe(answers: Answers) -> Answers:
    """Return the answers as they were before any probe."""
    return replace(
        answers, layers={name: layer for name, layer in answers.layers.items() if name != PROBE_SOURCE}
    )


def counted_answers(answers: Answers) -> dict[str, Answer]:
    """Return the probed answers that count: those that no person's answer hides."""
    return {key: answers[key] for key in answers if answers[key].source == PROBE_SOURCE}


def overridden_answers(answers: Answers) -> dict[str, tuple[Answer, Answer]]:
    """Return where a person says otherwise than the probe: the answer that counts, and the probe's."""
    found = answers.layers.get(PROBE_SOURCE, {})
    return {
        key: (answers[key], probed)
        for key, probed in found.items()
        if answers[key].source != PROBE_SOURCE and answers[key].value != probed.value
    }


def answers_of_this_model(answers: Answers) -> tuple[Answers, str]:
    """Return the answers without those a probe of another model settled, and what is said of it; "" when all stay."""
    layer = answers.layers.get(PROBE_SOURCE, {})
    model = answers["model"].value if "model" in answers else None
    other = {
        key: asked
        for key, answer in layer.items()
        if (asked := _model(answer)) and model and not _same(str(model), asked)
    }
    if not other:
        return answers, ""
    named = ", ".join(dict.fromkeys(other.values()))
    return answers.drop(PROBE_SOURCE, other), (
        f"not used: {', '.join(other)}, which a probe of {named} settled; this plan is for {model}: probe that one"
    )


def recommendation_before(situation: Situation) -> BaseRecommendation | None:
    """Return the recommendation as it would be without the probe; None when no probed answer counts."""
    if not counted_answers(situation.answers):
        return None
    return recommend_for_profile(complete_situation(without_probe(situation.answers)).profile)


def probe_change(was: BaseRecommendation, now: BaseRecommendation, answers: Answers) -> dict[str, Any]:
    """Return what the probe changed, as ``plan --json`` and ``probe --json`` print it."""
    settled = {key: {"value": a.value, "note": a.note} for key, a in counted_answers(answers).items()}
    scores = {s.method.name: s.score for s in was.ranking.methods}
    return {
        "settled": settled,
        "choice_before": was.choice,
        "choice": now.choice,
        "changed": was.choice != now.choice,
        "scores": {
            s.method.name: {"before": round(scores[s.method.name], 4), "after": round(s.score, 4)}
            for s in now.ranking.methods
        },
    }


def probe_json(situation: Situation, now: BaseRecommendation) -> dict[str, Any]:
    """Return the key ``probe`` of ``plan --json``; nothing where no probed answer counts."""
    was = recommendation_before(situation)
    return {"probe": probe_change(was, now, situation.answers)} if was else {}


def _same(a: str, b: str) -> bool:
    """Whether two names mean the same known model, or the same folder."""
    if a == b or (find_known_model(a) is not None and find_known_model(a) == find_known_model(b)):
        return True
    return names_a_path(a) and names_a_path(b) and Path(a).expanduser().samefile(Path(b).expanduser())


def _model(answer: Answer) -> str:
    """The model that a probed answer's note names."""
    if not answer.note.startswith(_LEAD):
        return ""
    named = answer.note.removeprefix(_LEAD)
    # An endpoint's name holds colons of its own: the name ends at the first one before a space.
    return named.partition(": ")[0]
