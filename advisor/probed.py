"""Answers that a probe settled: what they changed in the advice, and whether they still speak of the model at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.answers import Answer, Answers
from advisor.engine import Recommendation, recommend
from advisor.gather import Situation, complete
from advisor.values import names_a_path
from runners.known import find

SOURCE = "probed"
_LEAD = "probe of "


def as_answers(settled: Mapping[str, Any], because: Mapping[str, str], model: str) -> dict[str, Answer]:
    """Return what a probe settled as answers whose notes name the model that was asked."""
    return {key: Answer(value, SOURCE, f"{_LEAD}{model}: {because[key]}") for key, value in settled.items()}


def without(answers: Answers) -> Answers:
    """Return the answers as they were before any probe."""
    return replace(answers, layers={name: layer for name, layer in answers.layers.items() if name != SOURCE})


def counted(answers: Answers) -> dict[str, Answer]:
    """Return the probed answers that count: those that no person's answer hides."""
    return {key: answers[key] for key in answers if answers[key].source == SOURCE}


def hidden(answers: Answers) -> dict[str, tuple[Answer, Answer]]:
    """Return where a person says otherwise than the probe: the answer that counts, and the probe's."""
    found = answers.layers.get(SOURCE, {})
    return {
        key: (answers[key], probed)
        for key, probed in found.items()
        if answers[key].source != SOURCE and answers[key].value != probed.value
    }


def of_this_model(answers: Answers) -> tuple[Answers, str]:
    """Return the answers without those a probe of another model settled, and what is said of it; "" when all stay."""
    layer = answers.layers.get(SOURCE, {})
    model = answers["model"].value if "model" in answers else None
    other = {key: asked for key, answer in layer.items()
             if (asked := _model(answer)) and model and not _same(str(model), asked)}  # fmt: skip
    if not other:
        return answers, ""
    named = ", ".join(dict.fromkeys(other.values()))
    return answers.drop(SOURCE, other), (
        f"not used: {', '.join(other)}, which a probe of {named} settled; this plan is for {model}: probe that one"
    )


def before(situation: Situation) -> Recommendation | None:
    """Return the recommendation as it would be without the probe; None when no probed answer counts."""
    if not counted(situation.answers):
        return None
    return recommend(complete(without(situation.answers)).profile)


def change(was: Recommendation, now: Recommendation, answers: Answers) -> dict[str, Any]:
    """Return what the probe changed, as ``plan --json`` and ``probe --json`` print it."""
    settled = {key: {"value": a.value, "note": a.note} for key, a in counted(answers).items()}
    scores = {s.method.name: s.score for s in was.ranking.methods}
    return {
        "settled": settled, "choice_before": was.choice, "choice": now.choice,
        "changed": was.choice != now.choice,
        "scores": {s.method.name: {"before": round(scores[s.method.name], 4), "after": round(s.score, 4)}
                   for s in now.ranking.methods},
    }  # fmt: skip


def told(situation: Situation, now: Recommendation) -> dict[str, Any]:
    """Return the key ``probe`` of ``plan --json``; nothing where no probed answer counts."""
    was = before(situation)
    return {"probe": change(was, now, situation.answers)} if was else {}


def _same(a: str, b: str) -> bool:
    """Whether two names mean the same known model, or the same folder."""
    if a == b or (find(a) is not None and find(a) == find(b)):
        return True
    return names_a_path(a) and names_a_path(b) and Path(a).expanduser().samefile(Path(b).expanduser())


def _model(answer: Answer) -> str:
    """The model that a probed answer's note names."""
    if not answer.note.startswith(_LEAD):
        return ""
    named = answer.note.removeprefix(_LEAD)
    # An endpoint's name holds colons of its own: the name ends at the first one before a space.
    return named.partition(": ")[0]
