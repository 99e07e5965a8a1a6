"""Training settings chosen from the size of data and model, each with the reason it was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.fingerprint import tensor_sizes
from runners.tuning import TrainConfig


@dataclass(frozen=True, slots=True)
class Defaults:
    """Chosen settings, by TrainConfig field, and why."""

    values: dict[str, Any]
    reasons: dict[str, str]

    def config(self, **given: Any) -> TrainConfig:
        """Return the settings as a TrainConfig; what is given and not None wins."""
        return TrainConfig(**{**self.values, **{k: v for k, v in given.items() if v is not None}})


def choose(method: str, *, rows: int, params_b: float, longest: int = 0) -> Defaults:
    """Return settings for a tuning method, from the rows (without repeats) and billions of parameters.

    ``longest`` is the longest row in tokens, when known. Sources: published runners' defaults and this
    project's own measurements; where they disagree the reason says which was followed.
    """
    epochs = _epochs(rows)
    rate = _full_rate(params_b) if method == "full" else _lora_rate(params_b)
    batch = _batch(rows)
    chosen: dict[str, tuple[Any, str]] = {"epochs": epochs, "learning_rate": rate, "batch_tokens": batch}
    if method != "full":
        chosen["rank"] = _rank(rows)
        chosen["alpha"] = (2.0 * chosen["rank"][0], "twice the rank, as most runners set it")
    chosen["max_tokens"] = _length(longest)
    values = {"method": method, **{k: v for k, (v, _) in chosen.items()}}
    return Defaults(values, {k: f"{v} because {why}" for k, (v, why) in chosen.items()})


def params_of(folder: Path) -> float:
    """Return a model folder's parameters in billions, counted from its safetensors headers."""
    return sum(tensor_sizes(folder)) / 1e9


def _epochs(rows: int) -> tuple[float, str]:
    if rows < 200:
        return (
            4.0,
            f"{rows} rows are few, and few rows bear more passes (Soup uses 5 under 500, most runners 1-3)",
        )
    if rows < 5000:
        return 2.0, f"two passes over {rows} rows reached the house style in this project's own measurement"
    if rows < 50_000:
        return 2.0, f"most runners use 1-3 passes; {rows} rows leave little to gain from a third"
    return 1.0, f"{rows} rows are seen often enough in one pass"


def _lora_rate(params_b: float) -> tuple[float, str]:
    if params_b < 1:
        return 5e-4, f"models of {params_b:.2g}B take more than the usual 2e-4; measured on a 135M model"
    if params_b < 30:
        return 2e-4, "2e-4 is what QLoRA, Unsloth, litgpt and zephyr agree on below 30B"
    return 1e-4, "QLoRA halves its rate from 33B on"


def _full_rate(params_b: float) -> tuple[float, str]:
    if params_b < 1:
        return 5e-5, "all weights move, so about a tenth of LoRA's rate (LoRA Without Regret)"
    return 1e-5, "full tuning forgets quickly; runners use 1e-5 to 2e-5"


def _rank(rows: int) -> tuple[int, str]:
    if rows < 10_000:
        return 16, "16 on all linear layers holds what a few thousand rows teach"
    return 32, f"{rows} rows can fill more than rank 16"


def _batch(rows: int) -> tuple[int, str]:
    if rows < 2000:
        return 1024, "few rows need small steps to get enough of them (at least 100 is advised)"
    if rows < 20_000:
        return 4096, "about 8-32 rows a step, as most runners use"
    return 16_384, "many rows: larger steps are steadier"


def _length(longest: int) -> tuple[int, str]:
    if 0 < longest <= 4096:
        return max(longest, 64), "the longest row has so many tokens"
    return 1024, "a bound on memory; longer rows are counted, left out or refused, never cut"
