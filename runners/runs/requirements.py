"""What a plan needs: models to fetch, and of the machine that runs it GPU, memory and disk, checked before step one."""

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
"""Sources of an answer that a person gave, rather than this machine."""
MEMORY_HEADROOM = 0.92
"""Share of the memory that a run may take; the rest is the system's (an out-of-memory kill loses a step)."""
ADAPTER_MIB, INDEX_MIB = 60, 60
"""Room for one adapter with its checkpoint, and for a small index, in MiB."""


def check_requirements(plan: Plan, base: Path | None, out: Path, machine: Machine) -> None:
    """Raise CannotRun when this machine cannot carry the plan out, with the number that says so.

    `base` is the folder of the plan's model, None for a remote one: then nothing is computed here but the index.
    """
    if base is not None:
        check_gpu(plan, machine)
        check_memory(plan, base, machine)
    check_disk(plan, base, out)


def require_plan_documents(plan: Plan) -> None:
    """Refuse documents that are not there or an empty folder, before a run folder is made for them."""
    path = plan.data.documents
    if path is None or plan.index is None:
        return
    if not path.exists():
        raise BadInput(f"the documents path {path} does not exist", "correct data.documents in the plan")
    if path.is_dir() and not any(p.is_file() for p in path.rglob("*")):
        raise BadInput(f"the documents folder {path} is empty", "put documents into it, or name another")


def check_gpu(plan: Plan, machine: Machine) -> None:
    """Refuse a plan that a person made for a GPU which is not here."""
    wanted = plan.answers.get("gpu_kind")
    if wanted is None or wanted.source not in PERSON_SOURCES or wanted.value in (None, "none"):
        return
    here = machine.gpu_kind.value or "none"
    if here != wanted.value:
        raise CannotRun(
            f"the plan was made for a {wanted.value} GPU, this machine has {here} ({machine.gpu_kind.how})",
            "run it on that machine, or plan for this one: tunewise plan --set gpu_kind=none ...",
        )
    memory = plan.answers.get("gpu_memory_gib")
    have = machine.gpu_memory_gib.value
    if memory is None or memory.source not in PERSON_SOURCES or not memory.value or not have:
        return
    if have < 0.95 * float(memory.value):
        raise CannotRun(
            f"the plan was made for a GPU with {memory.value} GiB, this one has {have:.1f}",
            "plan for this machine: leave gpu_memory_gib out",
        )


def check_memory(plan: Plan, base: Path, machine: Machine) -> None:
    """Refuse a training step whose weights, states and activations are surely more than there is."""
    config = base / "config.json"
    gpu = machine.gpu_memory_gib.value if machine.gpu_kind.value == "cuda" else None
    have = gpu or machine.ram_gib.value
    if have is None or not config.is_file():
        return
    shape = read_shape(json.loads(config.read_text("utf-8")))
    for step in plan.steps:
        if isinstance(step, TrainStep):
            needs = estimate_memory(
                shape, step.method, MemorySetup(seq_len=min(step.max_tokens, step.batch_tokens))
            )
            if needs.fits(MEMORY_HEADROOM * have) == "no":
                raise CannotRun(
                    f"training {step.arm} ({step.method}) takes at least {needs.low:.1f} GiB, "
                    f"this machine has {have:.1f}",
                    "plan for a smaller model or another method: tunewise plan",
                )


def check_disk(plan: Plan, base: Path | None, out: Path) -> None:
    """Refuse a run that cannot be written: room for the index, adapters, checkpoints, answers and report."""
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
    """Return what carrying out a plan would fetch: its models, and its embedder where something needs it."""
    wanted = [plan.model, *(step.model for step in plan.arms if step.model)]
    wanted += [plan.embedder] if needs_embedder(plan) else []
    found = [fetch for each in wanted for fetch in resolve.downloads_needed([each.name], each.allow_hub)]
    return tuple(dict.fromkeys(found))


def needs_embedder(plan: Plan) -> bool:
    """Whether anything in a plan is embedded: an index, a classifier's texts, or the nearest examples."""
    return plan.index is not None or any(arm.classifier or arm.bank == "similar" for arm in plan.arms)
