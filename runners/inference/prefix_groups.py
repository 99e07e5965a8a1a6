"""Prompts that share their beginnings: which are answered in one batch, and which tokens of a batch are computed once.

Few-shot prompts begin with the same examples, prompts about one document with the same passages. :func:`prompt_batches`
puts such prompts into one batch, and :func:`shared_segments` is the tree of what the rows of a batch have in common, of
which :class:`runners.inference.llama_step.FusedPrefill` computes every node once. Both depend on the prompts alone, so
a resumed run has the same batches. Numbers only; imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

MIN_SEGMENT = 16
"""Fewest tokens of a segment that several rows share: fewer cost less to compute again than the calls that share them."""
MIN_GAIN = 32
"""Fewest tokens that neighbours share beyond what all prompts share, for them to be put into one batch: batches of rows of
similar length pad less, so a few words that questions happen to begin with are not worth another order."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that some rows share, at the same indexes and with the same tokens before."""

    rows: tuple[int, ...]
    """Indexes of the rows."""
    start: int
    end: int
    """Index of its first token in each of the rows, and of the one after its last."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts that are answered together."""

    rows: tuple[int, ...]
    """Indexes of the prompts."""
    prefix: int
    """First tokens that they share and that are computed beforehand, once for all batches with the same ones."""


def shared_segments(rows: Sequence[Sequence[int]], least: int = MIN_SEGMENT) -> list[Segment]:
    """Return the tree of the rows' tokens: every row is the concatenation of its segments, in the order returned.

    A segment of several rows has at least `least` tokens and ends before the last token of each, which is computed for
    every row by itself, because the row's first answer token follows it.
    """
    order = sorted(range(len(rows)), key=lambda row: (tuple(rows[row]), row))
    shared = [_shared(rows[a], rows[b]) for a, b in pairwise(order)]
    segments: list[Segment] = []
    # (first, one after last in the order, tokens of these rows that are in segments already)
    open_ranges = [(0, len(order), 0)] if rows else []
    while open_ranges:
        first, last, at = open_ranges.pop()
        if last - first == 1:
            segments.append(Segment((order[first],), at, len(rows[order[first]])))
            continue
        least_shared = min(shared[first : last - 1])
        members = order[first:last]
        common = min(least_shared, min(len(rows[row]) for row in members) - 1)
        if common - at >= least:
            segments.append(Segment(tuple(sorted(members)), at, common))
            at = common
        cuts = [n + 1 for n in range(first, last - 1) if shared[n] == least_shared]
        ranges = list(zip([first, *cuts], [*cuts, last], strict=True))
        open_ranges.extend((a, b, at) for a, b in reversed(ranges))
    return segments


def computed_tokens(rows: Sequence[Sequence[int]]) -> int:
    """Return how many tokens of a batch are computed when every segment is computed once."""
    return sum(segment.tokens for segment in shared_segments(rows))


def prompt_batches(
    prompts: Sequence[Sequence[int]], lengths: Sequence[int], rows: int, tokens: int, common: int
) -> list[PromptBatch]:
    """Return the batches of prompts, those with the same beginning next to each other, longest first.

    Where no two share more than all do, they are batches of rows of similar length. Prompts of one beginning that fill
    several batches get batches of their own, whose prefix is what they all share; the rest of them, which fill no batch,
    are put with others. So there are about as many batches as by length alone, because a batch costs more than a prefix
    that is computed a second time.

    Args:
        prompts: The prompts as tokens.
        lengths: Tokens of each with the longest answer.
        rows: Most rows of a batch.
        tokens: Most tokens of a batch, every row as long as the longest; one row may have more.
        common: Prefix that all prompts share, computed beforehand; 0 where nothing is.
    """
    batches: list[PromptBatch] = []
    mixed: list[int] = []
    for cluster in _clusters(prompts, lengths, common):
        fitting = max(1, min(rows, tokens // max(lengths[row] for row in cluster)))
        whole = len(cluster) // fitting * fitting
        if whole >= 2 * fitting and len(cluster) > 1:
            shared = min(_shared(prompts[cluster[0]], prompts[row]) for row in cluster)
            shared = min(shared, min(len(prompts[row]) for row in cluster) - 1)
            parts = [cluster[at : at + fitting] for at in range(0, whole, fitting)]
            batches += [PromptBatch(tuple(part), max(shared, common)) for part in parts]
            cluster = cluster[whole:]
        mixed += cluster
    batches += [PromptBatch(tuple(batch), common) for batch in _filled(mixed, lengths, rows, tokens)]
    return batches


def _filled(order: Sequence[int], lengths: Sequence[int], rows: int, tokens: int) -> Iterator[list[int]]:
    """Yield batches that are filled in this order."""
    batch: list[int] = []
    longest = 0
    for row in order:
        longest = max(longest, lengths[row])
        if batch and (len(batch) == rows or (len(batch) + 1) * longest > tokens):
            yield batch
            batch, longest = [], lengths[row]
        batch.append(row)
    if batch:
        yield batch


def _clusters(prompts: Sequence[Sequence[int]], lengths: Sequence[int], common: int) -> list[list[int]]:
    """Return prompts in clusters that share at least MIN_GAIN tokens beyond the common ones, the longest first.

    Within one, prompts that share more are next to each other.
    """
    order = sorted(range(len(prompts)), key=lambda row: (tuple(prompts[row]), row))
    clusters: list[list[int]] = []
    for position, row in enumerate(order):
        if position and _shared(prompts[order[position - 1]], prompts[row]) - common >= MIN_GAIN:
            clusters[-1].append(row)
        else:
            clusters.append([row])
    return sorted(clusters, key=lambda cluster: (-max(lengths[row] for row in cluster), min(cluster)))


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many first tokens two prompts share."""
    count = min(len(a), len(b))
    return next((n for n in range(count) if a[n] != b[n]), count)


@dataclass(frozen=True, slots=True)
class PromptPart:
    """Tokens of rows that are computed together: a shared segment, or the ends of neighbouring rows of one shape."""

    rows: tuple[int, ...]
    """Rows of the cache that they are written to."""
    shared: bool
    """Whether it is one segment of all these rows; else each row has its own."""
    start: int
    end: int
    """Index of the first token in each of the rows, and of the one after the last."""
    place: slice
    """Where the tokens stand among those of all parts."""

    @property
    def sources(self) -> slice:
        """The rows of the cache whose keys the tokens see."""
        return slice(self.rows[0], self.rows[0] + (1 if self.shared else len(self.rows)))


def prompt_parts(segments: Sequence[Segment], rows: Sequence[Sequence[int]]) -> list[PromptPart]:
    """Return the shared segments, then the ends of rows, those of neighbouring rows with one shape together."""
    parts: list[PromptPart] = []

    def add(members: tuple[int, ...], shared: bool, start: int, end: int) -> None:
        at = parts[-1].place.stop if parts else 0
        count = (end - start) * (1 if shared else len(members))
        parts.append(PromptPart(members, shared, start, end, slice(at, at + count)))

    for segment in segments:
        if len(segment.rows) > 1:
            add(segment.rows, True, segment.start, segment.end)
    own = sorted((s.rows[0], s.start, s.end) for s in segments if len(s.rows) == 1)
    for (start, end), equal in groupby(own, key=lambda each: each[1:]):
        add(tuple(row for row, _, _ in equal), False, start, end)
    return parts
