"""Requests of several people decoded together, each with its own length, sampling and listener. Heavy by its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runners.completion import GREEDY, Completion, Sampling
from runners.generate import BATCH_TOKENS, LocalGenerator, batches
from runners.sampling import Picker

if TYPE_CHECKING:
    import torch

ROWS = 16
"""Most requests decoded together: on two cores more of them make each one wait longer than they save."""
UNREAD = Completion("", 0, 0, 0.0, "length")
"""What becomes of a row that nobody wants any more before its prompt is read."""


def always() -> bool:
    """Say that the answer is still wanted."""
    return True


@dataclass(frozen=True, slots=True)
class Row:
    """One request's place in a batch."""

    prompt: list[int]
    limit: int
    sampling: Sampling = GREEDY
    hear: Callable[[str], None] = field(default=lambda piece: None)
    """Hears each piece of the answer as it is made."""
    wanted: Callable[[], bool] = always
    """Asked at every token; a row that nobody wants any more leaves the batch at once."""
    trim: bool = True
    """Whether white space at the answer's ends is taken off."""


def together(
    generator: LocalGenerator, rows: Sequence[Row], on_batch: Callable[[int], None] | None = None
) -> list[Completion]:
    """Decode all rows and return their completions in order; `on_batch` hears how many share each batch.

    A row alone is decoded as a stream, which guesses ahead and keeps what it read. Seeds are a row's own, so what is
    drawn does not depend on its neighbours; the last digits of the logits do depend on how many rows there are.
    """
    done: dict[int, Completion] = {}
    for batch in batches([len(row.prompt) + row.limit for row in rows], ROWS, BATCH_TOKENS):
        # Those before it took their time: who has left meanwhile is not read for.
        live = [place for place in batch if rows[place].wanted()]
        done.update((place, UNREAD) for place in batch if place not in live)
        if on_batch and live:
            on_batch(len(live))
        if len(live) == 1 or generator.decoder is None:
            for place in live:
                done[place] = _alone(generator, rows[place])
        elif live:
            done.update(zip(live, _batch(generator, [rows[n] for n in live]), strict=True))
    return [done[n] for n in range(len(rows))]


def _alone(generator: LocalGenerator, row: Row) -> Completion:
    if not row.wanted():
        return UNREAD
    running = generator.follow(row.prompt, row.limit, row.sampling, row.wanted, row.trim)
    while True:
        try:
            row.hear(next(running))
        except StopIteration as end:
            completion: Completion = end.value
            return completion


def _batch(generator: LocalGenerator, rows: Sequence[Row]) -> list[Completion]:
    assert generator.decoder is not None
    started = time.perf_counter()
    said = [generator.pieces(row.sampling.stop, row.trim) for row in rows]
    finish = ["length"] * len(rows)

    def took(place: int, token: int) -> bool:
        row, pieces = rows[place], said[place]
        over = token in generator.ends
        if not over:
            _tell(row, pieces.add(token))
            over = pieces.stopped
        if over:
            finish[place] = "stop"
        if over or len(pieces.tokens) >= row.limit or not row.wanted():
            _tell(row, pieces.rest())
            return True
        return False

    prompts = [row.prompt for row in rows]
    generator.decoder.batch(
        prompts, max(row.limit for row in rows), took, Pickers([row.sampling for row in rows]),
        range(len(rows)), generator.shared(prompts),
    )  # fmt: skip
    seconds = (time.perf_counter() - started) / len(rows)
    return [
        Completion(pieces.text, len(row.prompt), len(pieces.tokens), seconds, end)
        for row, pieces, end in zip(rows, said, finish, strict=True)
    ]


def _tell(row: Row, piece: str) -> None:
    if piece:
        row.hear(piece)


class Pickers(Picker):
    """Chooses tokens for rows of a batch, each in its own way."""

    def __init__(self, hows: Sequence[Sampling]) -> None:
        """Prepare a picker for each row that is not greedy."""
        super().__init__(GREEDY)
        self._own = {row: Picker(how) for row, how in enumerate(hows) if not how.greedy}

    def pick(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return one token for each row of `logits` [rows, vocabulary]."""
        tokens = super().pick(logits, rows)
        for place, row in enumerate(rows):
            if row in self._own:
                (tokens[place],) = self._own[row].pick(logits[place : place + 1], (0,))
        return tokens
