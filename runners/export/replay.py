"""Five prompts, answered before and after: whether what was written is what was measured. torch is imported inside.

Both sides compute in float32. The untouched side answers greedily; the other side reads its answers and must choose the
same token at every place of them, which by induction is to give the same greedy answer. One pass does for tokens and
logits, where answering again would take as many passes as there are tokens.
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
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01, "q8_0": 0.1}
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
    """Answer every prompt greedily and keep the logits that every token, the end included, was chosen from."""
    import torch

    answers, logits = [], []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)], device=net.device)
        with torch.inference_mode():
            found = net.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False,
                eos_token_id=sorted(ends), pad_token_id=min(ends), output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        answers.append(tuple(int(token) for token in found.sequences[0, len(prompt) :].tolist()))
        logits.append(torch.cat(found.logits).float().cpu())
    return Played(tuple(map(tuple, prompts)), tuple(answers), tuple(logits))


def compare(before: Played, net: Any) -> Compared:
    """Let another model read what was answered before, and say how far it is from answering the same."""
    import torch

    same, after = 0, []
    for prompt, answer in zip(before.prompts, before.answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]], device=net.device)
        with torch.inference_mode():
            found = net(input_ids=ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float().cpu()
        same += found.argmax(dim=-1).tolist() == list(answer)
        after.append(found)
    old, new = torch.cat(before.logits), torch.cat(after)
    off = old - new
    return Compared(
        same,
        len(before.prompts),
        len(old),
        float(off.abs().max()),
        float(off.pow(2).mean().sqrt() / old.std()),
    )
