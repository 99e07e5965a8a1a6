"""How often the right answers of public questions are found in their documents, and in documents that lack them.

``python -m benchmarks.held_answers DATA``: the public sets in DATA, and the houses beside this file. Cases: a set's own
documents, those of another set, the gold document deleted, another row's answer, other numbers.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rag.grounding.answer_search import AnswerFinder
from rag.loading.reader import load_documents
from rag.types import Document
from runners.arms.gold_passages import answers_to_find, find_gold_passage
from runners.data.document_sample import packed_texts
from runners.data.questions import Question, load_questions

MOST_QUESTIONS = 150
HOUSES = "houses"


def read_sets(data: Path) -> Iterator[tuple[str, Sequence[Document], list[Question]]]:
    """Yield the name, documents and answerable questions of each public set, then of each house."""
    for folder in sorted(data.iterdir()):
        if (folder / "documents.jsonl").is_file():
            yield (folder.name, *_read(folder / "documents.jsonl", folder / "questions.jsonl"))
    with TemporaryDirectory() as name:
        for file in sorted((Path(__file__).parent / "houses").glob("*.jsonl")):
            lines = file.read_text("utf-8").splitlines(keepends=True)
            texts, questions = Path(name, file.name), Path(name, f"{file.stem}-questions.jsonl")
            texts.write_text("".join(line for line in lines if '"question":' not in line), "utf-8")
            questions.write_text("".join(line for line in lines if '"question":' in line), "utf-8")
            yield (HOUSES, *_read(texts, questions))


def _read(documents: Path, questions: Path) -> tuple[Sequence[Document], list[Question]]:
    rows = [replace(row, wordings=()) for row in load_questions(questions)]
    rows = [row for row in rows if row.answerable and answers_to_find(row)]
    random.Random(0).shuffle(rows)
    return load_documents(documents).documents, rows[:MOST_QUESTIONS]


def count(documents: Iterable[Document], questions: Iterable[Question]) -> Counter[str]:
    """Count the questions whose answer is held, is not, or of which words do not tell."""
    finder = AnswerFinder(packed_texts(documents))
    found = (find_gold_passage(finder, question) for question in questions)
    return Counter("held" if each.passage else "not held" if each.decided else "not told" for each in found)


def with_other_numbers(question: Question, rng: random.Random) -> Question | None:
    """Return a question with its first answer's numbers changed, None where it has none."""
    answer = answers_to_find(question)[0]
    changed = re.sub(r"\d+", lambda match: str(int(match[0]) + rng.randint(1, 7)), answer)
    return (
        replace(question, answers=(changed,), reference=None, references=(), fact=None)
        if changed != answer
        else None
    )


def main(data: Path) -> None:
    """Print a line for each set and case, and one for all houses together."""
    rng = random.Random(0)
    sets = list(read_sets(data))
    of_houses: dict[str, Counter[str]] = {}
    for number, (name, documents, rows) in enumerate(sets):
        kept = {document.id for document in documents[::2]}
        half = [document for document in documents if document.id in kept]
        others = [
            replace(row, answers=answers_to_find(rows[n - 1]), reference=None) for n, row in enumerate(rows)
        ]
        cases = {
            "own": count(documents, rows),
            "own, no document named": count(documents, [replace(row, doc_id=None) for row in rows]),
            "of another set": count(sets[number - 1][1], rows),
            "gold document deleted": count(
                half, [row for row in rows if row.doc_id and row.doc_id not in kept]
            ),
            "answer of another row": count(documents, others),
            "other numbers": count(documents, filter(None, (with_other_numbers(row, rng) for row in rows))),
        }
        for case, counted in cases.items():
            if name == HOUSES:
                of_houses.setdefault(case, Counter()).update(counted)
            else:
                print(f"{name:20} {case:24} {dict(counted)}")
    for case, counted in of_houses.items():
        print(f"{HOUSES:20} {case:24} {dict(counted)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
