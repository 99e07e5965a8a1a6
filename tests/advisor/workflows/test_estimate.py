"""`tunewise estimate`: what it prints, what it is made for, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.cli import main
from advisor.workflows.estimate import MEMORY_USES, EstimateRequest, estimate_request
from rag.errors import BadInput, UsageProblem
from runners.resources.machine import Detected, Machine

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
    "vocab_size": 1000,
}


def machine(**values: Any) -> Machine:
    usual = {"gpu_kind": "none", "gpu_count": 0, "ram_gib": 16.0, "cpu_cores": 2}
    every = dict.fromkeys(Machine.__slots__) | usual | values
    return Machine(**{name: Detected(value, "described") for name, value in every.items()})


def printed(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", *map(str, arguments)])
    assert stopped.value.code in (0, None)
    return capsys.readouterr().out


def test_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """product.md's object: memory with verdict and terms, hours, usd."""
    found = json.loads(
        printed(
            capsys,
            "--model",
            "llama-3.1-8b-instruct",
            "--method",
            "lora",
            "--gpu",
            "RTX 4090",
            "--examples",
            500,
            "--json",
        )
    )
    memory = found["memory_gib"]
    assert found["schema"] == 1
    assert memory["low"] < memory["likely"] < memory["high"]
    assert memory["fits"] == "yes"
    assert sum(memory["terms"].values()) == pytest.approx(memory["likely"], abs=0.01)
    assert found["hours"]["low"] < found["hours"]["likely"] < found["hours"]["high"]
    assert found["usd"]["likely"] > 0
    assert any("published runs" in said for said in memory["assumptions"])


def test_the_text_view(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict, every part with what it is, and the record of errors."""
    said = printed(capsys, "--params-b", 70, "--method", "full", "--gpu-memory", 80)
    for words in (
        "does not fit",
        "weights",
        "optimizer",
        "gradients",
        "optimiser keeps",
        "published runs",
        "guessed",
    ):
        assert words in said


@pytest.mark.parametrize("method", MEMORY_USES)
def test_every_method(method: str) -> None:
    """Each of product.md's methods can be estimated; training ones take time, prompting does not."""
    found = estimate_request(EstimateRequest(params_b=7, method=method, gpu_memory=24, tokens=10**6), {})
    assert found.memory.likely > 3
    assert (found.hours is None) == (MEMORY_USES[method] == "inference")


def test_a_config_or_its_folder(tmp_path: Path) -> None:
    """A config.json, the folder that holds one, and the folder as a model."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    found = [
        estimate_request(wanted, {}, machine()).memory
        for wanted in (
            EstimateRequest(config=tmp_path / "config.json", method="lora"),
            EstimateRequest(config=tmp_path, method="lora"),
            EstimateRequest(model=str(tmp_path), method="lora"),
        )
    ]
    assert found[0] == found[1] == found[2]


def test_this_machine_is_the_device_unless_one_is_named() -> None:
    """RAM without a GPU, its GPUs with them, a named card's label; the flag says most."""
    rooms = [
        estimate_request(EstimateRequest(params_b=1, method="lora"), {}, machine()),
        estimate_request(
            EstimateRequest(params_b=1, method="lora"),
            {},
            machine(gpu_kind="cuda", gpu_count=2, gpu_memory_gib=23.7),
        ),
        estimate_request(EstimateRequest(params_b=1, method="lora", gpu="RTX 3090"), {}, machine()),
        estimate_request(
            EstimateRequest(params_b=1, method="lora", gpu="RTX 3090", gpu_memory=20), {}, machine()
        ),
    ]
    assert [round(x.device_gib or 0, 1) for x in rooms] == [14.4, 24.0, 24.0, 20.0]
    assert "2 x this machine" in rooms[1].device
    assert any("sharded over 2" in said for said in rooms[1].memory.assumptions)


def test_what_is_assumed_is_said() -> None:
    """The embedded model, and a length that the model cannot read."""
    found = estimate_request(EstimateRequest(method="lora"), {"seq_len": 100_000}, machine())
    assert "assumed" in found.notes[0]
    assert "more than" in found.notes[1]


@pytest.mark.parametrize(
    ("wanted", "setup", "said"),
    [
        (EstimateRequest(params_b=7, method="qlra"), {}, "unknown method 'qlra'"),
        (EstimateRequest(model="nothing-9b", method="lora"), {}, "'nothing-9b' is not known"),
        (EstimateRequest(params_b=7, method="lora", gpu="RTX 9999"), {}, "unknown card"),
        (EstimateRequest(params_b=7, method="lora", gpu="H100"), {}, "cards called 'H100'"),
        (EstimateRequest(params_b=-1, method="lora"), {}, "--params-b -1"),
        (EstimateRequest(config=Path("nowhere.json"), method="lora"), {}, "cannot be read"),
        (EstimateRequest(params_b=7, method="lora"), {"optimizer": "adan"}, "unknown --optimizer 'adan'"),
        (EstimateRequest(params_b=7, method="lora"), {"weights": "int3"}, "unknown --weights 'int3'"),
        (EstimateRequest(params_b=7, method="lora"), {"weights": "nf4"}, "cannot train on nf4"),
        (EstimateRequest(params_b=7, method="lora"), {"targets": "q,x"}, "--targets q,x"),
    ],
)
def test_bad_input_is_named(wanted: EstimateRequest, setup: dict[str, Any], said: str) -> None:
    """The flag and the value; names get the closest known one."""
    with pytest.raises(BadInput, match=said):
        estimate_request(wanted, setup, machine())


@pytest.mark.parametrize(
    "wanted", [EstimateRequest(), EstimateRequest(model="qwen3-4b", params_b=4, method="lora")]
)
def test_wrong_usage(wanted: EstimateRequest) -> None:
    """No method, two models."""
    with pytest.raises(UsageProblem):
        estimate_request(wanted, {}, machine())


def test_scoring_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The contract's counts and rows as JSON, a table in text."""
    config = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 256, "vocab": 1000}
    row = {
        "id": "one",
        "config": config,
        "method": "full",
        "batch": 1,
        "seq_len": 64,
        "peak": 1.0,
        "unit": "GiB",
    }
    file = tmp_path / "figures.json"
    file.write_text(json.dumps([row]), "utf-8")
    found = json.loads(printed(capsys, "--rows", file, "--json"))
    assert (found["schema"], found["n"], found["under_10"]) == (1, 1, 1)
    assert found["rows"][0]["id"] == "one"
    assert "config.kv_heads" in found["assumed"]
    said = printed(capsys, "--rows", file)
    assert "mean error %" in said
    assert "its default was assumed" in said
