"""How long each step of a plan takes here, before it starts: rough, labelled, and held against the measurement."""

from __future__ import annotations

import os

from runners import forgetting
from runners.plan import IndexStep, Plan, TrainStep

# Measured on 2 cores with AVX512-BF16 and SmolLM2-135M (benchmarks/LOG.md); other sizes scale by parameters.
TRAIN_TOKENS_PER_S = {"lora": 950.0, "qlora": 700.0, "full": 450.0}
PREFILL_TOKENS_PER_S = 1500.0
DECODE_TOKENS_PER_S = 250.0
LOAD_SECONDS = 6.0
REFERENCE_CORES, REFERENCE_PARAMS_B = 2, 0.135
CHARS_PER_TOKEN = 4.2
PASSAGE_TOKENS, ROW_TOKENS, ANSWER_TOKENS = 50, 55, 40
EMBEDDED_TEXTS_PER_S = 200.0
SLOWED_BY = 3_000.0
"""Tokens of a shared prompt that double an answer's time: its tokens attend to all of them."""


def schedule(plan: Plan, examples: int, test_questions: int) -> list[tuple[str, float]]:
    """Estimated seconds of every step, in order, from token counts, measured speeds and the plan's model size."""
    size = plan.answers.get("model_params_b")
    params_b = float(size.value) if size is not None and size.value else REFERENCE_PARAMS_B
    speed = min((os.cpu_count() or 1), 16) / REFERENCE_CORES * REFERENCE_PARAMS_B / params_b
    prompt = len(plan.prompts.system) / CHARS_PER_TOKEN
    passages = (plan.index.k if plan.index else 0) * PASSAGE_TOKENS
    times: list[tuple[str, float]] = []
    seeds = {step.arm: len(step.seeds) for step in plan.steps if isinstance(step, TrainStep)}
    for step in plan.steps:
        if isinstance(step, IndexStep):
            times.append(("index", LOAD_SECONDS + 10 / speed))
        elif isinstance(step, TrainStep):
            row = prompt + ROW_TOKENS + (passages if step.rows == "retrieval" else 0)
            tokens = examples * row * step.epochs * len(step.seeds)
            times.append(
                (f"train:{step.arm}", LOAD_SECONDS + tokens / TRAIN_TOKENS_PER_S[step.method] / speed)
            )
        elif step.classifier:
            texts = (examples + test_questions) / EMBEDDED_TEXTS_PER_S
            times.append((f"evaluate:{step.arm}", LOAD_SECONDS + texts))
        else:
            asked = prompt + ROW_TOKENS / 2 + step.shots * ROW_TOKENS
            asked += passages if step.retrieval and step.passages == "found" else 0
            each = asked / PREFILL_TOKENS_PER_S + ANSWER_TOKENS / DECODE_TOKENS_PER_S
            # Banks are tried a few questions at a time, which takes longer for each.
            tried = 1.5 * min(step.budget, test_questions) if step.bank == "chosen" else 0
            seconds = (test_questions * (1 if step.weights is None else seeds[step.weights]) + tried) * each
            if step.passages == "all":
                seconds = _whole(plan) / PREFILL_TOKENS_PER_S + seconds * (1 + _whole(plan) / SLOWED_BY)
            times.append((f"evaluate:{step.arm}", LOAD_SECONDS / 2 + seconds / speed))
    if tuned := forgetting.tuned(plan):
        replies = (
            plan.forgetting.prompts * min(ANSWER_TOKENS, plan.forgetting.max_new_tokens) / DECODE_TOKENS_PER_S
        )
        sets = 1 + sum(seeds[name] for name in tuned)
        times.append((forgetting.STEP, sets * (LOAD_SECONDS / 4 + (1 + replies) / speed)))
    return times


def _whole(plan: Plan) -> float:
    """Tokens of all documents, with their headings as passages; 0 where nobody counted them."""
    counted = plan.answers.get("corpus_tokens")
    return 1.5 * float(counted.value) if counted is not None and counted.value else 0.0
