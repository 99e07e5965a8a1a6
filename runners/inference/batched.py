"""Generate answers to several requests in one batch, each with its own length, sampling and callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.decoding import TokenSampler
from runners.inference.local import BATCH_TOKENS, LocalGenerator, length_batches
from runners.inference.types import GREEDY, Completion, Sampling

if TYPE_CHECKING:
    import torch

MAX_ROWS = 16
"""Most requests decoded together: on two cores, with more each request waits longer than the batch saves."""
CANCELLED = Completion("", 0, 0, 0.0, "length")
"""Result of a request that was cancelled before its prompt was computed."""


def never_cancelled() -> bool:
    """Return False: the request is not cancelled."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One request in a batch."""

    prompt: list[int]
    limit: int
    """Most tokens of the answer."""
    sampling: Sampling = GREEDY
    on_text: Callable[[str], None] = field(default=lambda piece: None)
    """Called with each piece of the answer as it is generated."""
    is_cancelled: Callable[[], bool] = never_cancelled
    """Called at every token; a cancelled row leaves the batch at once."""
    trim: bool = True
    """Whether white space at both ends of the answer is removed."""
    constraint: OutputConstraint | None = None
    """What the answer may be; ``limit`` has to hold an answer of it."""


def generate_batch(
    generator: LocalGenerator, rows: Sequence[BatchRow], on_batch: Callable[[int], None] | None = None
) -> list[Completion]:
    """Decode all rows and return their completions in order; `on_batch` is called with the size of each batch.

    A row alone is decoded as a stream, which verifies guesses and caches what it computed. Seeds are a row's own, so
    what is drawn does not depend on the other rows; the last digits of the logits do depend on how many rows there are.
    """
    done: dict[int, Completion] = {}
    lengths = [len(row.prompt) + generator.most_tokens(row.prompt, row.limit, row.trim) for row in rows]
    for batch in length_batches(lengths, MAX_ROWS, BATCH_TOKENS):
        # Rows that were cancelled during the earlier batches are not computed.
        live = [index for index in batch if not rows[index].is_cancelled()]
        done.update((index, CANCELLED) for index in batch if index not in live)
        if on_batch and live:
            on_batch(len(live))
        if len(live) == 1:
            done[live[0]] = _single(generator, rows[live[0]])
        elif live:
            done.update(zip(live, _batch(generator, [rows[n] for n in live]), strict=True))
    return [done[n] for n in range(len(rows))]


def _single(generator: LocalGenerator, row: BatchRow) -> Completion:
    """Decode one row as a stream."""
    if row.is_cancelled():
        return CANCELLED
    running = generator.follow(
        row.prompt, row.limit, row.sampling, row.is_cancelled, row.trim, row.constraint
    )
    while True:
        try:
            row.on_text(next(running))
        except StopIteration as end:
            completion: Completion = end.value
            return completion


def _batch(generator: LocalGenerator, rows: Sequence[BatchRow]) -> list[Completion]:
    """Decode several rows together."""
    started = time.perf_counter()
    texts = [generator.pieces(row.prompt, row.sampling.stop, row.trim) for row in rows]
    most = [generator.most_tokens(row.prompt, row.limit, row.trim) for row in rows]
    finish = ["length"] * len(rows)
    held = {index: (row.prompt, row.constraint, row.limit) for index, row in enumerate(rows)}
    sampler = generator.forms.hold(PerRowSampler([row.sampling for row in rows]), held)

    def on_token(index: int, token: int) -> bool:
        row, pieces = rows[index], texts[index]
        ended = token in generator.ends
        if not ended:
            _send(row, pieces.add(token))
            ended = pieces.stopped or sampler.is_complete(index, len(pieces.tokens))
        if ended and not sampler.was_closed(index):
            finish[index] = "stop"
        full = len(pieces.tokens) >= most[index] or pieces.is_full(row.limit, generator.room)
        looping = row.trim and sampler.is_looping(index, pieces.tokens)
        if ended or full or looping or row.is_cancelled():
            _send(row, pieces.rest())
            return True
        return False

    prompts = [row.prompt for row in rows]
    generator.decode_batch(
        prompts,
        max(most),
        on_token,
        sampler,
        range(len(rows)),
        generator.shared.common_of_requests(prompts) if generator.shared else None,
    )
    seconds = (time.perf_counter() - started) / len(rows)
    return [
        Completion(
            pieces.text,
            len(row.prompt),
            len(pieces.tokens),
            seconds,
            end,
            reasoning_tokens=pieces.reasoning_tokens,
            reasoning_cut=pieces.inside_reasoning,
        )
        for row, pieces, end in zip(rows, texts, finish, strict=True)
    ]


def _send(row: BatchRow, piece: str) -> None:
    """Pass a piece to the request, unless it is empty."""
    if piece:
        row.on_text(piece)


class PerRowSampler(TokenSampler):
    """Chooses tokens for rows of a batch, each with its own sampling."""

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        """Prepare a sampler for each row that is not greedy."""
        super().__init__(GREEDY)
        self._own = {
            row: TokenSampler(sampling) for row, sampling in enumerate(samplings) if not sampling.greedy
        }

    def sample(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return one token for each row of `logits` [rows, vocabulary]."""
        tokens = super().sample(logits, rows)
        for index, row in enumerate(rows):
            if row in self._own:
                (tokens[index],) = self._own[row].sample(logits[index : index + 1], (0,))
        return tokens
