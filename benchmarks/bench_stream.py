"""One answer at a time: what was tried to make a single stream faster, on the trial's own prompts, taking turns.

transformers with its growing cache, with a static one, compiled, and with its own prompt lookup; ours without and with
verified guesses; ours with 8-bit and 4-bit weights in the steps. Reading the prompt and compiling are timed apart. Run
from the repository's root:

    python -m benchmarks.bench_stream
    python -m benchmarks.bench_stream --arm few-shot --ways ours "ours, int8"
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StaticCache
from transformers.generation.streamers import BaseStreamer

from benchmarks.bench_generate import MODEL, chats
from runners.inference.decoding import MAX_GUESSES, TokenSampler
from runners.inference.kv_cache import StaticKVCache
from runners.inference.llama_step import FusedLlamaStep, MatrixProduct
from runners.inference.local import LocalGenerator
from runners.models import resolve

GROUP = 32
"""Weights of a row that share a scale, of 4-bit weights."""


@dataclass
class Heard:
    """One answer and when it came."""

    tokens: list[int]
    read: float
    """Seconds until the first token."""
    said: float
    """Seconds from there to the end."""


Way = Callable[[list[int]], Heard]
"""Answers a prompt."""


class Clock(BaseStreamer):  # type: ignore[misc]  # transformers is untyped
    """Notes when generate has its first token; what it is given first is the prompt."""

    def __init__(self) -> None:
        self.heard, self.at = 0, 0.0

    def put(self, value: torch.Tensor) -> None:
        """Take tokens."""
        self.heard += 1
        if self.heard == 2:
            self.at = time.perf_counter()

    def end(self) -> None:
        """Nothing more comes."""


def listened(running: Iterator[int], ends: frozenset[int]) -> Heard:
    """Take an answer's tokens up to its end."""
    started = time.perf_counter()
    tokens, at = [next(running)], time.perf_counter()
    for token in running:
        if token in ends:
            break
        tokens.append(token)
    return Heard(tokens, at - started, time.perf_counter() - at)


def int8(weight: torch.Tensor, bias: torch.Tensor | None) -> MatrixProduct:
    """8-bit weights with a scale for each row, torch's own product of them; without a bias."""
    assert bias is None
    scale = (weight.float().abs().amax(1) / 127).clamp(min=1e-8)
    packed = (weight.float() / scale[:, None]).round().to(torch.int8)
    scales = scale.to(weight.dtype)
    return lambda x: torch._weight_int8pack_mm(x.flatten(0, -2), packed, scales).view(*x.shape[:-1], -1)


def int4(weight: torch.Tensor, bias: torch.Tensor | None) -> MatrixProduct:
    """4-bit weights with a scale and a zero for each GROUP, torch's own product of them; the head stays 8-bit."""
    if len(weight) > 10_000:
        return int8(weight, bias)
    groups = weight.float().view(len(weight), -1, GROUP)
    low, scale = groups.amin(-1), ((groups.amax(-1) - groups.amin(-1)) / 15).clamp(min=1e-8)
    steps = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15)
    packed = torch._convert_weight_to_int4pack_for_cpu(steps.to(torch.int32).view(weight.shape), 1)
    both = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1).contiguous().to(weight.dtype)

    def product(x: torch.Tensor) -> torch.Tensor:
        made = torch._weight_int4pack_mm_for_cpu(x.flatten(0, -2), packed, GROUP, both)
        return made.view(*x.shape[:-1], -1)

    return product


def ours(generator: LocalGenerator, limit: int, guesses: int, fused: FusedLlamaStep | None = None) -> Way:
    """Our stream's loop, with other weights in its steps when given."""
    decoder = generator.decoder
    assert decoder is not None

    def answer(prompt: list[int]) -> Heard:
        kept, decoder.fused_step = decoder.fused_step, fused or decoder.fused_step
        cache = StaticKVCache(decoder.layers, 1, len(prompt) + limit)
        heard = listened(decoder.decode_one(prompt, limit, TokenSampler(), cache, guesses), generator.ends)
        decoder.fused_step = kept
        return heard

    return answer


def theirs(generator: LocalGenerator, limit: int, compiled: bool) -> Way:
    """transformers' own steps over its static cache of one size, compiled or not."""
    model: Any = generator.model

    def forward(ids: torch.Tensor, positions: torch.Tensor, cache: StaticCache) -> torch.Tensor:
        logits: torch.Tensor = model(
            input_ids=ids, position_ids=positions, past_key_values=cache, logits_to_keep=1
        ).logits
        return logits[0, -1].argmax()

    step = torch.compile(forward, dynamic=False) if compiled else forward

    def say(prompt: list[int]) -> Iterator[int]:
        cache = StaticCache(config=model.config, max_cache_len=1024)
        with torch.inference_mode():
            token = int(forward(torch.tensor([prompt]), torch.arange(len(prompt))[None], cache))
            yield token
            for place in range(len(prompt), len(prompt) + limit - 1):
                token = int(step(torch.tensor([[token]]), torch.tensor([[place]]), cache))
                yield token

    return lambda prompt: listened(say(prompt), generator.ends)


def generated(generator: LocalGenerator, limit: int, **how: Any) -> Way:
    """transformers' generate."""

    def answer(prompt: list[int]) -> Heard:
        ids, clock, started = torch.tensor([prompt]), Clock(), time.perf_counter()
        with torch.inference_mode():
            row = generator.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=sorted(generator.ends),
                streamer=clock,
                **how,
            )[0]
        said = time.perf_counter() - clock.at
        tokens = [token for token in row[len(prompt) :].tolist() if token not in generator.ends]
        return Heard(tokens, clock.at - started, said)

    return answer


def ways(generator: LocalGenerator, limit: int, wanted: list[str]) -> dict[str, Way]:
    """The ways by name, or those wanted."""
    model = generator.model
    made: dict[str, Callable[[], Way]] = {
        "transformers": lambda: generated(generator, limit),
        "transformers, lookup": lambda: generated(generator, limit, prompt_lookup_num_tokens=MAX_GUESSES),
        "transformers, static": lambda: theirs(generator, limit, False),
        "transformers, compiled": lambda: theirs(generator, limit, True),
        "ours, no guesses": lambda: ours(generator, limit, 0),
        "ours": lambda: ours(generator, limit, MAX_GUESSES),
        "ours, int8, no guesses": lambda: ours(generator, limit, 0, FusedLlamaStep(model, int8)),
        "ours, int8": lambda: ours(generator, limit, 3, FusedLlamaStep(model, int8)),
        "ours, int4, no guesses": lambda: ours(generator, limit, 0, FusedLlamaStep(model, int4)),
    }
    return {name: make() for name, make in made.items() if not wanted or name in wanted}


def main() -> None:
    """Take turns prompt by prompt and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arm", choices=("prompting", "few-shot", "rag"), default="rag")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--ways", nargs="*", default=[])
    given = parser.parse_args()
    generator = LocalGenerator(resolve.resolve_model(MODEL))
    prompts = [generator._tokens(chat) for chat in chats(given.arm, given.questions)]
    turns = ways(generator, given.tokens, given.ways)
    heard: dict[str, list[Heard]] = {}
    for name, answer in turns.items():
        started = time.perf_counter()
        answer(prompts[0])
        print(f"{name:<24} warm after {time.perf_counter() - started:5.1f} s", flush=True)
    for prompt in prompts:
        for name, answer in turns.items():
            heard.setdefault(name, []).append(answer(prompt))
    print(
        f"{generator.model.dtype}, {torch.get_num_threads()} threads, arm {given.arm}, {len(prompts)} questions"
    )
    first = next(iter(heard.values()))
    for name, answers in heard.items():
        read = statistics.median(a.read for a in answers)
        each = 1000 * sum(a.said for a in answers) / sum(len(a.tokens) - 1 for a in answers)
        same = sum(a.tokens == b.tokens for a, b in zip(answers, first, strict=True))
        print(
            f"{name:<24} first {read:5.2f} s  {each:5.1f} ms/token  {1000 / each:5.1f} tokens/s  "
            f"{same}/{len(answers)} same"
        )


if __name__ == "__main__":
    main()
