"""Linear layers that give a row the same bits whatever other rows come with it.

A matrix product picks its kernel by the number of rows, and kernels add up in different orders. On one CPU with
AMX (torch 2.13, two threads) the 1536 to 384 product of all-MiniLM gave other bits in bf16 for 33 to 511 rows
than for 2,048, and in fp32 for 1 to 15 and 57 to 192; elsewhere only fp32 below 16 rows did. So rows are filled
up with zeros to one of a few sizes, those that were seen to agree here when the model was loaded.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear, pad

LARGEST = 2048
"""Rows of the largest product; more are taken in parts."""
SIZES = (32, 64, 128, 256, *range(512, LARGEST + 1, 256))
"""Rows that are filled up to; a batch of 1,300 is then a twelfth of filling on average. Trying all of them takes
a tenth of a second for all-MiniLM in bf16."""


class EvenLinear(torch.nn.Module):
    """A linear layer that multiplies only in sizes that agree."""

    def __init__(self, layer: torch.nn.Linear, sizes: tuple[int, ...]) -> None:
        """Take over a layer's weights; ``sizes`` ascend, the last is ``LARGEST``."""
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._sizes = sizes

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, [..., out] for [..., in]."""
        rows = given.reshape(-1, given.shape[-1])
        parts = [self._product(part) for part in rows.split(LARGEST)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(*given.shape[:-1], -1)

    def _product(self, rows: torch.Tensor) -> torch.Tensor:
        size = next(size for size in self._sizes if size >= len(rows))
        return linear(pad(rows, (0, 0, 0, size - len(rows))), self.weight, self.bias)[: len(rows)]


@torch.inference_mode()
def even_out(model: torch.nn.Module) -> None:
    """Replace every linear layer of a model, its weights kept."""
    sizes: dict[tuple[int, int], tuple[int, ...]] = {}
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, torch.nn.Linear):
                shape = (layer.in_features, layer.out_features)
                if shape not in sizes:
                    sizes[shape] = agreeing(layer)
                setattr(parent, name, EvenLinear(layer, sizes[shape]))


def agreeing(layer: torch.nn.Linear) -> tuple[int, ...]:
    """Return the sizes whose products are bit for bit those of the largest, wherever the rows stand."""
    draw = torch.Generator().manual_seed(1234)
    rows = torch.randn(LARGEST, layer.in_features, generator=draw).to(layer.weight.dtype)
    whole = layer(rows)
    return tuple(
        size
        for size in SIZES
        if torch.equal(layer(rows[:size]), whole[:size]) and torch.equal(layer(rows[-size:]), whole[-size:])
    )
