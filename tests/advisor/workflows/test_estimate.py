"""`tunewise estimate`: its output, the devices it is made for, and invalid input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advisor.cli import main
from advisor.costs.tokens import Range
from advisor.flags.estimate import EstimateRequest
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.gather import complete_situation, flag_answers
from advisor.wizard.model_choices import model_offers
from advisor.workflows.estimate import MEMORY_USES, estimate_request, hours_text, with_fit
from rag.errors import BadInput, Problem, UsageProblem
from runners.catalog import models
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


def test_estimate_json_has_memory_hours_and_usd(capsys: pytest.CaptureFixture[str]) -> None:
    """product.md's object: memory with verdict and terms, hours, usd."""
    estimate = json.loads(
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
    memory = estimate["memory_gib"]
    assert estimate["schema"] == 1
    assert memory["low"] < memory["likely"] < memory["high"]
    assert memory["fits"] == "yes"
    assert sum(memory["terms"].values()) == pytest.approx(memory["likely"], abs=0.01)
    assert estimate["hours"]["low"] < estimate["hours"]["likely"] < estimate["hours"]["high"]
    assert estimate["usd"]["likely"] > 0
    assert any("published runs" in line for line in memory["assumptions"])


def test_estimate_text_shows_verdict_and_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict, every part with what it is, and the record of errors."""
    output = printed(capsys, "--params-b", 70, "--method", "full", "--gpu-memory", 80)
    for words in (
        "does not fit",
        "weights",
        "optimizer",
        "gradients",
        "state of the optimiser",
        "published runs",
        "guessed",
    ):
        assert words in output


@pytest.mark.parametrize("method", MEMORY_USES)
def test_estimate_supports_every_method(method: str) -> None:
    """Training methods take time, prompting does not."""
    estimate = estimate_request(EstimateRequest(params_b=7, method=method, gpu_memory=24, tokens=10**6), {})
    assert estimate.memory.likely > 3
    assert (estimate.hours is None) == (MEMORY_USES[method] == "inference")


def test_estimate_reads_config_file_or_folder(tmp_path: Path) -> None:
    """A config.json, the folder that holds one, and the folder as a model."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    memories = [
        estimate_request(request, {}, machine()).memory
        for request in (
            EstimateRequest(config=tmp_path / "config.json", method="lora"),
            EstimateRequest(config=tmp_path, method="lora"),
            EstimateRequest(model=str(tmp_path), method="lora"),
        )
    ]
    assert memories[0] == memories[1] == memories[2]


def test_estimate_device_is_this_machine_unless_named() -> None:
    """RAM without a GPU, its GPUs with them, a named card's memory; the flag wins."""
    estimates = [
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
    assert [round(estimate.device_gib or 0, 1) for estimate in estimates] == [14.4, 24.0, 24.0, 20.0]
    assert estimates[1].device == "this machine (24 GiB)"
    assert any(
        "2 GPUs are present: a training uses all of them with --launcher" in n for n in estimates[1].notes
    )
    assert estimates[1].sharing == {}, "one GPU, as a run without a launcher"


def test_estimate_for_several_devices_names_how_they_share_and_the_launcher() -> None:
    """A whole copy where it fits, else sharded; what is exchanged, the hours and the rent of all of them."""
    card: dict[str, Any] = {"params_b": 14, "method": "full", "gpu": "A100 80GB", "examples": 9000}
    one, four = (estimate_request(EstimateRequest(**card, devices=n), {}, machine()) for n in (1, 4))
    assert four.memory.likely < one.memory.likely
    assert (one.memory.fits(80), four.memory.fits(80)) == ("no", "yes")
    assert "4 x A100 80GB" in four.device
    assert four.to_json()["parallel"] == "fsdp"
    assert four.to_json()["launcher"] == "--launcher torchrun --gpus-per-node 4"
    assert four.to_json()["communication"]["bytes"] > 2 * 2 * 14e9 * 0.75
    assert any("sharded over 4" in line for line in four.memory.assumptions)
    assert one.hours
    assert four.hours
    assert one.usd
    assert four.usd
    assert one.hours.likely / 4 < four.hours.likely < one.hours.likely
    assert four.usd.likely > one.usd.likely, "communication is paid for"
    small = estimate_request(
        EstimateRequest(params_b=1, method="lora", gpu="A100 80GB", devices=4), {}, machine()
    )
    assert small.sharing["parallel"] == "ddp"
    assert "buckets" in four.memory.terms or "gathered" in four.memory.terms


def test_estimate_over_nodes_takes_their_network() -> None:
    """Two machines of four that cannot hold all shards each: the launcher's flags, and a slower link than inside one."""
    request = EstimateRequest(params_b=20, method="full", gpu="H100 80GB", devices=8, examples=9000)
    near, far = (estimate_request(replace(request, nodes=n), {}, machine()) for n in (1, 2))
    assert far.sharing["launcher"] == "--launcher slurm --nodes 2 --gpus-per-node 4"
    assert near.hours
    assert far.hours
    assert far.hours.likely > near.hours.likely
    assert far.memory == near.memory
    assert far.sharing["communication"]["replicas"] == 1
    assert "between_nodes" not in far.sharing["communication"]


def test_estimate_over_nodes_that_hold_all_shards_exchanges_gradients_between_them() -> None:
    """70 B by LoRA on two machines of eight: memory as on one, and its hours, as a usual step has rows for eight GPUs."""
    request = EstimateRequest(
        model="llama-3.1-70b-instruct", method="lora", gpu="H100 80GB", devices=8, tokens=10**6
    )
    one = estimate_request(request, {}, machine())
    two = estimate_request(replace(request, devices=16, nodes=2), {}, machine())
    asked = estimate_request(replace(request, devices=16, nodes=2, parallel="fsdp"), {}, machine())
    assert two.memory.terms == one.memory.terms
    assert asked.sharing == two.sharing
    facts = two.sharing["communication"]
    alone = one.sharing["communication"]
    assert (facts["bytes"], facts["seconds"], facts["link"]) == (alone["bytes"], alone["seconds"], "NVLink 4")
    assert (facts["replicas"], alone["replicas"]) == (2, 1)
    assert facts["between_nodes"]["link"] == "400 Gb/s a GPU"
    assert facts["between_nodes"]["each"] == "step"
    assert 0 < facts["between_nodes"]["bytes"] < 0.01 * facts["bytes"]
    assert any("each of 2 nodes has all shards (HSDP)" in note for note in two.notes)
    assert one.hours
    assert two.hours
    assert two.hours.likely == pytest.approx(one.hours.likely, rel=0.01)


def test_estimate_of_sharded_answering_says_which_program_does_it() -> None:
    request = EstimateRequest(params_b=70, method="rag", gpu="H100 80GB", devices=2)
    shared = estimate_request(request, {}, machine())
    assert shared.sharing == {"devices": 2, "nodes": 1, "parallel": "tensor"}
    assert shared.memory.fits(80) == "yes"
    assert any("tunewise answers from one GPU" in note for note in shared.notes)


@pytest.mark.parametrize(
    ("wanted", "setup", "message"),
    [
        ({"devices": 8, "nodes": 3}, {}, "evenly over 3 nodes"),
        ({"devices": 8, "parallel": "fsdp"}, {"optimizer": "adamw_8bit"}, "refused by training"),
        ({"devices": 8, "parallel": "zero3"}, {}, "unknown --parallel"),
    ],
)
def test_sharing_that_training_refuses_is_refused(
    wanted: dict[str, Any], setup: dict[str, Any], message: str
) -> None:
    with pytest.raises(Problem, match=message):
        estimate_request(EstimateRequest(params_b=8, method="full", gpu="H200", **wanted), setup, machine())


def test_sharded_four_bit_weights_are_named_as_unverified() -> None:
    request = EstimateRequest(params_b=70, method="qlora", gpu="RTX 3090", devices=2)
    whole, cut = (
        estimate_request(replace(request, parallel=kind), {}, machine()) for kind in ("fsdp", "fsdp_4bit")
    )
    assert cut.memory.likely < 0.7 * whole.memory.likely
    assert any("unverified" in note for note in cut.notes)
    assert not any("unverified" in note for note in whole.notes)


def test_estimate_of_a_machine_without_bf16_is_for_float32() -> None:
    """Twice the bytes for each weight, and a note says why."""
    native, wide = (
        estimate_request(EstimateRequest(params_b=1, method="lora"), {}, machine(bf16=bf16))
        for bf16 in (True, False)
    )
    assert wide.memory.terms["weights"] == pytest.approx(2 * native.memory.terms["weights"], rel=0.01)
    assert any("no native bf16: float32" in note for note in wide.notes)
    assert not any("bf16" in note for note in native.notes)
    apple = estimate_request(
        EstimateRequest(params_b=1, method="lora"),
        {},
        machine(gpu_kind="mps", gpu_count=1, gpu_memory_gib=24),
    )
    assert apple.memory.terms["weights"] == pytest.approx(wide.memory.terms["weights"], rel=0.01)


def test_estimate_takes_answers_as_other_verbs_do() -> None:
    flags = EstimateRequest(params_b=7, method="lora", gpu_memory=24, examples=300)
    answers = ("model_params_b=7", "gpu_memory_gib=24", "labelled_examples=300")
    same = estimate_request(EstimateRequest(method="lora", sets=[*answers]), {}, machine())
    assert same.to_json() == estimate_request(flags, {}, machine()).to_json()
    longer = estimate_request(
        EstimateRequest(method="lora", sets=[*answers, "answer_tokens=900"]), {}, machine()
    )
    assert longer.hours is not None
    assert same.hours is not None
    assert longer.hours.likely > same.hours.likely


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        ((0.037, 0.12, 0.86), "7 minutes (2 to 52)"),
        ((0.5, 3.14, 20.4), "3.1 hours (0.5 to 20)"),
        ((0.001, 0.002, 0.01), "7 seconds (4 to 36)"),
        ((60, 120, 400), "120 hours (60 to 400)"),
        ((0.01, 1 / 60, 0.02), "1 minute (1 to 1)"),
    ],
)
def test_hours_are_shown_in_the_unit_that_suits_them(hours: tuple[float, float, float], text: str) -> None:
    assert hours_text(Range(*hours)) == text


def test_estimate_notes_assumptions() -> None:
    """The embedded model, and a length that the model cannot read."""
    estimate = estimate_request(EstimateRequest(method="lora"), {"seq_len": 100_000}, machine())
    assert "assumed" in estimate.notes[0]
    assert "more than" in estimate.notes[1]


@pytest.mark.parametrize(
    ("estimate", "setup", "message"),
    [
        (EstimateRequest(params_b=7, method="qlra"), {}, "unknown method 'qlra'"),
        (EstimateRequest(model="nothing-9b", method="lora"), {}, "'nothing-9b' is not known"),
        (EstimateRequest(params_b=7, method="lora", gpu="RTX 9999"), {}, "unknown GPU"),
        (EstimateRequest(params_b=7, method="lora", gpu="H100"), {}, "GPUs called 'H100'"),
        (EstimateRequest(params_b=7, method="lora", gpu="24"), {}, "--gpu 24 is not the name of a GPU"),
        (EstimateRequest(method="lora", sets=["gpu_memory=24"]), {}, "did you mean gpu_memory_gib"),
        (EstimateRequest(params_b=-1, method="lora"), {}, "--params-b -1"),
        (EstimateRequest(config=Path("nowhere.json"), method="lora"), {}, "cannot be read"),
        (EstimateRequest(params_b=7, method="lora"), {"optimizer": "adan"}, "unknown --optimizer 'adan'"),
        (EstimateRequest(params_b=7, method="lora"), {"weights": "int3"}, "unknown --weights 'int3'"),
        (EstimateRequest(params_b=7, method="lora"), {"weights": "nf4"}, "cannot train on nf4"),
        (EstimateRequest(params_b=7, method="lora"), {"targets": "q,x"}, "--targets q,x"),
    ],
)
def test_estimate_rejects_bad_values(estimate: EstimateRequest, setup: dict[str, Any], message: str) -> None:
    """The message names flag and value; names get the closest known one."""
    with pytest.raises(BadInput, match=message):
        estimate_request(estimate, setup, machine())


@pytest.mark.parametrize(
    "wanted",
    [
        EstimateRequest(),
        EstimateRequest(model="qwen3-4b", params_b=4, method="lora"),
        EstimateRequest(params_b=4, method="lora", sets=["model_params_b=7"]),
        EstimateRequest(params_b=4, method="lora", sets=["must_cite=yes"]),
    ],
)
def test_estimate_rejects_wrong_usage(wanted: EstimateRequest) -> None:
    """No method, two models, a size given twice, an answer that changes nothing."""
    with pytest.raises(UsageProblem):
        estimate_request(wanted, {}, machine())


MACHINES: dict[str, dict[str, Any]] = {
    "16 GiB": {"ram_gib": 16.0},
    "64 GiB, 16 cores": {"ram_gib": 64.0, "cpu_cores": 16},
    "GPU of 8 GiB": {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 8.0},
    "GPU of 24 GiB": {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 24.0},
    "GPU of 80 GiB": {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 80.0},
}


@pytest.mark.parametrize("here", MACHINES)
def test_estimate_plan_and_lists_of_models_say_the_same_of_a_machine(here: str) -> None:
    """Which trainings a plan rules out there, whether one fits, and whether it can be asked: for models of every size."""
    found = machine(**MACHINES[here])
    largest = 0.0
    for model in models.known_models()[::3]:
        answers = flag_answers(("labelled_examples=1000",), model=model.name)
        profile = complete_situation(answers, found).profile
        if profile.model_shape is None:
            continue
        for method in ("lora", "qlora", "full"):
            blocked = METHOD_BY_NAME[method].blocked(profile)
            estimate = estimate_request(EstimateRequest(model=model.name, method=method), {}, found)
            assert estimate.blockers == tuple(each for each in blocked if each.rule in ("BL002", "BL003"))
            assert (estimate.memory.fits(estimate.device_gib) == "no") == ("BL002" in str(blocked))
            assert estimate.verdict.startswith(("not on", "does not fit")) == bool(estimate.blockers)
        memory = METHOD_BY_NAME["prompting"].estimate(profile).memory
        assert memory is not None
        asked = estimate_request(EstimateRequest(model=model.name, method="prompting"), {}, found)
        (row,) = with_fit([{"name": model.name, "params_b": model.params_b}], found)
        fits = memory.fits(profile.device_gib)
        assert asked.memory.fits(asked.device_gib) == row["fits_here"] == fits
        offers = {offer.name: offer for offer in model_offers(profile, {})}
        if offer := offers.get(model.name):
            assert bool(offer.closed) == (fits == "no")
        largest = max(model.params_b, largest)
    assert largest > 30


def test_hours_are_said_for_this_machine_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Data that were not given are assumed; what a plan rules out on this machine is not for it."""
    small = estimate_request(EstimateRequest(params_b=0.135, method="lora"), {}, machine())
    assert small.within_a_week
    assert small.verdict == "fits this machine (14.4 GiB)"
    large = estimate_request(EstimateRequest(params_b=32, method="qlora"), {}, machine(ram_gib=64.0))
    assert large.memory.fits(large.device_gib) == "yes"
    assert large.hours is not None
    assert large.hours.likely > 168
    assert large.verdict.startswith("not on this machine (57.6 GiB): would take about ")
    assert [blocker["rule"] for blocker in large.to_json()["blockers"]] == ["BL003"]
    middle = estimate_request(EstimateRequest(params_b=8, method="qlora"), {}, machine())
    assert middle.within_a_week
    assert middle.verdict.endswith("8 B parameters are too many to train on a CPU")
    texts = EstimateRequest(params_b=8, method="full", gpu_memory=192, tokens=20_000_000_000)
    assert "but trains for about" in estimate_request(texts, {}, machine()).verdict
    assert large.to_json()["within_a_week"] is False
    assert any("1,000 examples were assumed" in note for note in large.notes)
    card = estimate_request(EstimateRequest(params_b=8, method="qlora", gpu="RTX 4090"), {}, machine())
    assert card.verdict == "fits RTX 4090 (24 GiB)"
    assert estimate_request(EstimateRequest(params_b=8, method="rag"), {}, machine()).within_a_week is None
    out = printed(capsys, "--params-b", 70, "--method", "qlora", "--gpu-memory", 80)
    assert "training: about" in out
    assert "on a GPU (80 GiB)" in out
