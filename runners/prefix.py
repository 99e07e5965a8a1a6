"""What prompts share, computed once: a bounded store of keys and values by the tokens they stand for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar

LEAST = 16
"""Shared tokens from which keeping them pays: fewer cost less to compute again than to look after."""
ROOM = 256 << 20
"""Bytes of keys and values kept: about 11,000 tokens of a 135M model in bf16."""


class Sized(Protocol):
    """Anything that knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...


Entry = TypeVar("Entry", bound=Sized)


def common(rows: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all rows share, one less than the shortest row at most.

    The last token of a prompt is always computed: its output is the first answer token.
    """
    if not rows:
        return 0
    last = min(map(len, rows)) - 1
    return min((agree(rows[0][:last], row) for row in rows), default=0)


def agree(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many first tokens two rows share."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((n for n, (x, y) in pairs if x != y), min(len(a), len(b)))


class Prefixes(Generic[Entry]):  # Python 3.11
    """Kept keys and values, least recently used out first; `owner` is base, adapter and dtype.

    The same tokens mean other keys under other weights, so an entry is only ever found by its owner.
    """

    def __init__(self, room: int = ROOM) -> None:
        """Start empty; `room` bounds the bytes kept."""
        self.room = room
        self._entries: OrderedDict[tuple[Hashable, tuple[int, ...]], Entry] = OrderedDict()

    def __len__(self) -> int:
        """Return how many entries are kept."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(kept.nbytes for kept in self._entries.values())

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def exactly(self, owner: Hashable, ids: Sequence[int]) -> Entry | None:
        """Return what is kept for exactly these tokens."""
        return self._use((owner, tuple(ids)))

    def longest(self, owner: Hashable, ids: Sequence[int]) -> tuple[int, Entry] | None:
        """Return the entry that shares the most first tokens with these, and how many; None below LEAST."""
        wanted = tuple(ids)[:-1]
        shared = {key: agree(wanted, key[1]) for key in self._entries if key[0] == owner}
        best = max(shared, key=lambda key: shared[key], default=None)
        if best is None or shared[best] < LEAST:
            return None
        kept = self._use(best)
        assert kept is not None
        return shared[best], kept

    def keep(self, owner: Hashable, ids: Sequence[int], kept: Entry) -> None:
        """Keep an entry, and let the oldest go until all fit; one that is too large by itself is not kept."""
        if kept.nbytes > self.room:
            return
        self._entries[owner, tuple(ids)] = kept
        self._entries.move_to_end((owner, tuple(ids)))
        while self.nbytes > self.room:
            self._entries.popitem(last=False)

    def _use(self, key: tuple[Hashable, tuple[int, ...]]) -> Entry | None:
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)
