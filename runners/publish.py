"""How a training run ends: its result takes the place of the folder it was asked for, whole or not at all. Heavy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rag.durable import check_manifest, publish_folder, write_text, writing_into
from rag.errors import BadInput, CannotRun
from rag.types import OnEvent
from runners import attach, choices
from runners.card import CARD
from runners.loop import Loop
from runners.models import Model
from runners.tuning import Origin, TrainConfig, TrainResult

LOG = "training.jsonl"
"""Every step's loss, gradient norm and learning rate, and every validation loss, beside the weights."""


def facts(
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


def publish(loop: Loop, base: Model, out: Path, kept: dict[str, Any]) -> None:
    """Write the tuned weights beside the checkpoints, then let them take ``out``'s place in one rename."""
    tmp = loop.work / "out"
    shutil.rmtree(tmp, ignore_errors=True)
    config = loop.config.to_json()
    kept = {"name": base.name, "method": config["method"], "config": config, **kept}
    try:
        with writing_into(out):
            tmp.mkdir(parents=True)
            write_text(tmp / LOG, "".join(json.dumps(row) + "\n" for row in loop.log()))
            attach.save(loop.net, tmp, base, kept)
            if out.exists():
                out.rename(loop.work / "replaced")
            publish_folder(tmp, out)
    except CannotRun:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def finished(out: Path, identity: str, config: TrainConfig, tell: OnEvent) -> TrainResult | None:
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
