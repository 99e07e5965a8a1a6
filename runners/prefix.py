"""A bounded cache of what was computed for prompt prefixes, looked up by their tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar

MIN_SHARED = 16
"""Shared tokens from which caching pays: fewer cost less to compute again than to manage."""
MAX_BYTES = 256 << 20
"""Bytes of keys and values in the cache: about 11,000 tokens of a 135M model in bf16."""


class Sized(Protocol):
    """Anything that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...


Entry = TypeVar("Entry", bound=Sized)


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
    """Entries by owner and tokens, the least recently used evicted first; `owner` is base, adapter and dtype.

    The same tokens have other keys and values under other weights, so an entry is only ever found by its owner.
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
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)
