"""Tuning a model on examples: the one way in, for lora, qlora and full. Heavy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

from accelerate import Accelerator  # noqa: E402

from rag.durable import (  # noqa: E402
    canonical_json,
    check_manifest,
    publish_folder,
    sha256_text,
    write_text,
    writer_lock,
    writing_into,
)
from rag.errors import BadInput, CannotRun, UsageProblem  # noqa: E402
from runners import (  # noqa: E402
    attach,
    checkpoint,
    choices,
    interrupt,
    predecessor,
    preflight,
    randomness,
    schedule,
)
from runners.card import CARD  # noqa: E402
from runners.chat import Chat, Encoded  # noqa: E402
from runners.checkpoint import Progress  # noqa: E402
from runners.data import Example  # noqa: E402
from runners.loop import Loop  # noqa: E402
from runners.loss import again, choose  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.optimizer import Optimizer  # noqa: E402
from runners.tokencache import Tokens  # noqa: E402
from runners.tuning import Origin, TrainConfig, TrainResult  # noqa: E402

__all__ = ["Origin", "TrainConfig", "TrainResult", "fit"]

LOG = "training.jsonl"
"""Every step's loss, gradient norm and learning rate, and every validation loss, beside the weights."""

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
    unfinished run goes on from its last checkpoint, to the weights and the log it would have had, bit for bit
    on the same machine. SIGINT and SIGTERM leave such a checkpoint, then do what they would have done.

    Raises BadInput when the data would ruin the run or the loss goes astray, UsageProblem when ``out`` or an
    unfinished run exists and ``resume`` is not given, CannotRun when memory or disk do not suffice.
    """
    tell = on_event or _silent
    if config.init_adapter:
        attach.check_made_on(config.init_adapter, model, "adapter")
    config, said = predecessor.settle(config)
    chat = Chat(model.folder)
    work = work_of(out)
    tokens = Tokens(work)
    used, report = preflight.inspect(rows, chat, config, tokens)
    report.require()
    held_out = _valid_rows(valid, chat, config)
    data: dict[str, Any] = {"rows": report.used, "left_out": len(report.too_long)}
    data |= {"valid_rows": len(held_out), "sha256": _hash([[row.ids, row.learnt] for row in used])}
    identity = _identity(config, model, data, held_out)
    if out.exists() and any(out.iterdir()):
        if not resume:
            raise UsageProblem(f"{out} exists", "continue with --resume, or choose another folder")
        if done := _finished(out, identity, config, tell):
            shutil.rmtree(work, ignore_errors=True)
            return done
    with writer_lock(work):
        if not resume:
            _refuse_unfinished(work)
            _clear(work)
        tokens.keep()
        loop = _start(used, held_out, config, model, work, identity, tell)
        tell(_started(loop, report))
        loop.run()
        result = loop.result(out, len(report.too_long))
        result = replace(result, notes=(*result.notes, *said))
        with interrupt.held():
            _publish(loop, model, out, _facts(loop, data, identity, origin, result))
    shutil.rmtree(work, ignore_errors=True)
    tell({"event": "train.end", **result.to_json()})
    return result


def work_of(out: Path) -> Path:
    """Return the folder of the checkpoints of a run that will publish ``out``."""
    return out.parent / f".{out.name}.work"


def _start(
    rows: list[Encoded],
    valid: list[Encoded],
    config: TrainConfig,
    base: Model,
    work: Path,
    identity: str,
    tell: Tell,
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
        loss = again(net, chosen.path, chosen.reason)
    else:
        loss = choose(net, rows, sum(len(rows[i].ids) for one in passes for step in one for i in step))
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
    work: Path, config: TrainConfig, identity: str, tell: Tell
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
        _clear(work)
        return None, None
    checkpoint.forget(work, folder)
    if found is None and folder:
        tell(
            {"event": "train.moved", "reason": "what the run had chosen is not known any more; chosen again"}
        )
    for text in found.moved() if found and folder else ():
        tell({"event": "train.moved", "reason": f"{text}: the last digits of the weights may differ"})
    return found, folder


def _started(loop: Loop, report: preflight.Preflight) -> dict[str, Any]:
    event = {"event": "train.start", "method": loop.config.method, "rows": report.used}
    event |= {"tokens": sum(loop.step_tokens), "steps": len(loop.steps), "from_step": loop.progress.step}
    event |= {"trainable": loop.trainable, "path": loop.loss.path, "reason": loop.loss.reason}
    event |= {"compiling": loop.loss.compiling}
    event |= {"compiling": loop.loss.compiling, "checkpointing": loop.choices.checkpointing.reason}
    event |= {"optimizer": loop.optimizer.note or loop.config.optimizer}
    return event | {"warnings": list(report.warnings)}


def _facts(
    loop: Loop, data: dict[str, Any], identity: str, origin: Origin, result: TrainResult
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


def _publish(loop: Loop, base: Model, out: Path, facts: dict[str, Any]) -> None:
    """Write the tuned weights beside the checkpoints, then let them take ``out``'s place in one rename."""
    tmp = loop.work / "out"
    shutil.rmtree(tmp, ignore_errors=True)
    config = loop.config.to_json()
    facts = {"name": base.name, "method": config["method"], "config": config, **facts}
    try:
        with writing_into(out):
            tmp.mkdir(parents=True)
            write_text(tmp / LOG, "".join(json.dumps(row) + "\n" for row in loop.log()))
            attach.save(loop.net, tmp, base, facts)
            if out.exists():
                out.rename(loop.work / "replaced")
            publish_folder(tmp, out)
    except CannotRun:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def _valid_rows(valid: Sequence[Example], chat: Chat, config: TrainConfig) -> list[Encoded]:
    if not valid:
        return []
    rows, report = preflight.inspect(valid, chat, config)
    report.require()
    return rows


def _finished(out: Path, identity: str, config: TrainConfig, tell: Tell) -> TrainResult | None:
    """Return the result kept in a whole ``out`` of the same identity, else tell why it will be made again."""
    kind = "adapter" if (out / "adapter_config.json").is_file() else "model"
    try:
        manifest = check_manifest(out, kind, (CARD,))
    except BadInput as error:
        tell({"event": "train.damage", "reason": f"{error.message}; it is made again"})
        return None
    if manifest.get("identity") != identity:
        why = choices.changed(manifest.get("config", {}), config)
        tell({"event": "train.restart", "reason": f"{why}; {out} stays until its successor is whole"})
        return None
    tell({"event": "train.skip", "folder": str(out)})
    result = manifest["result"]
    return TrainResult(folder=out, **{**result, "notes": tuple(result["notes"])})


def _identity(config: TrainConfig, model: Model, data: dict[str, Any], valid: list[Encoded]) -> str:
    """Hash everything the result depends on, an adapter to go on from by its content and not its place.

    How often checkpoints are written is no part of it.
    """
    settings = asdict(replace(config, init_adapter=None, checkpoint_steps=0))
    begun = check_manifest(config.init_adapter, "adapter", (CARD,))["files"] if config.init_adapter else None
    held_out = [[row.ids, row.learnt] for row in valid]
    return _hash([settings, begun, model.fingerprint, data, held_out])


def _clear(work: Path) -> None:
    """Remove what an earlier run left; the lock that the caller holds stays."""
    (work / choices.FILE).unlink(missing_ok=True)
    checkpoint.forget(work)


def _refuse_unfinished(work: Path) -> None:
    """Raise UsageProblem when checkpoints would be lost."""
    folder, _ = checkpoint.newest(work)
    if folder:
        raise UsageProblem(
            f"{work} holds an unfinished run, {checkpoint.peek(folder).step} steps of it done",
            "go on with --resume, or start again with --overwrite",
        )


def _all_tokens(rows: list[Encoded], config: TrainConfig) -> int:
    return int(config.epochs * sum(len(row.ids) for row in rows))


def _hash(value: Any) -> str:
    return sha256_text(canonical_json(value))


def _silent(event: dict[str, Any]) -> None:
    """Take no notice of an event."""
