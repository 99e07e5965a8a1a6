"""Tuning a model on examples: the one way in, for lora, qlora and full. Heavy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

from rag.durable import canonical_json, check_manifest, sha256_text, writer_lock  # noqa: E402
from rag.errors import UsageProblem  # noqa: E402
from runners import attach, expected, interrupt, predecessor, preflight, room  # noqa: E402
from runners.card import CARD  # noqa: E402
from runners.chat import Chat, Encoded  # noqa: E402
from runners.data import Example  # noqa: E402
from runners.loop import Loop  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.publish import facts, finished, publish  # noqa: E402
from runners.start import clear, refuse_unfinished, start  # noqa: E402
from runners.tokencache import Tokens  # noqa: E402
from runners.tuning import KERNELS, Origin, TrainConfig, TrainResult  # noqa: E402

__all__ = ["Origin", "TrainConfig", "TrainResult", "fit"]

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
        predecessor.require(config.init_adapter)
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
        if done := finished(out, identity, config, tell):
            shutil.rmtree(work, ignore_errors=True)
            return done
    with writer_lock(work):
        if not resume:
            refuse_unfinished(work)
            clear(work)
        tokens.keep()
        loop = start(used, held_out, config, model, work, identity, tell)
        tell(_started(loop, report))
        loop.run()
        result = loop.result(out, len(report.too_long))
        result = replace(result, notes=(*result.notes, *said), expected_gib=_expected(loop, model))
        with interrupt.held():
            publish(loop, model, out, facts(loop, data, identity, origin, result))
    shutil.rmtree(work, ignore_errors=True)
    tell({"event": "train.end", **result.to_json()})
    return result


def _expected(loop: Loop, model: Model) -> float | None:
    rows, on = room.largest_pass(loop.rows, loop.config), loop.choices.checkpointing.on
    return expected.expected_gib(model.folder, loop.config, loop.loss, rows, on)


def work_of(out: Path) -> Path:
    """Return the folder of the checkpoints of a run that will publish ``out``."""
    return out.parent / f".{out.name}.work"


def _started(loop: Loop, report: preflight.Preflight) -> dict[str, Any]:
    event = {"event": "train.start", "method": loop.config.method, "rows": report.used}
    event |= {"tokens": sum(loop.step_tokens), "steps": len(loop.steps), "from_step": loop.progress.step}
    event |= {"trainable": loop.trainable, "path": loop.loss.path, "reason": loop.loss.reason}
    event |= {"kernels": loop.config.kernels, "compiling": loop.loss.compiling}
    event |= {"checkpointing": loop.choices.checkpointing.reason}
    event |= {"optimizer": loop.optimizer.note or loop.config.optimizer}
    return event | {"warnings": list(report.warnings)}


def _valid_rows(valid: Sequence[Example], chat: Chat, config: TrainConfig) -> list[Encoded]:
    if not valid:
        return []
    rows, report = preflight.inspect(valid, chat, config)
    report.require()
    return rows


def _identity(config: TrainConfig, model: Model, data: dict[str, Any], valid: list[Encoded]) -> str:
    """Hash everything the result depends on, an adapter to go on from by its content and not its place.

    How often checkpoints are written is no part of it.
    """
    settings = asdict(replace(config, init_adapter=None, checkpoint_steps=0))
    if config.kernels == KERNELS[0]:
        del settings["kernels"]  # runs from before there was a choice keep their identity
    begun = check_manifest(config.init_adapter, "adapter", (CARD,))["files"] if config.init_adapter else None
    held_out = [[row.ids, row.learnt] for row in valid]
    return _hash([settings, begun, model.fingerprint, data, held_out])


def _hash(value: Any) -> str:
    return sha256_text(canonical_json(value))


def _silent(event: dict[str, Any]) -> None:
    """Take no notice of an event."""
