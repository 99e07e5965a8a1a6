"""What a run decided by looking at this machine, kept beside its checkpoints: a resumed run does the same. Heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rag.durable import write_json
from runners import recompute
from runners.chat import Encoded
from runners.models import Model
from runners.tuning import KERNELS, TrainConfig
from runners.weights import device, dtype_for, free_gib

FILE = "choices.json"


@dataclass(slots=True)
class Choices:
    """Everything that free memory, probing or timing decided, and the machine it was decided on."""

    identity: str
    settings: dict[str, Any]
    dtype: str
    """What the base computes in: float32 or bfloat16."""
    checkpointing: recompute.Choice
    path: str = ""
    """How the loss is computed (:mod:`runners.loss`); "" until it was probed."""
    reason: str = ""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Padded tokens of one forward pass, by the step they hold from (:class:`runners.micro.MicroBatchSize`)."""
    machine: dict[str, Any] = field(default_factory=lambda: here())

    def write(self, work: Path) -> None:
        """Put them beside the checkpoints; before the first step, and again when one changes."""
        write_json(work / FILE, asdict(self))

    def moved(self) -> list[str]:
        """Say what is another machine now: there a resumed run may differ in the last digits."""
        now = here()
        return [
            f"{key} was {was}, is {now.get(key)}" for key, was in self.machine.items() if now.get(key) != was
        ]


def here() -> dict[str, Any]:
    """Return what the last digits of a sum depend on here."""
    kind = device()
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def decide(base: Model, config: TrainConfig, rows: list[Encoded], identity: str) -> Choices:
    """Choose for a new run; how the loss is computed can only be probed with the model in memory."""
    dtype = dtype_for()[0]
    longest = max(len(row.ids) for row in rows)
    memory = recompute.decide(base.folder, config, longest, free_gib(), dtype == torch.bfloat16)
    return Choices(
        identity,
        config.to_json(),
        str(dtype).removeprefix("torch."),
        memory,
        sizes=[(0, config.micro_tokens)],
    )


def kept(work: Path) -> Choices | None:
    """Return the choices of the run whose work folder it is, None when there are none that can be read."""
    try:
        found = json.loads((work / FILE).read_text(encoding="utf-8"))
        found["checkpointing"] = recompute.Choice(**found["checkpointing"])
        found["sizes"] = [(step, tokens) for step, tokens in found["sizes"]]
        return Choices(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def changed(settings: Mapping[str, Any], config: TrainConfig) -> str:
    """Say why a run cannot be gone on with: which settings differ from those it began with."""
    now = json.loads(json.dumps(config.to_json()))
    settings = {"kernels": KERNELS[0], **settings}  # runs from before there was a choice
    names = [f"{k} was {v}, is {now[k]}" for k, v in settings.items() if k in now and now[k] != v]
    return "; ".join(names) or "the base or the rows are others than before"
