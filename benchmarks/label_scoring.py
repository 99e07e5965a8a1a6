"""Labels by likelihood: the sum or the mean over a label's tokens, and which prior is taken off, on public intents.

    python -m benchmarks.label_scoring SHARED/data [--model NAME] [--questions N] [--shots N]

Right labels of a base model on the dev half of the questions (those whose text's SHA-256 is even), with the instructions
alone and with examples. The formula is chosen on banking77; clinc150_intents shows what it is worth elsewhere. The
references of the batch prior are other questions than those that are asked.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rag.files import sha256_text
from runners.arms.prompts import build_messages, choose_shots
from runners.arms.scored_labels import CONTENT_FREE, MAX_REFERENCE, ScoredLabels
from runners.data.examples import Example, load_examples
from runners.inference.local import local_generator
from runners.models.resolve import resolve_model
from runners.plan.data import Prompts

SETS = {"banking77": "test.jsonl", "clinc150_intents": "questions.jsonl"}
"""The file of questions of each set; the formula is chosen on the first."""


def dev_half(file: Path) -> list[Example]:
    """Return the questions of the dev half, in an order drawn by their texts."""
    rows = sorted(load_examples(file).rows, key=lambda row: sha256_text(row.question))
    return [row for row in rows if int(sha256_text(row.question)[-1], 16) % 2 == 0]


def right(scores: Sequence[Sequence[float]], prior: Sequence[float], gold: Sequence[int]) -> int:
    """Return how many questions get their gold label by the scores less a prior."""
    corrected = ([score - less for score, less in zip(row, prior, strict=True)] for row in scores)
    return sum(row.index(max(row)) == wanted for row, wanted in zip(corrected, gold, strict=True))


def main() -> None:
    """Print a table of each set and way of prompting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    chosen = parser.parse_args()
    generator = local_generator(resolve_model(chosen.model))
    for name in chosen.sets:
        folder = chosen.data / name
        labels = json.loads((folder / "labels.json").read_text("utf-8"))
        rows = [row for row in dev_half(folder / SETS[name]) if row.reply in labels]
        asked, reference = rows[: chosen.questions], rows[chosen.questions :][:MAX_REFERENCE]
        gold = [labels.index(row.reply) for row in asked]
        bank = choose_shots(load_examples(folder / "train.jsonl").rows, chosen.shots, 0)
        for way, shots in (("prompting", ()), ("few-shot", bank)):
            prompts = Prompts(system=rows[0].system)
            scorer = ScoredLabels(generator, labels)
            texts = [*(row.question for row in (*asked, *reference)), CONTENT_FREE]
            started = time.perf_counter()
            sums, means = scorer.both_scores([build_messages(prompts, text, shots=shots) for text in texts])
            each = 1000 * (time.perf_counter() - started) / len(texts)
            for formula, measured in (("sum", sums), ("mean", means)):
                questions, batch = measured[: len(asked)], measured[len(asked) : -1]
                priors = {
                    "no prior": [0.0] * len(labels),
                    f'"{CONTENT_FREE}"': measured[-1],
                    f"{len(batch)} questions": [fmean(column) for column in zip(*batch, strict=True)],
                }
                counts = {prior: right(questions, values, gold) for prior, values in priors.items()}
                cells = " | ".join(f"{count} ({prior})" for prior, count in counts.items())
                print(f"| {name} | {way} | {formula} | {cells} | {each:.0f} ms |", flush=True)
    print(f"of {chosen.questions} questions; {chosen.model}; {json.dumps(generator.decoding())}")


if __name__ == "__main__":
    main()
