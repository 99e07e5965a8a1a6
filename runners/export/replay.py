"""Five prompts, answered before and after: whether what was written is what was measured. torch is imported inside.

Both sides compute in float32. The tokens of the untouched side are what both are compared on: its greedy answers with
the other side's, and, at every place of them, the logits of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runners.chat import Chat
from runners.export.source import Source
from runners.rundir import TRIAL, read_lines
from runners.shapes import Message, system_turn
from runners.trial import ANSWERS

PROMPTS = 5
TOKENS = 32
"""Longest answer that is compared."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}
"""Root mean square difference of the logits, in standard deviations of the logits, that rounding the weights to a number
type may make. Measured on SmolLM2-135M with rank 16 adapters: see benchmarks/LOG.md, 2026-11-25."""
_PLAIN = (
    "What can you help me with?", "Please answer in one sentence: when do you open?", "I have lost my bag.",
    "Who should I call about a mistake in my bill?", "Thank you. Is there anything else that I should know?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Played:
    """What a model said to the prompts."""

    prompts: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    logits: tuple[Any, ...]
    """float32 [tokens of the answer, vocabulary] for each prompt: what each token was chosen from."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How far one model's answers are from another's."""

    same: int
    """Prompts whose greedy tokens are equal to the end."""
    prompts: int
    tokens: int
    """Tokens compared."""
    largest: float
    """Largest difference of a logit."""
    relative: float
    """Root mean square difference, in standard deviations of the logits."""

    def holds(self, dtype: str) -> bool:
        """Say whether the tokens are equal and the logits within what the number type allows."""
        return self.same == self.prompts and self.relative <= TOLERANCE[dtype]

    def told(self, against: str) -> dict[str, Any]:
        """Return the numbers for card and manifest."""
        return {
            f"greedy tokens equal to {against}": f"{self.same} of {self.prompts} prompts, {self.tokens} tokens",
            "largest difference of a logit": self.largest,
            "root mean square difference, in standard deviations": self.relative,
        }


def chats(source: Source) -> list[list[Message]]:
    """Return the first five prompts that the arm was asked in the trial; general ones where there are fewer."""
    assert source.arm is not None
    found: list[list[Message]] = []
    for row in read_lines(source.run.path / TRIAL / ANSWERS):
        if row.get("arm") == source.arm.arm and row.get("prompt") and row["prompt"] not in found:
            found.append(row["prompt"])
        if len(found) == PROMPTS:
            break
    system = system_turn(source.plan.prompts.system)
    return found + [[*system, {"role": "user", "content": text}] for text in _PLAIN[len(found) :]]


def tokens(chat: Chat, asked: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Return chats as the model reads them, to where it is to speak."""
    return [chat.encode(chat.render(messages, prompt=True)) for messages in asked]


def play(net: Any, prompts: Sequence[Sequence[int]], ends: Sequence[int], limit: int) -> Played:
    """Answer every prompt greedily and keep the logits of every token said."""
    answers = [_greedy(net, prompt, ends, limit) for prompt in prompts]
    logits = [_logits(net, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return Played(tuple(map(tuple, prompts)), tuple(map(tuple, answers)), tuple(logits))


def compare(before: Played, net: Any, ends: Sequence[int], limit: int) -> Compared:
    """Answer the same prompts with another model and say how far it is from before."""
    import torch

    same = sum(
        _greedy(net, prompt, ends, limit) == list(answer)
        for prompt, answer in zip(before.prompts, before.answers, strict=True)
    )
    after = [_logits(net, p, a) for p, a in zip(before.prompts, before.answers, strict=True)]
    width = min(
        before.logits[0].shape[1], after[0].shape[1]
    )  # a file may leave out rows that stand for no token
    old, new = (torch.cat([rows[:, :width] for rows in side]) for side in (before.logits, after))
    off = old - new
    return Compared(
        same,
        len(before.prompts),
        len(old),
        float(off.abs().max()),
        float(off.pow(2).mean().sqrt() / old.std()),
    )


def _greedy(net: Any, prompt: Sequence[int], ends: Sequence[int], limit: int) -> list[int]:
    import torch

    ids = torch.tensor([list(prompt)], device=net.device)
    with torch.inference_mode():
        row = net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False,
            eos_token_id=sorted(ends), pad_token_id=min(ends),
        )  # fmt: skip
    return [int(token) for token in row[0, len(prompt) :].tolist()]


def _logits(net: Any, prompt: Sequence[int], answer: Sequence[int]) -> Any:
    import torch

    ids = torch.tensor([[*prompt, *answer]], device=net.device)
    with torch.inference_mode():
        found = net(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return found.float().cpu()
