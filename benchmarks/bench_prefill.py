"""Reading prompts: this project's prefill against the bare matrix products of the model, and against transformers.

The products are those of the model's own linear layers, on its own weights, in its dtype and at the prompt's length (the
head for the last token only). The three take turns in one process, and a ratio is taken within each round, so that
whatever else the machine does falls on all of them. `--plan` measures instead what prompts that share their beginnings
cost: in batches by length with one common prefix, and in batches by beginning. Run from the repository's root:

    python -m benchmarks.bench_prefill --dtype float32 --tokens 512 1024 2048 --rows 1 4
    python -m benchmarks.bench_prefill --model qwen2 --dtype bfloat16 --tokens 512
    python -m benchmarks.bench_prefill --plan SHARED/data/xquad_en --seconds
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bm25s
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from runners.inference.decoding import Decoder
from runners.inference.kv_cache import CachedPrefix, StaticKVCache, common_prefix
from runners.inference.local import BATCH_ROWS, BATCH_TOKENS, LocalGenerator, length_batches
from runners.inference.prefix_groups import PromptBatch, computed_tokens, prompt_batches
from runners.models import resolve

MODEL = "smollm2-135m-instruct"
ANSWER = 32
"""Most tokens of an answer, for the limits of a batch."""


def loaded(name: str, dtype: torch.dtype) -> Any:
    """SmolLM2, or a model of another architecture with random weights, of the widths of Qwen2.5-0.5B with 8 layers."""
    if name != "qwen2":
        return AutoModelForCausalLM.from_pretrained(resolve.resolve_model(name).folder, dtype=dtype).eval()
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=8,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=32_000,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def products(model: Any, tokens: int) -> Callable[[], object]:
    """All matrix products of the linear layers for so many tokens, one after the other, on one input of each width."""
    layers = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.endswith("lm_head")]
    inputs = {width: torch.randn(tokens, width).to(model.dtype) for width in {m.in_features for m in layers}}

    def run() -> None:
        for layer in layers:
            F.linear(inputs[layer.in_features], layer.weight, layer.bias)
        F.linear(inputs[model.lm_head.in_features][:1], model.lm_head.weight)

    return run


def ways(model: Any, decoder: Decoder, rows: int, tokens: int) -> dict[str, Callable[[], object]]:
    """The three by name."""
    draw = torch.Generator().manual_seed(tokens)
    ids = torch.randint(100, model.config.vocab_size, (rows, tokens), generator=draw)
    mask = torch.ones_like(ids)
    positions = torch.arange(tokens).expand(rows, -1)

    def ours() -> torch.Tensor:
        cache = StaticKVCache(decoder.layers, rows, tokens + ANSWER)
        if rows == 1:
            return decoder.prefill_one(ids[0].tolist(), cache)
        return decoder.prefill(ids, mask, positions, cache)

    def theirs() -> torch.Tensor:
        logits: torch.Tensor = model(input_ids=ids, use_cache=True, logits_to_keep=1).logits[:, -1]
        return logits

    return {"products": products(model, rows * tokens), "ours": ours, "transformers": theirs}


def compare(model: Any, rows: int, tokens: int, rounds: int) -> None:
    """Take turns and print medians of seconds and of ratios within a round."""
    decoder = Decoder(model)
    turns = ways(model, decoder, rows, tokens)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, run in turns.items():
            started = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    bare, ours, theirs = seconds.values()
    ratio = [a / b for a, b in zip(bare, ours, strict=True)]
    plain = [a / b for a, b in zip(bare, theirs, strict=True)]
    print(
        f"{model.config.model_type} {str(model.dtype)[6:]}, {torch.get_num_threads()} threads, {rows} x {tokens} tokens: "
        f"products {statistics.median(bare):.2f} s, ours {statistics.median(ours):.2f}, transformers "
        f"{statistics.median(theirs):.2f}; of the products' speed: ours {statistics.median(ratio):.2f} "
        f"({min(ratio):.2f}-{max(ratio):.2f}), transformers {statistics.median(plain):.2f}; of the minima "
        f"{min(bare) / min(ours):.2f}, {min(bare) / min(theirs):.2f}; {rows * tokens / min(ours):,.0f} tokens/s",
        flush=True,
    )


def rag_prompts(folder: Path, generator: LocalGenerator, count: int) -> list[list[int]]:
    """Prompts of a set's first questions, each with the three passages that BM25 ranks first."""
    texts = [
        json.loads(line)["text"] for line in (folder / "documents.jsonl").read_text("utf-8").splitlines()
    ]
    asked = (folder / "questions.jsonl").read_text("utf-8").splitlines()[:count]
    questions = [json.loads(line)["question"] for line in asked]
    ranking = bm25s.BM25()
    ranking.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    tops, _ = ranking.retrieve(bm25s.tokenize(questions, show_progress=False), k=3, show_progress=False)
    prompts = []
    for question, top in zip(questions, tops, strict=True):
        passages = "\n\n".join(f"[{n + 1}] {texts[at]}" for n, at in enumerate(top.tolist()))
        content = f"Answer from the passages.\n\n{passages}\n\nQuestion: {question}"
        prompts.append(generator.prompt([{"role": "user", "content": content}], ANSWER))
    return prompts


def few_shot_prompts(count: int) -> list[list[int]]:
    """Prompts of 450 drawn tokens of examples that all share, and 10 to 40 of their own."""
    draw = random.Random(0)
    examples = [draw.randrange(100, 40_000) for _ in range(450)]
    return [
        examples + [draw.randrange(100, 40_000) for _ in range(draw.randrange(10, 41))] for _ in range(count)
    ]


def read(
    decoder: Decoder, prompts: Sequence[list[int]], batches: Sequence[PromptBatch], apart: bool
) -> float:
    """Return the seconds in which batches are read; `apart` reads them as before, with transformers' forward pass."""
    fused, decoder.fused_prefill = decoder.fused_prefill, None if apart else decoder.fused_prefill
    started = time.perf_counter()
    prefixes: dict[tuple[int, ...], CachedPrefix] = {}
    for batch in batches:
        first = tuple(prompts[batch.rows[0]][: batch.prefix])
        if first and first not in prefixes:
            prefixes[first] = decoder.cache_prefix(first)
        rows = [prompts[row][batch.prefix :] for row in batch.rows]
        ids, mask, positions = decoder.left_padded(rows, batch.prefix)
        cache = StaticKVCache(decoder.layers, len(rows), batch.prefix + ids.shape[1] + ANSWER)
        if first:
            cache.load_prefix(prefixes[first], batch.prefix)
        decoder.prefill(ids, mask, positions, cache)
    decoder.fused_prefill = fused
    return time.perf_counter() - started


def plan(name: str, prompts: list[list[int]], generator: LocalGenerator, timed: bool) -> None:
    """Print the tokens that are computed by length and by beginning, and the seconds where they are asked for."""
    lengths = [len(prompt) + ANSWER for prompt in prompts]
    common = common_prefix(prompts)
    by_length = [PromptBatch(tuple(batch), common) for batch in length_batches(lengths)]
    by_beginning = prompt_batches(prompts, lengths, BATCH_ROWS, BATCH_TOKENS, common)
    padded = common + sum(
        len(batch.rows) * (max(len(prompts[row]) for row in batch.rows) - common) for batch in by_length
    )
    prefixes = {tuple(prompts[batch.rows[0]][: batch.prefix]) for batch in by_beginning}
    once = sum(len(prefix) for prefix in prefixes)
    once += sum(computed_tokens([prompts[row][b.prefix :] for row in b.rows]) for b in by_beginning)
    print(
        f"{name}: {len(prompts)} prompts, {sum(map(len, prompts)):,} tokens, all share {common}; "
        f"by length {len(by_length)} batches, {padded:,} computed; by beginning {len(by_beginning)}, {once:,}",
        flush=True,
    )
    if timed:
        assert generator.decoder is not None
        old, new = (
            read(generator.decoder, prompts, batches, apart)
            for batches, apart in ((by_length, True), (by_beginning, False))
        )
        print(
            f"  read in {old:.1f} s by length with transformers' pass, {new:.1f} s by beginning", flush=True
        )


def main() -> None:
    """Compare at each size, or count what shared beginnings save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seconds", action="store_true")
    given = parser.parse_args()
    if given.plan:
        generator = LocalGenerator(resolve.resolve_model(MODEL), None, given.dtype)
        plan(given.plan.name, rag_prompts(given.plan, generator, given.questions), generator, given.seconds)
        plan("few-shot", few_shot_prompts(given.questions), generator, given.seconds)
        return
    model = loaded(given.model, getattr(torch, given.dtype))
    with torch.inference_mode():
        for rows in given.rows:
            for tokens in given.tokens:
                compare(model, rows, tokens, given.rounds)


if __name__ == "__main__":
    main()
