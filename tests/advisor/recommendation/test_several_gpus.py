"""Several GPUs: what one cannot do, what all of them do together, and the launcher that the advice counts on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advisor.costs.estimate import launch_of
from advisor.costs.training_time import training_hours
from advisor.drafting.draft import tuning_settings
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from advisor.recommendation.alternatives import relaxations
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.recommend import recommend_for_profile
from advisor.workflows.doctor import examine_machine
from advisor.workflows.plan import launcher_words
from rag.errors import CannotRun
from runners.plan.schema import parse_plan
from runners.resources.machine import Detected, Machine
from runners.runs import requirements

TUNE: dict[str, Any] = {"task_needs_facts": "none", "behaviour_gap": "high", "labelled_examples": 20_000}
CARDS: dict[str, Any] = {"gpu_kind": "cuda", "gpu_memory_gib": 80}


def profile_of(count: int | None, **answers: Any) -> Profile:
    return Profile.of({**TUNE, **CARDS, **({"gpu_count": count} if count else {}), **answers})


@pytest.mark.parametrize(
    ("model", "method", "alone", "together"),
    [
        ("llama-3.1-8b-instruct", "full", True, False),
        ("llama-3.1-70b-instruct", "lora", True, False),
        ("llama-3.1-70b-instruct", "qlora", False, False),
        ("llama-3.1-70b-instruct", "full", True, True),
    ],
)
def test_what_one_gpu_cannot_hold_several_share(model: str, method: str, alone: bool, together: bool) -> None:
    """8 B in full and 70 B by LoRA on eight of 80 GiB; 70 B in full on neither."""
    one, eight = (METHOD_BY_NAME[method].blocked(profile_of(n, model=model)) for n in (1, 8))
    assert (bool(one), bool(eight)) == (alone, together)


def test_estimate_names_the_launcher_and_what_one_gpu_lacks() -> None:
    profile = profile_of(4, model="llama-3.1-8b-instruct")
    found = recommend_for_profile(profile)
    full = found.estimates["full"].to_json()
    assert full["launcher"]["flags"] == "--launcher torchrun --gpus-per-node 4"
    assert full["launcher"]["parallel"] == "fsdp"
    assert (
        "95 GiB on one GPU and would not fit its 80: it is sharded over 4 (FSDP2)" in full["launcher"]["why"]
    )
    assert full["memory_gib"]["fits"] == "yes"
    assert full["assumptions"][0] == full["launcher"]["why"]
    lora = found.estimates["lora"].to_json()
    assert lora["launcher"]["parallel"] == "ddp"
    assert "one alone takes about" in lora["launcher"]["why"]
    assert found.estimates["rag"].launch is None
    assert any(finding.rule.code() == "RS010" for finding in found.notes())


@pytest.mark.parametrize("count", [1, None])
def test_one_gpu_or_an_unknown_number_counts_on_no_launcher(count: int | None) -> None:
    profile = profile_of(count, model="llama-3.1-8b-instruct")
    assert (profile.devices, profile.devices_note, profile.launcher_flags) == (1, "", "")
    found = recommend_for_profile(profile)
    assert all(estimate.launch is None for estimate in found.estimates.values())
    assert not any("--launcher" in relaxation["relax"] for relaxation in found.ladder)


def test_hours_count_all_gpus_and_memory_is_that_of_each() -> None:
    one, four = (profile_of(n, model="llama-3.1-8b-instruct") for n in (1, 4))
    alone, together = training_hours(one, "lora"), training_hours(four, "lora")
    assert alone
    assert together
    assert alone.likely / 4 <= together.likely < alone.likely / 2
    a, b = (METHOD_BY_NAME["lora"].estimate(profile).memory for profile in (one, four))
    assert a
    assert b
    assert a.likely <= b.likely < a.likely + 1, "a whole copy each, and the buckets"


def test_another_program_shards_four_bits_and_needs_no_launcher_of_ours() -> None:
    two = profile_of(2, model_params_b=70, gpu_memory_gib=24)
    assert METHOD_BY_NAME["qlora"].blocked(two)
    theirs = replace(two, other_program=True)
    assert not METHOD_BY_NAME["qlora"].blocked(theirs)
    assert launch_of(theirs, "qlora") is None
    assert theirs.devices_note == ""


def test_full_tuning_of_a_skill_is_advised_where_all_gpus_hold_it() -> None:
    assert rank_methods(profile_of(8, model_params_b=7)).choice == "full"
    assert rank_methods(profile_of(1, model_params_b=7)).choice == "lora"


def test_several_gpus_are_rented_only_where_no_single_one_holds_it() -> None:
    answers = {"unlabelled_tokens": 3 * 10**9, "labelled_examples": 0, "gpu_memory_gib": 80}
    large = profile_of(1, model_params_b=30, **answers)
    rented = [way for way in relaxations(large, rank_methods(large)) if "gpu_count" in way["set"]]
    assert [way["then"] for way in rented] == ["full"]
    count = rented[0]["set"]["gpu_count"]
    assert count > 1
    assert f"sharded with --launcher torchrun --gpus-per-node {count}" in rented[0]["cost"]
    small = profile_of(1, model_params_b=6, **answers)
    ways = [
        way["set"]["gpu_count"]
        for way in relaxations(small, rank_methods(small))
        if "gpu_count" in way["set"]
    ]
    assert set(ways) <= {1}


def test_a_drafted_plan_trains_with_an_optimiser_that_sharding_allows() -> None:
    one, eight = (profile_of(n, model="llama-3.1-8b-instruct") for n in (1, 8))
    assert tuning_settings("full", 9000, one)["optimizer"] == "adamw_8bit"
    sharded = tuning_settings("full", 9000, eight)
    assert sharded["optimizer"] == "adamw"
    assert "sharded over 8 GPUs" in sharded["reasons"]["optimizer"]


def plan(method: str | None) -> Any:
    steps: list[dict[str, Any]] = [{"kind": "evaluate", "arm": "prompting"}]
    if method:
        steps = [
            {"kind": "train", "arm": method, "method": method, "optimizer": "adamw"},
            {"kind": "evaluate", "arm": method, "weights": method},
        ]
    data = {"examples": "e.jsonl", "questions": "q.jsonl"}
    body = {"name": "p", "choice": method or "prompting", "model": {"name": "m"}, "data": data}
    return parse_plan({**body, "steps": steps, "weights": {"style": 1}})


def test_the_next_line_starts_all_gpus_where_the_plan_trains() -> None:
    four = profile_of(4, model="llama-3.1-8b-instruct")
    assert launcher_words(plan("lora"), four) == ["--launcher", "torchrun", "--gpus-per-node", "4"]
    assert launcher_words(plan(None), four) == []
    assert launcher_words(plan("lora"), profile_of(1, model="llama-3.1-8b-instruct")) == []


def machine(**values: Any) -> Machine:
    usual = {"gpu_kind": "cuda", "gpu_count": 4, "gpu_memory_gib": 80.0, "ram_gib": 512.0, "cpu_cores": 16}
    usual |= {"bf16": True, "gpu_name": "NVIDIA A100-SXM4-80GB"}
    every = dict.fromkeys(Machine.__slots__) | usual | values
    return Machine(**{name: Detected(value, "described") for name, value in every.items()})


def test_doctor_says_how_to_use_several_gpus() -> None:
    found = examine_machine(machine=machine())
    assert found["several_gpus"]["gpus"] == 4
    assert found["several_gpus"]["torchrun"] is True
    assert (
        "a training uses all of them with --launcher torchrun --gpus-per-node 4"
        in found["several_gpus"]["text"]
    )
    assert not any("GPUs" in line for line in found["warnings"])
    assert "several_gpus" not in examine_machine(machine=machine(gpu_count=1))


def test_a_run_that_one_gpu_cannot_hold_is_refused_with_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full tuning of a Llama of 8 B: refused in one process, possible in four, whose memory is then checked."""
    config = {
        "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False, "model_type": "llama",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(str(config).replace("'", '"').replace("False", "false"), "utf-8")
    with pytest.raises(CannotRun) as refused:
        requirements.check_memory(plan("full"), tmp_path, machine())
    assert "add --launcher torchrun --gpus-per-node 4" in refused.value.hint
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    requirements.check_memory(plan("full"), tmp_path, machine())
    with pytest.raises(CannotRun):
        requirements.check_memory(plan("full"), tmp_path, machine(gpu_memory_gib=24.0))
    with pytest.raises(CannotRun):
        requirements.check_memory(plan("full").model_copy(update={"parallel": "ddp"}), tmp_path, machine())
