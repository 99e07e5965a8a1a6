"""A training setting has one set of bounds: in a plan's train step, as a flag of `tunewise train`, and in TrainConfig."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from advisor import cli
from advisor.commands import train
from rag.errors import BadInput
from runners.plan.schema import METHODS
from runners.plan.steps import TrainStep
from runners.plan.train_config import TUNING_METHODS, TrainConfig, TrainSettings
from runners.resources.memory_terms import MemoryUse

FIELDS = {**TrainStep.model_fields, **TrainConfig.model_fields}
FLAGS = set(inspect.signature(train.command).parameters) & set(TrainConfig.model_fields)
NO_FLAG = {"weight_decay", "max_grad_norm", "thinking"}
"""Settings of TrainConfig that `tunewise train` leaves at their defaults."""


def limits(name: str) -> dict[str, float]:
    """Return a setting's bounds by kind: ge, gt, le, lt."""
    pairs = [
        (kind, getattr(one, kind, None)) for one in FIELDS[name].metadata for kind in ("ge", "gt", "le", "lt")
    ]
    return {kind: value for kind, value in pairs if value is not None}


NUMBERS = [name for name in TrainConfig.model_fields if FIELDS[name].annotation in (int, float)]
CHOICES = [name for name in TrainConfig.model_fields if get_origin(FIELDS[name].annotation) is Literal]


def probes(name: str) -> Iterator[tuple[float, bool]]:
    """Yield values at, next to and far beyond each bound of a number, and whether it may be each."""
    whole = FIELDS[name].annotation is int

    def beside(value: float, towards: float) -> float:
        return value + int(math.copysign(1, towards)) if whole else math.nextafter(value, towards)

    for kind, value in limits(name).items():
        value = value if whole else float(value)
        outwards = -math.inf if kind in ("ge", "gt") else math.inf
        yield value, kind in ("ge", "le")
        yield beside(value, -outwards), True
        yield beside(value, outwards), False
    if not whole:
        yield math.nan, False
        yield math.inf, False


def config_takes(name: str, value: Any) -> bool:
    """Whether TrainConfig takes a value; it names the setting that it refuses."""
    try:
        TrainConfig(**{name: value})
    except BadInput as refused:
        if not refused.message.startswith(f"{name} "):
            raise
        return False
    return True


def plan_takes(name: str, value: Any) -> bool:
    """Whether a plan's train step takes a value; its seeds are a list."""
    given = {"seeds": [value]} if name == "seed" else {name: value}
    try:
        TrainStep.model_validate({"arm": "lora", **given})
    except ValidationError:
        return False
    return True


def flag_takes(name: str, value: Any) -> bool:
    """Whether `tunewise train` takes a value as a flag, going on to rows that do not exist."""
    done = CliRunner().invoke(
        cli.app, ["train", "--check", "--examples", "no-such.jsonl", f"--{name.replace('_', '-')}={value}"]
    )
    assert done.exit_code in (2, 3), done.output
    assert ("no-such.jsonl does not exist" in done.stderr) is (done.exit_code == 3), done.stderr
    return done.exit_code == 3


def agree(name: str, value: Any, allowed: bool) -> None:
    """Assert that all that know the setting take the value, or all refuse it."""
    assert config_takes(name, value) is allowed, (name, value)
    if name in TrainStep.model_fields or name == "seed":
        assert plan_takes(name, value) is allowed, (name, value)
    if name in FLAGS:
        assert flag_takes(name, value) is allowed, (name, value)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_has_the_same_bounds_everywhere(name: str) -> None:
    assert limits(name), f"{name} has no bounds"
    for value, allowed in probes(name):
        agree(name, value, allowed)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_among_the_same_words_everywhere(name: str) -> None:
    if name == "checkpointing":  # a switch as a flag: on or off, and auto without it
        assert get_args(FIELDS[name].annotation) == ("auto", "on", "off")
        return
    for value in get_args(FIELDS[name].annotation):
        agree(name, value, allowed=True)
    agree(name, "another", allowed=False)


def test_every_setting_is_a_flag_that_takes_its_type_and_has_its_help() -> None:
    assert set(TrainConfig.model_fields) - FLAGS == NO_FLAG
    hints = get_type_hints(train.command)
    for name in FLAGS:
        wanted = FIELDS[name].annotation
        takes = {"checkpointing": bool, "init_adapter": Path}.get(
            name, wanted if wanted in (int, float) else str
        )
        assert takes in (hints[name], *get_args(hints[name])), name
    done = CliRunner().invoke(cli.app, ["train", "--help"], env={"COLUMNS": "4000", "NO_COLOR": "1"})
    shown = " ".join(done.stdout.split())
    for name in FLAGS:
        assert str(FIELDS[name].description).rstrip(".") in shown, name
        for value in limits(name).values():
            assert f"{value:,}".removesuffix(".0") in train.setting_help(name), name
    assert (
        "Passes over the rows; a fraction ends within a pass (above 0, at most 100; default: chosen)."
        in shown
    )
    assert "(from 1 to 1,000,000; default: 2)." in train.setting_help("patience")


def test_a_start_of_the_program_does_not_load_the_settings() -> None:
    """The flags' help is filled in when it is needed: pydantic is not loaded for other verbs."""
    code = (
        "import sys; from advisor import cli; "
        "print('pydantic' in sys.modules, 'runners.plan.train_config' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"
    )


@pytest.mark.parametrize("name", TrainSettings.model_fields)
def test_a_train_step_has_the_settings_of_a_training_run(name: str) -> None:
    """Type, default, bounds and description are the same object's, and a step's values reach the run."""
    step, config = TrainStep.model_fields[name], TrainConfig.model_fields[name]
    assert (step.annotation, step.default, step.metadata, step.description) == (
        config.annotation,
        config.default,
        config.metadata,
        config.description,
    )
    assert step.description


def test_a_step_makes_the_settings_of_each_seed() -> None:
    step = TrainStep(arm="style", method="qlora", epochs=3, targets=("q_proj",), neftune=5, seeds=(3, 4))
    assert step.config(4, Path("before")) == TrainConfig(
        method="qlora", epochs=3.0, targets=("q_proj",), neftune=5.0, seed=4, init_adapter=Path("before")
    )


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"rank": 0}, "rank 0 is out of bounds", "from 1 to 512"),
        ({"dropout": 1.0}, "dropout 1 is out of bounds", "at least 0, below 1"),
        ({"variant": "loha"}, "variant 'loha' is unknown", "one of: lora, rslora, dora, pissa"),
        ({"targets": "q_proj"}, "targets 'q_proj' is unknown", "all-linear, or a list of name endings"),
        ({"ranks": 4}, "ranks is no training setting", "one of: method, epochs, "),
        (
            {"rank": 1.5},
            "rank 1.5 cannot be used: Input should be a valid integer, got a number with a fractional part",
            "from 1 to 512",
        ),
        ({"seed": 10**400}, f"seed {10**400} is out of bounds", "to 18,446,744,073,709,551,615"),
    ],
)
def test_a_refusal_names_the_setting_its_value_and_what_it_may_be(
    given: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(BadInput) as refused:
        TrainConfig(**given)
    assert refused.value.message == message
    assert hint in refused.value.hint
    with pytest.raises(BadInput) as again:
        TrainConfig().replace(**given)
    assert again.value.message == message


def test_the_ways_of_tuning_are_named_alike() -> None:
    """Memory estimates are below the plan in the order of packages, so their names are held by this test."""
    assert {*TUNING_METHODS, "inference"} == set(get_args(MemoryUse))
    assert set(TUNING_METHODS) < set(METHODS)
