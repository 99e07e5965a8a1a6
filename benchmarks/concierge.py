"""The whole line on public data: hotel and restaurant questions that need house style and facts together.

400 training rows, 60 questions, every arm; prints the table of benchmarks/LOG.md with paired intervals against hybrid.

    python benchmarks/concierge.py SHARED/data/hybrid_concierge --out /tmp/concierge
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from advisor import gather
from advisor.draft import draft
from advisor.engine import recommend
from advisor.execute import run_and_report
from advisor.results import read_scores
from rag.stats import paired
from runners.plan import Check, Plan, parse_plan

ANSWERS = (
    "task_needs_facts=new",
    "facts_change=slow",
    "behaviour_gap=high",
    "must_cite=yes",
    "call_volume=high",
)
# The set's own rule of style: a statement, then exactly one question, at the end.
STYLE = Check(
    kind="regex", value=r"^[^?]*[.!] [^?]*\?$", text="a statement, then exactly one closing question"
)
SCORES = ("style", "fact_recall", "token_f1")


def concierge_plan(data: Path, examples: int, dev: int, test: int) -> Plan:
    """The advisor's own plan, cut to size and judged by the set's own rule."""
    files = {
        "documents": data / "documents.jsonl", "examples": data / "train.jsonl", "questions": data / "test.jsonl"
    }  # fmt: skip
    situation = gather.complete(gather.said(ANSWERS, **files))
    plan = draft(recommend(situation.profile), situation).plan
    cut = {"max_examples": examples, "max_dev": dev, "max_test": test}
    limited = plan.data.model_copy(update={**cut, **{name: path.resolve() for name, path in files.items()}})
    changed = plan.model_copy(update={"name": "concierge", "data": limited, "checks": (STYLE,)})
    return parse_plan(changed.model_dump(mode="json", by_alias=True))


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/concierge"))
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--dev", type=int, default=60)
    parser.add_argument("--test", type=int, default=60)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    started = time.time()
    plan = concierge_plan(given.data, given.examples, given.dev, given.test)
    run, data = run_and_report(plan, given.out, given.resume, not given.resume)
    assert data is not None
    print(f"recommended {data['verdict']['recommended']}: {data['verdict']['text']}")
    print(f"{time.time() - started:.0f} s; weights {json.dumps(data['weights'])}")
    arms = {arm.arm: arm for arm in read_scores(run.path)}
    print("| arm | " + " | ".join(SCORES) + " | hybrid above it by, on each: 95 % paired interval |")
    for name, arm in arms.items():
        cells = [f"{sum(arm.of(score)) / max(1, len(arm.of(score))):.3f}" for score in SCORES]
        against = [
            f"{score} {p.difference:+.2f} [{p.low:+.2f}, {p.high:+.2f}]"
            for score in SCORES
            for p in [paired("hybrid", name, arms["hybrid"].of(score), arm.of(score))]
        ]
        print(f"| {name} | {' | '.join(cells)} | {'; '.join(against) if name != 'hybrid' else ''} |")


if __name__ == "__main__":
    main()
