"""A key/value cache of fixed room for one batch: nothing is copied as it grows, rows leave it, its end is cut off.

transformers' DynamicCache copies every key and value at every token (28 % of a step at 32 rows of 220 tokens, 2
cores); this one is written in place. Heavy: imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402
from transformers import DynamicCache  # noqa: E402
from transformers.cache_utils import Cache, DynamicLayer  # noqa: E402

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of every layer, each [rows, heads, tokens, size]."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Keys and values of some tokens, one row; never written to after it is made."""

    layers: Layers

    @property
    def nbytes(self) -> int:
        """Memory it takes, in bytes."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values; `length` tokens of `room` are used, by the first `rows` rows."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, rows: int, room: int) -> None:
        super().__init__()
        self.rows, self.room, self.length = rows, room, 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take the room, as wide as the first keys and values are."""
        for name, like in (("keys", key_states), ("values", value_states)):
            shape = (self.rows, like.shape[1], self.room, like.shape[3])
            setattr(self, name, torch.empty(shape, dtype=like.dtype, device=like.device))
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the tokens' keys and values behind the others; return all, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        keys, values = self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]
        keys[:, :, self.length :] = key_states
        values[:, :, self.length :] = value_states
        self.length = end
        return keys, values

    def get_seq_length(self) -> int:
        """Return the tokens written."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next tokens see, and from where."""
        return self.length + query_length, 0


class Slab(Cache):  # type: ignore[misc]  # transformers is untyped
    """The cache of one batch: `rows` rows with room for `room` tokens each."""

    def __init__(self, layers: int, rows: int, room: int) -> None:
        """Make an empty cache; memory is taken at the first write."""
        self.room = room
        self.each = [_Layer(rows, room) for _ in range(layers)]
        super().__init__(layers=list(self.each))

    @property
    def length(self) -> int:
        """Tokens written."""
        return self.each[0].length

    @torch.inference_mode()
    def load(self, kept: Kept, length: int) -> None:
        """Copy the first `length` tokens of what was kept into every row, as the first tokens."""
        for layer, (keys, values) in zip(self.each, kept.layers, strict=True):
            rows = (layer.rows, -1, -1, -1)
            layer.update(keys[:, :, :length].expand(rows), values[:, :, :length].expand(rows))

    @torch.inference_mode()
    def keep(self, length: int) -> Kept:
        """Return a copy of the first row's first `length` tokens."""
        return Kept(
            tuple((c.keys[:1, :, :length].clone(), c.values[:1, :, :length].clone()) for c in self.each)
        )

    def cut(self, length: int) -> None:
        """Forget every token from `length` on."""
        for layer in self.each:
            layer.length = min(layer.length, length)

    @torch.inference_mode()
    def leave(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Shrink to the first `rows` rows; before that, `moves` copies rows (from, to) over those that leave."""
        for layer in self.each:
            for source, target in moves:
                layer.keys[target, :, : layer.length] = layer.keys[source, :, : layer.length]
                layer.values[target, :, : layer.length] = layer.values[source, :, : layer.length]
            layer.rows = rows


def plain_layers(config: Any) -> int:
    """Return how many layers' keys and values a model caches; 0 where one keeps less, or else, than all of them."""
    layers = DynamicCache(config=config).layers
    return len(layers) if all(type(layer) is DynamicLayer for layer in layers) else 0
