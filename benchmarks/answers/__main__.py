"""How often the rule of right answers agrees with answers that others labelled, by kind, with 95 % Wilson intervals.

A file has a JSON object a line: ``id``, ``kind``, ``question``, ``golds`` (any of them) or ``all_of`` (all of them),
``reference``, ``answer``, ``label`` (right or wrong) and, where the question has no answer, ``answerable``: false. A wrong
answer that is called right is the worse of the two errors, so they are counted apart.

    python -m benchmarks.answers benchmarks/answers/FILE.jsonl

With ``--write`` the counts go to benchmarks/answers/summary.json, of which scripts/docs.py makes a part of
docs/how-it-measures.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.evaluation.statistics import WilsonShare
from rag.files import write_json
from runners.data.questions import Question
from runners.data.refusals import is_refusal
from runners.scoring.correctness import fault_of_answer

SUMMARY = Path(__file__).with_name("summary.json")
REFUSALS = (
    "I could not find that in our documents.",
    "Sorry, our documents do not say. Shall I ask a colleague?",
)
"""The plan's own refusals, as any plan has some; none of the labelled answers is one of them."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A row, and why the rule does not call its answer right; "" where it does."""

    row: dict[str, Any]
    fault: str

    @property
    def is_right(self) -> bool:
        """Whether the label is right."""
        return bool(self.row["label"] == "right")

    @property
    def agrees(self) -> bool:
        """Whether rule and label agree."""
        return (not self.fault) is self.is_right


def main() -> None:
    """Print the table, the time of an answer, and with ``--show`` what was judged otherwise than labelled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", action="store_true", help="list what was judged otherwise than labelled")
    parser.add_argument("--write", action="store_true", help=f"write the counts into {SUMMARY.name}")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.file.read_text("utf-8").splitlines() if line.strip()]
    started = time.perf_counter()
    judged = [Judged(row=row, fault=fault_of_row(row)) for row in rows]
    milliseconds = 1000 * (time.perf_counter() - started) / max(1, len(rows))
    print("| kind | n | rule and label agree | wrong called right | right called wrong |")
    print("|---|---:|---|---|---|")
    kinds = dict.fromkeys(row["kind"] for row in rows)
    counted = {kind: counts_of([each for each in judged if each.row["kind"] == kind]) for kind in kinds}
    counted["all"] = counts_of(judged)
    for kind, counts in counted.items():
        print(f"| {kind} | {counts['agree'][1]} | {' | '.join(share_texts(counts))} |")
    print(f"\n{milliseconds:.1f} ms an answer")
    if given.write:
        known = json.loads(SUMMARY.read_text("utf-8")) if SUMMARY.exists() else {}
        write_json(SUMMARY, known | {given.file.stem: counted})
    for each in judged if given.show else ():
        if not each.agrees:
            row = each.row
            gold = row.get("golds") or row.get("all_of")
            print(f"\n{row['id']} {row['kind']}: {row['label']}; rule: {each.fault or 'right'}")
            print(f"  {row['question']}\n  gold {gold}\n  answer {row['answer']}")


def fault_of_row(row: dict[str, Any]) -> str:
    """Return why the rule does not call a row's answer right, "" where it does."""
    question = Question(
        row["id"],
        row["question"],
        tuple(row.get("golds") or ()),
        answerable=row.get("answerable", True),
        all_of=tuple(row.get("all_of") or ()),
    )
    answer = row["answer"]
    return fault_of_answer(question, answer, is_refusal(answer, REFUSALS)) or ""


def counts_of(judged: Sequence[Judged]) -> dict[str, tuple[int, int]]:
    """Return (counted, of how many) for agreement, for wrong answers called right and for right ones called wrong."""
    right = [each for each in judged if each.is_right]
    wrong = [each for each in judged if not each.is_right]
    groups = {"agree": (True, judged), "false_right": (False, wrong), "false_wrong": (False, right)}
    return {
        name: (sum(each.agrees is counted for each in group), len(group))
        for name, (counted, group) in groups.items()
    }


def share_texts(counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Return each count as "n of m" with its 95 % Wilson interval."""
    return [WilsonShare.of(*counts[name]).short() for name in ("agree", "false_right", "false_wrong")]


if __name__ == "__main__":
    main()
