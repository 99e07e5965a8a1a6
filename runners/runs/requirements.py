"""What a plan needs, checked before its first step: the GPU, memory and disk of the machine, and the models to fetch.

:func:`check_requirements` raises CannotRun with the number that does not suffice; :func:`plan_downloads`
lists the models.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from rag.errors import BadInput, CannotRun
from runners.models import resolve
from runners.plan.schema import Plan
from runners.plan.steps import TrainStep
from runners.resources.machine import Machine
from runners.resources.memory_estimate import estimate_memory
from runners.resources.memory_terms import MemorySetup
from runners.resources.model_shape import read_shape

PERSON_SOURCES = ("asked", "flag", "file", "config")
"""Sources of answers that a person gave, as opposed to values detected on this machine."""
MEMORY_HEADROOM = 0.92
"""Share of the memory that a run may use; the rest is for the system (an out-of-memory kill loses a step)."""
ADAPTER_MIB = 60
"""Disk space for one adapter with its checkpoint, in MiB."""
INDEX_MIB = 60
"""Disk space for a small index, in MiB."""


def check_requirements(plan: Plan, base: Path | None, out: Path, machine: Machine) -> None:
    """Raise CannotRun, with the number that does not suffice, when this machine cannot carry out the plan.

    Args:
        plan: the plan.
        base: the folder of the plan's model; None for an endpoint, where only the index is computed here.
        out: the run folder that will be written.
        machine: what was detected of this machine.
    """
    if base is not None:
        check_gpu(plan, machine)
        check_memory(plan, base, machine)
    check_disk(plan, base, out)


def require_plan_documents(plan: Plan) -> None:
    """Raise BadInput for documents that do not exist or an empty folder, before a run folder is created."""
    path = plan.data.documents
    if path is None or plan.index is None:
        return
    if not path.exists():
        raise BadInput(f"the documents path {path} does not exist", "correct data.documents in the plan")
    if path.is_dir() and not any(p.is_file() for p in path.rglob("*")):
        raise BadInput(f"the documents folder {path} is empty", "put documents into it, or name another")


def check_gpu(plan: Plan, machine: Machine) -> None:
    """Raise CannotRun when a person made the plan for a GPU that this machine does not have."""
    wanted = plan.answers.get("gpu_kind")
    if wanted is None or wanted.source not in PERSON_SOURCES or wanted.value in (None, "none"):
        return
    detected = machine.gpu_kind.value or "none"
    if detected != wanted.value:
        raise CannotRun(
            f"the plan was made for a {wanted.value} GPU, this machine has {detected} ({machine.gpu_kind.how})",
            "run it on that machine, or plan for this one: tunewise plan --set gpu_kind=none ...",
        )
    memory = plan.answers.get("gpu_memory_gib")
    detected_memory = machine.gpu_memory_gib.value
    if memory is None or memory.source not in PERSON_SOURCES or not memory.value or not detected_memory:
        return
    # A card reports slightly less than its nominal memory.
    if detected_memory < 0.95 * float(memory.value):
        raise CannotRun(
            f"the plan was made for a GPU with {memory.value} GiB, this one has {detected_memory:.1f}",
            "plan for this machine: leave gpu_memory_gib out",
        )


def check_memory(plan: Plan, base: Path, machine: Machine) -> None:
    """Raise CannotRun for a training step whose low estimate of memory exceeds what the machine has."""
    config = base / "config.json"
    gpu = machine.gpu_memory_gib.value if machine.gpu_kind.value == "cuda" else None
    available = gpu or machine.ram_gib.value
    if available is None or not config.is_file():
        return
    shape = read_shape(json.loads(config.read_text("utf-8")))
    for step in plan.steps:
        if isinstance(step, TrainStep):
            estimate = estimate_memory(
                shape, step.method, MemorySetup(seq_len=min(step.max_tokens, step.batch_tokens))
            )
            if estimate.fits(MEMORY_HEADROOM * available) == "no":
                raise CannotRun(
                    f"training {step.arm} ({step.method}) takes at least {estimate.low:.1f} GiB, "
                    f"this machine has {available:.1f}",
                    "plan for a smaller model or another method: tunewise plan",
                )


def check_disk(plan: Plan, base: Path | None, out: Path) -> None:
    """Raise CannotRun when the run cannot be written: index, adapters, checkpoints, answers and report need space."""
    files = base.glob("*.safetensors") if base else ()
    weights = sum(p.stat().st_size for p in files) / 2**20
    needed: float = INDEX_MIB if plan.index else 10
    for step in plan.steps:
        if isinstance(step, TrainStep):
            # A full checkpoint holds the weights and two fp32 moments of a bf16 model.
            needed += len(step.seeds) * (6 * weights if step.method == "full" else ADAPTER_MIB)
    folder = out.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise CannotRun(f"{folder} cannot be written", "choose another --out")
    free = shutil.disk_usage(folder).free / 2**20
    if free < needed:
        raise CannotRun(
            f"{folder} has {free:.0f} MiB free, this run needs about {needed:.0f} MiB",
            "free some space, or choose another --out",
        )


def plan_downloads(plan: Plan) -> tuple[resolve.ModelDownload, ...]:
    """Return what carrying out a plan would fetch: its models, and its embedder when something needs it."""
    wanted = [plan.model, *(step.model for step in plan.arms if step.model)]
    wanted += [plan.embedder] if needs_embedder(plan) else []
    wanted += [plan.index.reranker] if plan.index and plan.index.reranker else []
    downloads = [
        download for model in wanted for download in resolve.downloads_needed([model.name], model.allow_hub)
    ]
    return tuple(dict.fromkeys(downloads))


def needs_embedder(plan: Plan) -> bool:
    """Return whether a plan embeds anything: an index, a classifier's texts, or the nearest examples."""
    return plan.index is not None or any(arm.classifier or arm.bank == "similar" for arm in plan.arms)
