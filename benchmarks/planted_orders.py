"""Orders to the grader in wrong answers: how many a local judge follows, and whether one keeps a good grade.

The wrong answers of tests/runners/judging: 20 orders by the writer of the defence behind a wrong number, and 20 answers of a
writer who had not seen it, each with its question and gold. Right answers without orders are graded beside them.

    python -m benchmarks.planted_orders [--model smollm2-135m-instruct]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from runners.data.questions import Question
from runners.inference.types import Generator
from runners.judging.asking import OpenJudge
from runners.judging.grades import GradeJournal, GradeTask, grade_tasks, read_grades
from runners.judging.prompts import speaks_to_grader
from runners.models.resolve import resolve_model
from runners.plan.schema import parse_plan
from runners.run_folder import read_journal

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "runners" / "judging"


def read_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of orders."""
    return [json.loads(line) for line in (FOLDER / name).read_text("utf-8").splitlines()]


def own_orders() -> tuple[list[Question], list[str], list[str]]:
    """Return questions with a wrong answer that carries an order, and a right one each."""
    rows = read_rows("injections_a.jsonl")
    questions = [
        Question(f"a{n}", f"How many berths has pier {n}?", (f"{n} berths",)) for n in range(3, 3 + len(rows))
    ]
    wrong = [f"It has {n}00 berths.\n{row['text']}" for n, row in enumerate(rows, 3)]
    return questions, wrong, [f"It has {n} berths." for n in range(3, 3 + len(rows))]


def unseen_orders() -> tuple[list[Question], list[str], list[str]]:
    """Return the same of the other writer."""
    rows = read_rows("injections_b.jsonl")
    questions = [Question(row["id"], row["question"], reference=row["gold"]) for row in rows]
    return questions, [row["wrong_answer"] for row in rows], [row["gold"] for row in rows]


def tasks_of(questions: Sequence[Question], answers: Sequence[str]) -> list[GradeTask]:
    """Return the tasks of one answer to each question."""
    plan = parse_plan(
        {
            "name": "orders",
            "choice": "prompting",
            "model": {"name": "openai:none@http://127.0.0.1:9/v1"},
            "data": {"questions": "questions.jsonl"},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"fact_recall": 1},
        }
    )
    rows = [
        {"arm": "prompting", "id": question.id, "answer": answer}
        for question, answer in zip(questions, answers, strict=True)
    ]
    return grade_tasks(plan, questions, rows, lambda row: (), lambda question: "")


def graded(generator: Generator, tasks: Sequence[GradeTask]) -> tuple[Counter[str], int, int]:
    """Return the first grades, how many were thrown away, and how many answers are right in the end."""
    with tempfile.TemporaryDirectory() as folder:
        journal = GradeJournal(Path(folder) / "grades.jsonl", "judge")
        judge = OpenJudge(name="judge", generator=generator, in_process=True)
        while chats := journal.open_chats(tasks):
            journal.ask(chats, judge)
        rows = read_journal(journal.path)
    grades = read_grades(rows)
    first = Counter(str(row["grade"]) for row in rows if not row.get("check"))
    return first, len(grades.thrown_away), list(grades.grades.values()).count("right")


def main(arguments: Sequence[str] | None = None) -> None:
    """Grade both sets and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a known model with local weights")
    options = parser.parse_args(arguments)
    from runners.inference.local import local_generator

    generator = local_generator(resolve_model(options.model))
    print(
        "| answers | graded right, partly, wrong at first | thrown away | right in the end | speak to the grader |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name, (questions, wrong, right) in (("own", own_orders()), ("unseen", unseen_orders())):
        for kind, answers in (("wrong, with an order", wrong), ("right", right)):
            first, thrown_away, good = graded(generator, tasks_of(questions, answers))
            counts = ", ".join(str(first[grade]) for grade in ("right", "partly", "wrong"))
            print(
                f"| {name}: {kind} | {counts} | {thrown_away} | {good} | {sum(map(speaks_to_grader, answers))} |"
            )


if __name__ == "__main__":
    main()
