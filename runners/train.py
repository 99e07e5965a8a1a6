"""Tuning a model on examples: the one way in, for lora, qlora and full. Heavy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402

from rag.durable import (  # noqa: E402
    canonical_json,
    check_manifest,
    publish_folder,
    sha256_text,
    write_json,
    writer_lock,
)
from rag.errors import BadInput, CannotRun, UsageProblem  # noqa: E402
from runners import attach, checkpoint, preflight, recompute, schedule  # noqa: E402
from runners.card import CARD  # noqa: E402
from runners.chat import Chat, Encoded  # noqa: E402
from runners.checkpoint import Progress  # noqa: E402
from runners.data import Example  # noqa: E402
from runners.fingerprint import read_json  # noqa: E402
from runners.load import dtype_for, free_gib  # noqa: E402
from runners.loop import Loop  # noqa: E402
from runners.loss import choose  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.optimizer import Optimizer  # noqa: E402
from runners.tuning import Origin, TrainConfig, TrainResult  # noqa: E402

__all__ = ["Origin", "TrainConfig", "TrainResult", "fit"]

CHOICES = "choices.json"
"""What was chosen by the state of this machine, beside the checkpoints: a resumed run does the same."""

Tell = Callable[[dict[str, Any]], None]


def fit(
    rows: Sequence[Example],
    config: TrainConfig,
    model: Model,
    out: Path,
    valid: Sequence[Example] = (),
    on_event: Tell | None = None,
    resume: bool = False,
    origin: Origin = Origin(),
) -> TrainResult:
    """Tune ``model`` on the assistant turns of ``rows`` and publish the result as the folder ``out``.

    With ``resume`` a finished ``out`` of the same settings, base and data is returned as it is, and an
    unfinished run goes on from its last checkpoint, to the weights it would have had. Ctrl-C leaves such a
    checkpoint. Raises BadInput when the data would ruin the run or the loss stops being a number,
    UsageProblem when ``out`` exists and ``resume`` is not given.
    """
    tell = on_event or _silent
    chat = Chat(model.folder)
    used, report = preflight.inspect(rows, chat, config)
    report.require()
    held_out = _valid_rows(valid, chat, config)
    data: dict[str, Any] = {"rows": report.used, "left_out": len(report.too_long)}
    data |= {"valid_rows": len(held_out), "sha256": _hash([[row.ids, row.learnt] for row in used])}
    identity = _identity(config, model, data, held_out)
    if out.exists() and any(out.iterdir()):
        if not resume:
            raise UsageProblem(f"{out} exists", "continue with --resume, or choose another folder")
        if done := _finished(out, identity):
            tell({"event": "train.skip", "folder": str(out)})
            return done
    work = out.parent / f".{out.name}.work"
    with writer_lock(work):
        if not resume:
            _clear(work)
            (work / CHOICES).unlink(missing_ok=True)
        memory = _recompute(model, config, used, work, identity)
        loop = _start(used, held_out, config, model, work, identity, memory, tell)
        tell(_started(loop, report, memory))
        loop.run()
        result = loop.result(out, len(report.too_long))
        said = [memory.reason] if memory.on else []
        said += [loop.optimizer.note] if loop.optimizer.note else []
        result = replace(result, notes=(*result.notes, *said))
        facts = {
            "data": {**data, "files": list(origin.files)},
            "identity": identity,
            "result": result.to_json(),
        }
        facts |= {"plan_sha256": origin.plan_sha256, "reasons": _reasons(origin, memory, loop.optimizer)}
        _publish(loop, model, out, facts)
    shutil.rmtree(work, ignore_errors=True)
    tell({"event": "train.end", **result.to_json()})
    return result


def _start(
    rows: list[Encoded],
    valid: list[Encoded],
    config: TrainConfig,
    base: Model,
    work: Path,
    identity: str,
    memory: recompute.Choice,
    tell: Tell,
) -> Loop:
    """Load the base, attach what is trained, plan every step, and go back to the last checkpoint if any."""
    torch.manual_seed(config.seed)
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise CannotRun(
            f"training runs in one process, not in {accelerator.num_processes}", "start it without a launcher"
        )
    net = attach.attach(base, config, memory.on)
    loss = choose(net, rows)
    optimizer = Optimizer(
        attach.trained(net), config.learning_rate, config.weight_decay, config.max_grad_norm,
        config.optimizer, config.lora_plus,
    )  # fmt: skip
    passes = schedule.plan([len(row.ids) for row in rows], config.batch_tokens, config.epochs, config.seed)
    progress, best = Progress(identity), None
    if folder := checkpoint.latest(work):
        found = checkpoint.peek(folder)
        if found.identity == identity:
            progress, best = found, checkpoint.restore(folder, optimizer)
        else:
            tell({"event": "train.restart", "reason": "settings, base or data changed since the checkpoint"})
            _clear(work)
    return Loop(config, net, loss, optimizer, accelerator, rows, valid, passes, work, progress, best, tell)


def _recompute(
    base: Model, config: TrainConfig, rows: list[Encoded], work: Path, identity: str
) -> recompute.Choice:
    """Choose whether to compute activations again, as before when the run goes on."""
    kept = read_json(work / CHOICES)
    if kept.get("identity") == identity:
        return recompute.Choice(**kept["checkpointing"])
    longest = max(len(row.ids) for row in rows)
    half = dtype_for()[0] == torch.bfloat16
    choice = recompute.decide(base.folder, config, longest, free_gib(), half)
    write_json(work / CHOICES, {"identity": identity, "checkpointing": asdict(choice)})
    return choice


def _reasons(origin: Origin, memory: recompute.Choice, optimizer: Optimizer) -> dict[str, str]:
    found = {**origin.reasons, "checkpointing": memory.reason}
    return found | ({"optimizer": optimizer.note} if optimizer.note else {})


def _started(loop: Loop, report: preflight.Preflight, memory: recompute.Choice) -> dict[str, Any]:
    event = {"event": "train.start", "method": loop.config.method, "rows": report.used}
    event |= {"tokens": sum(loop.step_tokens), "steps": len(loop.steps), "from_step": loop.progress.step}
    event |= {"trainable": loop.trainable, "path": loop.loss.path, "reason": loop.loss.reason}
    event |= {"checkpointing": memory.reason, "optimizer": loop.optimizer.note or loop.config.optimizer}
    return event | {"warnings": list(report.warnings)}


def _publish(loop: Loop, base: Model, out: Path, facts: dict[str, Any]) -> None:
    """Write the tuned weights beside the checkpoints, then let them take ``out``'s place in one rename."""
    tmp = loop.work / "out"
    shutil.rmtree(tmp, ignore_errors=True)
    config = loop.config.to_json()
    attach.save(
        loop.net, tmp, base, {"name": base.name, "method": config["method"], "config": config, **facts}
    )
    if out.exists():
        shutil.rmtree(out)
    publish_folder(tmp, out)


def _valid_rows(valid: Sequence[Example], chat: Chat, config: TrainConfig) -> list[Encoded]:
    if not valid:
        return []
    rows, report = preflight.inspect(valid, chat, config)
    report.require()
    return rows


def _finished(out: Path, identity: str) -> TrainResult | None:
    """Return the result kept in a whole ``out`` of the same identity, else None: it will be made again."""
    kind = "adapter" if (out / "adapter_config.json").is_file() else "model"
    try:
        manifest = check_manifest(out, kind, (CARD,))
    except BadInput:
        return None
    if manifest.get("identity") != identity:
        return None
    result = manifest["result"]
    return TrainResult(folder=out, **{**result, "notes": tuple(result["notes"])})


def _identity(config: TrainConfig, model: Model, data: dict[str, Any], valid: list[Encoded]) -> str:
    """Hash everything the result depends on, an adapter to go on from by its content and not its place."""
    settings = asdict(replace(config, init_adapter=None))
    begun = check_manifest(config.init_adapter, "adapter", (CARD,))["files"] if config.init_adapter else None
    held_out = [[row.ids, row.learnt] for row in valid]
    return _hash([settings, begun, model.fingerprint, data, held_out])


def _clear(work: Path) -> None:
    """Remove checkpoints; the lock that the caller holds stays."""
    for old in (*work.glob("step-*"), *work.glob(".step-*")):
        shutil.rmtree(old)


def _hash(value: Any) -> str:
    return sha256_text(canonical_json(value))


def _silent(event: dict[str, Any]) -> None:
    """Take no notice of an event."""
