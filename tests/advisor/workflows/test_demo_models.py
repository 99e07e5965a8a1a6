"""``tunewise demo --models``: which models and arms, the licence first, and a small run with an endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.workflows.demo import recommend_and_draft
from advisor.workflows.demo_models import MODELS, arms_of_models, demo_models, plan_of_models
from rag.errors import BadInput
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep

BIG = "openai:tern-2@http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def drafted() -> Plan:
    """The plan of the demo of one model."""
    return recommend_and_draft()


def test_named_models_are_added_or_replace_one() -> None:
    assert demo_models(()) == MODELS
    assert demo_models([f"big={BIG}"]) == {**MODELS, "big": BIG}
    assert list(demo_models(["gemma=smollm2-360m-instruct"]).values())[1] == "smollm2-360m-instruct"
    for wrong in (["big"], ["=x"], ["a b=x"], ["big="], ["a=x", "a=y"]):
        with pytest.raises(BadInput):
            demo_models(wrong)
    with pytest.raises(BadInput, match="openai:NAME@URL"):
        demo_models(["big=openai:tern-2"])


def test_three_methods_of_each_model_and_no_tuned_endpoint(drafted: Plan) -> None:
    plan = plan_of_models(drafted, demo_models([f"big={BIG}"]))
    assert [step.arm for step in plan.arms] == [
        *(f"{method}@smollm" for method in ("prompting", "rag", "hybrid")),
        *(f"{method}@gemma" for method in ("prompting", "rag", "hybrid")),
        *(f"{method}@big" for method in ("prompting", "rag")),
    ]
    trained = [step for step in plan.steps if isinstance(step, TrainStep)]
    assert [(step.arm, step.seeds) for step in trained] == [("hybrid@smollm", (0,)), ("hybrid@gemma", (0,))]
    assert (plan.choice, plan.gate.must_beat) == ("hybrid@smollm", ("prompting@smollm", "rag@smollm"))
    assert (plan.model.name, plan.predicted) == ("smollm2-135m-instruct", {})
    assert (plan.checks, plan.weights, plan.prompts) == (drafted.checks, drafted.weights, drafted.prompts)
    assert arms_of_models(plan)[2] == "big, tern-2: prompting@big, rag@big; an endpoint is not tuned"
    with pytest.raises(BadInput, match="are the same model"):
        plan_of_models(drafted, {**MODELS, "again": MODELS["gemma"]})


def test_licence_is_said_first_and_flags_are_checked(tunewise: Callable[..., Any], tmp_path: Path) -> None:
    empty = {"TUNEWISE_CACHE": str(tmp_path / "cache"), "TUNEWISE_ACCEPT_LICENSE": ""}
    refused = tunewise("demo", "--models", **empty)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "gemma-3-270m is under the Gemma Terms of Use" in refused.stderr
    assert "--accept-license gemma" in refused.stderr
    assert not (tmp_path / "runs").exists()
    for words, message in (
        (["demo", f"big={BIG}"], "add --models"),
        (["demo", "--models", "--copy", "there"], "remove one of them"),
        (["demo", "--models", "big"], "ALIAS=NAME"),
        (["demo", "--models", "--accept-license", "mit"], "must be accepted"),
    ):
        wrong = tunewise(*words, **empty)
        assert wrong.returncode in (2, 3), wrong.stderr
        assert message in " ".join(wrong.stderr.split())


@pytest.mark.slow
@pytest.mark.real
def test_a_quick_comparison_with_an_endpoint(
    tunewise: Callable[..., Any], tmp_path: Path, server: Any
) -> None:
    """Of tiny models made from a configuration, in place of those of the registry."""
    from tests.runners.export.conftest import build_model

    first = build_model(tmp_path / "first", max_position_embeddings=2048)
    other = build_model(tmp_path / "other", "qwen2", "qwen2", max_position_embeddings=2048)
    server.answer = lambda body: "The office is at the pier. Shall I look further?"
    named = [f"smollm={first}", f"gemma={other}", f"big=openai:tern-2@{server.url}"]
    done = tunewise("demo", "--models", *named, "--quick", "--out", "compared", "--json")
    assert done.returncode in (0, 5), done.stderr
    report = json.loads(done.stdout)
    assert {arm["arm"] for arm in report["arms"]} == {
        *(f"{method}@{alias}" for method in ("prompting", "rag", "hybrid") for alias in ("smollm", "gemma")),
        *("prompting@big", "rag@big"),
    }
    command = report["full_run"]["command"]
    assert command.startswith("tunewise demo --models smollm=")
    assert command.endswith("--out compared-full")
    assert "an endpoint is not tuned" in done.stderr
    assert (tmp_path / "compared" / "report.html").is_file()
    asked = len(server.seen)
    again = tunewise("demo", "--models", *named, "--quick", "--out", "compared", "--resume", "--json")
    assert again.returncode == done.returncode, again.stderr
    assert len(server.seen) == asked
