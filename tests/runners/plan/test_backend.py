"""The backend of a plan: how it is written, which server an arm is asked from, and that older plans stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from rag.errors import BadInput
from runners.plan.backend import ServerModel, parse_backend
from runners.plan.plan_text import plan_text
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep, PlanModel

BASE = "openai:base@http://127.0.0.1:8000/v1,http://127.0.0.1:8001/v1"
URLS = ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")
LORA = EvaluateStep(arm="lora", weights="lora")


def make_plan(**settings: Any) -> Plan:
    """A plan with one tuned arm and two of the base."""
    steps = [
        {"kind": "train", "arm": "lora", "seeds": [0, 3]},
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        {"kind": "evaluate", "arm": "naive-stack", "weights": "lora"},
    ]
    body = {"name": "x", "choice": "lora", "model": {"name": "m"}, "data": {"examples": "e.jsonl"}}
    return parse_plan({**body, "steps": steps, "weights": {"token_f1": 1}, **settings})


def test_arms_are_asked_by_the_name_of_their_weights() -> None:
    backend = parse_backend([BASE])
    assert backend.model_of(EvaluateStep(arm="prompting")) == ServerModel("base", URLS)
    assert backend.model_of(LORA) == ServerModel("lora", URLS)
    assert backend.model_of(EvaluateStep(arm="naive-stack", weights="lora")) == ServerModel("lora", URLS)
    assert backend.model_of(LORA, 3) == ServerModel("lora-s3", URLS), "weights of another seed are others"


def test_an_arm_can_have_a_server_of_its_own() -> None:
    backend = parse_backend([BASE, "lora=openai:tern/merged@http://127.0.0.1:9000/v1/"])
    merged = ServerModel("tern/merged", ("http://127.0.0.1:9000/v1",))
    assert backend.model_of(LORA) == merged
    assert backend.model_of(EvaluateStep(arm="naive-stack", weights="lora")) == merged, (
        "the weights are the same"
    )
    assert backend.urls == (*URLS, *merged.urls)
    assert parse_backend(backend.entries) == backend
    alone = parse_backend(["lora=openai:x@http://127.0.0.1:9000"])
    assert alone.model_of(EvaluateStep(arm="prompting")) is None


def test_what_needs_the_model_itself_stays_in_the_process() -> None:
    backend = parse_backend([BASE])
    assert backend.model_of(EvaluateStep(arm="classifier", classifier=True)) is None
    assert backend.model_of(EvaluateStep(arm="prompting-scored", labels="scored")) is None
    other = PlanModel(name="openai:other@https://api.example.com/v1")
    assert backend.model_of(EvaluateStep(arm="hosted", model=other)) is None
    assert not parse_backend(["local"])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["openai:base"], "is not of the form"),
        (["openai:base@http://"], "is not of the form"),
        (["openai:base@http://a/v1,b/v1"], "is not of the form"),
        ([BASE, "openai:x@http://c/v1"], "the base is named twice"),
        (["lora=openai:a@http://a", "lora=openai:b@http://b"], "lora is named twice"),
        (["local", BASE], "local cannot be combined with servers"),
    ],
)
def test_malformed_backends_are_refused(entries: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_backend(entries)


def test_plan_with_a_backend_is_read_and_written() -> None:
    plan = make_plan(backend=BASE)
    assert plan.backend == (BASE,)
    assert f"backend: ['{BASE}']" in plan_text(plan)
    assert parse_plan(plan.model_dump(mode="json", by_alias=True)) == plan
    assert plan.digest() != make_plan().digest()
    with pytest.raises(BadInput, match="the plan has no arm hybrid; its arms: lora, prompting, naive-stack"):
        make_plan(backend=["hybrid=openai:x@http://a/v1"])


def test_plans_without_a_backend_keep_their_digest() -> None:
    assert "backend" not in make_plan().model_dump()
    assert "backend" not in make_plan().model_dump(mode="json", by_alias=True)
    assert make_plan(backend=[]).digest() == make_plan().digest()
