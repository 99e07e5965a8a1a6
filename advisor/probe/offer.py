"""The offer to probe the base model before advising: how long it takes, what it measures, and what that decides.

Light to import: what a probe needs is imported when an offer is made, and never torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.costs.tokens import PASSAGE_TOKENS
from advisor.questionnaire.answers import PERSON_SOURCES
from advisor.questionnaire.gather import for_trial, on_this_machine
from advisor.questionnaire.probe_facts import ProbeFacts
from advisor.questionnaire.profile import Profile
from advisor.recommendation.confidence import AdviceDoubts
from advisor.recommendation.ranking import ScoredMethod
from advisor.recommendation.recommend import BaseRecommendation
from runners.catalog.models import DEFAULT_MODEL
from runners.plan.data import PlanData
from runners.plan.steps import NO_QUANTIZATION, IndexStep
from runners.resources.gpu import MachineProbe
from runners.resources.machine import Machine, detect_machine, free_ram
from runners.runs.requirements import answering_memory

PROBED_QUESTIONS = ("behaviour_gap", "prompting_pass_rate")
"""The questions that a probe can answer when they are asked: how far a plain model's answers are from what is needed, and
how many are good with a prompt alone."""
MAX_PROBE_SECONDS = 1800.0
"""Half an hour: a model that would take longer without a GPU is not asked."""
PROBE_PROMPT_TOKENS = 300
"""Tokens of a question with passages and instructions, on average over the modes, where memory is estimated."""
MAX_PROBE_QUESTIONS = 30
"""Dev questions to ask: about 30, as guides to knowledge probes advise (20 or more decide)."""
MAX_PROBE_TOKENS = 96
"""Longest answer of a probe in tokens: the plan's own limit where no example needs more."""
MAX_FEW_SHOT_SECONDS = 120.0
"""Most seconds that asking again with examples may add on this machine; beyond, the probe leaves it out and says so."""
HEAD_FIT_SECONDS = 0.9 / (3_075 * 77)
"""Seconds of one fit of a classifier, for each row and label; measured with 3,075 rows and 77 labels
(:mod:`runners.arms.classifier`)."""
HEAD_FITS = 9
"""Fits of a cross-validation: three folds with each of three strengths."""
DECIDING_MEASURES: Mapping[str, tuple[str, ...]] = {
    "what the model knows and what a search adds": ("rag", "hybrid", "long-context"),
    "what a prompt alone achieves": ("prompting", "few-shot", "lora", "qlora", "full", "hybrid"),
    "what examples in the prompt add": ("few-shot",),
    "what a classifier over embeddings gets right": ("classifier", "router"),
}
"""The arms that each measurement of a probe speaks for or against."""
KNOWLEDGE, PASSING, SHOWING, CLASSIFYING = DECIDING_MEASURES


@dataclass(frozen=True, slots=True)
class ProbePrice:
    """Estimated seconds of the parts of a probe on this machine, corrected by earlier runs where there are any.

    Attributes:
        loading: reading models, and building the index.
        asking: answers without examples in the prompt.
        few_shot: the same questions with examples; 0 where there are no examples to show.
        classifier: embeddings and cross-validation; 0 where replies are no labels.
        corrected: the note about the correction; "" without earlier runs here.
    """

    loading: float
    asking: float
    few_shot: float = 0.0
    classifier: float = 0.0
    corrected: str = ""

    @property
    def with_few_shot(self) -> bool:
        """Whether asking again with examples is cheap enough to be part of the probe."""
        return 0 < self.few_shot <= MAX_FEW_SHOT_SECONDS

    @property
    def seconds(self) -> float:
        """Seconds of the whole probe."""
        few_shot = self.few_shot if self.with_few_shot else 0.0
        return self.loading + self.asking + few_shot + self.classifier


@dataclass(frozen=True, slots=True)
class ProbeOffer:
    """Whether the base model can be measured now, about how long that takes, and what it decides.

    Attributes:
        model: name of the model that would be asked.
        seconds: estimated time.
        missing: what is missing before it can be measured; "" when nothing is.
        measures: what would be measured.
        settles: questions that the probe may answer, none of which a person has answered.
        because: why it is worth measuring first: what the choice depends on, or which arm is close behind.
        rivals: the advised arm, and the arms that the measurements decide about beside it.
        corrected: how the estimate of the time was corrected; "" without earlier runs here.
    """

    model: str
    seconds: float = 0.0
    missing: str = ""
    measures: tuple[str, ...] = ()
    settles: tuple[str, ...] = ()
    because: str = ""
    rivals: tuple[str, ...] = ()
    corrected: str = ""

    @property
    def minutes(self) -> int:
        """The estimated time in minutes, rounded up."""
        return max(1, math.ceil(self.seconds / 60))

    @property
    def text(self) -> str:
        """The offer in one sentence, without how it is accepted."""
        corrected = f", {self.corrected}" if self.corrected else ""
        settles = f"; it can answer {', '.join(self.settles)}" if self.settles else ""
        return (
            f"{self.because}: let {self.model} answer some of your questions first. That takes "
            f"about {self.minutes} min here{corrected} (longer on a busy machine) and measures "
            f"{', '.join(self.measures)}{settles}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the key ``probe_offer`` of ``plan --json``."""
        return {
            "model": self.model,
            "minutes": self.minutes,
            "seconds": round(self.seconds),
            "corrected": self.corrected or None,
            "measures": list(self.measures),
            "settles": list(self.settles),
            "because": self.because,
            "decides_between": dict.fromkeys(self.rivals),
        }


def offer_probe_of(profile: Profile) -> ProbeOffer:
    """Return the offer to measure the gap in behaviour of the profile's model, from the counted files.

    Style is judged on examples, skill on questions with the passages of documents: one of both is needed. An endpoint is
    asked by ``tunewise probe`` or ``plan --probe`` only, since that sends data and may cost money.
    """
    model = profile.model or DEFAULT_MODEL
    if for_trial(profile)[1]:
        return ProbeOffer(model, missing="it measures the model that you name, and none is named")
    if profile.remote:
        return ProbeOffer(model, missing="the model is behind an endpoint: use tunewise probe")
    with_passages = bool(profile.documents and profile.question_count)
    if not (profile.examples_known or with_passages):
        lacking = [
            name
            for name, given in (("documents", profile.documents), ("questions", profile.question_count))
            if not given
        ]
        return ProbeOffer(model, missing=f"it needs examples, or {' and '.join(lacking)}")
    price = price_of_probe(profile)
    return ProbeOffer(model, price.seconds, corrected=price.corrected)


def offer_where_it_decides(recommendation: BaseRecommendation) -> ProbeOffer | None:
    """Return the offer to probe before following an advice; None where a probe would not decide about it.

    It is made where the choice turns on something that the files allow to be measured: an unknown answer that a probe gives
    and with typical values of which another method would be chosen; or a method of another family close behind, or a
    classifier, where one of the measurements is about it or about the choice. It is not made after a probe, nor for a model
    that cannot be asked here, of which a stand-in would measure nothing; only a classifier needs no model.

    On the public sets it is made in all 6 where ``behaviour_gap`` is not known, and in none of the 20 where all is answered,
    in which no probe changed the choice (benchmarks/probe_value.json).

    Args:
        recommendation: the advice, on counted files.
    """
    profile, choice = recommendation.profile, recommendation.choice
    with_files = bool(profile.question_count or _example_rows(profile))
    if profile.probe != ProbeFacts() or not with_files:
        return None
    doubts = AdviceDoubts(profile, recommendation.ranking, recommendation.also_measure)
    price = price_of_probe(profile)
    measures = measured_parts(profile, price)
    own_measures = not profile.remote and not for_trial(profile)[1] and not _too_large_here(profile)
    if not own_measures:
        # Another model than the plan's would be asked: only what needs no model counts.
        measures = tuple(part for part in measures if part == CLASSIFYING and not profile.remote)
    settles = _open_answers(profile, measures) if own_measures else ()
    deciding = {key: methods for key, methods in doubts.deciding.items() if key in settles}
    touched = {arm for part in measures for arm in DECIDING_MEASURES[part]}
    close = [*doubts.close, *(["classifier"] if doubts.classifier else [])]
    close = [arm for arm in close if arm in touched or choice in touched]
    if not deciding and not close:
        return None
    depends = f"the choice depends on {' and '.join(deciding)}, which a probe can measure"
    rivals = [*close, *(s.method.name for s in recommendation.ranking.methods if _chosen(s, deciding))]
    return ProbeOffer(
        profile.model or DEFAULT_MODEL,
        price.seconds,
        measures=measures,
        settles=settles,
        because=depends if deciding else f"{' and '.join(close)} may do better than {choice}",
        rivals=tuple(dict.fromkeys([choice, *rivals])),
        corrected=price.corrected,
    )


def _chosen(scored: ScoredMethod, deciding: Mapping[str, frozenset[str]]) -> bool:
    """Return whether a method would be chosen with another value of one of the answers."""
    return any(scored.method.name in methods for methods in deciding.values())


def measured_parts(profile: Profile, price: ProbePrice) -> tuple[str, ...]:
    """Return what a probe can measure with the files at hand, as the keys of :data:`DECIDING_MEASURES`."""
    asked = bool(profile.question_count or _example_rows(profile))
    parts = {
        KNOWLEDGE: bool(profile.question_count),
        PASSING: asked,
        SHOWING: asked and price.with_few_shot,
        CLASSIFYING: bool(price.classifier),
    }
    return tuple(part for part, possible in parts.items() if possible)


def price_of_probe(profile: Profile) -> ProbePrice:
    """Estimate the seconds of a probe of the profile's model on this machine.

    Prompts are as long as the prompts of the examples, where they were counted; answers run to the probe's limit, or to
    one and a half of the counted length, since a plain model writes longer than the examples. What earlier runs here
    measured for answering corrects the answers.
    """
    from advisor.costs import step_time
    from advisor.verdict.predictions import time_corrections
    from runners.arms.few_shot import NEAREST_TOKENS_CPU
    from runners.trial.base_probe import PROBE_EXAMPLES, PROBE_SHOTS

    rows = _example_rows(profile)
    dev = min(MAX_PROBE_QUESTIONS, round((profile.question_count or 0) * PlanData().dev_share))
    alone = dev + min(PROBE_EXAMPLES, rows)
    prompt = profile.prompt_tokens or step_time.QUESTION_TOKENS
    reply = min(MAX_PROBE_TOKENS, 1.5 * profile.answer_tokens if profile.answer_tokens else MAX_PROBE_TOKENS)

    def seconds(count: float, tokens: float) -> float:
        prefill = tokens / step_time.PREFILL_TOKENS_PER_S
        return count * (prefill + reply / step_time.DECODE_TOKENS_PER_S)

    machine_here = detect_machine(Path("runs"))
    correction = time_corrections(profile.model or DEFAULT_MODEL, machine_here)["evaluate"]
    machine, answering = step_time.device_speed_ups(on_this_machine(profile, machine_here))
    asking = seconds(alone, prompt)
    loading = step_time.LOAD_SECONDS
    if profile.documents:
        asking += seconds(dev, prompt + PASSAGE_TOKENS) + seconds(
            dev, prompt + IndexStep().k * PASSAGE_TOKENS
        )
        loading += step_time.LOAD_SECONDS + step_time.EMBED_CORPUS_SECONDS / machine
    shots = min(PROBE_SHOTS, rows - PROBE_EXAMPLES)
    few_shot = 0.0
    if shots >= 2 and not profile.remote:
        shown = min(NEAREST_TOKENS_CPU, shots * (prompt + (profile.answer_tokens or step_time.ANSWER_TOKENS)))
        # Near examples are read anew for each question; a bank that all questions share is read once.
        readings = alone if profile.output_format in ("labels", "json") else 1
        few_shot = seconds(alone, prompt) + readings * shown / step_time.PREFILL_TOKENS_PER_S
        few_shot *= correction.factor / answering
    labels = profile.data.label_count or (1 if profile.output_format == "labels" else 0)
    classifier = 0.0
    if labels and rows:
        fits = HEAD_FITS * HEAD_FIT_SECONDS * rows * labels
        classifier = step_time.LOAD_SECONDS + (rows / step_time.EMBEDDED_TEXTS_PER_S + fits) / machine
    return ProbePrice(
        loading,
        asking * correction.factor / answering,
        few_shot,
        classifier,
        correction.text if correction.runs else "",
    )


def _example_rows(profile: Profile) -> int:
    """Return the number of examples in a file; a number that was only answered cannot be asked."""
    return profile.examples_known if profile.examples else 0


def too_large(profile: Profile, machine: Machine, answers: int, quantization: str = NO_QUANTIZATION) -> str:
    """Return why the model cannot give that many answers here: memory or time; "" when it can, or its size is unknown."""
    from advisor.costs import step_time

    shape, params_b = profile.model_shape, profile.params_b
    if shape is None or not params_b:
        return ""
    own_memory = machine.own_memory
    available = machine.gpu_memory_gib.value if own_memory else free_ram(MachineProbe()).value
    needed = answering_memory(shape, machine, quantization, PROBE_PROMPT_TOKENS, MAX_PROBE_TOKENS).likely
    if available is not None and needed > available:
        return f"{profile.model or 'the model'} needs about {needed:.1f} GiB, {available:.1f} are free"
    seconds_each = PROBE_PROMPT_TOKENS / step_time.PREFILL_TOKENS_PER_S
    seconds_each += step_time.ANSWER_TOKENS / step_time.DECODE_TOKENS_PER_S
    seconds = answers * seconds_each * params_b / step_time.REFERENCE_PARAMS_B
    if machine.device == "cpu" and seconds > MAX_PROBE_SECONDS:
        return f"{profile.model or 'the model'} would take about {seconds / 3600:.1f} hours without a GPU"
    return ""


def _too_large_here(profile: Profile) -> str:
    """Return why the profile's model cannot be asked on this machine; "" when it can."""
    from runners.trial.base_probe import PROBE_EXAMPLES

    return too_large(profile, detect_machine(Path("runs")), 3 * MAX_PROBE_QUESTIONS + PROBE_EXAMPLES)


def _open_answers(profile: Profile, measures: tuple[str, ...]) -> tuple[str, ...]:
    """Return the questions that a probe may answer and that no person has answered."""
    possible = ["behaviour_gap", "prompting_pass_rate"] if PASSING in measures else []
    possible += ["task_needs_facts"] if KNOWLEDGE in measures else []
    by_person = {
        key
        for key, answer in profile.sources.items()
        if answer.value is not None and answer.source in (*PERSON_SOURCES, "config")
    }
    return tuple(key for key in possible if key not in by_person)
