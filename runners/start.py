"""How a training run begins: from nothing, or from what an unfinished one left in the work folder. Heavy."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from rag.errors import CannotRun, UsageProblem
from rag.types import OnEvent
from runners import attach, checkpoint, choices, randomness, schedule
from runners.chat import Encoded
from runners.checkpoint import Progress
from runners.loop import Loop
from runners.loss import choose, restore
from runners.models import Model
from runners.optimizer import Optimizer
from runners.tuning import TrainConfig


def start(
    rows: list[Encoded],
    valid: list[Encoded],
    config: TrainConfig,
    base: Model,
    work: Path,
    identity: str,
    tell: OnEvent,
) -> Loop:
    """Load the base, attach what is trained, plan every step, and go back to the last checkpoint if any."""
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise CannotRun(
            f"training runs in one process, not in {accelerator.num_processes}", "start it without a launcher"
        )
    chosen, folder = _kept(work, config, identity, tell)
    begun = chosen is not None
    chosen = chosen or choices.decide(base, config, rows, identity)
    randomness.seed(config.seed)
    net = attach.attach(base, config, chosen.checkpointing.on, chosen.dtype)
    passes = schedule.plan([len(row.ids) for row in rows], config.batch_tokens, config.epochs, config.seed)
    if begun:
        loss = restore(net, chosen.path, chosen.reason)
    else:
        tokens = sum(len(rows[i].ids) for one in passes for step in one for i in step)
        loss = choose(net, rows, tokens, config.kernels)
        chosen.path, chosen.reason = loss.path, loss.reason
        chosen.write(work)
    optimizer = Optimizer(
        attach.trained(net), config.learning_rate, config.weight_decay, config.max_grad_norm,
        config.optimizer, config.lora_plus,
    )  # fmt: skip
    # Probing may have drawn numbers, and a run that goes on does not probe.
    randomness.seed(config.seed)
    progress = Progress(identity)
    if folder:
        progress = checkpoint.peek(folder)
        randomness.restore(checkpoint.restore(folder, optimizer))
    return Loop(config, net, loss, optimizer, accelerator, rows, valid, passes, work, progress, chosen, tell)


def _kept(
    work: Path, config: TrainConfig, identity: str, tell: OnEvent
) -> tuple[choices.Choices | None, Path | None]:
    """Return what an unfinished run of this identity chose and its newest whole checkpoint.

    Whatever cannot be gone on with is told, then removed.
    """
    found = choices.kept(work)
    folder, damage = checkpoint.newest(work)
    for text in damage:
        tell({"event": "train.damage", "reason": f"{text}; an older checkpoint is taken, or none"})
    other = found is not None and found.identity != identity
    if other or (folder and checkpoint.peek(folder).identity != identity):
        reason = choices.changed(found.settings if found else {}, config)
        tell({"event": "train.restart", "reason": reason})
        clear(work)
        return None, None
    checkpoint.forget(work, folder)
    if found is None and folder:
        tell(
            {"event": "train.moved", "reason": "what the run had chosen is not known any more; chosen again"}
        )
    for text in found.moved() if found and folder else ():
        tell({"event": "train.moved", "reason": f"{text}: the last digits of the weights may differ"})
    return found, folder


def clear(work: Path) -> None:
    """Remove what an earlier run left; the lock that the caller holds stays."""
    (work / choices.FILE).unlink(missing_ok=True)
    checkpoint.forget(work)


def refuse_unfinished(work: Path) -> None:
    """Raise UsageProblem when checkpoints would be lost."""
    folder, _ = checkpoint.newest(work)
    if folder:
        raise UsageProblem(
            f"{work} holds an unfinished run, {checkpoint.peek(folder).step} steps of it done",
            "go on with --resume, or start again with --overwrite",
        )
