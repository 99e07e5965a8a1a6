"""Decoding loops: a batch whose finished rows leave it, and a single stream with prompt lookup decoding.

:class:`Decoder` holds both loops. :class:`TokenSampler` chooses the next token, the likeliest or one drawn with a
temperature. :class:`PromptLookup` guesses the next tokens from the text so far, because answers with passages quote them
word for word (prompt lookup decoding, Saxena 2023): verifying five guessed tokens costs a model that is bound by memory
hardly more than computing one, and a greedy answer stays the same, as a guess is accepted only where the model itself
would have chosen it. Imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runners.inference.generation_rules import RowRules
from runners.inference.kv_cache import CachedPrefix, StaticKVCache, cacheable_layers
from runners.inference.llama_step import FusedLlamaStep, StepModel, unsupported_reason
from runners.inference.types import GREEDY, Sampling

MAX_GUESSES = 6
"""Most tokens that are guessed at once."""
MAX_NGRAM = 3
"""Number of last tokens that are looked up in the text before; where they do not occur, one fewer is tried."""
PREFILL_MULTIPLE = 16
"""A single row is prefilled in a multiple of this many tokens. For every new number of rows of a product oneDNN compiles
kernels and caches them: 150 questions of as many lengths left 110 MiB in memory, in such multiples 58, ever fewer."""


MOST_PERIOD, LOOP_TOKENS = 40, 36
"""Longest text in tokens whose repetition ends an answer, and the fewest tokens that repeat it."""


def in_loop(tokens: Sequence[int]) -> bool:
    """Return whether an answer ends in the same tokens three times in a row, so that greedy decoding would not end it."""
    for period in range(1, min(MOST_PERIOD, len(tokens) // 3) + 1):
        span = max(LOOP_TOKENS, 3 * period)
        if span > len(tokens):
            return False
        if tokens[-1] == tokens[-1 - period]:
            end = tokens[-span:]
            if end[period:] == end[:-period]:
                return True
    return False


class TokenSampler:
    """Chooses tokens for the rows of a call, each with its own random stream.

    So a row's draw depends on the seed and on its index in the call, never on the other rows.
    """

    def __init__(self, sampling: Sampling = GREEDY, rows: Sequence[int] = (0,)) -> None:
        """Prepare the random streams; `rows` are the indexes of the rows in the call."""
        self.sampling = sampling
        self._streams: dict[int, torch.Generator] = {}
        if not sampling.greedy:
            for row in rows:
                # Seeds of different calls stay apart for calls of up to 2**20 rows.
                self._streams[row] = torch.Generator().manual_seed((sampling.seed << 20) + row)

    def sample(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return one token for each row of `logits` [rows, vocabulary]."""
        if self.sampling.greedy:
            return [int(token) for token in logits.argmax(-1)]
        # In fp32 on the CPU, so that draws are the same wherever the model runs.
        probabilities = torch.softmax(logits.float().cpu() / self.sampling.temperature, dim=-1)
        return [
            self._draw(row_probabilities, self._streams[row])
            for row_probabilities, row in zip(probabilities, rows, strict=True)
        ]

    def verify(self, logits: torch.Tensor, guess: Sequence[int]) -> list[int]:
        """Return the first guessed tokens that would have been chosen too, and the one that is chosen after them.

        Args:
            logits: after the text before each guess, and after all of them [guesses + 1, vocabulary].
            guess: the guessed tokens; for greedy decoding of a single row.
        """
        if not guess:
            return self.sample(logits, (0,))
        chosen = [int(token) for token in logits.argmax(-1)]
        accepted = 0
        while accepted < len(guess) and guess[accepted] == chosen[accepted]:
            accepted += 1
        return chosen[: accepted + 1]

    def is_complete(self, row: int, count: int) -> bool:
        """Return whether nothing can follow the first ``count`` tokens of a row: never, for answers of any form."""
        return False

    def was_closed(self, row: int) -> bool:
        """Return whether a row was completed because its tokens ran out: never, for answers of any form."""
        return False

    def is_looping(self, row: int, tokens: Sequence[int]) -> bool:
        """Return whether a row of these tokens repeats itself, and so is ended; not where its form decides."""
        return in_loop(tokens)

    def _draw(self, probabilities: torch.Tensor, stream: torch.Generator) -> int:
        """Draw from the fewest tokens whose probabilities [vocabulary] reach top_p (nucleus sampling, Holtzman 2019)."""
        ordered, tokens = probabilities.sort(descending=True, stable=True)
        # The mass before a token decides, so the likeliest one always remains, however small top_p is.
        before = ordered.cumsum(0) - ordered
        nucleus = ordered * (before < self.sampling.top_p)
        return int(tokens[torch.multinomial(nucleus, 1, generator=stream)])


class PromptLookup:
    """An index of where every pair and triple of tokens last occurred, extended as the text grows."""

    def __init__(self, ids: Sequence[int]) -> None:
        """Index the prompt."""
        self.ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Append tokens to the text and index the pairs and triples that now have a token after them."""
        for token in ids:
            end = len(self.ids)
            # The n-gram before this token; what ends with the newest token is indexed when the next one comes.
            for length in range(2, MAX_NGRAM + 1):
                if end >= length:
                    self._after[tuple(self.ids[end - length : end])] = end
            self.ids.append(token)

    def guess(self, most: int = MAX_GUESSES) -> list[int]:
        """Return up to `most` (and MAX_GUESSES) tokens that followed the last ones where they occurred before, or []."""
        for length in range(MAX_NGRAM, 1, -1):
            start = self._after.get(tuple(self.ids[-length:]))
            if start is not None and len(self.ids) >= length:
                return self.ids[start : start + min(most, MAX_GUESSES)]
        return []


class Decoder:
    """A model with two decoding loops, for a batch and for a single row, over a static KV cache."""

    def __init__(self, model: Any, fused: bool = True) -> None:
        """Choose the step: the fused one where the model is built like Llama, transformers' for others.

        Which models may be decoded here is decided by :func:`runners.inference.decoding_path.choose_path`.

        Args:
            model: A causal language model of transformers whose cache is keys and values of every token.
            fused: False for transformers' step in any case.
        """
        # PEFT's wrapper of an unmerged adapter hides the arguments of the model; the adapter is in the model's own layers.
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model = model
        is_step_model = isinstance(model, StepModel)
        self.layers = model.config.num_hidden_layers if is_step_model else cacheable_layers(model.config)
        self.reason = unsupported_reason(model) if fused else "the fused step is switched off"
        self.fused_step = None if self.reason else FusedLlamaStep(model)
        # Its chunks and blocks are made for a processor's caches; on a GPU they would be many small launches.
        on_cpu = model.device.type == "cpu"
        self.fused_prefill = self.fused_step.prefill if self.fused_step and on_cpu else None
        named = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in named else "past_key_values"
        # The lowest number instead of -inf: a query of padding, from which every key is hidden, has no NaN in its softmax.
        self.lowest = torch.finfo(model.dtype).min

    @torch.inference_mode()
    def prefill(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: StaticKVCache
    ) -> torch.Tensor:
        """Compute tokens [rows, new] into the cache; return the logits [rows, vocabulary] after the last.

        `mask` [rows, cached + new] is 1 for real tokens, 0 for padding; `positions` [rows, new].
        """
        if self.fused_prefill:
            lengths = mask[:, cache.length :].sum(1).tolist()
            rows = [row[-n:] for row, n in zip(ids.tolist(), lengths, strict=True)]
            return self.fused_prefill.logits(rows, cache)
        return self._call(ids, mask, positions, cache, 1)[:, -1]

    @torch.inference_mode()
    def step(
        self, ids: torch.Tensor, positions: torch.Tensor, cache: StaticKVCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the logits [rows, new, vocabulary] of new tokens; `mask` [rows, 1, new, tokens] is added to scores."""
        if self.fused_step:
            return self.fused_step.step(ids, positions, cache, mask)
        return self._call(ids, mask, positions, cache, 0)

    @torch.inference_mode()
    def prefill_one(self, ids: Sequence[int], cache: StaticKVCache) -> torch.Tensor:
        """Compute more tokens of a cache's only row; return the logits [1, vocabulary] after the last.

        They are padded on the right to a multiple of PREFILL_MULTIPLE where the cache has capacity: no token sees what
        comes after it, and the padding is truncated again.
        """
        start = cache.length
        count = len(ids)
        if self.fused_prefill:
            return self.fused_prefill.logits([ids], cache)
        filled = max(count, min(-(-count // PREFILL_MULTIPLE) * PREFILL_MULTIPLE, cache.capacity - start))
        device = self.model.device
        row = torch.tensor([[*ids, *[0] * (filled - count)]], device=device)
        # Clamped, because a model's positions may end where the real tokens do.
        positions = torch.arange(start, start + filled, device=device).clamp(max=start + count - 1)[None]
        mask = torch.ones(1, start + filled, dtype=torch.long, device=device)
        logits = self._call(row, mask, positions, cache, torch.tensor([count - 1], device=device))
        cache.truncate(start + count)
        return logits[:, -1]

    def cache_prefix(self, ids: Sequence[int], start: tuple[int, CachedPrefix] | None = None) -> CachedPrefix:
        """Compute the keys and values of a prefix and return a copy of them; `start` has those of its first tokens."""
        cache = StaticKVCache(self.layers, 1, len(ids) + PREFILL_MULTIPLE)
        if start:
            cache.load_prefix(start[1], start[0])
        self.prefill_one(ids[cache.length :], cache)
        return cache.copy_prefix(len(ids))

    def _call(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        cache: StaticKVCache,
        last: int | torch.Tensor,
    ) -> torch.Tensor:
        """Return transformers' logits [rows, returned, vocabulary] of the `last` tokens (0: all), or of those at indexes."""
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            self._cache_argument: cache,
        }
        logits: torch.Tensor = self.model(**inputs, use_cache=True, logits_to_keep=last).logits
        return logits

    def left_padded(
        self, rows: Sequence[list[int]], before: int, multiple: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return tokens [rows, width], mask [rows, before + width] and positions [rows, width] of padded rows.

        ``width`` is a multiple of ``multiple``.

        Padded on the left, so that the last column is every row's last token. The `before` tokens that are already in the
        cache precede the padding: the cache has them at the same indexes in every row.
        """
        width = -(-max(len(row) for row in rows) // multiple) * multiple
        device = self.model.device
        pads = [width - len(row) for row in rows]
        ids = torch.tensor([[0] * pad + row for pad, row in zip(pads, rows, strict=True)], device=device)
        mask = torch.ones(len(rows), before + width, dtype=torch.long, device=device)
        for number, pad in enumerate(pads):
            mask[number, before : before + pad] = 0
        # A token's position is the number of real tokens before it; padding at the very start would have -1.
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, before:]
        return ids, mask, positions

    def decode_batch(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        on_token: Callable[[int, int], bool],
        sampler: TokenSampler,
        names: Sequence[int],
        shared: tuple[int, CachedPrefix] | None = None,
        rules: RowRules | None = None,
    ) -> None:
        """Decode prompts together.

        A row that has ended leaves the batch at once, so that the steps of the others get cheaper.

        Args:
            prompts: The prompts as tokens.
            limit: Most tokens of an answer.
            on_token: Called with (row, token) for each token; returns whether the row has ended.
            sampler: Chooses the tokens.
            names: The sampler's index of each row.
            shared: Length of the prefix that all prompts share, and its cached keys and values.
            rules: What the model's generation_config asks of the answers.
        """
        before = shared[0] if shared else 0
        ids, mask, positions = self.left_padded([p[before:] for p in prompts], before)
        cache = StaticKVCache(self.layers, len(prompts), before + ids.shape[1] + limit)
        if shared:
            cache.load_prefix(shared[1], before)
        logits = self.prefill(ids, mask, positions, cache)
        active = _ActiveRows(
            list(range(len(prompts))), positions[:, -1:].clone(), self._padding_bias(mask, limit)
        )
        for count in range(1, limit + 1):
            if rules:
                logits = rules.apply(logits, active.rows)
            tokens = sampler.sample(logits, [names[row] for row in active.rows])
            if rules:
                rules.extend(active.rows, tokens)
            pairs = enumerate(zip(active.rows, tokens, strict=True))
            ended = {index for index, (row, token) in pairs if on_token(row, token)}
            if count == limit or len(ended) == len(tokens):
                return
            active.remove(ended, tokens, cache)
            active.positions += 1
            column = torch.tensor(tokens, device=ids.device)[:, None]
            # The bias is as wide as the cache will get; a step sees what is written and its own token.
            bias = None if active.bias is None else active.bias[..., : cache.length + 1]
            logits = self.step(column, active.positions, cache, bias)[:, -1]

    def _padding_bias(self, mask: torch.Tensor, limit: int) -> torch.Tensor | None:
        """Return the padding as a bias [rows, 1, 1, tokens + limit] to add to scores; None when there is none."""
        if bool(mask.all()):
            return None
        bias = torch.zeros(len(mask), 1, 1, mask.shape[1] + limit, dtype=self.model.dtype, device=mask.device)
        bias[:, 0, 0, : mask.shape[1]].masked_fill_(mask == 0, self.lowest)
        return bias

    def decode_one(
        self,
        prompt: list[int],
        limit: int,
        sampler: TokenSampler,
        cache: StaticKVCache,
        guesses: int = MAX_GUESSES,
        rules: RowRules | None = None,
    ) -> Iterator[int]:
        """Decode one prompt, whose first tokens may be in the cache already; yield its tokens, at most `limit`.

        In greedy decoding up to `guesses` tokens of :class:`PromptLookup` are verified in one step. `rules` are those of
        this prompt.
        """
        logits = self.prefill_one(prompt[cache.length :], cache)
        if rules:
            logits = rules.apply(logits, (0,))
        # A drawn token depends on the draws before it, so guesses are for greedy decoding only.
        lookup = PromptLookup(prompt) if sampler.sampling.greedy else None
        left = limit
        fresh = sampler.sample(logits, (0,))
        while True:
            if rules:
                for token in fresh:
                    rules.extend((0,), (token,))
            yield from fresh
            left -= len(fresh)
            if left == 0:
                return
            guess: list[int] = []
            if lookup is not None:
                lookup.extend(fresh)
                # One less than is left: the step returns a token after the accepted guesses.
                guess = lookup.guess(min(guesses, left - 1))
            fresh = self._verify(fresh[-1], guess, cache, sampler, rules)

    def logits_after(self, tokens: Sequence[int], cache: StaticKVCache) -> torch.Tensor:
        """Compute tokens of a cache's only row in one step; return the logits [tokens, vocabulary] after each."""
        start, new = cache.length, len(tokens)
        ids = torch.tensor([tokens], device=self.model.device)
        positions = torch.arange(start, start + new, device=ids.device)[None]
        mask = None
        if new > 1:
            # [1, 1, new, start + new]: new token i sees what is cached and new tokens 0 to i.
            mask = torch.full((new, start + new), self.lowest, dtype=self.model.dtype, device=ids.device)
            mask = mask.triu(start + 1)[None, None]
        return self.step(ids, positions, cache, mask)[0]

    def _verify(
        self,
        last: int,
        guess: list[int],
        cache: StaticKVCache,
        sampler: TokenSampler,
        rules: RowRules | None = None,
    ) -> list[int]:
        """Return the guessed tokens that the model would have chosen, and the one it chooses after them."""
        start = cache.length
        logits = self.logits_after([last, *guess], cache)  # [1 + guessed, vocabulary]
        if rules:
            # A rule reads the text before a token, which holds the guesses before it.
            each = [rules.apply(logits[n : n + 1], (0,), guess[:n]) for n in range(len(logits))]
            logits = torch.cat(each)
        chosen = sampler.verify(logits, guess)
        # Keys and values of `last` and of the accepted guesses are right, those after them are not.
        cache.truncate(start + len(chosen))
        return chosen


@dataclass
class _ActiveRows:
    """The rows still decoding, in the order of the cache."""

    rows: list[int]
    positions: torch.Tensor
    """int64 [rows, 1]: position of each row's newest token."""
    bias: torch.Tensor | None
    """[rows, 1, 1, tokens]: added to the scores to hide padding."""

    def remove(self, ended: set[int], tokens: list[int], cache: StaticKVCache) -> None:
        """Remove rows by their index here: the last rows move to the indexes that become free.

        ``tokens``, the newest token of each row, and the cache are changed alike.
        """
        if not ended:
            return
        count = len(self.rows) - len(ended)
        free = sorted(index for index in ended if index < count)
        last = [index for index in range(count, len(self.rows)) if index not in ended]
        moves = list(zip(last, free, strict=True))
        for source, target in moves:
            self.rows[target], tokens[target] = self.rows[source], tokens[source]
            self.positions[target] = self.positions[source]
            if self.bias is not None:
                self.bias[target] = self.bias[source]
        del self.rows[count:], tokens[count:]
        self.positions = self.positions[:count]
        self.bias = None if self.bias is None else self.bias[:count]
        cache.drop_rows(moves, count)
