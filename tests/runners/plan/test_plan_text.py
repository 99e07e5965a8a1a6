"""The plan file: short, with reasons as comments, equal when read back, and wrong keys named with their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, SchemaError

from rag.errors import BadInput
from runners.plan.forecast import OUTDATED, forecast_path
from runners.plan.plan_text import plan_text
from runners.plan.schema import (
    METHODS,
    Plan,
    parse_plan,
    plan_differences,
    read_plan,
    read_plan_file,
    write_plan,
)

PLAN = """\
schema: 1
name: desk
choice: hybrid
model: {name: m}
data:
  documents: docs
  examples: e.jsonl
  questions: q.jsonl
steps:
- {kind: index}
- kind: train
  arm: hybrid
  rows: retrieval
  epochs: 3  # three passes were enough in spring
  rank: 8  # 8 because of the phones: they have no room
  targets: [q_proj, v_proj]
- {kind: evaluate, arm: prompting}
- {kind: evaluate, arm: hybrid, weights: hybrid, retrieval: true}
weights:
  style: 1.0  # the house style matters
  fact_recall: 2
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "desk.yaml"
    path.write_text(text, "utf-8")
    return path


def read_again(plan: Plan, folder: Path) -> Plan:
    write_plan(plan, folder / "again.yaml")
    return read_plan_file(folder / "again.yaml")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
YAML_LOOKALIKES = (
    *(
        "yes",
        "no",
        "null",
        "~",
        "1.0",
        "0x1f",
        "2026-11-26",
        "a: b",
        "a #b",
        "- x",
        "a, b",
        "{x}",
        "%x",
        "@y",
        "`z`",
    ),
    *(
        "&a",
        "*b",
        "!c",
        "?",
        "'",
        '"',
        "\\",
        "",
        " lead",
        "trail ",
        "\n",
        "a\n\nb",
        "first line\nsecond line",
        "a\tb",
    ),
    *("\u2028", "\x85", "\ufeff"),
)


def is_json_schema(value: dict[str, Any]) -> bool:
    """Return whether a value is a JSON Schema: a key such as "then" among random ones may make it none."""
    try:
        Draft202012Validator.check_schema(value)
    except SchemaError:
        return False
    return True


ODD_TEXT = TEXT | st.sampled_from(YAML_LOOKALIKES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=6,
)
TRAIN_STEPS = st.fixed_dictionaries(
    {"kind": st.just("train"), "arm": st.just("lora")},
    optional={
        "epochs": st.floats(0.1, 100),
        "learning_rate": st.floats(1e-7, 0.5),
        "rank": st.integers(1, 512),
        "targets": st.just("all-linear") | st.lists(st.text("qkvo_proj", min_size=1), min_size=1, max_size=3),
        "seeds": st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
        "distractors": st.none() | st.integers(0, 49),
        "reasons": st.dictionaries(
            st.sampled_from(["epochs", "rank", "seeds", "kind", "targets", "none"]) | ODD_TEXT, ODD_TEXT
        ),
    },
)
PLANS = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "choice": st.sampled_from(METHODS),
        "model": st.fixed_dictionaries({"name": ODD_TEXT}, optional={"allow_hub": st.booleans()}),
        "data": st.fixed_dictionaries(
            {"examples": st.just("e.jsonl")}, optional={"max_test": st.none() | st.integers(1, 99)}
        ),
        "steps": st.lists(TRAIN_STEPS | st.just({"kind": "evaluate", "arm": "prompting"}), max_size=4),
        "weights": st.just({"style": 1.0, "fact_recall": 0.5}),
    },
    optional={
        "prompts": st.fixed_dictionaries(
            {}, optional={"system": ODD_TEXT, "refusals": st.lists(ODD_TEXT, min_size=1, max_size=3)}
        ),
        "checks": st.lists(
            st.fixed_dictionaries(
                {"kind": st.just("must_not"), "value": st.lists(JSON, max_size=3), "text": ODD_TEXT}
            )
            | st.fixed_dictionaries(
                {
                    "kind": st.just("json_schema"),
                    "value": st.dictionaries(ODD_TEXT, JSON, max_size=3).filter(is_json_schema),
                }
            ),
            max_size=2,
        ),
        "weight_reasons": st.dictionaries(st.sampled_from(["style", "fact_recall", "citation"]), ODD_TEXT),
        "gate": st.fixed_dictionaries({"by": st.floats(0, 1), "must_beat": st.lists(ODD_TEXT, max_size=3)}),
        "refusal": st.fixed_dictionaries(
            {},
            optional={
                "most_wrong": st.sampled_from([0.05, 0.15]),
                "check": st.sampled_from(["refuse", "mark"]),
                "reasons": st.dictionaries(st.sampled_from(["most_wrong", "gate", "other"]), ODD_TEXT),
            },
        ),
        "seed": st.integers(0, 10**9),
        "answers": st.dictionaries(
            ODD_TEXT,
            st.fixed_dictionaries({"value": JSON, "source": ODD_TEXT}, optional={"note": ODD_TEXT}),
            max_size=4,
        ),
        "predicted": st.dictionaries(TEXT, JSON, max_size=3),
    },
)


@pytest.mark.parametrize("text", ["\x85", "\u2028", "\u2029", "a\x85b", "first\nsecond\u2028third", " \x85 "])
def test_rare_line_breaks_are_read_back(tmp_path: Path, text: str) -> None:
    body = {
        "name": "p",
        "choice": "prompting",
        "model": {"name": "m"},
        "data": {"examples": "e.jsonl"},
        "prompts": {"system": text, "refusals": [text]},
        "steps": [],
        "weights": {"style": 1.0, "fact_recall": 0.5},
        "answers": {text: {"value": text, "source": text}},
    }
    plan = parse_plan(body)
    assert read_again(plan, tmp_path) == plan


@settings(max_examples=150, deadline=None)
@given(body=PLANS)
def test_plan_that_is_written_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, body: dict[str, Any]
) -> None:
    plan = parse_plan(body)
    again = read_again(plan, tmp_path_factory.getbasetemp())
    assert again == plan
    assert again.digest() == plan.digest()


def test_defaults_are_implied_and_reasons_are_comments(tmp_path: Path) -> None:
    plan = read_plan_file(written(tmp_path, PLAN))
    step = plan.train_step("hybrid")
    assert step.reasons == {
        "epochs": "three passes were enough in spring",
        "rank": "8 because of the phones: they have no room",
    }
    assert plan.weight_reasons == {"style": "the house style matters"}
    text = plan_text(plan)
    assert "  rank: 8  # 8 because of the phones: they have no room\n" in text
    assert "null" not in text
    assert "alpha" not in text
    assert len(text.splitlines()) <= len(PLAN.splitlines()) + 2


def test_reasons_of_refusals_are_comments_and_change_nothing(tmp_path: Path) -> None:
    text = f"{PLAN}refusal:\n  most_wrong: 0.15  # wrong answers cost us a customer\n"
    plan = read_plan_file(written(tmp_path, text))
    assert plan.refusal.reasons == {"most_wrong": "wrong answers cost us a customer"}
    assert "refusal:\n  most_wrong: 0.15  # wrong answers cost us a customer\n" in plan_text(plan)
    without = read_plan_file(written(tmp_path, text.split("  # wrong")[0] + "\n"))
    assert (without.refusal.reasons, without.refusal.most_wrong) == ({}, 0.15)
    assert plan_differences(plan, without) == []
    assert plan.work_digest() == without.work_digest()
    assert "refusal" not in plan_text(read_plan_file(written(tmp_path, PLAN)))


def test_setting_with_a_reason_is_written_at_its_default() -> None:
    steps = [
        {
            "kind": "train",
            "arm": "lora",
            "reasons": {"rank": "16 because it is enough", "alpha": "two\nlines"},
        }
    ]
    text = plan_text(parse_plan({**yaml.safe_load(PLAN), "choice": "lora", "steps": steps}))
    assert "  rank: 16  # 16 because it is enough\n" in text
    assert "alpha:" in text, "a reason of two lines is no comment"
    assert "two\\nlines" in text


def test_many_labels_fill_lines(tmp_path: Path) -> None:
    labels = [f"label {n}, with: a comma" if n % 3 else f"two\nlines {n}" for n in range(77)]
    checks = [
        {"kind": "labels", "value": labels},
        {"kind": "json_schema", "value": {"enum": labels, "type": "string"}},
    ]
    plan = parse_plan({**yaml.safe_load(PLAN), "checks": checks})
    assert read_again(plan, tmp_path) == plan
    assert len(plan_text(plan).splitlines()) < 90
    assert max(map(len, plan_text(plan).splitlines())) < 150


def test_implied_defaults_stay_what_they_are() -> None:
    """A plan without a key must do the same with every later version: a default that changes needs a new schema number."""
    assert read_digest() == "668b412492bb906cc9064bd18a70fa0e2e9f135ed4f2558d7c9a369546fbf791"


def read_digest() -> str:
    steps = [
        {"kind": "index"},
        {"kind": "train", "arm": "lora"},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
    ]
    data = {"documents": "d", "examples": "e", "questions": "q"}
    checks = [{"kind": "max_words", "value": 3}]
    body = {
        "name": "p",
        "choice": "lora",
        "model": {"name": "m"},
        "data": data,
        "steps": steps,
        "checks": checks,
    }
    return parse_plan({**body, "weights": {"style": 1}}).work_digest()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("choice: hybrid", "chioce: hybrid", "line 3: chioce: unknown key, did you mean choice?"),
        ("schema: 1", "shcema: 1", "line 1: shcema: unknown key, did you mean schema?"),
        ("epochs: 3", "epoch: 3", "line 14: steps: train hybrid: epoch: unknown key, did you mean epochs?"),
        ("epochs: 3", "epochs: many", "line 14: steps: train hybrid: epochs: Input should be a valid number"),
        (
            "rank: 8",
            "rank: 0",
            "line 15: steps: train hybrid: rank: Input should be greater than or equal to 1 (given 0)",
        ),
        ("[q_proj, v_proj]", "{a: 1}", "line 16: steps: train hybrid: targets: "),
        (
            "{kind: index}",
            "{kind: idnex}",
            "line 10: steps: idnex: kind: 'idnex' is none of index, embedder, train, evaluate, did you mean index?",
        ),
        (
            "{kind: index}",
            "{k: 3}",
            "line 10: steps[0]: kind: missing; it is one of index, embedder, train, evaluate",
        ),
        (
            "weights: hybrid",
            "weights: lora",
            "line 18: steps: evaluate hybrid: weights: no earlier train step is for arm 'lora'",
        ),
        ("name: desk\n", "", "name: missing"),
        ("style: 1.0", "charm: 1.0", "line 20: weights: charm: "),
        ("style: 1.0", "style: -1.0", "line 19: weights: must be zero or more"),
        ("model: {name: m}", "model: m", "line 4: model: "),
        ("fact_recall: 2", "style: 2", "line 21: style: given twice, first in line 20"),
        (
            "  documents: docs",
            "  document: docs",
            "line 6: data: document: unknown key, did you mean documents?",
        ),
    ],
)
def test_problem_names_the_line_and_the_step(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PLAN
    path = written(tmp_path, PLAN.replace(old, new))
    with pytest.raises(BadInput) as refused:
        read_plan(path)
    assert refused.value.message.startswith(f"{path}: {message}")
    assert "\n" not in refused.value.message


def test_all_problems_are_listed_up_to_five(tmp_path: Path) -> None:
    text = (
        PLAN.replace("choice: hybrid", "chioce: hybrid")
        .replace("rank: 8", "rnak: 8")
        .replace("epochs: 3", "epochs: 0")
    )
    with pytest.raises(BadInput) as refused:
        read_plan(written(tmp_path, text))
    lines = refused.value.message.splitlines()
    assert lines[0].endswith("desk.yaml: 3 problems")
    assert [line.split(":")[0] for line in lines[1:]] == ["  line 14", "  line 15", "  line 3"]
    many = PLAN + "".join(f"x{number}: 1\n" for number in range(9))
    with pytest.raises(BadInput) as refused:
        read_plan(written(tmp_path, many))
    assert refused.value.message.splitlines()[-1] == "  and 4 more"
    assert len(refused.value.message.splitlines()) == 7


def test_prediction_is_in_a_file_beside_the_plan(tmp_path: Path) -> None:
    plan = parse_plan({**yaml.safe_load(PLAN), "predicted": {"choice": "hybrid"}})
    path = tmp_path / "desk.yaml"
    write_plan(plan, path)
    assert "predicted" not in path.read_text("utf-8")
    body = json.loads((tmp_path / "desk.forecast.json").read_text("utf-8"))
    assert body == {"schema": 1, "plan": plan.work_digest(), "predicted": {"choice": "hybrid"}}
    assert read_plan(path).predicted == {"choice": "hybrid"}
    forecast_path(path).unlink()
    assert read_plan(path).predicted == {}


def test_prediction_of_a_plan_that_was_changed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    write_plan(parse_plan({**yaml.safe_load(PLAN), "predicted": {"choice": "hybrid"}}), path)
    text = path.read_text("utf-8")
    path.write_text(text.replace("in spring", "in autumn").replace("name: desk", "name: help"), "utf-8")
    assert OUTDATED not in read_plan(path).predicted, "a name and a reason change nothing that was predicted"
    path.write_text(text.replace("epochs: 3", "epochs: 4"), "utf-8")
    assert read_plan(path).predicted[OUTDATED] == "desk.yaml was changed after desk.forecast.json was made"


def test_plan_without_prediction_removes_that_of_the_plan_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "desk.yaml"
    write_plan(parse_plan({**yaml.safe_load(PLAN), "predicted": {"choice": "hybrid"}}), path)
    write_plan(parse_plan(yaml.safe_load(PLAN)), path)
    assert not forecast_path(path).exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": "x", "plan": "", "predicted": {}}'])
def test_damaged_forecast_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, PLAN)
    forecast_path(path).write_text(text, "utf-8")
    with pytest.raises(BadInput, match=r"desk\.forecast\.json is damaged"):
        read_plan(path)
