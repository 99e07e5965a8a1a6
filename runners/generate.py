"""Local generation: greedy, batched by length, with tuned weights merged in memory. Heavy: imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402

from runners.attach import load_for_inference  # noqa: E402
from runners.completion import Completion  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.shapes import Message  # noqa: E402

BATCH_ROWS = 32
BATCH_TOKENS = 12_000
"""Prompt tokens of one batch, padding included: bounds the key/value cache to about 0.3 GiB on a 135M model."""


class LocalGenerator:
    """A base model, or one with tuned weights, decoding greedily on this machine."""

    def __init__(self, model: Model, weights: Path | None = None, dtype: str = "auto") -> None:
        """Load the model; `weights` is an adapter or a tuned model folder made on exactly this base."""
        self.model: Any
        self.tokenizer: Any
        self.model, self.tokenizer = load_for_inference(model, weights, dtype)
        self.tokenizer.padding_side = "left"

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
    ) -> list[Completion]:
        """Answer every chat greedily; rows of like length share a batch, the same batches every time."""
        prompts = [self._tokens(chat) for chat in chats]
        done: dict[int, Completion] = {}
        for batch in batches([len(p) for p in prompts]):
            answers = self._batch([prompts[i] for i in batch], max_new_tokens)
            done.update(zip(batch, answers, strict=True))
            if on_batch:
                on_batch(batch, answers)
        return [done[i] for i in range(len(chats))]

    def _tokens(self, chat: Sequence[Message]) -> list[int]:
        text = self.tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _batch(self, prompts: list[list[int]], max_new_tokens: int) -> list[Completion]:
        started = time.perf_counter()
        width = max(len(p) for p in prompts)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self.model.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.model.device
        )
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                pad_token_id=pad, eos_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
        seconds = (time.perf_counter() - started) / len(prompts)
        return [
            self._completion(p, row[width:].tolist(), seconds) for p, row in zip(prompts, made, strict=True)
        ]

    def _completion(self, prompt: list[int], made: list[int], seconds: float) -> Completion:
        eos = self.tokenizer.eos_token_id
        stopped = eos in made
        kept = made[: made.index(eos)] if stopped else made
        text = self.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Completion(text, len(prompt), len(kept), seconds, "stop" if stopped else "length")


def batches(lengths: Sequence[int], rows: int = BATCH_ROWS, tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Group positions by like length, at most `rows` rows and `tokens` padded tokens a batch; longest first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    found: list[list[int]] = []
    for position in order:
        current = found[-1] if found else []
        fits = current and len(current) < rows and (len(current) + 1) * lengths[current[0]] <= tokens
        if fits:
            current.append(position)
        else:
            found.append([position])
    return found
