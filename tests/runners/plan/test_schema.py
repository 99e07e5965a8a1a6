"""The plan: reading, writing, validation with the key that is wrong, and digests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from rag.errors import BadInput
from rag.settings import IndexSettings
from runners.plan.schema import (
    PLAN_MODELS,
    Plan,
    Prompts,
    parse_plan,
    plan_differences,
    read_plan,
    write_plan,
)
from runners.plan.steps import IndexStep

BODY = {
    "schema": 1,
    "name": "desk",
    "choice": "hybrid",
    "model": {"name": "smollm2-135m-instruct"},
    "data": {"documents": "docs", "examples": "examples.jsonl", "questions": "questions.jsonl"},
    "steps": [
        {"kind": "index"},
        {"kind": "train", "arm": "lora"},
        {"kind": "train", "arm": "hybrid", "rows": "retrieval", "start_from": "lora"},
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
    ],
    "weights": {"style": 1, "fact_recall": 2},
}


def body(**changes: object) -> dict[str, object]:
    return {**BODY, **changes}


def test_written_plan_is_read_back(tmp_path: Path) -> None:
    plan = parse_plan(body())
    write_plan(plan, tmp_path / "plan.yaml")
    again = read_plan(tmp_path / "plan.yaml")
    assert again.data.documents == tmp_path / "docs"
    assert again.model_copy(update={"data": plan.data}) == plan
    assert again.model_copy(update={"data": plan.data}).digest() == plan.digest()


def test_words_that_yaml_reads_as_booleans(tmp_path: Path) -> None:
    """`off` without quotes is false in YAML 1.1, and `yes` true."""
    text = yaml.safe_dump(body(), sort_keys=False).replace("arm: lora", "arm: lora\n  checkpointing: off", 1)
    (tmp_path / "plan.yaml").write_text(text + "constrain: off\n")
    plan = read_plan(tmp_path / "plan.yaml")
    assert (plan.constrain, plan.train_step("lora").checkpointing) == ("off", "off")
    (tmp_path / "plan.yaml").write_text(text + "checks:\n- {kind: labels, value: [yes, no]}\n")
    with pytest.raises(BadInput, match="the label True is no text: YAML reads yes"):
        read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("labels", ["a", " "], "the label ' ' is no text"),
        ("labels", ["a", None], "the label None is no text"),
        (
            "json_schema",
            {"properties": {"a": {"type": "txt"}}},
            "not a JSON Schema: properties.a.type: 'txt'",
        ),
        ("json_schema", {"required": "a"}, "not a JSON Schema: required: "),
        ("regex", "^(a", "not a regular expression: "),
    ],
)
def test_checks_that_no_answer_could_meet_are_refused(kind: str, value: object, problem: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse_plan(body(checks=[{"kind": kind, "value": value}]))
    assert problem in str(raised.value)


def test_scored_labels_need_labels() -> None:
    steps = [{"kind": "evaluate", "arm": "prompting-scored", "labels": "scored"}]
    with pytest.raises(BadInput, match="scored needs a check of kind labels"):
        parse_plan(body(steps=steps, checks=[{"kind": "labels", "value": []}]))


@pytest.mark.parametrize(
    ("changes", "place", "hint"),
    [
        ({"sede": 3}, "sede: unknown key", "did you mean seed?"),
        (
            {"steps": [{"kind": "index", "overlapp": 0.1}]},
            "steps[0]: index: overlapp: unknown key",
            "did you mean overlap?",
        ),
        ({"steps": [{"kind": "train", "arm": "lora", "epochs": -1}]}, "train lora: epochs: ", "(given -1)"),
        ({"steps": [{"kind": "trian", "arm": "lora"}]}, "steps[0]: trian lora: kind", "did you mean train?"),
        (
            {"steps": [{"kind": "evaluate", "arm": "rag", "retrieval": True}]},
            "steps[0]",
            "needs an index step",
        ),
        (
            {"steps": [{"kind": "evaluate", "arm": "lora", "weights": "lora"}]},
            "steps[0]: evaluate lora: weights: ",
            "'lora'",
        ),
        (
            {"steps": [{"kind": "train", "arm": "lora", "replay": 0.1}]},
            "steps[0]: train lora: replay: ",
            "need data.replay",
        ),
        ({"weights": {"style": 0}}, "weights", "not all zero"),
        ({"weights": {"charm": 1}}, "weights", "charm"),
        ({"choice": "magic"}, "choice", "given 'magic'"),
        ({"checks": [{"kind": "regex", "value": "("}]}, "checks[0]", "regular expression"),
        ({"checks": [{"kind": "max_words", "value": "ten"}]}, "checks[0]", "ten"),
        ({"prompts": {"context": "no placeholders"}}, "prompts", "{passages}"),
        ({"name": "../up"}, "name", "../up"),
    ],
)
def test_invalid_key_or_value_is_refused_with_its_path(
    changes: dict[str, object], place: str, hint: str
) -> None:
    with pytest.raises(BadInput) as refused:
        parse_plan(body(**changes), "plan.yaml")
    shown = f"{refused.value.message} {refused.value.hint}"
    assert shown.startswith("plan.yaml: ")
    assert place in shown
    assert hint in shown
    assert refused.value.exit_code == 3


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [", "\x00"])
def test_file_without_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text, "utf-8")
    with pytest.raises(BadInput):
        read_plan(tmp_path / "plan.yaml")


def test_missing_plan_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(BadInput):
            read_plan(path)


def test_yaml_tags_run_no_code(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("!!python/object/apply:os.system ['true']\n", "utf-8")
    with pytest.raises(BadInput, match="not YAML"):
        read_plan(tmp_path / "plan.yaml")


def test_schema_has_every_key() -> None:
    schema = Plan.model_json_schema(by_alias=True)
    assert set(schema["properties"]) >= set(yaml.safe_load(yaml.safe_dump(body())))


def test_every_plan_key_is_used_by_the_code() -> None:
    """A key that nothing reads would be accepted and change nothing."""
    import advisor
    import runners

    read: set[str] = set()
    for package in (advisor, runners):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            if path.name != "plan.py":
                tree = ast.parse(path.read_text("utf-8"))
                read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {kind.__name__ for kind in PLAN_MODELS} == {"Plan", *Plan.model_json_schema()["$defs"]}
    fields = {name: field for kind in PLAN_MODELS for name, field in kind.model_fields.items()}
    keys = [name for name in fields if name != "schema_version"]
    assert len(keys) > 50
    assert not sorted(set(keys) - read)


def test_plan_without_formulas_is_written_without_the_key() -> None:
    """Otherwise the inputs of every step would differ from an older run's, and resuming would repeat them."""
    assert "formulas" not in Prompts().model_dump(mode="json")
    assert "formulas" not in Prompts().model_dump_json()
    kept = Prompts(formulas=("Good day!",))
    assert Prompts.model_validate(kept.model_dump(mode="json")) == kept


def test_digest_of_a_plan_is_that_of_0_2_0() -> None:
    plan = {
        "name": "p",
        "choice": "lora",
        "model": {"name": "m"},
        "data": {"examples": "e", "questions": "q"},
        "weights": {"style": 1},
        "steps": [{"kind": "train", "arm": "lora"}, {"kind": "evaluate", "arm": "lora", "weights": "lora"}],
    }
    digest = "50443c4028f8b0083430fd097bb3763b9d76ae476d96a5c150f0adb78f5813e2"
    assert parse_plan(plan).digest() == digest
    judge = {"name": "openai:j@http://127.0.0.1:1/v1"}
    digest = "f420836e4f8141693024d000284e6a149191350abb90f27348246e04a86619a5"
    assert parse_plan({**plan, "judge": judge}).digest() == digest
    assert parse_plan({**plan, "judge": {**judge, "counts": True}}).digest() != digest


@pytest.mark.parametrize("key", ["house_style: true", "predicted: {}"])
def test_plan_of_a_version_before_0_2_0_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(body()) + key + "\n", "utf-8")
    with pytest.raises(BadInput, match=r"plan\.yaml was made by a tunewise before 0\.2\.0") as refused:
        read_plan(path)
    assert refused.value.hint == "make it again: tunewise plan"


def test_plan_with_default_kernels_keeps_its_digest() -> None:
    plan, plain = parse_plan(body()), parse_plan(body(kernels="plain"))
    assert plan.digest() == "5cbde419ad2f45c6faad882f028adb4e3440da53bf93a7c9b8e3e90c59ad022b"
    assert parse_plan(body(kernels="auto")).digest() == plan.digest() != plain.digest()
    assert [key for key, _, _ in plan_differences(plan, plain)] == ["kernels"]
    assert parse_plan(plain.model_dump(mode="json", by_alias=True)) == plain
    with pytest.raises(BadInput, match="kernels"):
        parse_plan(body(kernels="fast"))


@pytest.mark.parametrize(
    ("key", "setting", "values"),
    [
        ("overlap", "overlap", (-0.1, 0.0, 0.9, 0.91, 1.0)),
        ("max_chunk_tokens", "max_tokens", (15, 16, 100_000, 100_001)),
        ("lexical_weight", "lexical_weight", (-0.1, 0.0, 1.0, 1.1)),
    ],
)
def test_index_step_and_index_settings_have_equal_bounds(
    key: str, setting: str, values: tuple[float, ...]
) -> None:
    """A plan is not accepted with a value that the index refuses later."""
    accepted: dict[str, list[float]] = {"plan": [], "index": []}
    for value in values:
        for name, make in (
            ("plan", lambda value=value: IndexStep(**{key: value})),
            ("index", lambda value=value: IndexSettings(**{setting: value})),
        ):
            try:
                make()
            except (ValueError, BadInput):
                continue
            accepted[name].append(value)
    assert accepted["plan"] == accepted["index"]
    assert 0 < len(accepted["plan"]) < len(values)
