"""What a plan needs of the machine is checked before the first step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import CannotRun
from runners.plan.schema import Plan, parse_plan
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
    requirements.check_disk(plan(), base, out)
    (step,) = plan().steps
    many = plan().model_copy(update={"steps": (step.model_copy(update={"seeds": range(10**6)}),)})
    with pytest.raises(CannotRun, match=r"MiB free, this run needs about 60000010 MiB"):
        requirements.check_disk(many, base, out)
    assert not (tmp_path / "runs").exists()


def test_check_requirements_runs_every_check(base: Path, tmp_path: Path) -> None:
    requirements.check_requirements(plan(), base, tmp_path, machine())
    poor = replace(machine(), ram_gib=Detected(0.5, "described"))
    with pytest.raises(CannotRun):
        requirements.check_requirements(plan(), base, tmp_path, poor)
