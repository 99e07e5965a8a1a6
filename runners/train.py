"""Tune a model on examples with LoRA, QLoRA or all weights: :func:`fit` checks, trains and publishes.

A run may continue an existing adapter, whose rank, alpha, variant and targets then replace the settings. Imports torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import canonical_json, check_manifest, sha256_text, writer_lock
from rag.types import OnEvent
from runners import interrupts
from runners.data.examples import Example
from runners.data.teachers import (
    RowTeacher,
    joined_teachers,
    recorded_teachers,
    teachers_of_rows,
    teachers_to_json,
)
from runners.distributed import environment as launch_environment
from runners.distributed import process_group
from runners.inference import weights
from runners.models.cards import CARD_FILE
from runners.models.fingerprint import fingerprint, read_json
from runners.models.resolve import Model
from runners.paths import work_folder
from runners.plan.train_config import ALL_LINEAR, KERNELS, RunOrigin, TrainConfig, TrainResult
from runners.preflight import machine_checks, run_checks
from runners.resources.device import INITIAL_LOSS_SCALE
from runners.resources.environment import limit_kernel_cache
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.token_cache import TokenCache
from runners.training import lora, runtime
from runners.training.loop import TrainingLoop
from runners.training.session import (
    TrainingJob,
    clear_work_folder,
    finished_result,
    manifest_facts,
    publish_weights,
    refuse_unfinished,
    start_training,
)

limit_kernel_cache()

PEFT_CONFIG_FILE = "adapter_config.json"


def require_adapter_folder(folder: Path) -> None:
    """Raise BadInput when a folder holds no adapter, as that of a model tuned in full does not."""
    if not (folder / PEFT_CONFIG_FILE).is_file():
        raise BadInput(
            f"{folder} has no adapter to continue from", "name a folder that lora or qlora training made"
        )


def settings_from_adapter(config: TrainConfig) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return the settings with rank, alpha, variant and targets of the adapter that is continued, and notes on changes.

    Without such an adapter nothing changes. Raises BadInput when the settings ask for another variant than it has.
    """
    if config.init_adapter is None:
        return config, ()
    adapter = read_json(config.init_adapter / PEFT_CONFIG_FILE)
    variant = _variant(adapter)
    if config.variant not in ("lora", variant):
        raise BadInput(
            f"{config.init_adapter} is a {variant} adapter, which cannot be continued as {config.variant}",
            f"remove variant: it stays {variant}",
        )
    has: dict[str, Any] = {
        "rank": int(adapter["r"]),
        "alpha": float(adapter["lora_alpha"]),
        "variant": variant,
    }
    notes = [
        f"{name} {value} is that of the adapter given with --init-adapter, not {getattr(config, name)}"
        for name, value in has.items()
        if name != "variant" and value != getattr(config, name)
    ]
    targets = tuple(sorted(adapter["target_modules"]))
    if config.targets not in (ALL_LINEAR, targets):
        notes.append(f"targets are those of the adapter given with --init-adapter: {', '.join(targets)}")
    # Not validated: the rank and alpha of an adapter need not be within the bounds of the settings.
    return config.model_copy(update={"targets": targets, **has}), tuple(notes)


def fit(
    rows: Sequence[Example],
    config: TrainConfig,
    model: Model,
    out: Path,
    valid: Sequence[Example] = (),
    on_event: OnEvent | None = None,
    resume: bool = False,
    origin: RunOrigin = RunOrigin(),
    loss_scale: float = INITIAL_LOSS_SCALE,
) -> TrainResult:
    """Tune ``model`` on the assistant turns of ``rows`` and publish the result as the folder ``out``.

    With ``resume`` a finished ``out`` of the same settings, base and data is returned unchanged; an unfinished run
    continues from its last checkpoint, on the same machine to the weights and log of an uninterrupted run, bit for bit.

    Args:
        rows: Training examples.
        config: Settings of the run.
        model: The base model.
        out: Folder of the result.
        valid: Validation examples; without any there is no validation.
        on_event: Receives the events of the run.
        resume: Whether to continue an unfinished run. SIGINT and SIGTERM write a checkpoint, then have their usual effect.
        origin: Files, plan and reasons of the settings, for the manifest.
        loss_scale: The loss scale that a run in float16 begins with; it is halved after each step that overflows.

    In a group that a launcher such as torchrun started, every process calls it: rank 0 checks, decides, writes and
    reports, the others follow it whatever their arguments are, and all return its result.

    Raises BadInput when the data would ruin the run or the loss diverges, UsageProblem when ``out`` or an unfinished run
    exists and ``resume`` is not given, CannotRun when memory or disk space do not suffice, RestartGroup when another
    process of the group is lost.
    """
    on_event = on_event or _ignore_event
    if launch_environment.is_follower():
        return follow_training()
    with process_group.lead() as leader:
        request = _FitRequest(
            rows=rows,
            config=config,
            model=model,
            out=out,
            valid=valid,
            on_event=on_event,
            resume=resume,
            origin=origin,
            loss_scale=loss_scale,
        )
        return _fit(request, leader)


def follow_training() -> TrainResult:
    """Take part in rank 0's next training, as one of the other processes of a group, and return its result.

    Raises GroupEnded when no training comes any more, and the Problem for which rank 0 refused the training.
    """
    with process_group.next_training() as group:
        if isinstance(group, dict):  # trained before
            return _result_from_json(group)
        # A function of its own: the loop has to be gone before the group is left.
        return _follow(group)


def _follow(group: process_group.ProcessGroup) -> TrainResult:
    """Carry out a follower's part of one training and return its result."""
    job = TrainingJob.from_json(group.broadcast(None))
    _require_model(job.base, group)
    loop = start_training(job, _ignore_event, group)
    loop.run()
    publish_weights(loop, job.base, job.out, {})
    result: dict[str, Any] = group.broadcast(None)
    return _result_from_json({"folder": str(job.out), **result})


def _result_from_json(values: dict[str, Any]) -> TrainResult:
    """Return the result that rank 0 sent."""
    return TrainResult(**{**values, "folder": Path(values["folder"]), "notes": tuple(values["notes"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class _FitRequest:
    """The arguments of :func:`fit`."""

    rows: Sequence[Example]
    config: TrainConfig
    model: Model
    out: Path
    valid: Sequence[Example]
    on_event: OnEvent
    resume: bool
    origin: RunOrigin
    loss_scale: float


def _fit(request: _FitRequest, leader: process_group.TrainingLead) -> TrainResult:
    """Check, train and publish in one process or as rank 0 of a group; see :func:`fit`."""
    config, model, out, on_event = request.config, request.model, request.out, request.on_event
    if config.init_adapter:
        require_adapter_folder(config.init_adapter)
        weights.check_same_base(config.init_adapter, model, "adapter")
    config, adapter_notes = settings_from_adapter(config)
    chat, work = ChatTokenizer(model.folder, config.thinking), work_folder(out)
    tokens = TokenCache(work)
    used, report = run_checks.inspect_rows(request.rows, chat, config, tokens)
    report.require()
    held_out = _valid_rows(request.valid, chat, config)
    data = _data_facts(used, held_out, report)
    identity = _identity(config, model, data, held_out)
    if out.exists() and any(out.iterdir()):
        if not request.resume:
            raise UsageProblem(f"{out} exists", "continue with --resume, or choose another folder")
        if done := finished_result(out, identity, config, on_event):
            _remove_leftovers(work)
            leader.skipped = {"folder": str(out.absolute()), **done.to_json()}
            return done
    with writer_lock(work):
        if not request.resume:
            refuse_unfinished(work)
            clear_work_folder(work)
        tokens.keep()
        group = leader.join()
        job = TrainingJob(
            rows=used,
            valid=held_out,
            config=config,
            base=model,
            out=out,
            work=work,
            identity=identity,
            loss_scale=request.loss_scale,
        )
        if group.size > 1:
            group.broadcast(job.to_json())
            _require_model(model, group)
        loop = start_training(job, on_event, group)
        origin = replace(request.origin, teachers=_teachers(request))
        on_event(_started(loop, report, origin))
        loop.run()
        result = _result(loop, model, out, report, adapter_notes)
        with interrupts.deferred_signals(in_group=group.size > 1):
            publish_weights(loop, model, out, manifest_facts(loop, data, identity, origin, result))
        group.broadcast(result.to_json())
        shutil.rmtree(work, ignore_errors=True)
    on_event({"event": "train.end", **result.to_json()})
    return result


def _teachers(request: _FitRequest) -> tuple[RowTeacher, ...]:
    """Return the teachers of the rows, and those of the adapter or the model that training starts from."""
    start = request.config.init_adapter
    before = [recorded_teachers(folder) for folder in (request.model.folder, start) if folder is not None]
    return joined_teachers(*before, teachers_of_rows(request.rows))


def _remove_leftovers(work: Path) -> None:
    """Remove the work folder of a finished training, unless another process trains there with other settings."""
    if work.is_dir():
        with suppress(BadInput), writer_lock(work):
            shutil.rmtree(work, ignore_errors=True)


def _require_model(base: Model, group: process_group.ProcessGroup) -> None:
    """Raise CannotRun in every process when one of them has no folder of the base, or one of other weights."""
    same = base.folder.is_dir() and fingerprint(base.folder) == base.fingerprint
    if group.any(not same):
        raise CannotRun(
            f"not every node has {base.name} in {base.folder}",
            "a folder that all nodes share, or the same cache on each",
        )


def _variant(adapter: dict[str, Any]) -> str:
    """Return the variant that PEFT's settings of an adapter describe."""
    if adapter.get("use_dora"):
        return "dora"
    return "rslora" if adapter.get("use_rslora") else "lora"


def _result(
    loop: TrainingLoop, model: Model, out: Path, report: run_checks.PreflightReport, notes: Sequence[str]
) -> TrainResult:
    """Return the result of a loop with more notes, and with the GiB that training was estimated to take."""
    result = loop.result(out, len(report.too_long))
    rows = machine_checks.largest_pass(loop.rows, loop.config)
    checkpointing = loop.choices.checkpointing.on
    expected = runtime.expected_gib(model.folder, loop.config, loop.loss, rows, checkpointing)
    return replace(result, notes=(*result.notes, *notes), expected_gib=expected)


def _started(loop: TrainingLoop, report: run_checks.PreflightReport, origin: RunOrigin) -> dict[str, Any]:
    """Return the event of the start of a run."""
    event: dict[str, Any] = {"event": "train.start", "method": loop.config.method, "rows": report.used}
    event |= {"tokens": sum(loop.step_tokens), "steps": len(loop.steps), "from_step": loop.progress.step}
    event |= {"trainable": loop.trainable, "path": loop.loss.path, "reason": loop.loss.reason}
    event |= {"kernels": loop.config.kernels, "compiling": loop.loss.compiling}
    event |= {"checkpointing": loop.choices.checkpointing.reason}
    event |= {"optimizer": loop.optimizer.note or loop.config.optimizer}
    if loop.group.size > 1:
        event |= {"processes": loop.group.size, "parallel": loop.choices.parallel_reason}
    if note := lora.adapter_note(loop.net):
        event |= {"adapter": note}
    if origin.teachers:
        event |= {"teachers": teachers_to_json(origin.teachers)}
    return event | {"warnings": list(report.warnings)}


def _valid_rows(valid: Sequence[Example], chat: ChatTokenizer, config: TrainConfig) -> list[EncodedRow]:
    """Return the encoded validation rows; BadInput when they cannot be used."""
    if not valid:
        return []
    rows, report = run_checks.inspect_rows(valid, chat, config)
    report.require()
    return rows


def _data_facts(
    used: Sequence[EncodedRow], held_out: Sequence[EncodedRow], report: run_checks.PreflightReport
) -> dict[str, Any]:
    """Return the counts and the hash of the training rows, as the manifest records them."""
    return {
        "rows": report.used,
        "left_out": len(report.too_long),
        "valid_rows": len(held_out),
        "sha256": _hash([[row.ids, row.learnt] for row in used]),
    }


def _identity(
    config: TrainConfig,
    model: Model,
    data: dict[str, Any],
    valid: list[EncodedRow],
) -> str:
    """Return the hash of everything the result depends on, an adapter that is continued by its content, not its path.

    How often checkpoints are written does not count, nor the usual kernels.
    """
    settings = config.to_json() | {"init_adapter": None, "checkpoint_steps": 0}
    if config.kernels == KERNELS[0]:
        del settings["kernels"]
    settings.pop("parallel", None)  # a run may be continued in another number of processes
    adapter_files = (
        check_manifest(config.init_adapter, "adapter", (CARD_FILE,))["files"] if config.init_adapter else None
    )
    held_out = [[row.ids, row.learnt] for row in valid]
    return _hash([settings, adapter_files, model.fingerprint, data, held_out])


def _hash(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    return sha256_text(canonical_json(value))


def _ignore_event(event: dict[str, Any]) -> None:
    """Do nothing with an event."""
