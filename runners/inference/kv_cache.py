"""KV caches: a static one for a batch, and a bounded cache of prompt prefixes that is looked up by their tokens.

:class:`StaticKVCache` is written in place, rows can leave it, and its end can be truncated; transformers' DynamicCache
copies every key and value at every token (28 % of a step at 32 rows of 220 tokens, 2 cores). :class:`PrefixCache` holds
the keys and values of earlier prompts for reuse. Imports torch and transformers.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from runners.models import hub

os.environ.update(hub.offline_variables())

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

MIN_SHARED = 16
"""Fewest shared tokens for which caching pays: fewer cost less to compute again than to manage."""
MAX_BYTES = 256 << 20
"""Most bytes of keys and values in the prefix cache: about 11,000 tokens of a 135M model in bf16."""

LayerKeysValues = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of every layer, each [rows, groups, tokens, d] for `groups` key/value heads of size d."""


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """Keys and values of some tokens, one row; immutable."""

    layers: LayerKeysValues

    @property
    def nbytes(self) -> int:
        """Size of the keys and values in bytes."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)


class _StaticLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's keys and values [rows, groups, capacity, d], of which the first `length` tokens are in use.

    Rows that have left are still in memory: only the first `rows` are in use.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__()
        self.rows = rows
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate memory for the head size and dtype of the first keys and values (overrides transformers' method)."""
        for name, like in (("keys", key_states), ("values", value_states)):
            shape = (self.rows, like.shape[1], self.capacity, like.shape[3])
            # Not zeroed: no token past `length` is ever read.
            setattr(self, name, torch.empty(shape, dtype=like.dtype, device=like.device))
        self.dtype = key_states.dtype
        self.device = key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens' keys and values [rows, groups, new, d] after the others; return all, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        keys, values = self.keys[: self.rows, :, :end], self.values[: self.rows, :, :end]
        keys[:, :, self.length :] = key_states
        values[:, :, self.length :] = value_states
        self.length = end
        return keys, values

    def extend(
        self, new: int, like: torch.Tensor, groups: int, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take `new` more tokens into use; return views [rows, groups, tokens, size] of all keys and values to write to.

        `like` has the dtype and the device, where nothing was written yet.
        """
        if not self.is_initialized:
            empty = like.new_empty(0, groups, 0, size)
            self.lazy_initialization(empty, empty)
        self.length += new
        keys, values = (part[: self.rows, :, : self.length] for part in (self.keys, self.values))
        return keys, values

    def get_seq_length(self) -> int:
        """Return the tokens in use."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys the next tokens see, and the offset of the first, as transformers asks."""
        return self.length + query_length, 0


class StaticKVCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """The KV cache of one batch: `rows` rows of up to `capacity` tokens each, in transformers' interface."""

    def __init__(self, layers: int, rows: int, capacity: int) -> None:
        """Make an empty cache; memory is allocated at the first write."""
        self.capacity = capacity
        self.kv_layers = [_StaticLayer(rows, capacity) for _ in range(layers)]
        super().__init__(layers=list(self.kv_layers))

    @property
    def length(self) -> int:
        """Tokens in use, the same in every layer."""
        return self.kv_layers[0].length

    @torch.inference_mode()
    def load_prefix(self, prefix: CachedPrefix, length: int) -> None:
        """Copy the first `length` tokens of a prefix into every row, as the first tokens."""
        for layer, (keys, values) in zip(self.kv_layers, prefix.layers, strict=True):
            rows = (layer.rows, -1, -1, -1)
            layer.update(keys[:, :, :length].expand(rows), values[:, :, :length].expand(rows))

    @torch.inference_mode()
    def copy_prefix(self, length: int) -> CachedPrefix:
        """Return a copy of the first row's first `length` tokens."""
        return CachedPrefix(
            tuple((c.keys[:1, :, :length].clone(), c.values[:1, :, :length].clone()) for c in self.kv_layers)
        )

    def truncate(self, length: int) -> None:
        """Discard every token from `length` on."""
        for layer in self.kv_layers:
            layer.length = min(layer.length, length)

    @torch.inference_mode()
    def drop_rows(self, moves: Sequence[tuple[int, int]], rows: int) -> None:
        """Shrink to the first `rows` rows; before that, `moves` copies rows (from, to) over those that leave."""
        for layer in self.kv_layers:
            for source, target in moves:
                layer.keys[target, :, : layer.length] = layer.keys[source, :, : layer.length]
                layer.values[target, :, : layer.length] = layer.values[source, :, : layer.length]
            layer.rows = rows


def cacheable_layers(config: Any) -> int:
    """Return how many layers a model caches keys and values of; 0 where one caches not all of them, or something else.

    A sliding window forgets keys, a state space model has none: their caches cannot be replaced by this one.
    """
    kinds = layer_caches(config)
    return len(kinds) if set(kinds) == {DynamicLayer.__name__} else 0


def layer_caches(config: Any) -> list[str]:
    """Return transformers' name of the kind of cache that each layer of a model of this config has."""
    return [type(layer).__name__ for layer in DynamicCache(config=config).layers]


class SizedEntry(Protocol):
    """An object with a size in bytes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...


Entry = TypeVar("Entry", bound=SizedEntry)


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all rows share, one less than the shortest row at most.

    The last token of a prompt is always computed: its output is the first answer token.
    """
    if not rows:
        return 0
    last = min(map(len, rows)) - 1
    return min((shared_length(rows[0][:last], row) for row in rows), default=0)


def shared_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many first tokens two rows share."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(a), len(b)))


class PrefixCache(Generic[Entry]):  # Python 3.11
    """A bounded cache by owner and tokens, the least recently used entry evicted first.

    The owner is base, adapter and dtype: the same tokens have other keys and values under other weights.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Start empty; `max_bytes` bounds the sum of the entries."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[tuple[Hashable, tuple[int, ...]], Entry] = OrderedDict()

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(entry.nbytes for entry in self._entries.values())

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def get(self, owner: Hashable, ids: Sequence[int]) -> Entry | None:
        """Return the entry for exactly these tokens."""
        return self._use((owner, tuple(ids)))

    def longest_match(self, owner: Hashable, ids: Sequence[int]) -> tuple[int, Entry] | None:
        """Return the entry that shares the most first tokens with these, and how many; None below MIN_SHARED."""
        wanted = tuple(ids)[:-1]  # the last token is always computed
        shared = {key: shared_length(wanted, key[1]) for key in self._entries if key[0] == owner}
        best = max(shared, key=lambda key: shared[key], default=None)
        if best is None or shared[best] < MIN_SHARED:
            return None
        entry = self._use(best)
        assert entry is not None
        return shared[best], entry

    def put(self, owner: Hashable, ids: Sequence[int], entry: Entry) -> None:
        """Add an entry and evict the oldest until all fit; one that is too large by itself is not added."""
        if entry.nbytes > self.max_bytes:
            return
        self._entries[owner, tuple(ids)] = entry
        self._entries.move_to_end((owner, tuple(ids)))
        while self.nbytes > self.max_bytes:
            self._entries.popitem(last=False)

    def _use(self, key: tuple[Hashable, tuple[int, ...]]) -> Entry | None:
        """Return an entry and mark it as the most recently used."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)


@dataclass(frozen=True, slots=True)
class PromptPrefixes:
    """Keys and values of what prompts share, kept in a prefix cache and begun from what is in it already."""

    compute: Callable[[list[int], tuple[int, CachedPrefix] | None], CachedPrefix]
    """Computes a prefix from its tokens, and from the length and the keys and values of its first ones if there are any."""
    cache: PrefixCache[CachedPrefix]
    owner: Hashable
    """Whose keys and values they are: base, adapter and dtype."""

    def common(self, prompts: list[list[int]]) -> tuple[int, CachedPrefix] | None:
        """Return the length and the keys and values of the prompts' common prefix; None where it is too short."""
        length = common_prefix(prompts)
        if len(prompts) < 2 or length < MIN_SHARED:
            return None
        return self.beginning(prompts[0][:length], None)

    def common_of_requests(self, prompts: list[list[int]]) -> tuple[int, CachedPrefix] | None:
        """Return what :meth:`common` does, begun from what earlier requests left in the cache.

        So the examples that an arm shows are read once, whatever words the questions of a batch happen to begin with. A
        run's batches are not made this way: their answers must not depend on what was answered before.
        """
        length = common_prefix(prompts)
        if len(prompts) < 2 or length < MIN_SHARED:
            return None
        match = self.cache.longest_match(self.owner, prompts[0][: length + 1])
        if match and length - match[0] < MIN_SHARED:
            return match
        return self.beginning(prompts[0][:length], match)

    def beginning(
        self, ids: list[int], start: tuple[int, CachedPrefix] | None
    ) -> tuple[int, CachedPrefix] | None:
        """Return the length and the keys and values of a prefix, computed from `start`, its first tokens, on.

        None for no tokens.
        """
        if not ids:
            return None
        if start and start[0] == len(ids):
            return start
        prefix = self.cache.get(self.owner, ids)
        if prefix is None:
            prefix = self.compute(ids, start)
            self.cache.put(self.owner, ids, prefix)
        return len(ids), prefix
