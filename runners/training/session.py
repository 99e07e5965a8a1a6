"""Start and end of a training run.

:func:`start_training` builds the loop, from the base or from the last checkpoint in the work folder of an unfinished
run; :func:`publish_weights` renames the complete result to the folder that was asked for. Imports torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import check_manifest, disk_full_as_problem, publish_folder, write_text
from rag.types import OnEvent
from runners.data.teachers import teachers_to_json
from runners.distributed import wrapping
from runners.distributed.process_group import ProcessGroup
from runners.distributed.wrapping import Replicate
from runners.inference.weights import DTYPES, dtype_for
from runners.models.cards import CARD_FILE
from runners.models.resolve import Model
from runners.plan.train_config import RunOrigin, TrainConfig, TrainResult
from runners.resources.device import DEVICE_TABLE, INITIAL_LOSS_SCALE, device_kind, loss_scaler
from runners.tokenization.chat_template import EncodedRow
from runners.training import checkpoint, lora, runtime, schedule
from runners.training.checkpoint import TrainingProgress
from runners.training.group import parallel_choice, prepared_model, step_shares
from runners.training.loop import TrainingLoop
from runners.training.optimizer import MasterOptimizer

TRAINING_LOG = "training.jsonl"
"""File with every step's loss, gradient norm and learning rate, and every validation loss, in the result's folder."""

TOKENIZER = "tokenizer"
"""In the work folder: the tokenizer's files, which the folder of the weights will hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What every process of a training needs.

    Attributes:
        rows: Training rows.
        valid: Validation rows.
        config: Settings of the run.
        base: The base model.
        out: Folder of the result.
        work: Folder of the checkpoints.
        identity: Hash of everything the result depends on; a checkpoint of another identity is removed.
        loss_scale: The loss scale that a run in float16 begins with.
    """

    rows: list[EncodedRow]
    valid: list[EncodedRow]
    config: TrainConfig
    base: Model
    out: Path
    work: Path
    identity: str
    loss_scale: float = INITIAL_LOSS_SCALE

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values, its paths absolute."""
        return {
            "rows": [[row.ids, row.learnt, row.line] for row in self.rows],
            "valid": [[row.ids, row.learnt, row.line] for row in self.valid],
            "config": self.config.model_dump(mode="json"),
            "base": {**asdict(self.base), "folder": str(self.base.folder.absolute())},
            "out": str(self.out.absolute()),
            "work": str(self.work.absolute()),
            "identity": self.identity,
            "loss_scale": self.loss_scale,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingJob:
        """Return the job of :meth:`to_json`."""
        encoded = {
            name: [EncodedRow(tuple(ids), tuple(learnt), line) for ids, learnt, line in values[name]]
            for name in ("rows", "valid")
        }
        base = Model(**{**values["base"], "folder": Path(values["base"]["folder"])})
        paths = {name: Path(values[name]) for name in ("out", "work")}
        return cls(**{**values, **encoded, **paths, "config": TrainConfig(**values["config"]), "base": base})


def start_training(
    job: TrainingJob,
    on_event: OnEvent,
    group: ProcessGroup = ProcessGroup(),
    *,
    memory: parallel_choice.GroupMemory | None = None,
    replicate: Replicate = wrapping.replicate,
) -> TrainingLoop:
    """Load the base, attach what is trained, plan every step, and restore the last checkpoint if there is one.

    Args:
        job: What is trained.
        on_event: Receives the events of the run.
        group: The processes that train together, all of which call it; rank 0 alone chooses and reports.
        memory: What each process may use; None measures it.
        replicate: Wraps the step where every process has a whole copy of the model.
    """
    config, rows, work = job.config, job.rows, job.work
    memory = memory or prepared_model.group_memory(group)
    chosen, folder, resumed = _decided_start(job, on_event, group, memory)
    checkpoint.seed_everything(config.seed)
    passes = schedule.plan_steps(
        [len(row.ids) for row in rows], config.batch_tokens, config.epochs, config.seed
    )
    tokens = sum(len(rows[i].ids) for steps in passes for step in steps for i in step)
    group.first(lambda: _write_tokenizer(job))
    prepared = prepared_model.prepare(job.base, config, chosen, rows, tokens, resumed, group, replicate)
    group.first(lambda: chosen.write(work))
    prepared_model.require_shared_folder(work, group)
    optimizer = _optimizer(prepared.net, config)
    # Choosing the loss may have drawn random numbers, and a resumed run does not choose.
    checkpoint.seed_everything(step_shares.process_seed(config.seed, group.rank))
    causal = prepared.loss.causal
    optimizer.scaler = loss_scaler(causal.dtype, causal.device, job.loss_scale)
    progress = _restored_progress(folder, job.identity, optimizer, group.rank)
    return TrainingLoop(
        config=config,
        net=prepared.net,
        loss=prepared.loss,
        optimizer=optimizer,
        rows=rows,
        valid=job.valid,
        passes=passes,
        work=work,
        progress=progress,
        choices=chosen,
        on_event=on_event,
        group=group,
        wrapped=prepared.wrapped,
    )


def _write_tokenizer(job: TrainingJob) -> None:
    with disk_full_as_problem(job.out):
        lora.save_tokenizer(job.base, job.work / TOKENIZER)


def _optimizer(net: nn.Module, config: TrainConfig) -> MasterOptimizer:
    """Return the optimiser of what is trained of a model."""
    return MasterOptimizer(
        lora.trainable_parameters(net),
        config.learning_rate,
        config.weight_decay,
        config.max_grad_norm,
        config.optimizer,
        config.lora_plus,
    )


def _decided_start(
    job: TrainingJob, on_event: OnEvent, group: ProcessGroup, memory: parallel_choice.GroupMemory
) -> tuple[runtime.RuntimeChoices, Path | None, bool]:
    """Return what rank 0 decides for all: the choices, the checkpoint to continue from, whether a run is resumed.

    See :func:`start_training` for the arguments.
    """

    def decide() -> dict[str, Any]:
        recorded, folder = _unfinished_run(job.work, job.config, job.identity, on_event, group.size)
        chosen = recorded or _new_choices(job, group.size, memory)
        if recorded and recorded.processes != group.size:
            _share_anew(recorded, job, group.size, memory)
        for text in step_shares.apply_failures(job.work, chosen):
            on_event({"event": "train.memory", "step": chosen.sizes[-1][0] + 1, "reason": text})
        return {
            "resumed": recorded is not None,
            "choices": chosen.to_json(),
            "checkpoint": folder and str(folder),
        }

    start = group.first(decide)
    folder = Path(start["checkpoint"]) if start["checkpoint"] else None
    return runtime.RuntimeChoices.from_json(start["choices"]), folder, bool(start["resumed"])


def _new_choices(
    job: TrainingJob, processes: int, memory: parallel_choice.GroupMemory
) -> runtime.RuntimeChoices:
    """Return the choices of a new run."""
    parallel = _parallel(job, processes, memory, dtype_for()[0])
    return runtime.choose_runtime(job.base, job.config, job.rows, job.identity, memory.device_gib, parallel)


def _share_anew(
    chosen: runtime.RuntimeChoices, job: TrainingJob, processes: int, memory: parallel_choice.GroupMemory
) -> None:
    """Change the choices of an unfinished run for another number of processes; dtype and path of the loss stay."""
    parallel = _parallel(job, processes, memory, DTYPES[chosen.dtype])
    chosen.parallel, chosen.parallel_reason, chosen.load = parallel.kind, parallel.reason, parallel.load
    chosen.replicas = parallel.replicas
    chosen.machine = runtime.numeric_environment(processes)
    if processes > 1 and chosen.path == "compiled":
        chosen.path, chosen.reason = "rows", "torch.compile is not used in several processes"


def _parallel(
    job: TrainingJob, processes: int, memory: parallel_choice.GroupMemory, dtype: torch.dtype
) -> parallel_choice.ParallelChoice:
    """Return how so many processes share a run of these rows in a dtype."""
    longest = max(len(row.ids) for row in job.rows)
    own_memory = DEVICE_TABLE[device_kind()].own_memory
    return parallel_choice.choose_parallel(
        job.base, job.config, longest, dtype, own_memory, processes, memory
    )


def _restored_progress(
    folder: Path | None, identity: str, optimizer: MasterOptimizer, rank: int
) -> TrainingProgress:
    """Return the progress of a checkpoint, whose weights, optimiser, loss scale and random state are restored.

    Without a checkpoint nothing is restored, and the progress is that of a new run.
    """
    if folder is None:
        return TrainingProgress(identity)
    progress = checkpoint.read_progress(folder)
    if optimizer.scaler is not None and progress.scaler:
        optimizer.scaler.load_state_dict(progress.scaler)
    if random := checkpoint.restore_checkpoint(folder, optimizer, rank):
        checkpoint.restore_random_state(random)
    return progress


def _unfinished_run(
    work: Path, config: TrainConfig, identity: str, on_event: OnEvent, processes: int = 1
) -> tuple[runtime.RuntimeChoices | None, Path | None]:
    """Return the recorded choices of an unfinished run of this identity, and its newest undamaged checkpoint.

    What cannot be resumed is reported as an event, then removed.
    """
    recorded = runtime.recorded_choices(work)
    folder, damage = checkpoint.newest_checkpoint(work)
    for text in damage:
        on_event({"event": "train.damage", "reason": f"{text}; an older checkpoint is taken, or none"})
    differs = recorded is not None and recorded.identity != identity
    if differs or (folder and checkpoint.read_progress(folder).identity != identity):
        reason = runtime.changed_settings(recorded.settings if recorded else {}, config)
        on_event({"event": "train.restart", "reason": reason})
        clear_work_folder(work)
        return None, None
    checkpoint.remove_checkpoints_after(work, folder)
    if recorded is None and folder:
        on_event(
            {"event": "train.moved", "reason": "what the run had chosen is not known any more; chosen again"}
        )
    changes = recorded.environment_changes(processes) if recorded else []
    for text in changes if folder else ():
        on_event({"event": "train.moved", "reason": f"{text}: the last digits of the weights may differ"})
    return recorded, folder


def clear_work_folder(work: Path) -> None:
    """Remove the choices and checkpoints of an earlier run, but not the lock that the caller holds."""
    (work / runtime.CHOICES_FILE).unlink(missing_ok=True)
    checkpoint.remove_checkpoints_after(work)


def refuse_unfinished(work: Path) -> None:
    """Raise UsageProblem when the work folder holds checkpoints, which a new run would remove."""
    folder, _ = checkpoint.newest_checkpoint(work)
    if folder:
        raise UsageProblem(
            f"{work} has an unfinished run, {checkpoint.read_progress(folder).step} steps of it done",
            "continue with --resume, or start again with --overwrite",
        )


def manifest_facts(
    loop: TrainingLoop, data: dict[str, Any], identity: str, origin: RunOrigin, result: TrainResult
) -> dict[str, Any]:
    """Return what the manifest records of a run besides its base and files.

    Args:
        loop: The finished loop.
        data: Counts and hash of the training rows.
        identity: Hash of everything the result depends on.
        origin: Files, teachers, plan and reasons of the settings.
        result: The result of the loop.
    """
    note = {"optimizer": loop.optimizer.note} if loop.optimizer.note else {}
    if left_out := lora.adapter_note(loop.net):
        note["adapter"] = left_out
    return {
        "data": {
            **data,
            "files": list(origin.files),
            **({"teachers": teachers_to_json(origin.teachers)} if origin.teachers else {}),
        },
        "identity": identity,
        "result": result.to_json(),
        "plan_sha256": origin.plan_sha256,
        "reasons": {
            **origin.reasons,
            "checkpointing": loop.choices.checkpointing.reason,
            "compiling": loop.loss.compiling,
            **note,
        },
    }


def publish_weights(loop: TrainingLoop, base: Model, out: Path, facts: dict[str, Any]) -> None:
    """Write the tuned weights into the work folder, then replace ``out`` by them in one rename.

    Every process of a group has to call it; rank 0 writes. ``facts`` are those of :func:`manifest_facts`. Raises CannotRun
    when the disk is full.
    """
    sharded = loop.optimizer.sharded
    tensors = prepared_model.whole_weights(loop.net, loop.compute, loop.group) if sharded else None

    def write() -> None:
        tmp = loop.work / "out"
        shutil.rmtree(tmp, ignore_errors=True)
        config = loop.config.to_json()
        recorded = {"name": base.name, "method": config["method"], "config": config, **facts}
        try:
            with disk_full_as_problem(out):
                tmp.mkdir(parents=True)
                write_text(tmp / TRAINING_LOG, "".join(json.dumps(row) + "\n" for row in loop.log()))
                lora.save_weights(loop.net, tmp, base, loop.work / TOKENIZER, recorded, tensors)
                if out.exists():
                    out.rename(loop.work / "replaced")
                publish_folder(tmp, out)
        except CannotRun:
            shutil.rmtree(tmp, ignore_errors=True)
            raise

    loop.group.first(write)


def finished_result(out: Path, identity: str, config: TrainConfig, on_event: OnEvent) -> TrainResult | None:
    """Return the result recorded in ``out`` when it is undamaged and of this identity.

    Otherwise return None and report as an event why it will be trained again.
    """
    kind = "adapter" if (out / "adapter_config.json").is_file() else "model"
    try:
        manifest = check_manifest(out, kind, (CARD_FILE,))
    except BadInput as error:
        on_event({"event": "train.damage", "reason": f"{error.message}; it is made again"})
        return None
    if manifest.get("identity") != identity:
        why = runtime.changed_settings(manifest.get("config", {}), config)
        on_event({"event": "train.restart", "reason": f"{why}; {out} stays until its successor is whole"})
        return None
    on_event({"event": "train.skip", "folder": str(out)})
    result = manifest["result"]
    return TrainResult(folder=out, **{**result, "notes": tuple(result["notes"])})
