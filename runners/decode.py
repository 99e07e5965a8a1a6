"""The decoding loops: a batch whose finished rows leave it, and one stream that verifies guesses. Heavy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402

from runners.lean import Lean, why_not  # noqa: E402
from runners.lookup import GUESSES, Lookup  # noqa: E402
from runners.sampling import Picker  # noqa: E402
from runners.slab import Kept, Slab, plain_layers  # noqa: E402

READ = 16
"""One row's tokens are read in a multiple of so many. For every new number of rows of a product oneDNN makes kernels
and keeps them: 150 questions of as many lengths left 110 MiB behind, read in such steps 58, ever fewer."""


class Decoder:
    """A model with what its two loops share: the first pass over the prompts, and the step."""

    def __init__(self, model: Any) -> None:
        """Choose the step: our own where the model is built like Llama, transformers' for others."""
        self.model = model
        self.layers = plain_layers(model.config)
        self.reason = why_not(model)
        self.lean = None if self.reason else Lean(model)
        named = inspect.signature(model.forward).parameters
        self._cache = "cache" if "cache" in named else "past_key_values"
        self.low = torch.finfo(model.dtype).min

    @torch.inference_mode()
    def read(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, slab: Slab
    ) -> torch.Tensor:
        """Read tokens [rows, new] into the slab; return the logits [rows, vocabulary] after the last."""
        return self._call(ids, mask, positions, slab, 1)[:, -1]

    @torch.inference_mode()
    def step(
        self, ids: torch.Tensor, positions: torch.Tensor, slab: Slab, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the logits [rows, new, vocabulary] of new tokens; `mask` is added to the scores."""
        if self.lean:
            return self.lean.step(ids, positions, slab, mask)
        return self._call(ids, mask, positions, slab, 0)

    @torch.inference_mode()
    def read_one(self, ids: Sequence[int], slab: Slab) -> torch.Tensor:
        """Read more tokens of a slab's only row; return the logits [1, vocabulary] after the last.

        They are filled up to a multiple of READ where there is room: what comes after a token is not seen by it, and
        is cut off again.
        """
        start, count = slab.length, len(ids)
        filled = max(count, min(-(-count // READ) * READ, slab.room - start))
        where = self.model.device
        row = torch.tensor([[*ids, *[0] * (filled - count)]], device=where)
        positions = torch.arange(start, start + filled, device=where).clamp(max=start + count - 1)[None]
        mask = torch.ones(1, start + filled, dtype=torch.long, device=where)
        logits = self._call(row, mask, positions, slab, torch.tensor([count - 1], device=where))
        slab.cut(start + count)
        return logits[:, -1]

    def keep(self, ids: Sequence[int]) -> Kept:
        """Return the keys and values of a prefix."""
        slab = Slab(self.layers, 1, len(ids) + READ)
        self.read_one(ids, slab)
        return slab.keep(len(ids))

    def _call(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, slab: Slab,
        last: int | torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """The logits of the `last` tokens (0: all), or of those at places."""
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, self._cache: slab}
        logits: torch.Tensor = self.model(**given, use_cache=True, logits_to_keep=last).logits
        return logits

    def _whole(
        self, rows: Sequence[list[int]], before: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows padded on the left as tensors: tokens, mask with the tokens `before` them, positions."""
        width = max(len(row) for row in rows)
        where = self.model.device
        pads = [width - len(row) for row in rows]
        ids = torch.tensor([[0] * pad + row for pad, row in zip(pads, rows, strict=True)], device=where)
        mask = torch.ones(len(rows), before + width, dtype=torch.long, device=where)
        for number, pad in enumerate(pads):
            mask[number, before : before + pad] = 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, before:]
        return ids, mask, positions

    def batch(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        took: Callable[[int, int], bool],
        picker: Picker,
        names: Sequence[int],
        shared: tuple[int, Kept] | None = None,
    ) -> None:
        """Decode prompts together; `took` hears (row, token) for each token and says whether the row has ended.

        A row ends at `limit` tokens too. One that ended leaves the batch at once: the others' steps get cheaper.
        `names` are the picker's names of the rows, `shared` the first tokens of all of them, read before.
        """
        before = shared[0] if shared else 0
        ids, mask, positions = self._whole([p[before:] for p in prompts], before)
        slab = Slab(self.layers, len(prompts), before + ids.shape[1] + limit)
        if shared:
            slab.load(shared[1], before)
        logits = self.read(ids, mask, positions, slab)
        live = _Live(list(range(len(prompts))), positions[:, -1:].clone(), self._hidden(mask, limit))
        for made in range(1, limit + 1):
            tokens = picker.pick(logits, [names[row] for row in live.rows])
            pairs = enumerate(zip(live.rows, tokens, strict=True))
            gone = {place for place, (row, token) in pairs if took(row, token)}
            if made == limit or len(gone) == len(tokens):
                return
            live.leave(gone, tokens, slab)
            live.positions += 1
            column = torch.tensor(tokens, device=ids.device)[:, None]
            seen = None if live.mask is None else live.mask[..., : slab.length + 1]
            logits = self.step(column, live.positions, slab, seen)[:, -1]

    def _hidden(self, mask: torch.Tensor, limit: int) -> torch.Tensor | None:
        """The padding as a mask [rows, 1, 1, tokens] to add to scores; None when there is none."""
        if bool(mask.all()):
            return None
        added = torch.zeros(
            len(mask), 1, 1, mask.shape[1] + limit, dtype=self.model.dtype, device=mask.device
        )
        added[:, 0, 0, : mask.shape[1]].masked_fill_(mask == 0, self.low)
        return added

    def one(
        self, prompt: list[int], limit: int, picker: Picker, slab: Slab, guesses: int = GUESSES
    ) -> Iterator[int]:
        """Decode one prompt whose first tokens may be in the slab already; yield its tokens, at most `limit`.

        Greedily, up to `guesses` tokens that followed the last ones where these occurred before are verified at once.
        """
        logits = self.read_one(prompt[slab.length :], slab)
        lookup = Lookup(prompt) if picker.how.greedy else None
        left = limit
        fresh = picker.pick(logits, (0,))
        while True:
            yield from fresh
            left -= len(fresh)
            if left == 0:
                return
            guess: list[int] = []
            if lookup is not None:
                lookup.extend(fresh)
                guess = lookup.guess(min(guesses, left - 1))
            fresh = self._verify(fresh[-1], guess, slab, picker)

    def _verify(self, last: int, guess: list[int], slab: Slab, picker: Picker) -> list[int]:
        """Return the guessed tokens that the model would have said, and the one it says after them."""
        start, new = slab.length, 1 + len(guess)
        ids = torch.tensor([[last, *guess]], device=self.model.device)
        positions = torch.arange(start, start + new, device=ids.device)[None]
        mask = None
        if guess:
            mask = torch.full((new, start + new), self.low, dtype=self.model.dtype, device=ids.device)
            mask = mask.triu(start + 1)[None, None]
        logits = self.step(ids, positions, slab, mask)[0]
        said = picker.pick(logits, (0,)) if not guess else [int(t) for t in logits.argmax(-1)]
        right = 0
        while right < len(guess) and guess[right] == said[right]:
            right += 1
        slab.cut(start + 1 + right)
        return said[: right + 1]


@dataclass
class _Live:
    """The rows still decoding, in the order the slab holds them."""

    rows: list[int]
    positions: torch.Tensor
    mask: torch.Tensor | None

    def leave(self, gone: set[int], tokens: list[int], slab: Slab) -> None:
        """Take rows out: the last ones move into the places that get free."""
        if not gone:
            return
        count = len(self.rows) - len(gone)
        free = sorted(place for place in gone if place < count)
        last = [place for place in range(count, len(self.rows)) if place not in gone]
        moves = list(zip(last, free, strict=True))
        for source, target in moves:
            self.rows[target], tokens[target] = self.rows[source], tokens[source]
            self.positions[target] = self.positions[source]
            if self.mask is not None:
                self.mask[target] = self.mask[source]
        del self.rows[count:], tokens[count:]
        self.positions = self.positions[:count]
        self.mask = None if self.mask is None else self.mask[:count]
        slab.leave(moves, count)
