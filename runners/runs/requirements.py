"""What a plan needs, checked before its first step: the GPU, memory and disk of the machine, and the models to fetch.

:func:`check_requirements` raises CannotRun with the number that does not suffice; :func:`plan_downloads`
lists the models.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rag.errors import BadInput, CannotRun
from rag.training.settings import LORA_RANK
from runners.distributed import environment
from runners.models import endpoint, resolve
from runners.models.availability import ModelAvailability, find_availability
from runners.models.completeness import model_folder
from runners.models.registry import planned_model
from runners.plan.named_models import local_judge
from runners.plan.schema import Plan, Step, step_name
from runners.plan.steps import (
    NF4,
    NO_QUANTIZATION,
    EmbedderStep,
    EvaluateStep,
    IndexStep,
    JudgeModel,
    PlanModel,
    TrainStep,
)
from runners.resources.device import DTYPE_BYTES, unsupported_settings
from runners.resources.machine import Machine
from runners.resources.memory_estimate import (
    BATCH_ROWS,
    MemoryEstimate,
    batch_memory,
    estimate_inference_memory,
    estimate_memory,
    memory_in_group,
    node_replicas,
)
from runners.resources.memory_terms import MemorySetup, WeightKind
from runners.resources.model_shape import ModelShape, read_shape
from runners.run_folder import disk_needed
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

PERSON_SOURCES = ("asked", "flag", "file", "config")
"""Sources of answers that a person gave, as opposed to values detected on this machine."""
MEMORY_HEADROOM = 0.92
"""Share of the memory that a run may use; the rest is for the system (an out-of-memory kill loses a step)."""
QUESTION_TOKENS, SHOT_TOKENS, LOOKUP_TOKENS = 64, 128, 2_000
"""Tokens of a question with the chat template, of an example shown, and of a look-up's result: assumed, on the long side."""
JUDGE_TOKENS = 400
"""Tokens of a judge's instructions, a question and its gold: assumed, on the long side."""
MAX_NAMED = 3
"""Steps that do not fit named in one message."""


def check_names(plan: Plan) -> None:
    """Raise BadInput for what a plan names and no run can use: files still to be named, and paths that are no model.

    It is checked first, by a plan that is written, a run and a dry run; nothing but the folders of models is looked at.
    """
    if keys := plan.data.not_named:
        flags = " ".join(f"--{key} PATH" for key in keys)
        raise BadInput(
            f"the plan lacks files: {', '.join(f'data.{key}' for key in keys)}",
            f"write their paths into the plan, or plan again: tunewise plan --answers PLAN {flags}",
        )
    for model in _local_models(plan):
        model_folder(model.name)


def check_requirements(
    plan: Plan, folders: Mapping[str, Path], out: Path, machine: Machine
) -> tuple[str, ...]:
    """Raise CannotRun, with the number that does not suffice, when this machine cannot carry out the plan.

    Args:
        plan: the plan.
        folders: the folders of its local models, by their name in the plan. Without any, where all are endpoints, only the
            index is computed here.
        out: the run folder that will be written.
        machine: what was detected of this machine.

    Returns:
        Notes for the user on models that no arm asks, and on steps that barely fit.
    """
    unasked = [alias for alias, model in plan.models.items() if model not in plan.base_models]
    notes: tuple[str, ...] = (f"of the plan's models, no arm asks: {', '.join(unasked)}",) if unasked else ()
    asked = (*plan.base_models, *local_judge(plan))
    local = [folders[model.name] for model in asked if model.name in folders]
    if local:
        check_gpu(plan, machine)
        check_settings(plan, machine)
        notes += check_memory(plan, folders.get(plan.model.name), machine, folders)
    check_disk(plan, folders, out)
    return notes


def check_settings(plan: Plan, machine: Machine) -> None:
    """Raise CannotRun for a training step with a method or an optimiser that the device does not have."""
    for step in plan.steps:
        if isinstance(step, TrainStep) and (
            reason := unsupported_settings(machine.device, step.method, step.optimizer)
        ):
            raise CannotRun(
                f"{step_name(step)}: {reason}", "choose another optimizer, or TUNEWISE_DEVICE=cpu"
            )


def remote_models(plan: Plan) -> tuple[resolve.RemoteModel, ...]:
    """Return the endpoints that carrying out a plan asks, the judge's included."""
    named = [
        *plan.base_models,
        *([plan.judge] if plan.judge else []),
    ]
    remotes = (resolve.parse_remote(model.name) for model in named)
    return tuple(dict.fromkeys(remote for remote in remotes if remote))


def check_keys(plan: Plan) -> None:
    """Check the keys of a plan's endpoints before hours of work.

    Raises:
        BadInput: a key would be sent unencrypted; or several models are compared, and a public host among them has no key:
            its arms would fail while the others are measured.
    """
    keys = {row.url: endpoint.api_key(row.url).value for row in remote_models(plan)}
    missing = [url for url, key in keys.items() if not key and not endpoint.is_private(url)]
    if len(plan.models) > 1 and missing:
        hosts = ", ".join(dict.fromkeys(map(endpoint.endpoint_host, missing)))
        raise BadInput(
            f"there is no key for {hosts}",
            f"{endpoint.key_hint(missing[0])}; where a host needs none, give it any value",
        )


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
    if planned_model(plan):
        return  # a small model stands in for the planned one, on whatever machine there is
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
            "plan for this machine: remove gpu_memory_gib",
        )


def check_memory(
    plan: Plan, base: Path | None, machine: Machine, models: Mapping[str, Path] | None = None
) -> tuple[str, ...]:
    """Check the memory of every step, and return a note for each that is tight.

    Training counts weights, gradients, optimiser and activations; an arm the loading of its model, a whole batch of
    prompts and their answers with keys and values; the index the loading of the embedder. What is unknown of a model
    is not checked.

    Args:
        plan: the plan.
        base: the folder of the plan's model; None for an endpoint.
        machine: the machine.
        models: the folders of other local models (embedder, models of arms), by their name in the plan.

    Raises:
        CannotRun: naming each step whose low estimate exceeds what the machine has, with the figures.
    """
    available = machine.device_memory_gib
    if available is None:
        return ()
    folders = {**(models or {}), **({plan.model.name: base} if base else {})}
    refused: list[tuple[str, str]] = []
    notes: list[str] = []
    for step in (*plan.steps, *local_judge(plan)):
        need = step_memory(plan, step, folders, machine)
        has = available / _neighbours(step, machine)
        name = "the judge" if isinstance(step, PlanModel) else step_name(step)
        fits = need.memory.fits(MEMORY_HEADROOM * has) if need else None
        if need and fits == "no":
            text = f"{need.work} takes at least {need.memory.low:.1f} GiB, this machine has {has:.1f}"
            refused.append((text, need.hint(machine, MEMORY_HEADROOM * has)))
        elif need and fits == "tight":
            notes.append(
                f"{name} is tight: {need.work} takes about {need.memory.likely:.1f} GiB "
                f"({need.memory.low:.1f} to {need.memory.high:.1f}), this machine has {has:.1f}"
            )
    if refused:
        more = f"; and {len(refused) - MAX_NAMED} more steps" if len(refused) > MAX_NAMED else ""
        raise CannotRun("; ".join(text for text, _ in refused[:MAX_NAMED]) + more, refused[0][1])
    return tuple(notes)


def require_loading_memory(model: PlanModel, folder: Path, machine: Machine) -> None:
    """Raise CannotRun when the machine does not hold a model that is to answer now, before the system kills the process.

    Args:
        model: the plan's entry of the model.
        folder: its folder.
        machine: the machine.
    """
    shape, available = _shape_of(folder), machine.device_memory_gib
    if shape is None or available is None:
        return
    memory = answering_memory(shape, machine, model.quantization, 1, 1)
    if memory.fits(available) == "no":
        bits = 4 if model.quantization != NO_QUANTIZATION else 8 * DTYPE_BYTES[machine.dtype[0]]
        raise CannotRun(
            f"answering with {model.name} in {bits} bits takes at least {memory.low:.1f} GiB, this machine has "
            f"{available:.1f}",
            "ask on a machine with more memory, or make and run a plan here: tunewise plan chooses what fits",
        )


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The memory that one step needs."""

    work: str
    """What takes it, in words."""
    memory: MemoryEstimate
    four_bit: MemoryEstimate | None = None
    """The memory of the same with the model in 4 bits, for an arm that holds it in 16."""
    several: MemoryEstimate | None = None
    """The memory of each GPU where a launcher starts the training on all of this machine, for one that runs without."""

    advice: str = ""
    """What to do where it does not fit, when it is nothing of the other kinds."""

    def hint(self, machine: Machine, available: float) -> str:
        """Return what to do where it does not fit in ``available`` GiB."""
        if self.advice:
            return self.advice
        if self.several is not None and self.several.fits(available) != "no":
            count = machine.gpu_count.value
            return (
                f"share it among all {count} GPUs, about {self.several.likely:.1f} GiB on each: add --launcher torchrun "
                f"--gpus-per-node {count}"
            )
        if self.four_bit is not None and self.four_bit.fits(available) != "no":
            return (
                f"load the model in 4 bits, about {self.four_bit.likely:.1f} GiB: quantization: nf4 under model in the "
                "plan, which tunewise plan writes where 16 bits do not fit"
            )
        return "plan for a smaller model or another method: tunewise plan"


def answering_memory(
    shape: ModelShape, machine: Machine, quantization: str, prompt_tokens: int, new_tokens: int
) -> MemoryEstimate:
    """Estimate the memory of one batch of answers on a machine, with the model and an adapter held as in the plan.

    Args:
        shape: the model.
        machine: the machine.
        quantization: none or nf4, of the plan's model.
        prompt_tokens: tokens of the longest prompt.
        new_tokens: most tokens of an answer.
    """
    wide: WeightKind | None = "fp32" if machine.dtype[0] == "float32" else None
    four_bit = quantization != NO_QUANTIZATION
    return batch_memory(
        shape, prompt_tokens, new_tokens, "nf4-dq" if four_bit else wide, on_cpu=not machine.own_memory
    )


def step_memory(
    plan: Plan, step: Step | JudgeModel, folders: Mapping[str, Path], machine: Machine
) -> StepMemory | None:
    """Return the memory of a step or of the judge; None for an endpoint or a backend, and where the shape is unknown."""
    if isinstance(step, JudgeModel):
        return _judge_memory(plan, step, folders, machine)
    if isinstance(step, IndexStep):
        shape = _shape_of(folders.get(plan.embedder.name))
        if shape is None:
            return None
        setup = {"weights": "fp32", "counter": "device" if machine.own_memory else "process"}
        memory = estimate_inference_memory(shape, step.max_chunk_tokens, 0, BATCH_ROWS, **setup)  # type: ignore[arg-type]
        return StepMemory(f"embedding the documents with {plan.embedder.name}", memory)
    if isinstance(step, EmbedderStep):
        return _embedder_memory(plan, step, folders, machine)
    if isinstance(step, TrainStep):
        shape = _shape_of(folders.get(plan.model_of(step).name))
        if shape is None:
            return None
        wide = machine.dtype[0] == "float32" and step.method != "qlora"
        setup_of_run = MemorySetup(
            seq_len=min(step.max_tokens, step.batch_tokens),
            rank=step.rank,
            weights="fp32" if wide else None,
            counter="device" if machine.own_memory else "process",
            devices=environment.weight_shards(step.method, plan.parallel),
        )
        work = f"training {step.arm} ({step.method})"
        if not machine.own_memory:
            return StepMemory(work, estimate_memory(shape, step.method, setup_of_run))
        started, present = environment.world_size(), machine.gpu_count.value or 1
        memory = _shared_memory(plan, step, shape, replace(setup_of_run, devices=started), machine)
        several = None
        if started == 1 < present:
            several = _shared_memory(plan, step, shape, replace(setup_of_run, devices=present), machine)
        return StepMemory(work, memory, several=several)
    model = plan.model_of(step)
    answers_here = not (step.without_model or step.route or plan.servers.model_of(step))
    shape = _shape_of(folders.get(model.name)) if answers_here else None
    if shape is None:
        return None
    prompt = _prompt_tokens(plan, step)
    answer = plan.max_new_tokens + (plan.thinking.max_tokens if plan.thinking.enabled else 0)
    memory = answering_memory(shape, machine, model.quantization, prompt, answer)
    if model.quantization != NO_QUANTIZATION:
        return StepMemory(f"answering with the arm {step.arm} (4 bits)", memory)
    bits = 8 * DTYPE_BYTES[machine.dtype[0]]
    four_bit = answering_memory(shape, machine, NF4, prompt, answer)
    return StepMemory(f"answering with the arm {step.arm} ({bits} bits)", memory, four_bit)


def _judge_memory(
    plan: Plan, judge: JudgeModel, folders: Mapping[str, Path], machine: Machine
) -> StepMemory | None:
    """Return the memory of a judge in this process, which reads passages, two answers and what they are judged by."""
    shape = _shape_of(folders.get(judge.name))
    if shape is None:
        return None
    passages = plan.index.context_tokens if plan.index else 0
    prompt = JUDGE_TOKENS + math.ceil(len(plan.prompts.system) / CHARS_PER_TOKEN) + passages
    memory = answering_memory(shape, machine, judge.quantization, prompt + 2 * plan.max_new_tokens, 8)
    return StepMemory(
        f"judging with {judge.name}", memory, advice="name a smaller judge, or one by URL: openai:NAME@URL"
    )


def _embedder_memory(
    plan: Plan, step: EmbedderStep, folders: Mapping[str, Path], machine: Machine
) -> StepMemory | None:
    """Return the memory of tuning the plan's embedder, a whole batch of questions, passages and negatives at once."""
    shape = _shape_of(folders.get(plan.embedder.name))
    if shape is None or plan.index is None:
        return None
    method = step.settings(plan.seed).method_for(shape.params)
    setup = MemorySetup(
        batch=step.settings(plan.seed).texts_at_once(shape.params),
        seq_len=round(1.25 * plan.index.max_chunk_tokens),  # with title and headings
        rank=LORA_RANK,
        checkpointing=False,
        optimizer="adamw",
        program="other",
        target_tokens=1,  # no logits over a vocabulary
        weights="fp32",
        counter="device" if machine.own_memory else "process",
    )
    memory, work = estimate_memory(shape, method, setup), f"tuning {plan.embedder.name} ({method})"
    return StepMemory(work, memory, advice="set a smaller batch_size in the embedder step")


def _shared_memory(
    plan: Plan, step: TrainStep, shape: ModelShape, setup: MemorySetup, machine: Machine
) -> MemoryEstimate:
    """Estimate the memory of each GPU in a training on ``setup.devices`` of them, as the plan says that they share it."""
    if setup.devices == 1:
        return estimate_memory(shape, step.method, setup)
    available = machine.device_memory_gib
    gib = None if available is None else MEMORY_HEADROOM * available
    # Other devices than those that a launcher started are of this node.
    nodes = environment.node_count() if setup.devices == environment.world_size() else 1
    setup = replace(setup, optimizer=step.optimizer)
    if plan.parallel == "auto":
        return memory_in_group(shape, step.method, setup, gib, nodes)[1]
    setup = replace(setup, parallel=plan.parallel)
    replicas = node_replicas(shape, step.method, setup, gib, nodes)
    return estimate_memory(shape, step.method, replace(setup, replicas=replicas))


def _neighbours(step: Step | JudgeModel, machine: Machine) -> int:
    """Return how many processes of a group share the memory in a step: all of the node while training on a CPU."""
    return environment.local_world_size() if isinstance(step, TrainStep) and not machine.own_memory else 1


def _shape_of(folder: Path | None) -> ModelShape | None:
    """Return the shape of the model in a folder; None without one, and where its config does not describe it."""
    config = folder / "config.json" if folder else None
    if config is None or not config.is_file():
        return None
    try:
        return read_shape(json.loads(config.read_text("utf-8")))
    except BadInput:
        return None


def _prompt_tokens(plan: Plan, step: EvaluateStep) -> int:
    """Return about how many tokens an arm's longest prompts have: instructions, examples, passages and question.

    An arm that is given all passages is counted exactly before the run (:mod:`runners.arms.long_context`).
    """
    tokens = len(plan.prompts.system) / CHARS_PER_TOKEN + QUESTION_TOKENS + step.shots * SHOT_TOKENS
    if step.retrieval and plan.index is not None:
        corpus = plan.answers.get("corpus_tokens")
        everything = float(corpus.value) if step.passages == "all" and corpus and corpus.value else 0.0
        tokens += max(everything, plan.index.context_tokens)
    if step.looks_up:
        tokens += min(step.lookups.tokens, step.lookups.steps * LOOKUP_TOKENS)
    return math.ceil(tokens)


def check_disk(plan: Plan, folders: Mapping[str, Path], out: Path) -> None:
    """Raise CannotRun when the run cannot be written: see :func:`runners.run_folder.disk_needed`."""
    needed = disk_needed(plan, folders)
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
    wanted = _local_models(plan)
    downloads = (each for model in wanted for each in resolve.downloads_needed([model.name], model.allow_hub))
    return tuple(dict.fromkeys(downloads))


def _local_models(plan: Plan) -> list[PlanModel]:
    """Return the models that carrying out a plan loads, endpoints among the bases included."""
    wanted = [*plan.base_models, *local_judge(plan)]
    wanted += [plan.embedder] if needs_embedder(plan) or _obtainable_nearest(plan) else []
    wanted += [plan.index.reranker] if plan.index and plan.index.reranker else []
    wanted += [step.reranker] if (step := plan.embedder_step) and step.reranker else []
    return wanted


def unobtainable_models(plan: Plan) -> tuple[ModelAvailability, ...]:
    """Return the models of a plan that this machine does not have and may not fetch: a run of the plan is refused."""
    wanted = [*plan.base_models, *local_judge(plan)]
    wanted += [plan.embedder] if needs_embedder(plan) else []
    sources = dict.fromkeys(find_availability(model.name, model.allow_hub) for model in wanted)
    return tuple(source for source in sources if source.state == "blocked")


def needs_embedder(plan: Plan) -> bool:
    """Return whether a plan embeds anything: an index, texts to classify or to reply to, or the nearest examples."""
    return plan.index is not None or any(arm.embeds_texts for arm in plan.arms)


def _obtainable_nearest(plan: Plan) -> bool:
    """Return whether nearest examples would be tried with an embedder that can be obtained."""
    name, allow_hub = plan.embedder.name, plan.embedder.allow_hub
    return tries_nearest_examples(plan) and find_availability(name, allow_hub).state != "blocked"


def tries_nearest_examples(plan: Plan) -> bool:
    """Return whether some arm would try the nearest examples; it does without them where the embedder is missing."""
    return any(arm.bank == "chosen" and arm.shots and arm.budget for arm in plan.arms)


def arm_memory(
    plan: Plan, step: EvaluateStep, base: Path, machine: Machine, prompt_tokens: int
) -> str | None:
    """Return whether answers to prompts of so many tokens fit in memory: yes, tight or no; None where it is unknown."""
    shape = _shape_of(base)
    if shape is None:
        return None
    answer = plan.max_new_tokens + (plan.thinking.max_tokens if plan.thinking.enabled else 0)
    quantization = plan.model_of(step).quantization
    memory = answering_memory(shape, machine, quantization, prompt_tokens, answer)
    return memory.fits(machine.device_memory_gib)
