"""Decoding with transformers' ``generate``: the reference path, and the one for caches that are not ours to write.

:class:`TransformersDecoder` has the two loops of :class:`runners.inference.decoding.Decoder`, a batch with a callback for
each token and a single row as an iterator, and leaves the model's layers, cache, masks and positions to transformers.
Imports torch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from runners.inference.generation_rules import RowRules, neutral_settings

UNLIMITED = 1 << 40
"""More tokens than a row can have."""
UNPADDED = ("minimax", "recurrent_gemma")
"""Architectures whose recurrence reads padding on the left as tokens, so that a padded row has another answer."""


class TransformersDecoder:
    """A model with two decoding loops, for a batch and for a single row, over transformers' ``generate``."""

    def __init__(self, model: Any, ends: Sequence[int], pad: int | None, padded: int = UNLIMITED) -> None:
        """Take the model and how its answers end.

        Args:
            model: A causal language model of transformers.
            ends: Tokens that end an answer.
            pad: The padding token; None for a tokenizer without one.
            padded: Most tokens, answers included, up to which rows of unequal length are padded to one batch; of longer
                ones only those of equal length are decoded together.
        """
        self.model = model
        self.padded = padded
        self._ends = sorted(ends)
        self._pad = 0 if pad is None else pad

    def decode_batch(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        on_token: Callable[[int, int], bool],
        sampler: Any,
        names: Sequence[int],
        rules: RowRules | None = None,
    ) -> None:
        """Decode prompts together, or those of equal length where the model does not bear padding.

        Args:
            prompts: The prompts as tokens.
            limit: Most tokens of an answer.
            on_token: Called with (row, token) for each token; returns whether the row has ended.
            sampler: Chooses the tokens; a :class:`runners.inference.decoding.TokenSampler`.
            names: The sampler's index of each row.
            rules: What the model's generation_config asks of the answers.
        """
        for rows in self._groups(prompts, limit):
            self._generate(rows, prompts, limit, on_token, sampler, names, rules)

    def decode_one(
        self, prompt: list[int], limit: int, sampler: Any, rules: RowRules | None = None
    ) -> Iterator[int]:
        """Decode one prompt; yield its tokens, at most ``limit``, each computed when the one before has been taken.

        ``generate`` runs on a thread of its own, because it calls back where an iterator has to return; the thread waits
        whenever this iterator is not asked, and ends with it.
        """
        tokens: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        wanted, closed = threading.Semaphore(0), threading.Event()

        def on_token(row: int, token: int) -> bool:
            tokens.put(token)
            wanted.acquire()
            return closed.is_set()

        def generate() -> None:
            try:
                self.decode_batch([prompt], limit, on_token, sampler, (0,), rules)
            except BaseException as error:  # raised again where the tokens are read
                tokens.put(error)
            else:
                tokens.put(None)

        thread = threading.Thread(target=generate, name="transformers-generate", daemon=True)
        thread.start()
        try:
            while (token := tokens.get()) is not None:
                if isinstance(token, BaseException):
                    raise token
                yield token
                wanted.release()
        finally:
            closed.set()
            wanted.release()
            thread.join()

    def _groups(self, prompts: Sequence[list[int]], limit: int) -> list[list[int]]:
        """Return the indexes of the rows that are decoded together: all, or those of one length."""
        if max(map(len, prompts)) + limit <= self.padded:
            return [list(range(len(prompts)))]
        by_length: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt), []).append(row)
        return list(by_length.values())

    @torch.inference_mode()
    def _generate(
        self,
        rows: Sequence[int],
        prompts: Sequence[list[int]],
        limit: int,
        on_token: Callable[[int, int], bool],
        sampler: Any,
        names: Sequence[int],
        rules: RowRules | None,
    ) -> None:
        """Decode the rows at these indexes with one call of ``generate``."""
        width = max(len(prompts[row]) for row in rows)
        # Padded on the left, so that every row's answer begins in the same column.
        pads = [width - len(prompts[row]) for row in rows]
        device = self.model.device
        ids = [[self._pad] * pad + prompts[row] for pad, row in zip(pads, rows, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        ended = [False] * len(rows)

        def choose(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            """Leave each row the token that the rules and the sampler choose, for ``generate`` to take the likeliest."""
            active = [index for index, over in enumerate(ended) if not over]
            left = scores[active]
            if rules:
                left = rules.apply(left, [rows[index] for index in active])
            chosen = torch.full_like(scores, float("-inf"))
            tokens = sampler.sample(left, [names[rows[index]] for index in active])
            chosen[:, self._pad] = 0.0  # rows that have ended
            chosen[active, self._pad] = float("-inf")
            chosen[active, torch.tensor(tokens, device=scores.device)] = 0.0
            return chosen

        def stop(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            """Report each row's newest token, and end the rows that the caller ends."""
            for index, token in enumerate(ids[:, -1].tolist()):
                if not ended[index]:
                    if rules:
                        rules.extend((rows[index],), (token,))
                    ended[index] = on_token(rows[index], token)
            return torch.tensor(ended, device=ids.device)

        self.model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            **neutral_settings(self.model.generation_config),
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            pad_token_id=self._pad,
            eos_token_id=self._ends or None,
            logits_processor=[choose],
            stopping_criteria=[stop],
        )
