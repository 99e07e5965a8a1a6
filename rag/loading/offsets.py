"""Where each character of a cleaned text stands in the raw file, kept as runs instead of one number each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

OffsetRun = tuple[int, int]
"""Place in the text and place in the raw file from which both count on together."""


class Offsets(Sequence[int]):
    """A sequence of raw places, one for each character of a text; most texts need a handful of runs."""

    __slots__ = ("_length", "_runs")

    def __init__(self, runs: Iterable[OffsetRun] = (), length: int = 0) -> None:
        """Take runs in the order of the text; a run that only goes on with the last one is merged into it."""
        kept: list[OffsetRun] = []
        for at, raw in runs:
            if not kept or raw - at != kept[-1][1] - kept[-1][0]:
                kept.append((at, raw))
        self._runs = tuple(kept)
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
        """Return the raw place of a character; a slice gives the places of a contiguous part."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self._length))]
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"no character {index} in a text of {self._length}")
        begin, raw = self._runs[bisect_right(self._runs, at, key=lambda run: run[0]) - 1]
        return raw + at - begin

    def __eq__(self, other: object) -> bool:
        """Two are equal when they place every character alike."""
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
        """Yield the runs of ``text[start:end]``, their text places counted from 0."""
        first = bisect_right(self._runs, start, key=lambda run: run[0]) - 1
        for at, raw in self._runs[max(0, first) :]:
            if at >= end:
                return
            begin = max(at, start)
            yield begin - start, raw + begin - at


def select_offsets(offsets: Sequence[int], start: int, spans: Iterable[tuple[int, int]]) -> Offsets:
    """Return the places of a text's spans put one after another.

    ``offsets`` places the whole text; when empty, the text is the raw slice that begins at ``start``.
    """
    whole = offsets if isinstance(offsets, Offsets) else None
    runs: list[OffsetRun] = []
    length = 0
    for begin, end in spans:
        part = whole.part(begin, end) if whole else iter([(0, start + begin)])
        runs.extend((length + at, raw) for at, raw in part)
        length += end - begin
    return Offsets(runs, length)
