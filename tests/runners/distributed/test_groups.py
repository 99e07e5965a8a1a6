"""Training in a group of two processes on this machine equals training in one: DDP and FSDP2, for real, over gloo.

One launch of torchrun carries out every combination, so that torch is imported once. Each is compared with the same
training in one process: the losses and gradient norms of all steps within 1e-5 relative, at the product's learning rate
in fp32, and the weights that are published.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runners.data.examples import Example
from runners.models import resolve
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.preflight import run_checks
from runners.tokenization.chat_template import ChatTokenizer
from tests.families import FAMILIES
from tests.support.limits import HANG_S

pytestmark = pytest.mark.engines
TOLERANCE = 1e-5
HANG_SECONDS = 20
"""A process that waits for another one so long has met a fault, which becomes an error."""
STEPS = 5
CONFIG = {
    "epochs": 1.0,
    "rank": 4,
    "alpha": 8.0,
    "batch_tokens": 400,
    "micro_tokens": 160,
    "checkpoint_steps": 2,
}
"""Rows of unequal length and a small pass: the processes need different numbers of passes in most steps."""
FULL = {**CONFIG, "method": "full", "learning_rate": 1e-4}
FAMILY = {**CONFIG, "kernels": "plain"}
COMBINATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddp-lora-fast": ("llama", CONFIG, {}),
    "fsdp-lora-fast": ("llama", {**CONFIG, "parallel": "fsdp"}, {}),
    "ddp-lora-plain": ("qwen3", FAMILY, {}),
    "fsdp-lora-plain": ("qwen3", {**FAMILY, "parallel": "fsdp"}, {}),
    "ddp-full": ("llama", FULL, {}),
    "fsdp-full": ("llama", {**FULL, "parallel": "fsdp"}, {}),
    "ddp-qlora": ("llama", {**CONFIG, "method": "qlora"}, {}),
    "fsdp-qlora": ("llama", {**CONFIG, "method": "qlora", "parallel": "fsdp"}, {}),
    "fsdp-qlora-sharded": ("llama", {**CONFIG, "method": "qlora", "parallel": "fsdp_4bit"}, {}),
    "fsdp-lora-shards": ("qwen3", {**CONFIG, "parallel": "fsdp"}, {"load": "shards"}),
    "fsdp-full-shards": ("llama", {**FULL, "parallel": "fsdp"}, {"load": "shards"}),
    "fsdp-recomputed": ("llama", {**CONFIG, "checkpointing": "on", "parallel": "fsdp"}, {}),
    "ddp-experts": ("qwen3-moe", FAMILY, {}),
    "fsdp-experts": ("qwen3-moe", {**FAMILY, "parallel": "fsdp"}, {}),
}
"""Name -> model, settings, and what the child does besides."""
REFUSED = {
    "adamw_8bit": {**FULL, "optimizer": "adamw_8bit", "parallel": "fsdp"},
    "adafactor": {**FULL, "optimizer": "adafactor", "parallel": "fsdp"},
    "dora": {**CONFIG, "variant": "dora", "parallel": "fsdp"},
    "pissa": {**CONFIG, "variant": "pissa", "parallel": "fsdp"},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> dict[str, Model]:
    """Tiny models of several families with the tokenizer of the tiny Llama, in fp32."""
    import shutil

    from transformers import AutoModelForCausalLM

    models = {}
    for name in ("llama", "qwen3", "qwen3-moe"):
        folder = tmp_path_factory.mktemp(name) / "model"
        shutil.copytree(tiny.folder, folder)
        (folder / "model.safetensors").unlink()
        family = next(family for family in FAMILIES if family.name == name)
        torch.manual_seed(0)
        config = family.config()
        config.vocab_size = 512
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        models[name] = resolve.resolve_model(str(folder))
    return models


@pytest.fixture(scope="module")
def rows(bases: dict[str, Model], examples: tuple[Example, ...]) -> Any:
    """The examples as token ids, for the JSON file of the children."""
    used, _ = run_checks.inspect_rows(examples, ChatTokenizer(bases["llama"].folder), TrainConfig(**CONFIG))
    return [[row.ids, row.learnt, row.line] for row in used]


Launch = Callable[..., "Launched"]


class Launched:
    """What came of one launch."""

    def __init__(self, code: int, log: str) -> None:
        self.code = code
        self.log = log


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Return a function that carries out cases in so many processes."""
    folder = tmp_path_factory.mktemp("launch")
    child = str(Path(__file__).with_name("group_child.py"))

    def start(
        cases: Sequence[dict[str, Any]], processes: int = 2, restarts: int = 0, silence: float = HANG_S
    ) -> Launched:
        file = folder / f"{len(list(folder.iterdir()))}.json"
        file.write_text(json.dumps({"cases": cases}))
        command = [sys.executable, child, str(file)]
        if processes > 1:
            options = ["--standalone", "--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
            command = [sys.executable, "-m", "torch.distributed.run", *options, *command[1:]]
        root = str(Path(__file__).resolve().parents[3])
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            "TUNEWISE_DTYPE": "float32",
            "TUNEWISE_GROUP_TIMEOUT_S": str(silence),
        }
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * HANG_S
        )
        return Launched(done.returncode, done.stdout + done.stderr)

    return start


@pytest.fixture(scope="module")
def combinations(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with every combination, in one process below ``one`` and in two below ``two``."""
    folder = tmp_path_factory.mktemp("combinations")

    def cases(part: str) -> Iterator[dict[str, Any]]:
        for name, (base, config, more) in COMBINATIONS.items():
            out = str(folder / part / name)
            yield {
                "out": out,
                "base": str(bases[base].folder),
                "config": config,
                "rows": rows[:30],
                "valid": rows[30:],
                **more,
            }
        faulty = {
            "out": str(folder / part / "faulty"),
            "base": str(bases["llama"].folder),
            "config": CONFIG,
            "rows": rows[:30],
        }
        yield {**faulty, "wrap_net_only": True}
        for name, config in REFUSED.items() if part == "two" else ():
            yield {**faulty, "out": str(folder / part / name), "config": config}

    for part, processes in (("one", 1), ("two", 2)):
        done = launch(list(cases(part)), processes)
        assert done.code == 0, done.log[-3000:]
    return folder


def facts_of(folder: Path, rank: int = 0) -> dict[str, Any]:
    """Return what a rank wrote about a training."""
    facts: dict[str, Any] = json.loads((folder / f"facts{rank}.json").read_text())
    return facts


def relative(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the largest relative difference of two series."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", COMBINATIONS)
def test_group_equals_one_process(combinations: Path, name: str) -> None:
    one, two = combinations / "one" / name, combinations / "two" / name
    alone, first, second = facts_of(one), facts_of(two), facts_of(two, 1)
    assert (alone["world"], first["world"], second["world"]) == (1, 2, 2)
    assert alone["wrapper"] == "Step"
    sharded = name.startswith("fsdp")
    assert first["wrapper"] == ("FSDPStep" if sharded else "DistributedDataParallel")
    assert first["layer"].startswith("FSDP") == sharded
    assert first["load"] == COMBINATIONS[name][2].get("load", first["load"])
    assert len(first["losses"]) >= STEPS
    assert relative(first["losses"], alone["losses"]) <= TOLERANCE
    assert relative(first["norms"], alone["norms"]) <= TOLERANCE
    assert relative(first["valid"], alone["valid"]) <= TOLERANCE
    assert first["losses"] == second["losses"]
    ours, theirs = load_file(two / "rank0.safetensors"), load_file(two / "rank1.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert ours.keys() == theirs.keys()
    if "fast" in name:
        assert first["path"] == alone["path"] == "fast"
    if "shards" in name:
        assert first["path"] == "rows"


@pytest.mark.parametrize("name", COMBINATIONS)
def test_published_weights_equal_those_of_one_process(combinations: Path, name: str) -> None:
    files = [
        next((combinations / part / name / "published").glob("*.safetensors")) for part in ("one", "two")
    ]
    one, two = (load_file(file) for file in files)
    assert one.keys() == two.keys()
    # AdamW divides by the square root of tiny second moments, which amplifies rounding in single weights.
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 2e-4


@pytest.mark.parametrize("load", ["host", "shards"])
def test_shards_within_nodes_and_replicas_between_them_equal_one_process(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path: Path, combinations: Path, load: str
) -> None:
    """Four processes that believe to be on two nodes (HSDP)."""
    name = "fsdp-full-shards"
    base, config, _ = COMBINATIONS[name]
    case = {
        "out": str(tmp_path),
        "base": str(bases[base].folder),
        "config": config,
        "rows": rows[:30],
        "valid": rows[30:],
    }
    done = launch([{**case, "load": load, "node_processes": 2}], processes=4)
    assert done.code == 0, done.log[-3000:]
    ours, alone = facts_of(tmp_path, 3), facts_of(combinations / "one" / name)
    assert (ours["world"], ours["replicas"], ours["load"]) == (4, 2, load)
    assert relative(ours["losses"], alone["losses"]) <= TOLERANCE
    assert relative(ours["norms"], alone["norms"]) <= TOLERANCE
    first, last = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 3))
    assert all(torch.equal(first[key], last[key]) for key in first)


def test_wrapper_around_the_model_would_be_noticed(combinations: Path) -> None:
    """It raises no error, and its gradients are far off: the comparison above finds it."""
    alone, faulty = facts_of(combinations / "one" / "faulty"), facts_of(combinations / "two" / "faulty")
    assert relative(faulty["norms"], alone["norms"]) > 1000 * TOLERANCE
    ours, theirs = (load_file(combinations / "two" / "faulty" / f"rank{rank}.safetensors") for rank in (0, 1))
    assert not all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", REFUSED)
def test_untested_settings_are_refused_by_name_in_every_process(combinations: Path, name: str) -> None:
    for rank in (0, 1):
        problem = json.loads((combinations / "two" / name / f"problem{rank}.json").read_text())
        assert problem["kind"] == "CannotRun"
        assert name in problem["message"]


LONG = {**CONFIG, "epochs": 2.0, "dropout": 0.1, "checkpoint_steps": 3}


@pytest.fixture(scope="module")
def uninterrupted(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Whole runs with dropout in two processes: ddp and fsdp."""
    folder = tmp_path_factory.mktemp("whole")
    done = launch([case_of(folder / kind, bases, rows, kind) for kind in ("ddp", "fsdp")])
    assert done.code == 0, done.log[-3000:]
    return folder


def case_of(out: Path, bases: dict[str, Model], rows: Any, kind: str, **more: Any) -> dict[str, Any]:
    """Return a case of the long run."""
    return {
        "out": str(out),
        "base": str(bases["llama"].folder),
        "config": {**LONG, "parallel": kind},
        "rows": rows,
        **more,
    }


def assert_same_bits(one: Path, two: Path) -> None:
    """Assert that two runs have equal losses and weights, to the bit."""
    assert facts_of(one)["losses"] == facts_of(two)["losses"]
    ours, theirs = (load_file(folder / "rank0.safetensors") for folder in (one, two))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_sigterm_leaves_a_checkpoint_that_resumes_to_the_same_bits(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path: Path, uninterrupted: Path, kind: str
) -> None:
    stop = {"step": 5, "rank": 0, "name": "SIGTERM", "launcher": True}
    case = case_of(tmp_path / kind, bases, rows, kind, signal=stop, step_seconds=0.3)
    case["config"] = {**case["config"], "checkpoint_steps": 0}  # only when it is stopped
    stopped = launch([case])
    assert stopped.code != 0
    assert "SIGKILL" not in stopped.log
    (folder,) = (tmp_path / kind / "work").glob("step-*")
    assert (folder / "shards").is_dir() == (kind == "fsdp")
    resumed = launch([case_of(tmp_path / kind, bases, rows, kind)])
    assert resumed.code == 0, resumed.log[-3000:]
    assert_same_bits(tmp_path / kind, uninterrupted / kind)
    assert not facts_of(tmp_path / kind)["events"]


def test_killed_process_restarts_the_group_which_ends_with_the_same_bits(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path: Path, uninterrupted: Path
) -> None:
    kill = {"step": 7, "rank": 1, "name": "SIGKILL"}
    done = launch([case_of(tmp_path / "fsdp", bases, rows, "fsdp", signal=kill)], restarts=1)
    assert done.code == 0, done.log[-3000:]
    assert_same_bits(tmp_path / "fsdp", uninterrupted / "fsdp")


def test_resumes_in_other_numbers_of_processes(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path: Path, uninterrupted: Path
) -> None:
    """Two processes, then one, then two: the result differs in the last digits at most, and that is reported."""
    config = {**LONG, "dropout": 0.0}

    def case(**more: Any) -> dict[str, Any]:
        return {
            **case_of(tmp_path / "run", bases, rows, "fsdp", **more),
            "config": {**config, "parallel": "fsdp"},
        }

    whole = {**case(), "out": str(tmp_path / "whole")}
    stop = {"rank": 0, "name": "SIGTERM"}
    assert launch([case(signal={**stop, "step": 4, "launcher": True}, step_seconds=0.3)]).code != 0
    assert launch([case(signal={**stop, "step": 8}, step_seconds=0.3)], processes=1).code != 0
    last = launch([case(), whole])
    assert last.code == 0, last.log[-3000:]
    events = facts_of(tmp_path / "run")["events"]
    assert any(
        "processes was 1, is 2" in event["reason"] and "last digits" in event["reason"] for event in events
    )
    assert relative(facts_of(tmp_path / "run")["losses"], facts_of(tmp_path / "whole")["losses"]) <= TOLERANCE


def test_memory_that_runs_out_in_one_process_restarts_the_group_with_smaller_passes(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path: Path
) -> None:
    case = case_of(tmp_path / "ddp", bases, rows, "ddp", fail_at={"step": 4, "rank": 1, "rows": 1})
    case["config"] = {**case["config"], "dropout": 0.0}
    done = launch([case], restarts=2)
    assert done.code == 0, done.log[-3000:]
    facts = facts_of(tmp_path / "ddp")
    assert len(facts["sizes"]) == 2
    assert facts["sizes"][1][0] == 3
    assert facts["sizes"][1][1] < CONFIG["micro_tokens"]
    assert any("out of memory at step 4" in event["reason"] for event in facts["events"])


def test_process_that_stops_answering_ends_the_group(
    launch: Launch, bases: dict[str, Model], rows: Any, tmp_path: Path
) -> None:
    """A stopped process (SIGSTOP) is waited for until the group's time limit, not for ever."""
    stop = {"step": 3, "rank": 1, "name": "SIGSTOP"}
    done = launch([case_of(tmp_path / "ddp", bases, rows, "ddp", signal=stop)], silence=HANG_SECONDS)
    assert done.code != 0
    problem = json.loads((tmp_path / "ddp" / "problem0.json").read_text())
    assert problem["kind"] == "GroupBroken"
