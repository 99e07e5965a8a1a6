"""Default settings from the size of data and model, each with its reason."""

from __future__ import annotations

import pytest

from runners.plan.steps import TrainStep
from runners.plan.train_config import LORA_VARIANTS, TUNING_METHODS
from runners.training import defaults


@pytest.mark.parametrize("method", TUNING_METHODS)
@pytest.mark.parametrize("params_b", [0.135, 7.0, 70.0])
@pytest.mark.parametrize("rows", [1, 60, 320, 5000, 80_000])
def test_every_default_is_a_valid_step_setting_with_reason(method: str, params_b: float, rows: int) -> None:
    chosen = defaults.choose_defaults(method, rows=rows, params_b=params_b)
    numbers = {name: value for name, value in chosen.values.items() if name != "method"}
    assert numbers.keys() == chosen.reasons.keys()
    TrainStep(arm=method, method=method, reasons=chosen.reasons, **numbers)
    for name, reason in chosen.reasons.items():
        assert reason.startswith(f"{numbers[name]} because ")


def test_defaults_for_small_model_are_the_measured_ones() -> None:
    config = defaults.choose_defaults("lora", rows=400, params_b=0.135, tokens=400 * 82, longest=140).config()
    assert (config.rank, config.alpha, config.learning_rate, config.epochs) == (16, 32.0, 5e-4, 2.0)
    assert (config.batch_tokens, config.max_tokens, config.dropout) == (1024, 140, 0.0)


def test_full_learning_rate_is_about_a_tenth_of_lora() -> None:
    for params_b in (0.135, 7.0):
        rate = {
            m: defaults.choose_defaults(m, rows=400, params_b=params_b).values["learning_rate"]
            for m in TUNING_METHODS
        }
        assert rate["lora"] == rate["qlora"]
        assert 10 <= round(rate["lora"] / rate["full"]) <= 20


@pytest.mark.parametrize(("rows", "mean"), [(8, 900), (320, 82), (320, 700), (5000, 300), (60_000, 500)])
def test_batch_tokens_give_enough_rows_per_step_and_steps(rows: int, mean: int) -> None:
    config = defaults.choose_defaults("lora", rows=rows, params_b=1.0, tokens=rows * mean).config()
    assert 1 <= config.batch_tokens / mean <= 48 or config.batch_tokens == 256
    if rows >= 100:
        assert rows * mean * config.epochs / config.batch_tokens >= 30


@pytest.mark.parametrize("variant", LORA_VARIANTS)
def test_default_alpha_gives_the_scale_of_the_variant(variant: str) -> None:
    config = defaults.choose_defaults("lora", rows=320, params_b=0.135, variant=variant).config(
        variant=variant
    )
    scale = config.alpha / (config.rank**0.5 if variant == "rslora" else config.rank)
    assert scale == (1.0 if variant == "pissa" else 2.0)


def test_given_rank_decides_alpha() -> None:
    config = defaults.choose_defaults("lora", rows=320, params_b=0.135, rank=64).config(rank=64)
    assert (config.rank, config.alpha) == (64, 128.0)


def test_given_epochs_decide_batch_tokens() -> None:
    few, many = (
        defaults.choose_defaults("lora", rows=320, params_b=0.1, tokens=26_240, epochs=n) for n in (1, 8)
    )
    assert (few.values["batch_tokens"], many.values["batch_tokens"]) == (512, 1024)
    assert few.reasons["batch_tokens"].endswith("about 6 a step, 51 steps in 1 pass")


def test_long_rows_get_larger_batches() -> None:
    """Instructions that list 77 labels make rows of 600 tokens: 1,024 a step would be a row or two."""
    short, long = (defaults.choose_defaults("lora", rows=770, params_b=0.1, row_tokens=n) for n in (120, 600))
    assert (short.values["batch_tokens"], long.values["batch_tokens"]) == (1024, 4096)
    assert "about 600 tokens" in long.reasons["batch_tokens"]


@pytest.mark.parametrize(
    ("rows", "mean", "batch"),
    [(39, 60, 256), (357, 120, None), (200, 60, 512), (0, 60, None), (39, 0, None)],
)
def test_smaller_batch_for_few_short_rows(rows: int, mean: int, batch: int | None) -> None:
    """From 50 steps on the batch stays; below, it is the power of two that comes nearest, never under 256."""
    epochs = 4.0 if rows < 200 else 2.0
    smaller = defaults.smaller_batch(rows, mean, epochs, 1024)
    assert (smaller and smaller[0]) == batch
    if smaller:
        assert smaller[1].startswith(f"{batch} because {rows} rows of about {mean} tokens")
        assert defaults.smaller_batch(rows, mean, epochs, smaller[0]) is None or smaller[0] == 256


@pytest.mark.parametrize(
    ("method", "rows", "params_b", "once"),
    [
        ("lora", 357, 0.135, True),
        ("qlora", 1999, 0.6, True),
        ("lora", 199, 0.135, False),
        ("lora", 2000, 0.135, False),
        ("lora", 357, 1.5, False),
        ("full", 357, 0.135, False),
    ],
)
def test_small_models_take_one_pass_over_rows_with_passages(
    method: str, rows: int, params_b: float, once: bool
) -> None:
    settings = defaults.passages_settings(method, rows, params_b)
    assert (settings is not None) is once
    if settings:
        usual = defaults.choose_defaults(method, rows=rows, params_b=params_b).values
        assert settings.values == pytest.approx(
            {"epochs": usual["epochs"] / 2, "learning_rate": usual["learning_rate"] * 3}
        )
        assert all(
            settings.reasons[name].startswith(f"{value} because") for name, value in settings.values.items()
        )
