"""How often the rule of right answers (runners/scoring/correctness.py) agrees with answers judged by hand.

    python -m benchmarks.correctness [FILE ...] [--data SHARED/data] [--part dev|held] [--write]

Reads benchmarks/judged/*.jsonl, or the files named: rows of a question, its gold, an answer and the verdict of a person
who did not know the rule. Prints the agreement by set, arm and part, and every disagreement. Rows whose gold is null
are of public sets: their gold is read from the folder given with --data; without it they are skipped and counted. With
--write the figures go to benchmarks/judged/summary.json, of which scripts/docs.py makes a part of docs/how-it-measures.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cast import CAST
from benchmarks.cast_files import bring
from rag.evaluation.statistics import WilsonShare
from rag.files import write_json
from runners.data.questions import Question, load_questions
from runners.plan.schema import StyleCheck
from runners.scoring.correctness import is_right
from runners.scoring.scores import form_scores

JUDGED = Path(__file__).parent / "judged"
SUMMARY = JUDGED / "summary.json"
CHECKS = {
    "labels": (StyleCheck(kind="labels", value=[]),),
    "final_answer": (StyleCheck(kind="regex", value=r"#### (?P<answer>[^\n]+)$"),),
}
"""The check that tells the form of the gold, by the row's ``output_format``; free text, JSON and cards need none."""


def read_rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yield the judged rows of the files."""
    for file in files:
        yield from (json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip())


def question_of(row: Mapping[str, Any], data: Path | None) -> Question | None:
    """Return the row's question with its gold; None where the gold is in a public set that is not at hand."""
    gold = row.get("gold")
    if gold is None:
        return _public_questions(row["set"], data).get(row["id"]) if data else None
    references = tuple(gold.get("references") or ())
    reference = gold.get("reference") or next(iter(references), None)
    return Question(
        row["id"],
        row["question"],
        tuple(gold.get("answers") or ()),
        reference,
        answerable=gold.get("answerable", True),
        fact=gold.get("fact"),
        references=references or ((reference,) if reference else ()),
    )


def judged_by_rule(row: Mapping[str, Any], question: Question) -> bool:
    """Return whether the rule calls the row's answer right."""
    checks = CHECKS.get(row.get("output_format", ""), ())
    forms = form_scores(question, row["answer"], checks)
    legal = bool(row.get("absence_is_legal", False))
    return bool(is_right(question, row["answer"], bool(row["refused"]), row.get("span", ""), legal, forms))


def main() -> None:
    """Print the agreement and every disagreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "files", nargs="*", type=Path, help="files of judged rows; by default benchmarks/judged"
    )
    parser.add_argument("--data", type=Path, help="the folder of the public sets, for rows without gold")
    parser.add_argument("--part", choices=("dev", "held"), help="one part only")
    parser.add_argument("--write", action="store_true", help=f"write {SUMMARY.name}")
    given = parser.parse_args()
    counts: dict[tuple[str, str, str], list[int]] = {}
    skipped = 0
    for row in read_rows(given.files or sorted(JUDGED.glob("*.jsonl"))):
        if given.part and row["part"] != given.part:
            continue
        question = question_of(row, given.data)
        if question is None:
            skipped += 1
            continue
        right = judged_by_rule(row, question)
        same = right == row["right"]
        count = counts.setdefault((row["part"], row["set"], row["arm"]), [0, 0, 0])
        for place, value in enumerate((same, True, row["right"])):
            count[place] += value
        if not same:
            gold = question.fact or question.answers or question.reference
            print(
                f"{row['part']} {row['set']} {row['arm']} {row['id']}: rule {right}, person {row['right']} ({row['why']})"
            )
            print(f"    {question.question[-160:]!r}\n    gold {gold!r}\n    answer {row['answer'][:300]!r}")
    summary: dict[str, Any] = {"skipped": skipped}
    for column, name in enumerate(("part", "set", "arm")):
        summary[name] = _agreement(counts, column)
        print(f"\nby {name}:")
        for key, share in summary[name].items():
            print(
                "  {0:26} {agree} of {of} = {share:.3f} [{low:.3f}, {high:.3f}], {right} right".format(
                    key, **share
                )
            )
    print(f"\n{skipped} rows skipped: their public set is not at hand (--data)")
    if given.write:
        write_json(SUMMARY, summary)


def _agreement(counts: Mapping[tuple[str, str, str], list[int]], column: int) -> dict[str, dict[str, float]]:
    """Return agreement and 95 % Wilson interval by one column of the keys (part, set, arm)."""
    groups: dict[str, list[int]] = {}
    for key, numbers in counts.items():
        total = groups.setdefault(key[column], [0, 0, 0])
        for place, value in enumerate(numbers):
            total[place] += value
    result = {}
    for name, (same, total_rows, right) in sorted(groups.items()):
        share = WilsonShare.of(same, total_rows)
        result[name] = {
            "agree": same,
            "of": total_rows,
            "right": right,
            "share": round(same / total_rows, 4),
            "low": round(share.low, 4),
            "high": round(share.high, 4),
        }
    return result


@cache
def _public_questions(name: str, data: Path) -> dict[str, Question]:
    """Return a public set's questions by id, cut as for the trials; {} when the set is not in the folder."""
    part = next((part for part in CAST if part.name == name), None)
    if part is None or not (data / name).is_dir():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        return {
            question.id: question
            for question in load_questions(bring(part, data, Path(folder)).files["questions"])
        }


if __name__ == "__main__":
    main()
