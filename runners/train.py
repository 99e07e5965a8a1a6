"""Tuning a model on examples: the one way in, for lora, qlora and full. Heavy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag.types import OnEvent
from runners import hub

hub.close()

from rag.durable import MANIFEST, canonical_json, check_manifest, sha256_text, writer_lock  # noqa: E402
from rag.errors import UsageProblem  # noqa: E402
from runners import choices, expected, interrupt, predecessor, preflight, room, weights  # noqa: E402  # noqa: E402
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


def fit(
    rows: Sequence[Example],
    config: TrainConfig,
    model: Model,
    out: Path,
    valid: Sequence[Example] = (),
    on_event: OnEvent | None = None,
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
        weights.check_made_on(config.init_adapter, model, "adapter")
    config, said = predecessor.settle(config)
    chat = Chat(model.folder)
    work = work_of(out)
    tokens = Tokens(work)
    used, report = preflight.inspect(rows, chat, config, tokens)
    report.require()
    held_out = _valid_rows(valid, chat, config)
    data: dict[str, Any] = {"rows": report.used, "left_out": len(report.too_long)}
    data |= {"valid_rows": len(held_out), "sha256": _hash([[row.ids, row.learnt] for row in used])}
    identity = _identity(config, model, data, held_out, _recorded(out, work))
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


def _identity(
    config: TrainConfig,
    model: Model,
    data: dict[str, Any],
    valid: list[Encoded],
    recorded: Container[str] = (),
) -> str:
    """Hash everything the result depends on, an adapter to go on from by its content and not its place.

    How often checkpoints are written is no part of it. Earlier versions hashed epochs and alpha as they were given, so
    2 and 2.0 had different identities; where one of those is ``recorded`` for the same settings, it is returned.
    """
    settings = config.model_dump(mode="json") | {"init_adapter": None, "checkpoint_steps": 0}
    if config.kernels == KERNELS[0]:
        del settings["kernels"]  # runs from before there was a choice keep their identity
    begun = check_manifest(config.init_adapter, "adapter", (CARD,))["files"] if config.init_adapter else None
    rest = [begun, model.fingerprint, data, [[row.ids, row.learnt] for row in valid]]
    identity = _hash([settings, *rest])
    if not recorded or identity in recorded:
        return identity
    whole = {name: int(settings[name]) for name in ("epochs", "alpha") if settings[name].is_integer()}
    earlier = [whole, *({name: number} for name, number in whole.items())]
    hashes = [_hash([settings | numbers, *rest]) for numbers in earlier]
    return next((each for each in hashes if each in recorded), identity)


def _recorded(out: Path, work: Path) -> set[str]:
    """Return the identities of the finished run in ``out`` and the unfinished one in ``work``, of those that exist."""
    unfinished = choices.kept(work)
    found = {unfinished.identity} if unfinished else set()
    with suppress(OSError, ValueError, AttributeError):  # a damaged manifest is reported when it is opened
        found.add(str(json.loads((out / MANIFEST).read_text("utf-8")).get("identity")))
    return found


def _hash(value: Any) -> str:
    return sha256_text(canonical_json(value))


def _silent(event: dict[str, Any]) -> None:
    """Take no notice of an event."""
