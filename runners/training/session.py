"""How a training run begins: from nothing, or from what an unfinished one left in the work folder. Heavy.

How a training run ends: its result takes the place of the folder it was asked for, whole or not at all. Heavy.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import check_manifest, disk_full_as_problem, publish_folder, write_text
from rag.types import OnEvent
from runners.models.cards import CARD_FILE
from runners.models.resolve import Model
from runners.plan.train_config import RunOrigin, TrainConfig, TrainResult
from runners.tokenization.chat_template import EncodedRow
from runners.training import checkpoint, lora, runtime, schedule
from runners.training.checkpoint import TrainingProgress
from runners.training.loop import TrainingLoop
from runners.training.loss import choose_loss, restore_loss
from runners.training.optimizer import MasterOptimizer


def start_training(
    rows: list[EncodedRow],
    valid: list[EncodedRow],
    config: TrainConfig,
    base: Model,
    work: Path,
    identity: str,
    tell: OnEvent,
) -> TrainingLoop:
    """Load the base, attach what is trained, plan every step, and go back to the last checkpoint if any."""
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise CannotRun(
            f"training runs in one process, not in {accelerator.num_processes}", "start it without a launcher"
        )
    chosen, folder = _kept(work, config, identity, tell)
    begun = chosen is not None
    chosen = chosen or runtime.choose_runtime(base, config, rows, identity)
    checkpoint.seed_everything(config.seed)
    net = lora.prepare_model(base, config, chosen.checkpointing.on, chosen.dtype)
    passes = schedule.plan_steps(
        [len(row.ids) for row in rows], config.batch_tokens, config.epochs, config.seed
    )
    if begun:
        loss = restore_loss(net, chosen.path, chosen.reason)
    else:
        tokens = sum(len(rows[i].ids) for one in passes for step in one for i in step)
        loss = choose_loss(net, rows, tokens, config.kernels)
        chosen.path, chosen.reason = loss.path, loss.reason
        chosen.write(work)
    optimizer = MasterOptimizer(
        lora.trainable_parameters(net),
        config.learning_rate,
        config.weight_decay,
        config.max_grad_norm,
        config.optimizer,
        config.lora_plus,
    )
    # Probing may have drawn numbers, and a run that goes on does not probe.
    checkpoint.seed_everything(config.seed)
    progress = TrainingProgress(identity)
    if folder:
        progress = checkpoint.read_progress(folder)
        checkpoint.restore_random_state(checkpoint.restore_checkpoint(folder, optimizer))
    return TrainingLoop(
        config, net, loss, optimizer, accelerator, rows, valid, passes, work, progress, chosen, tell
    )


def _kept(
    work: Path, config: TrainConfig, identity: str, tell: OnEvent
) -> tuple[runtime.RuntimeChoices | None, Path | None]:
    """Return what an unfinished run of this identity chose and its newest whole checkpoint.

    Whatever cannot be gone on with is told, then removed.
    """
    found = runtime.recorded_choices(work)
    folder, damage = checkpoint.newest_checkpoint(work)
    for text in damage:
        tell({"event": "train.damage", "reason": f"{text}; an older checkpoint is taken, or none"})
    other = found is not None and found.identity != identity
    if other or (folder and checkpoint.read_progress(folder).identity != identity):
        reason = runtime.changed_settings(found.settings if found else {}, config)
        tell({"event": "train.restart", "reason": reason})
        clear_work_folder(work)
        return None, None
    checkpoint.remove_checkpoints_after(work, folder)
    if found is None and folder:
        tell(
            {"event": "train.moved", "reason": "what the run had chosen is not known any more; chosen again"}
        )
    for text in found.moved() if found and folder else ():
        tell({"event": "train.moved", "reason": f"{text}: the last digits of the weights may differ"})
    return found, folder


def clear_work_folder(work: Path) -> None:
    """Remove what an earlier run left; the lock that the caller holds stays."""
    (work / runtime.CHOICES_FILE).unlink(missing_ok=True)
    checkpoint.remove_checkpoints_after(work)


def refuse_unfinished(work: Path) -> None:
    """Raise UsageProblem when checkpoints would be lost."""
    folder, _ = checkpoint.newest_checkpoint(work)
    if folder:
        raise UsageProblem(
            f"{work} holds an unfinished run, {checkpoint.read_progress(folder).step} steps of it done",
            "go on with --resume, or start again with --overwrite",
        )


TRAINING_LOG = "training.jsonl"
"""Every step's loss, gradient norm and learning rate, and every validation loss, beside the weights."""


def manifest_facts(
    loop: TrainingLoop, data: dict[str, Any], identity: str, origin: RunOrigin, result: TrainResult
) -> dict[str, Any]:
    """Return what the manifest keeps of a run beside its base and files."""
    note = {"optimizer": loop.optimizer.note} if loop.optimizer.note else {}
    return {
        "data": {**data, "files": list(origin.files)},
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


def publish_weights(loop: TrainingLoop, base: Model, out: Path, kept: dict[str, Any]) -> None:
    """Write the tuned weights beside the checkpoints, then let them take ``out``'s place in one rename."""
    tmp = loop.work / "out"
    shutil.rmtree(tmp, ignore_errors=True)
    config = loop.config.to_json()
    kept = {"name": base.name, "method": config["method"], "config": config, **kept}
    try:
        with disk_full_as_problem(out):
            tmp.mkdir(parents=True)
            write_text(tmp / TRAINING_LOG, "".join(json.dumps(row) + "\n" for row in loop.log()))
            lora.save_weights(loop.net, tmp, base, kept)
            if out.exists():
                out.rename(loop.work / "replaced")
            publish_folder(tmp, out)
    except CannotRun:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def finished_result(out: Path, identity: str, config: TrainConfig, tell: OnEvent) -> TrainResult | None:
    """Return the result kept in a whole ``out`` of the same identity, else tell why it will be made again."""
    kind = "adapter" if (out / "adapter_config.json").is_file() else "model"
    try:
        manifest = check_manifest(out, kind, (CARD_FILE,))
    except BadInput as error:
        tell({"event": "train.damage", "reason": f"{error.message}; it is made again"})
        return None
    if manifest.get("identity") != identity:
        why = runtime.changed_settings(manifest.get("config", {}), config)
        tell({"event": "train.restart", "reason": f"{why}; {out} stays until its successor is whole"})
        return None
    tell({"event": "train.skip", "folder": str(out)})
    result = manifest["result"]
    return TrainResult(folder=out, **{**result, "notes": tuple(result["notes"])})
