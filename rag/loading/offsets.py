"""Where each character of a cleaned text is in the raw file, kept as runs instead of one number for each character.

:class:`Offsets` is the sequence; :func:`select_offsets` gives the offsets of a text from which parts were
left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

OffsetRun = tuple[int, int]
"""Offset in the text and offset in the raw file; from there on both advance together, until the next run."""


class Offsets(Sequence[int]):
    """A sequence of raw offsets, one for each character of a text; most texts need a handful of runs."""

    __slots__ = ("_length", "_runs")

    def __init__(self, runs: Iterable[OffsetRun] = (), length: int = 0) -> None:
        """Merge runs, given in the order of the text: one that continues the run before it needs no entry of its own.

        Args:
            runs: the runs.
            length: length of the text.
        """
        merged: list[OffsetRun] = []
        for at, raw in runs:
            if not merged or raw - at != merged[-1][1] - merged[-1][0]:
                merged.append((at, raw))
        self._runs = tuple(merged)
        self._length = length

    @property
    def runs(self) -> tuple[OffsetRun, ...]:
        """The runs, as they are written to JSON."""
        return self._runs

    def __len__(self) -> int:
        """Return the length of the text."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        """Return the raw offset of a character; a slice gives a list of them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._length))]
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"no character {index} in a text of {self._length}")
        begin, raw = self._runs[bisect_right(self._runs, at, key=lambda run: run[0]) - 1]
        return raw + at - begin

    def __eq__(self, other: object) -> bool:
        """Two are equal when every character has the same raw offset; an empty one equals ``()``."""
        return (
            isinstance(other, Offsets) and (self._runs, self._length) == (other._runs, other._length)
        ) or (self._length == 0 and other == ())

    def __hash__(self) -> int:
        """Return a hash that agrees with equality."""
        return hash((self._runs, self._length)) if self._length else hash(())

    def __repr__(self) -> str:
        """Show the runs."""
        return f"Offsets({list(self._runs)}, {self._length})"

    def part(self, start: int, end: int) -> Iterator[OffsetRun]:
        """Yield the runs of ``text[start:end]``, their offsets in the text counted from ``start``."""
        first = bisect_right(self._runs, start, key=lambda run: run[0]) - 1
        for at, raw in self._runs[max(0, first) :]:
            if at >= end:
                return
            begin = max(at, start)
            yield begin - start, raw + begin - at


def select_offsets(offsets: Sequence[int], start: int, spans: Iterable[tuple[int, int]]) -> Offsets:
    """Return the offsets of some spans of a text, joined without gaps.

    Args:
        offsets: raw offsets of the whole text; when empty, the text is the raw slice that begins at
            ``start``.
        start: raw offset of the text.
        spans: (start, end) of each span in the text, in order.
    """
    mapped = offsets if isinstance(offsets, Offsets) else None
    runs: list[OffsetRun] = []
    length = 0
    for begin, end in spans:
        part = mapped.part(begin, end) if mapped else iter([(0, start + begin)])
        runs.extend((length + at, raw) for at, raw in part)
        length += end - begin
    return Offsets(runs, length)
