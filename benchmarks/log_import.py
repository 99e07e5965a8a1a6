"""How well the questions imported from a log stand for what was asked, on a log whose frequencies are known.

Customers' words of a public set (three wordings of each question) are drawn by frequencies as Zipf's law has them,
with repeats, misspellings, greetings, personal data and damaged lines. `tunewise questions import` then reads the
log; its rows are compared with the frequencies that it was drawn by. The log is made in a temporary folder, and
nothing of it is kept.

python -m benchmarks.log_import --data SHARED/cases/houses/pool python -m benchmarks.log_import --data
SHARED/cases/houses/pool --rows 200000 --made-up # seconds and memory
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Facts = dict[str, list[str]]
EXPONENT = 1.0
"""Of Zipf's law: the n-th fact is asked in proportion to 1 / n."""
TYPO, POLITE, CHITCHAT, PERSONAL, DAMAGED = 0.15, 0.15, 0.06, 0.02, 0.004
OPENINGS = ("Hi, ", "hello ", "Good morning, ", "hey there ")
CLOSINGS = (" thanks", " Thank you!", " cheers", " please")
PLAIN = ("asked_share_of_facts_in_rows", "rank_correlation", "total_variation")
"""Figures of as many different questions drawn without regard to how often each is asked, all of one weight."""
TALK = ("hi", "thanks!", "ok thank you", "", "hello there", "Good morning", "yes", "👍")
PLACES = ["north", "south", "river", "market", "station", "garden", "harbour", "hill", "castle", "bridge"]


@dataclass(frozen=True)
class MadeLog:
    """A log with what it was drawn from."""

    asked: Counter[str]
    """Times that each fact was asked."""
    fact_of: dict[str, str]
    """The fact of each text in the log."""


def read_facts(folder: Path) -> Facts:
    """Return the wordings of each fact."""
    rows = [
        json.loads(line)
        for name in ("dev", "test")
        for line in (folder / f"{name}.jsonl").open(encoding="utf-8")
    ]
    return {row["id"]: [row["question"], *row.get("wordings", ())] for row in rows}


def misspell(text: str, rng: random.Random) -> str:
    """Return a text with one edit in one of its longer words."""
    words = text.split(" ")
    long = [n for n, word in enumerate(words) if len(word) > 5 and word.isalpha()]
    if not long:
        return text
    n = rng.choice(long)
    word, at = words[n], rng.randrange(1, len(words[n]) - 1)
    words[n] = rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + rng.choice("etaoinsr") + word[at:],
        )
    )
    return " ".join(words)


def make_log(path: Path, facts: Facts, rows: int, seed: int, made_up: bool = False) -> MadeLog:
    """Write a log of chats; with ``made_up`` every third text is changed so that it is asked once only."""
    rng = random.Random(seed)
    names = list(facts)
    rng.shuffle(names)
    weights = [1 / (rank + 1) ** EXPONENT for rank in range(len(names))]
    asked: Counter[str] = Counter()
    fact_of = {}
    with path.open("w", encoding="utf-8") as log:
        for number in range(rows):
            chance = rng.random()
            if chance < DAMAGED:
                log.write('{"messages": [{"role": "user", "con\n')
                continue
            if chance < DAMAGED + CHITCHAT:
                text = rng.choice(TALK)
            else:
                fact = rng.choices(names, weights)[0]
                text = rng.choices(facts[fact], [4, 2, 1])[0]
                if rng.random() < TYPO:
                    text = misspell(text, rng)
                if rng.random() < POLITE:
                    text = rng.choice(OPENINGS) + text
                if rng.random() < POLITE:
                    text += rng.choice(CLOSINGS)
                if rng.random() < PERSONAL:
                    text += (
                        f" Write to {rng.choice(PLACES)}{rng.randrange(900)}@{rng.choice(PLACES)}-mail.net"
                    )
                if made_up and number % 3 == 0:
                    text += f" I live at {rng.choice(PLACES)} {rng.choice(PLACES)} and come at {rng.randrange(10_000)}"
                asked[fact] += 1
                fact_of[" ".join(text.split())] = fact
            messages = [{"role": "system", "content": "Answer."}, {"role": "user", "content": text}]
            log.write(json.dumps({"model": "m", "messages": messages}, ensure_ascii=False) + "\n")
    return MadeLog(asked, fact_of)


def measure(made: MadeLog, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how well rows stand for the log: see the names."""
    from scipy.stats import spearmanr

    from runners.data.personal_data import mask_personal_data

    fact_of = {mask_personal_data(text)[0]: fact for text, fact in made.fact_of.items()}
    weight: Counter[str] = Counter()
    for row in rows:
        weight[fact_of[row["question"]]] += row["weight"]
    total = made.asked.total()
    facts = sorted(made.asked)
    kept = sum(row["weight"] for row in rows)
    apart = sum(abs(made.asked[fact] / total - weight[fact] / kept) for fact in facts) / 2
    return {
        "asked_share_of_facts_in_rows": sum(made.asked[fact] for fact in facts if weight[fact]) / total,
        "facts_in_rows": sum(weight[fact] > 0 for fact in facts) / len(facts),
        "rank_correlation": float(
            spearmanr([weight[f] for f in facts], [made.asked[f] for f in facts]).statistic
        ),
        "total_variation": apart,
        "weight_of_asked": kept / total,
    }


def main() -> None:
    """Print one line of JSON for each number of rows wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--count", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--made-up", action="store_true", help="a third of the texts are asked once only")
    parser.add_argument("--embedder", default="all-minilm-l6-v2")
    arguments = parser.parse_args()
    from advisor.workflows.index_build import load_embedder
    from runners.logs.log_import import read_logs

    facts = read_facts(arguments.data)
    embedder = load_embedder(arguments.embedder)
    for seed in arguments.seed:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "log.jsonl")
            made = make_log(path, facts, arguments.rows, seed, arguments.made_up)
            started = time.monotonic()
            log = read_logs([path], seed=seed)
            read = time.monotonic()
            vectors = log.embed(embedder, Path(folder, "work"))
            embedded = time.monotonic()
            seconds = {"read": read - started, "embed": embedded - read}
            for count in arguments.count:
                began = time.monotonic()
                groups = log.group(vectors, count, seed=seed)
                rows = log.rows(groups, count, seed)
                figures = measure(made, rows)
                drawn = random.Random(seed).sample(log.questions, min(count, len(log.questions)))
                plain = measure(made, [{"question": q.text, "weight": log.asked / len(drawn)} for q in drawn])
                figures |= {f"plain_{name}": plain[name] for name in PLAIN}
                result = {
                    "seed": seed,
                    "count": count,
                    "rows": len(rows),
                    "groups": groups.count,
                    "different": len(log.questions),
                    **{name: round(value, 3) for name, value in figures.items()},
                    **{
                        name: round(value, 1)
                        for name, value in (seconds | {"group": time.monotonic() - began}).items()
                    },
                    "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
                }
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
