"""What the estimate says of a run's own settings, to be held against what it took. Heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag.errors import BadInput
from runners import recompute
from runners.chat import Encoded
from runners.fingerprint import read_json
from runners.loss import Loss
from runners.shape import read_shape
from runners.tuning import TrainConfig


def expected_gib(
    folder: Path, config: TrainConfig, loss: Loss, rows: Sequence[Encoded], checkpointing: bool
) -> float | None:
    """Return the GiB of tensors that training takes, estimated for the forward pass of ``rows`` as it is really made.

    Dtype, checkpointing, padding, shared beginnings and the way of the loss are the run's; None where the model's
    config does not tell its shape.
    """
    try:
        shape = read_shape(read_json(folder / "config.json"))
    except BadInput:
        return None
    longest, tokens = max(len(row.ids) for row in rows), int(loss.collate(rows).ids.numel())
    half = loss.causal.dtype.itemsize == 2
    return round(recompute.likely(shape, config, longest, tokens, half, checkpointing, loss.fuses_blocks), 3)
