"""Default training settings, chosen from the size of data and model, each with the reason for the choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.models.fingerprint import tensor_sizes
from runners.plan.train_config import TrainConfig
from runners.resources.memory_terms import EIGHT_BIT_FROM

MIN_BATCH_TOKENS = 256
MIN_STEPS = 50
"""Fewest optimiser steps of a useful run; Tinker advises 100."""
MIN_ROWS_PER_STEP = 8
"""About the fewest rows of an optimiser step: the small end of the 8 to 32 of most runners. Where long rows share a
prefix (instructions with a list of labels), it is computed once for all rows of a step."""

FEW_ROWS = 200
"""Below, LoRA takes four passes over the rows."""
SEVERAL_ROWS = 2000
"""From here on a step holds more rows (:func:`_usual_batch`)."""
PASSAGES_RATE = 1.5e-3
"""Learning rate of LoRA over rows with passages, on a model below :data:`SMALL_MODEL_B`, in one pass."""
SMALL_MODEL_B = 1.0
"""Models with fewer parameters, in billions, take higher learning rates."""


@dataclass(frozen=True, slots=True)
class TrainingDefaults:
    """Chosen settings and their reasons, by field of TrainConfig."""

    values: dict[str, Any]
    reasons: dict[str, str]

    def config(self, **given: Any) -> TrainConfig:
        """Return the settings as a TrainConfig; those in ``given`` that are not None replace the defaults."""
        return TrainConfig(
            **{**self.values, **{name: value for name, value in given.items() if value is not None}}
        )


def choose_defaults(
    method: str,
    *,
    rows: int,
    params_b: float,
    longest: int = 0,
    tokens: int = 0,
    variant: str = "lora",
    rank: int | None = None,
    epochs: float | None = None,
    row_tokens: float = 0,
) -> TrainingDefaults:
    """Return default settings for a tuning method.

    Sources are published runners' defaults and this project's own measurements; where they disagree, the reason names
    the one that was followed.

    Args:
        method: lora, qlora or full.
        rows: Number of training rows without repeats.
        params_b: Parameters of the base in billions.
        longest: Tokens of the longest row, 0 when unknown.
        tokens: Tokens of all rows, 0 when they were not counted.
        variant: lora, rslora, dora or pissa; decides alpha.
        rank: Rank that the user gave, from which alpha follows; None for the default.
        epochs: Passes that the user gave, from which the number of steps follows; None for the default.
        row_tokens: Estimated tokens of a row where ``tokens`` is 0.
    """
    full = method == "full"
    passes = _epochs(rows, full)
    chosen: dict[str, tuple[Any, str]] = {
        "epochs": passes,
        "learning_rate": _full_rate(params_b) if full else _lora_rate(params_b),
        "batch_tokens": _batch_of_counted(rows, tokens, epochs or passes[0])
        if tokens and rows
        else _batch_of_estimated(rows, row_tokens),
        "schedule": ("cosine", "with 5 % warm-up it is what LLaMA-Factory, axolotl and zephyr use"),
        "optimizer": _optimizer(full, params_b),
        "max_tokens": _length(longest),
    }
    if not full:
        chosen["rank"] = _rank(rows)
        chosen["alpha"] = _alpha(variant, rank or chosen["rank"][0])
        chosen["dropout"] = (
            0.0,
            "Unsloth and this project's own runs train without; 0.05 is usual elsewhere",
        )
    values = {"method": method, **{name: value for name, (value, _) in chosen.items()}}
    reasons = {name: f"{value} because {why}" for name, (value, why) in chosen.items()}
    return TrainingDefaults(values, reasons)


def smaller_batch(rows: int, row_tokens: float, epochs: float, batch: int) -> tuple[int, str] | None:
    """Return a batch in tokens, and why, with which a run has about :data:`MIN_STEPS` steps.

    None where ``batch`` gives that many steps already, or nothing smaller is possible.

    Args:
        rows: Number of training rows.
        row_tokens: Mean tokens of a row.
        epochs: Number of passes.
        batch: Tokens of a step as planned.
    """
    tokens = rows * row_tokens * epochs
    if not tokens or tokens / batch >= MIN_STEPS:
        return None
    smaller = min(batch, max(MIN_BATCH_TOKENS, 2 ** round(math.log2(tokens / MIN_STEPS))))
    steps = max(1, round(tokens / batch))
    why = f"{rows} rows of about {row_tokens:.0f} tokens would be learnt in {steps} steps of {batch}"
    return (smaller, f"{smaller} because {why}") if smaller < batch else None


def passages_settings(method: str, rows: int, params_b: float) -> TrainingDefaults | None:
    """Return the settings of rows with passages that differ from :func:`choose_defaults`; None where none does.

    Such a row has about three times the tokens of a plain one, so a pass has three times the optimiser steps. On a small
    model one pass at three times the rate answered as many questions as two, in half of the time (benchmarks/LOG.md); on
    larger models it was not measured.
    """
    if method == "full" or params_b >= SMALL_MODEL_B or not FEW_ROWS <= rows < SEVERAL_ROWS:
        return None
    return TrainingDefaults(
        {"epochs": 1.0, "learning_rate": PASSAGES_RATE},
        {
            "epochs": "1.0 because a row with its passages is long: one pass at three times the rate learnt as much as two "
            "(measured on 135M)",
            "learning_rate": f"{PASSAGES_RATE} because one pass has to learn as much as two at {_lora_rate(params_b)[0]}",
        },
    )


def count_params_b(folder: Path) -> float:
    """Return a model folder's parameters in billions, counted from its safetensors headers."""
    return sum(tensor_sizes(folder)) / 1e9


def _epochs(rows: int, full: bool) -> tuple[float, str]:
    """Return the passes over the data, and why."""
    if rows < FEW_ROWS:
        if full:
            return 3.0, f"{rows} rows are few, but with all weights moving they are soon known by heart"
        return (
            4.0,
            f"{rows} rows are few, and few rows allow more passes (Soup uses 5 under 500, most runners 1-3)",
        )
    if rows < 5000:
        return (
            2.0,
            f"two passes over {rows} rows were enough to learn the style in this project's own measurement",
        )
    if rows < 50_000:
        return 2.0, f"most runners use 1-3 passes; {rows} rows gain little from a third"
    return 1.0, f"{rows} rows are seen often enough in one pass"


def _lora_rate(params_b: float) -> tuple[float, str]:
    """Return the learning rate of LoRA and QLoRA, and why."""
    if params_b < SMALL_MODEL_B:
        return (
            5e-4,
            f"LoRA takes about 10 times full tuning's rate, and a {params_b:.2g}B model more than the usual 2e-4 "
            "(measured on 135M)",
        )
    if params_b < 30:
        return 2e-4, "2e-4 is what QLoRA, Unsloth, litgpt and zephyr agree on below 30B"
    return 1e-4, "QLoRA halves its rate from 33B on"


def _full_rate(params_b: float) -> tuple[float, str]:
    """Return the learning rate of full tuning, and why."""
    if params_b < SMALL_MODEL_B:
        return 5e-5, "all weights move, so about a tenth of LoRA's rate (LoRA Without Regret)"
    return 1e-5, "full tuning forgets quickly; runners use 1e-5 to 2e-5"


def _rank(rows: int) -> tuple[int, str]:
    """Return the rank of LoRA, and why."""
    if rows < 10_000:
        return (
            16,
            f"{rows} rows: rank 16 on all linear layers is enough to learn what a few thousand rows teach",
        )
    return 32, f"{rows} rows can fill more than rank 16"


def _alpha(variant: str, rank: int) -> tuple[float, str]:
    """Return the alpha of a variant for a rank, and why."""
    if variant == "rslora":
        return 8.0, "rsLoRA divides by the root of the rank: 8 scales rank 16 by 2, as plain LoRA is"
    if variant == "pissa":
        return float(rank), "PiSSA's authors set it to the rank"
    return 2.0 * rank, "twice the rank, as most runners set it"


def _batch_of_estimated(rows: int, row_tokens: float) -> tuple[int, str]:
    """Return the usual batch, larger where rows are so long that it would hold fewer than MIN_ROWS_PER_STEP."""
    usual, why = _usual_batch(rows)
    if row_tokens * MIN_ROWS_PER_STEP <= usual:
        return usual, why
    batch = 2 ** int(math.log2(row_tokens * MIN_ROWS_PER_STEP))
    return max(
        usual, batch
    ), f"rows have about {row_tokens:.0f} tokens, and a step of a row or two is mostly noise"


def _usual_batch(rows: int) -> tuple[int, str]:
    """Return the tokens of a step by the number of rows alone, and why."""
    if rows < SEVERAL_ROWS:
        return 1024, f"{rows} rows need small steps to get enough of them (at least 100 is advised)"
    if rows < 20_000:
        return 4096, f"{rows} rows: about 8-32 a step, as most runners use"
    return 16_384, f"{rows} rows: larger steps are steadier"


def _batch_of_counted(rows: int, tokens: int, epochs: float) -> tuple[int, str]:
    """Return a power of two near the tokens of 12 to 32 rows, smaller where there would be under :data:`MIN_STEPS`."""
    mean = tokens / rows
    rows_per_step = 12 if rows < 2000 else 16 if rows < 20_000 else 32
    target = max(mean, min(rows_per_step * mean, tokens * epochs / MIN_STEPS))
    batch = max(MIN_BATCH_TOKENS, 2 ** round(math.log2(target)))
    steps = max(1, round(tokens * epochs / batch))
    passes = "1 pass" if epochs == 1 else f"{epochs:g} passes"
    return (
        batch,
        f"rows have {mean:.0f} tokens: about {max(1, batch / mean):.0f} a step, {steps} steps in {passes}",
    )


def _optimizer(full: bool, params_b: float) -> tuple[str, str]:
    """Return the optimiser, and why."""
    if not full:
        return "adamw", "adapters are small, so its two fp32 moments cost little"
    if params_b * 1e9 < EIGHT_BIT_FROM:
        return "adamw", f"its 8 bytes a weight are affordable at {params_b:.2g}B"
    return (
        "adamw_8bit",
        f"2 bytes a weight of state instead of 8, for {params_b:.2g}B weights (torchtune: -5 % speed)",
    )


def _length(longest: int) -> tuple[int, str]:
    """Return the most tokens of a row, and why."""
    if 0 < longest <= 4096:
        return max(longest, 64), "the longest row has so many tokens"
    return (
        1024,
        "limits memory; longer rows are counted and skipped, or refused when there are many, never cut",
    )
