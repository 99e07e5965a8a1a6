"""A process of a group for the tests: torchrun starts it; it carries out the trainings that a JSON file lists.

Each training goes through the own parts of the package (``lead``, ``next_training``, ``start_training``), and every rank
writes what it holds at the end: its weights, whole, and what wraps the loss. A faulty variant, a wrapper around the model
instead of the loss, shows that the tests would notice it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from rag.errors import Problem
from runners.distributed import environment, process_group, wrapping
from runners.distributed.process_group import ProcessGroup
from runners.models import resolve
from runners.plan.train_config import RunOrigin, TrainConfig
from runners.tokenization.chat_template import EncodedRow
from runners.training import checkpoint
from runners.training.group import prepared_model
from runners.training.session import TrainingJob, manifest_facts, publish_weights, start_training


def wrap_net_only(step: wrapping.Step, processes: int, unused_parameters: bool) -> wrapping.WrappedStep:
    """Return a step whose wrapper is around the model, which the loss calls past it: gradients are not averaged."""
    nn.parallel.DistributedDataParallel(step.net)
    return wrapping.WrappedStep(step, "ddp", processes)


def signal_at(case: dict[str, Any], event: dict[str, Any]) -> None:
    """Send the signal that the case asks for after a step, in the first start only."""
    ask = case.get("signal")
    if not ask or event["event"] != "train.step" or event["step"] != ask["step"]:
        return
    if environment.rank() == ask["rank"] and not environment.was_restarted():
        target = os.getppid() if ask.get("launcher") else os.getpid()
        os.kill(target, getattr(signal, ask["name"]))


def rows_of(values: list[Any]) -> list[EncodedRow]:
    """Return the rows of the JSON file."""
    return [EncodedRow(tuple(ids), tuple(learnt), line) for ids, learnt, line in values]


def train_case(case: dict[str, Any], group: ProcessGroup, out: Path) -> None:
    """Carry out one training and write its facts and this rank's weights."""
    config, base = TrainConfig(**case["config"]), resolve.resolve_model(case["base"])
    events: list[dict[str, Any]] = []

    def on_event(event: dict[str, Any]) -> None:
        events.append(event)
        signal_at(case, event)
        if event["event"] == "train.step":
            time.sleep(case.get("step_seconds", 0))

    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    if case.get("node_processes"):  # as if the processes were on several nodes
        os.environ["LOCAL_WORLD_SIZE"] = str(case["node_processes"])
    rows, valid = rows_of(case["rows"]), rows_of(case.get("valid", []))
    memory = prepared_model.group_memory(group)
    if case.get("load") == "shards":  # no room for a copy in each process
        memory = replace(memory, host_gib=0.0)
    job = TrainingJob(
        rows=rows, valid=valid, config=config, base=base, out=out, work=work, identity="identity"
    )
    loop = start_training(
        job,
        on_event,
        group,
        memory=memory,
        replicate=wrap_net_only if case.get("wrap_net_only") else wrapping.replicate,
    )
    if case.get("fail_at"):
        fail_at(loop, case["fail_at"])
    loop.run()
    weights = {
        name: wrapping.whole_tensor(value.detach()).contiguous()
        for name, value in loop.optimizer.weights().items()
    }
    save_file(weights, out / f"rank{group.rank}.safetensors")
    facts = {
        "world": group.size,
        "wrapper": type(loop.compute.module).__name__,
        "layer": type(wrapping.decoder_layers(loop.loss.causal)[0]).__name__,
        "path": loop.loss.path,
        "reason": loop.choices.parallel_reason,
        "load": loop.choices.load,
        "replicas": loop.choices.replicas,
        "losses": loop.progress.losses,
        "norms": loop.progress.norms,
        "valid": loop.progress.valid,
        "sizes": loop.choices.sizes,
        "events": [event for event in events if event["event"] in ("train.moved", "train.memory")],
    }
    (out / f"facts{group.rank}.json").write_text(json.dumps(facts))
    data = {"rows": len(rows), "left_out": 0, "valid_rows": len(valid), "sha256": ""}
    published = out / "published"
    result = loop.result(published, 0)
    publish_weights(loop, base, published, manifest_facts(loop, data, "identity", RunOrigin(), result))


def fail_at(loop: Any, ask: dict[str, Any]) -> None:
    """Let memory run out in one rank at a step, for passes of more than so many rows."""
    inner = loop.compute.module.forward

    def forward(rows: list[EncodedRow]) -> Any:
        failing = loop.progress.step + 1 == ask["step"] and loop.group.rank == ask["rank"]
        if failing and len(rows) > ask["rows"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return inner(rows)

    loop.compute.module.forward = forward


def main() -> None:
    """Carry out the trainings of the file that is named as the first argument."""
    torch.set_num_threads(1)
    spec = json.loads(Path(sys.argv[1]).read_text())
    for case in spec["cases"]:
        out = Path(case["out"])
        out.mkdir(parents=True, exist_ok=True)
        try:
            if environment.is_follower():
                with process_group.next_training() as group:
                    assert isinstance(group, ProcessGroup)
                    train_case(case, group, out)
            else:
                with process_group.lead() as leader:
                    train_case(case, leader.join(), out)
        except Problem as problem:
            (out / f"problem{environment.rank()}.json").write_text(
                json.dumps({"kind": type(problem).__name__, "message": problem.message})
            )
            if problem.exit_code == environment.RESTART_EXIT_CODE:
                sys.stderr.flush()
                os._exit(problem.exit_code)
    checkpoint.seed_everything(0)
    process_group.end_group()


if __name__ == "__main__":
    code = 1
    try:
        main()
        code = 0
    except KeyboardInterrupt:
        code = 143
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    os._exit(code)
