"""What the estimate says of a run's own settings, to be held against what it took. Heavy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag.errors import BadInput
from runners import fused, recompute
from runners.batch import collate
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
    packed, longest = loss.path == "fast", max(len(row.ids) for row in rows)
    tokens = int(collate(rows, packed).ids.numel())
    half = loss.causal.dtype.itemsize == 2
    own = packed and fused.written_out(loss.net)
    return round(recompute.likely(shape, config, longest, tokens, half, checkpointing, own), 3)
