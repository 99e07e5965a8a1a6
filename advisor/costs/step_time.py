"""How long each step of a plan takes, estimated before it starts and compared with the measurement after it.

Train steps use :mod:`advisor.costs.training_time`, as the recommendation's hours do. The other steps have
constants measured on one machine, scaled by the speed of the device here; on a GPU that scaling is an
assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from advisor.costs.tokens import (
    LOOKUP_REQUESTS,
    LOOKUP_RESULT_TOKENS,
    PASSAGE_TOKENS,
    RAW_SEQUENCE,
    TOOLS_TOKENS,
    row_tokens,
)
from advisor.costs.training_time import cpu_device, training_device, training_seconds
from advisor.questionnaire.gather import profile_of_plan
from advisor.questionnaire.profile import Profile
from runners.arms.few_shot import MANY_TOKENS_CPU
from runners.catalog import models
from runners.classification.tuned import TUNING_SECONDS, tuned_texts
from runners.plan.arm_names import split_arm
from runners.plan.named_models import asked_models
from runners.plan.schema import Plan
from runners.plan.steps import EmbedderStep, EvaluateStep, IndexStep, TrainStep
from runners.resources.machine import detect_machine
from runners.resources.model_shape import ModelShape
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

# Measured on 2 cores with AVX512-BF16 and SmolLM2-135M (benchmarks/LOG.md).
PREFILL_TOKENS_PER_S = 1500.0
DECODE_TOKENS_PER_S = 250.0
LOAD_SECONDS = 6.0
EMBED_CORPUS_SECONDS = 10.0
EMBEDDED_TEXTS_PER_S = 200.0
CHOICE_SECONDS = 3e-4
"""Of a processor for each row and label, to choose a classifier's features: 18 s with 770 rows and 77 labels."""
TUNED_TOKENS_PER_S = 2_000.0
"""Tokens of questions and passages that tuning the default embedder reads in a second: twice the 1,060 that one core read
(128 pairs of xquad_en with a negative each, 42,000 tokens in 40 s; benchmarks/LOG.md, tuned retrieval)."""
REFERENCE_FLOPS = cpu_device(2, bf16=True).flops.likely
"""FLOP/s of the machine of these constants: others scale by their FLOP/s."""
REFERENCE_PARAMS_B = 0.1345
"""Billions of parameters of the model of these constants: others scale by their parameters."""
MAX_SPEED_UP = 16.0
"""Limit of the speed-up over the measured machine: decoding one token at a time does not fill a GPU, or many
cores. Our assumption; not measured.
"""
REFERENCE_QUESTIONS = 32
"""Dev questions that the prior of scored labels is measured on, at most: ``MAX_REFERENCE`` of
:mod:`runners.arms.scored_labels`, which imports more than drafting a plan needs."""
QUESTION_TOKENS = 27
ANSWER_TOKENS = 40
SHOT_TOKENS = 55
NEAREST_SHOTS = 8
"""Examples that a prompt which is tried shows beside those of the fixed bank, on average."""
SLOWDOWN_TOKENS = 3_000.0
"""Tokens of a shared prompt that double an answer's time: its tokens attend to all of them."""


def estimate_step_times(
    plan: Plan, examples: int, test_questions: int, profile: Profile | None = None
) -> list[tuple[str, float]]:
    """Return the name and the estimated seconds of every step, in order; of several models each at the speed of its own.

    Args:
        plan: the plan.
        examples: rows that are trained on.
        test_questions: questions that are asked.
        profile: hardware and model; by default those of the plan's answers on this machine
            (:func:`advisor.questionnaire.gather.profile_of_plan`).
    """
    profiles = model_profiles(plan, profile)
    speeds = {alias: device_speed_ups(each) for alias, each in profiles.items()}
    machine = speeds[""][0]
    times: list[tuple[str, float]] = []
    seeds = {step.arm: len(step.seeds) for step in plan.steps if isinstance(step, TrainStep)}
    for step in plan.steps:
        if isinstance(step, IndexStep):
            times.append(("index", LOAD_SECONDS + EMBED_CORPUS_SECONDS / machine))
        elif isinstance(step, EmbedderStep):
            times.append(("embedder", embedder_seconds(step, examples) / machine))
        elif isinstance(step, TrainStep):
            seconds = train_seconds(step, plan, profiles[split_arm(step.arm)[1]], examples)
            times.append((f"train:{step.arm}", LOAD_SECONDS + seconds * len(step.seeds)))
        elif step.without_model:
            seconds = _without_model_seconds(plan, step, examples, test_questions)
            times.append((f"evaluate:{step.arm}", LOAD_SECONDS + seconds / machine))
        elif step.route:  # the second arm's dev answers; those of the test are there
            seconds = min(step.budget, test_questions) * _answer_seconds(plan, plan.routed(step)[1])
            answering = speeds[split_arm(step.arm)[1]][1]
            times.append((f"evaluate:{step.arm}", LOAD_SECONDS / 2 + seconds / answering))
        else:
            seconds_each = _answer_seconds(plan, step)
            # Candidate banks are scored on dev questions in small batches: slower for each question.
            tried = 1.5 * min(step.budget, test_questions) if _tries_prompts(plan, step) else 0
            checked = plan.refusal.dev_answers(step)
            if step.labels == "scored":
                tried += REFERENCE_QUESTIONS
            seconds = (
                test_questions * (1 if step.weights is None else seeds[step.weights]) + tried + checked
            ) * seconds_each
            if step.bank == "chosen":  # some that are tried show more examples, and one bank shows many
                seconds += (tried * NEAREST_SHOTS * SHOT_TOKENS) / PREFILL_TOKENS_PER_S
                seconds += (MANY_TOKENS_CPU / PREFILL_TOKENS_PER_S) if tried else 0
            if step.passages == "all":
                # The shared prompt is read once; then every decoded token attends to all of it.
                seconds = corpus_tokens(plan) / PREFILL_TOKENS_PER_S + seconds * (
                    1 + corpus_tokens(plan) / SLOWDOWN_TOKENS
                )
            answering = speeds[split_arm(step.arm)[1]][1]
            times.append((f"evaluate:{step.arm}", LOAD_SECONDS / 2 + seconds / answering))
    return times + _forgetting_times(plan, seeds, speeds)


def _forgetting_times(
    plan: Plan, seeds: Mapping[str, int], speeds: Mapping[str, tuple[float, float]]
) -> list[tuple[str, float]]:
    """Return the step that measures what tuning cost elsewhere, with its seconds; none where nothing is tuned.

    Each model is asked untuned and with the weights of every seed of its arms, at its own speed by alias.
    """
    from runners.trial import forgetting  # it imports models and the index, which the wizard does not need

    tuned = forgetting.tuned_arms(plan)
    if not tuned:
        return []
    replies = (
        plan.forgetting.prompts * min(ANSWER_TOKENS, plan.forgetting.max_new_tokens) / DECODE_TOKENS_PER_S
    )
    took = 0.0
    for alias in dict.fromkeys(split_arm(name)[1] for name in tuned):
        sets = 1 + sum(seeds[name] for name in tuned if split_arm(name)[1] == alias)
        took += sets * (LOAD_SECONDS / 4 + (1 + replies) / speeds[alias][1])
    return [(forgetting.STEP, took)]


def model_profiles(plan: Plan, profile: Profile | None = None) -> dict[str, Profile]:
    """Return hardware and model of every model of a plan by its alias, its teacher's too; "" for the plan's own.

    ``profile`` is that of the plan's own model; by default it follows from the plan's answers on this machine.
    """
    asked = asked_models(plan.models, plan.teacher)
    machine = detect_machine(Path("runs")) if asked or profile is None else None
    own = profile or profile_of_plan(plan, machine)
    return {"": own} | {
        alias: own if model.name == plan.model.name else profile_of_plan(plan, machine, model.name)
        for alias, model in asked.items()
    }


def embedder_seconds(step: EmbedderStep, examples: int) -> float:
    """Return the seconds of tuning the default embedder, and of the second index, on the machine of the constants.

    A larger embedder takes longer in proportion to its parameters, which are not known before it is there; a dry run
    measures it.
    """
    pairs = examples if step.max_pairs is None else min(step.max_pairs, examples)
    tokens = pairs * step.epochs * (QUESTION_TOKENS + (1 + step.hard_negatives) * PASSAGE_TOKENS)
    trained = 1 if step.reranker is None else 3  # a cross-encoder reads the question with every passage
    return LOAD_SECONDS + EMBED_CORPUS_SECONDS + trained * tokens / TUNED_TOKENS_PER_S


def train_seconds(step: TrainStep, plan: Plan, profile: Profile, examples: int) -> float:
    """Return the likely seconds of one training (one seed) of a step, without loading the model.

    Rows are as long as in the recommendation, plus the passages of the plan's index step where the step's
    rows hold some. Raw texts among the examples, where they were counted, are read in every epoch.
    """
    row = row_tokens(profile) + (passage_tokens(plan) if step.rows == "retrieval" else 0)
    raw = profile.sources.get("unlabelled_tokens")
    if step.rows == "plain" and raw is not None and raw.source == "counted" and raw.value:
        most = plan.data.max_examples
        texts = raw.value if most is None else min(raw.value, examples * RAW_SEQUENCE)
        work = (texts * step.epochs, float(RAW_SEQUENCE))
    else:
        work = (examples * row * step.epochs, row)
    return training_seconds(
        _shape(profile),
        step.method,
        training_device(profile, method=step.method, examples=examples),
        [work],
    ).likely


def device_speed_ups(profile: Profile) -> tuple[float, float]:
    """Return the speed-ups over the measured machine: for any small model, and for the plan's.

    A remote model answers at the measured speed, whatever the hardware here.
    """
    machine = training_device(profile).flops.likely / REFERENCE_FLOPS
    answering = (
        1.0
        if profile.remote
        else machine * REFERENCE_PARAMS_B / (profile.active_params_b or REFERENCE_PARAMS_B)
    )
    return min(machine, MAX_SPEED_UP), min(answering, MAX_SPEED_UP)


def _shape(profile: Profile) -> ModelShape:
    """Return the model's shape; where its size is unknown, that of the default model."""
    shape = profile.model_shape or models.MODELS[0].shape
    assert shape is not None, "the default model has one"
    return shape


def passage_tokens(plan: Plan) -> float:
    """Return the tokens of the passages that a question is given."""
    return float((plan.index.k if plan.index else 0) * PASSAGE_TOKENS)


def _label_tokens(plan: Plan) -> float:
    """Return the tokens of all labels of a plan, each with its end token."""
    return sum(len(label) / CHARS_PER_TOKEN + 1 for label in _labels(plan))


def _answer_seconds(plan: Plan, step: EvaluateStep) -> float:
    """Return the seconds of one answer of an arm with a language model, on the machine of the constants."""
    prompt_length = len(plan.prompts.system) / CHARS_PER_TOKEN + QUESTION_TOKENS + step.shots * SHOT_TOKENS
    prompt_length += passage_tokens(plan) if step.retrieval and step.passages == "found" else 0
    answered = ANSWER_TOKENS / DECODE_TOKENS_PER_S
    if step.looks_up:  # every request reads the tools and all that was found before it
        requests = LOOKUP_REQUESTS.likely
        results = LOOKUP_RESULT_TOKENS * requests * (requests - 1) / 2
        prompt_length = requests * (prompt_length + TOOLS_TOKENS) + results
        answered *= requests
    if step.labels == "scored":  # all labels are read after every question
        answered = _label_tokens(plan) / PREFILL_TOKENS_PER_S
    return prompt_length / PREFILL_TOKENS_PER_S + answered


def _without_model_seconds(plan: Plan, step: EvaluateStep, examples: int, test_questions: int) -> float:
    """Return the seconds in which texts are embedded, a classifier's features are chosen and its embedder is tuned.

    Whether the first candidates leave room for the tuning is not known before: it is counted.
    """
    embedding = (examples + test_questions) / EMBEDDED_TEXTS_PER_S
    if not step.classifier:
        return embedding
    labels = len(_labels(plan))
    tuning = tuned_texts(examples, labels) * QUESTION_TOKENS / TUNED_TOKENS_PER_S
    return embedding + CHOICE_SECONDS * examples * labels + min(tuning, TUNING_SECONDS)


def _labels(plan: Plan) -> list[str]:
    """Return the labels that a plan's checks allow, [] where it has no such check."""
    return [str(label) for check in plan.checks if check.kind == "labels" for label in check.value]


def _tries_prompts(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether an arm tries several prompts on dev questions; one that scores labels takes another arm's choice."""
    return step.chooses_prompt and (
        step.labels == "generated"
        or not any(arm.chooses_prompt and arm.labels == "generated" for arm in plan.arms)
    )


def corpus_tokens(plan: Plan) -> float:
    """Return the tokens of all documents, with their headings as passages; 0 where they were not counted."""
    corpus = plan.answers.get("corpus_tokens")
    return 1.5 * float(corpus.value) if corpus is not None and corpus.value else 0.0
