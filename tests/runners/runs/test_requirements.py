"""What a plan needs of the machine is checked before the first step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import CannotRun
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import IndexStep
from runners.resources import memory_estimate
from runners.resources.machine import Detected, Machine
from runners.runs import requirements

CONFIG = {
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "intermediate_size": 1536,
    "model_type": "llama",
}


def machine(**values: Any) -> Machine:
    usual = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": None, "ram_gib": 16.0, "cpu_cores": 2}
    every = dict.fromkeys(Machine.__slots__) | usual | values
    return Machine(**{name: Detected(value, "described") for name, value in every.items()})


def plan(method: str = "lora", **answers: Any) -> Plan:
    return parse_plan(
        {
            "name": "p",
            "choice": method,
            "model": {"name": "m"},
            "data": {"examples": "e.jsonl"},
            "steps": [{"kind": "train", "arm": method, "method": method}],
            "weights": {"style": 1},
            "answers": {k: {"value": v, "source": "flag"} for k, v in answers.items()},
        }
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    return folder


def test_plan_for_other_gpu_is_refused_naming_both() -> None:
    with pytest.raises(CannotRun, match=r"made for a cuda GPU, this machine has none \(described\)"):
        requirements.check_gpu(plan(gpu_kind="cuda"), machine())
    requirements.check_gpu(plan(gpu_kind="none"), machine())
    requirements.check_gpu(plan(), machine())
    requirements.check_gpu(plan(gpu_kind="cuda"), machine(gpu_kind="cuda"))


def test_gpu_detected_elsewhere_is_not_required() -> None:
    wanted = plan(gpu_kind="cuda")
    detected = {"gpu_kind": wanted.answers["gpu_kind"].model_copy(update={"source": "detected"})}
    requirements.check_gpu(wanted.model_copy(update={"answers": detected}), machine())


def test_nominal_gpu_memory_matches_detected_size() -> None:
    wanted = plan(gpu_kind="cuda", gpu_memory_gib=80)
    requirements.check_gpu(wanted, machine(gpu_kind="cuda", gpu_memory_gib=79.1))
    with pytest.raises(CannotRun, match=r"80 GiB, this one has 24\.0"):
        requirements.check_gpu(wanted, machine(gpu_kind="cuda", gpu_memory_gib=24.0))


def test_training_that_cannot_fit_in_memory_is_refused(base: Path) -> None:
    requirements.check_memory(plan("full"), base, machine(ram_gib=8.0))
    with pytest.raises(CannotRun, match=r"training full \(full\) takes at least .* this machine has 1\.0"):
        requirements.check_memory(plan("full"), base, machine(ram_gib=1.0))
    requirements.check_memory(plan("full"), base, machine(ram_gib=1.0, gpu_kind="cuda", gpu_memory_gib=24.0))
    requirements.check_memory(plan("full"), base, machine(ram_gib=None))


def test_full_disk_is_refused_before_writing(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "deep" / "run"
    requirements.check_disk(plan(), {plan().model.name: base}, out)
    (step,) = plan().steps
    many = plan().model_copy(update={"steps": (step.model_copy(update={"seeds": range(10**6)}),)})
    with pytest.raises(CannotRun, match=r"MiB free, this run needs about 60000010 MiB"):
        requirements.check_disk(many, {many.model.name: base}, out)
    assert not (tmp_path / "runs").exists()


def test_check_requirements_runs_every_check(base: Path, tmp_path: Path) -> None:
    requirements.check_requirements(plan(), {plan().model.name: base}, tmp_path, machine())
    poor = replace(machine(), ram_gib=Detected(0.5, "described"))
    with pytest.raises(CannotRun):
        requirements.check_requirements(plan(), {plan().model.name: base}, tmp_path, poor)


def arms_plan(quantization: str = "none", method: str = "qlora") -> Plan:
    """Return a plan with an arm that only prompts, and a tuned one."""
    return parse_plan(
        {
            "name": "p",
            "choice": method,
            "model": {"name": "m", "quantization": quantization},
            "data": {"examples": "e.jsonl"},
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "train", "arm": method, "method": method},
                {"kind": "evaluate", "arm": method, "weights": method},
            ],
            "weights": {"style": 1},
        }
    )


QWEN_14B = {
    "num_hidden_layers": 48,
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "intermediate_size": 13824,
    "model_type": "qwen2",
    "tie_word_embeddings": False,
}


def test_every_step_is_checked_and_not_only_training(tmp_path: Path) -> None:
    """14 B parameters train in 4 bits on 24 GiB; in 16 bits no arm answers there."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN_14B), "utf-8")
    card = machine(gpu_kind="cuda", gpu_memory_gib=24.0, bf16=True)
    with pytest.raises(
        CannotRun, match=r"answering with the arm prompting \(16 bits\) takes at least .* this machine has 24"
    ) as problem:
        requirements.check_memory(arms_plan(), tmp_path, card)
    assert "answering with the arm qlora" in problem.value.message
    assert "training" not in problem.value.message
    assert "quantization: nf4" in problem.value.hint
    assert requirements.check_memory(arms_plan("nf4"), tmp_path, card) == ()
    with pytest.raises(CannotRun, match=r"training qlora \(qlora\) takes at least"):
        requirements.check_memory(arms_plan("nf4"), tmp_path, replace(card, gpu_memory_gib=Detected(8.0, "")))


def test_memory_of_a_machine_without_bf16_is_that_of_float32(base: Path) -> None:
    native, wide = machine(bf16=True), machine(bf16=False)
    shape = requirements._shape_of(base)
    assert shape is not None
    half, full = (requirements.answering_memory(shape, m, "none", 200, 64).likely for m in (native, wide))
    assert full > half + 0.2  # 135 M parameters in 4 bytes for 2
    with pytest.raises(CannotRun, match=r"\(32 bits\)"):
        requirements.check_memory(arms_plan(), base, machine(ram_gib=0.8, bf16=False))


def test_index_counts_the_embedder(base: Path) -> None:
    wanted = arms_plan().model_copy(update={"steps": (IndexStep(),)})
    big = base.parent / "embedder"
    big.mkdir()
    (big / "config.json").write_text(json.dumps(QWEN_14B), "utf-8")
    with pytest.raises(CannotRun, match="embedding the documents with all-minilm-l6-v2 takes at least"):
        requirements.check_memory(wanted, base, machine(bf16=True), {wanted.embedder.name: big})


def test_rows_at_once_are_those_of_generation() -> None:
    from runners.inference import local

    assert (memory_estimate.BATCH_ROWS, memory_estimate.BATCH_TOKENS) == (
        local.BATCH_ROWS,
        local.BATCH_TOKENS,
    )
    for tokens in (10, 500, 5000, 50_000):
        (batch, *_) = local.length_batches([tokens] * 100)
        assert memory_estimate.rows_at_once(tokens) == len(batch)


def test_device_without_8_bit_optimiser_is_named() -> None:
    wanted = plan("full")
    (step,) = wanted.steps
    wanted = wanted.model_copy(update={"steps": (step.model_copy(update={"optimizer": "adamw_8bit"}),)})
    with pytest.raises(CannotRun, match="train:full: bitsandbytes has no 8-bit optimiser for an Apple GPU"):
        requirements.check_settings(wanted, machine(gpu_kind="mps"))
    requirements.check_settings(wanted, machine(gpu_kind="xpu"))


def test_amd_and_intel_cards_are_checked_by_their_own_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_14B), "utf-8")
    for kind in ("rocm", "xpu"):
        card = machine(gpu_kind=kind, gpu_memory_gib=24.0, ram_gib=256.0, bf16=True)
        with pytest.raises(CannotRun, match="this machine has 24"):
            requirements.check_memory(arms_plan(), tmp_path, card)


def test_model_that_is_too_large_for_this_machine_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_14B), "utf-8")
    small = machine(ram_gib=16.0, bf16=True)
    wide, narrow = (arms_plan(quantization).model for quantization in ("none", "nf4"))
    with pytest.raises(CannotRun, match=r"answering with m in 16 bits takes at least .* this machine has 16"):
        requirements.require_loading_memory(wide, tmp_path, small)
    requirements.require_loading_memory(narrow, tmp_path, small)
    with pytest.raises(CannotRun, match=r"in 4 bits takes at least"):
        requirements.require_loading_memory(narrow, tmp_path, machine(ram_gib=4.0, bf16=True))


def test_tuning_the_embedder_is_checked_with_a_whole_batch(tmp_path: Path) -> None:
    """Gradients of a model with 50 M parameters or more are cached; all that a smaller one needs is in memory at once."""

    def write_bert(layers: int, width: int) -> None:
        shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
        bert = CONFIG | shape | {"num_attention_heads": 8, "num_key_value_heads": 8}
        text = json.dumps(bert | {"model_type": "bert", "vocab_size": 30522})
        (tmp_path / "config.json").write_text(text, "utf-8")

    step = {"kind": "embedder", "batch_size": 64}
    files = {"documents": "docs", "examples": "e.jsonl"}
    whole = plan().model_dump(mode="json", by_alias=True)
    tuned = parse_plan({**whole, "choice": "rag", "data": files, "steps": [{"kind": "index"}, step]})
    folders = dict.fromkeys((tuned.model.name, tuned.embedder.name), tmp_path)
    write_bert(12, 768)
    requirements.check_requirements(tuned, folders, tmp_path, machine(ram_gib=8.0))
    write_bert(8, 512)
    with pytest.raises(CannotRun, match=r"tuning all-minilm-l6-v2 \(full\) takes at least") as refused:
        requirements.check_requirements(tuned, folders, tmp_path, machine(ram_gib=8.0))
    assert refused.value.hint == "set a smaller batch_size in the embedder step"
    small = tuned.model_copy(
        update={"steps": (tuned.steps[0], tuned.steps[1].model_copy(update={"batch_size": 2}))}
    )
    requirements.check_requirements(small, folders, tmp_path, machine(ram_gib=8.0))


def test_models_that_no_arm_asks_are_named(tmp_path: Path) -> None:
    body = plan().model_dump(mode="json", by_alias=True, exclude={"model"})
    remote = {"a": "openai:a@http://127.0.0.1:1/v1", "b": "openai:b@http://127.0.0.1:1/v1"}
    arms = [{"kind": "evaluate", "arm": "prompting@a"}]
    body |= {"choice": "prompting@a", "models": remote, "steps": arms, "data": {"questions": "q.jsonl"}}
    notes = requirements.check_requirements(parse_plan(body), {}, tmp_path, machine())
    assert notes == ("of the plan's models, no arm asks: b",)
    both = parse_plan({**body, "steps": [*arms, {"kind": "evaluate", "arm": "prompting@b"}]})
    assert requirements.check_requirements(both, {}, tmp_path, machine()) == ()
