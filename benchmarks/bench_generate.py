"""Generation speed: tunewise against transformers' generate, on the trial's own prompts, taking turns.

Every contender answers the shipped desk's questions greedily, with the desk's prompt and the passages that the index
returns, on the same weights in the same process. A ratio is taken within each round, so that whatever else the
machine does falls on both sides. Run from the repository's root:

    python -m benchmarks.bench_generate
    python -m benchmarks.bench_generate --dtype float32 --questions 8 --rounds 1
    python -m benchmarks.bench_generate --arm prompting
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from rag.embedding.embedder import Embedder
from rag.grounding.refusal import RefusalThreshold
from rag.index import Index
from runners.arms.prompts import build_messages, choose_shots
from runners.arms.retriever import Retriever, token_counter
from runners.data.examples import load_examples
from runners.data.formats import Message
from runners.data.questions import load_questions
from runners.inference.local import LocalGenerator, length_batches
from runners.inference.weights import load_for_inference
from runners.models import resolve
from runners.plan.data import Prompts
from runners.plan.steps import IndexStep

MODEL, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
AIM = 2.0
"""Least ratio of a batch against transformers one by one."""
Answers = list[list[int]]


def chats(arm: str, count: int) -> list[list[Message]]:
    """The first questions of the shipped desk as an arm asks them: prompting, few-shot or rag."""
    desk = Path(str(files("advisor") / "harbor_desk"))
    prompts = Prompts(system=(desk / "prompt.txt").read_text("utf-8").strip())
    asked = load_questions(desk / "questions.jsonl")[:count]
    if arm == "few-shot":
        shots = choose_shots(load_examples(desk / "examples.jsonl").rows, 3, 0)
        return [build_messages(prompts, q.question, shots=shots) for q in asked]
    if arm == "prompting":
        return [build_messages(prompts, q.question) for q in asked]
    embedder = Embedder(resolve.resolve_model(EMBEDDER).folder)
    with tempfile.TemporaryDirectory() as folder:
        Index.build(Path(folder) / "index", desk / "documents", embedder)
        index, never = (
            Index.open(Path(folder) / "index", embedder),
            RefusalThreshold(weights={}, bias=1.0, how="default"),
        )
        retriever = Retriever(index, IndexStep(), never, token_counter(resolve.resolve_model(MODEL).folder))
        found = retriever.find([q.question for q in asked])
    return [build_messages(prompts, q.question, f.passages) for q, f in zip(asked, found, strict=True)]


class Transformers:
    """The plain way: left-padded prompts to `generate`, with its own weights in memory."""

    def __init__(self, base: resolve.Model, dtype: str, limit: int) -> None:
        """Load the model."""
        self.model, self.tokenizer = load_for_inference(base, None, dtype)
        self.limit = limit

    def answer(self, prompts: Answers) -> Answers:
        """Answer prompts in one batch; return the tokens of each before its end token."""
        pad, end, width = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        model: Any = self.model
        with torch.inference_mode():
            rows = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self.limit,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=end,
            )
        made = [row[width:].tolist() for row in rows]
        return [row[: row.index(end)] if end in row else row for row in made]


def contenders(
    ours: LocalGenerator, theirs: Transformers, asked: list[list[Message]]
) -> dict[str, Callable[[], list[str]]]:
    """Each contender by name, as what answers all questions once; nothing is remembered between rounds."""
    prompts = [ours._tokens(chat) for chat in asked]

    def text(tokens: list[int]) -> str:
        return ours.decode(tokens).strip()

    def batched() -> list[str]:
        done: dict[int, str] = {}
        for batch in length_batches([len(p) + theirs.limit for p in prompts]):
            made = theirs.answer([prompts[i] for i in batch])
            done.update(zip(batch, map(text, made), strict=True))
        return [done[i] for i in range(len(prompts))]

    def fresh() -> LocalGenerator:
        ours.prefixes.clear()
        return ours

    return {
        "transformers, one by one": lambda: [text(theirs.answer([p])[0]) for p in prompts],
        "transformers, batched": batched,
        "tunewise, batched": lambda: [c.text for c in fresh().generate(asked, theirs.limit)],
        "tunewise, one by one": lambda: [fresh().stream(c, theirs.limit).finish().text for c in asked],
    }


def main() -> None:
    """Take turns and print seconds, tokens a second, ratios and how many answers are the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arm", choices=("prompting", "few-shot", "rag"), default="rag")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    base, asked = resolve.resolve_model(MODEL), chats(given.arm, given.questions)
    ours = LocalGenerator(base, dtype=given.dtype)
    turns = contenders(ours, Transformers(base, given.dtype, given.tokens), asked)
    ours.generate(asked[:2], 2)
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    said: dict[str, list[str]] = {}
    for _ in range(given.rounds):
        for name, answer in turns.items():
            started = time.perf_counter()
            said[name] = answer()
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(turns))
    lengths = [ours.count_tokens(text) for text in said[first]]
    prompts = sum(len(ours._tokens(chat)) for chat in asked) // len(asked)
    print(
        f"{ours.model.dtype}, {torch.get_num_threads()} threads, {len(asked)} questions of arm {given.arm},"
    )
    print(f"about {prompts} prompt and {sum(lengths) / len(lengths):.0f} answer tokens each")
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[first], taken, strict=True))
        same = sum(a == b for a, b in zip(said[first], said[name], strict=True))
        aim = f"  (aim {AIM:g})" if name == "tunewise, batched" else ""
        middle = statistics.median(taken)
        print(
            f"{name:<26} {middle:6.1f} s  {sum(lengths) / middle:6.1f} tokens/s  {ratio:5.2f} x  "
            f"{same}/{len(asked)} same answers{aim}"
        )


if __name__ == "__main__":
    main()
