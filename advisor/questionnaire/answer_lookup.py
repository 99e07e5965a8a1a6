"""Count how many right answers the documents hold, before a search in them is advised: :func:`count_answers`.

The questions are looked up, or the examples where there are no questions with answers. Refusals, labels and rows whose
prompts hold their passage are left out, and nothing is counted across languages, since passages are found by their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from advisor.questionnaire.data_facts import AnswerCount, DataFacts
from advisor.questionnaire.profile import MOST_PROMPTS
from rag.evaluation.statistics import WilsonShare
from rag.grounding.answer_search import AnswerFinder
from rag.sentences.claims import Claim
from rag.types import Document
from runners.arms.gold_passages import answers_to_find, asked_texts, find_gold_passage
from runners.data.document_sample import packed_texts
from runners.data.examples import Example
from runners.data.labels import labels_of
from runners.data.questions import Question

Row = TypeVar("Row")
LOOKED_UP_ROWS = 200
"""Rows that are looked up, spread evenly over the file: enough that a share is known to 7 points."""
MIN_DECIDED = 5
"""Fewest rows of which words can tell, from which a share is given."""
MIN_DECIDED_SHARE = 0.3
"""Least share of the rows looked up of which words must tell, for them to stand for the others."""
SHOWN_ROWS = 3
"""Rows without a passage that are named."""


def count_answers(
    documents: Sequence[Document],
    examples: Sequence[Example],
    questions: Sequence[Question],
    facts: DataFacts,
) -> AnswerCount | None:
    """Return how many right answers a passage of the documents supports; None where that cannot be told.

    Args:
        documents: the documents; none where they were not read.
        examples: looked up where fewer than :data:`MIN_DECIDED` questions have an answer, as far as they state facts.
        questions: the held-out questions.
        facts: what else was counted in these files.
    """
    sample, of, name = _rows_to_look_up(questions, examples)
    foreign = facts.language and facts.documents_language and facts.language != facts.documents_language
    read_in_prompt = (facts.passages_in_prompts or 0.0) >= MOST_PROMPTS
    if not documents or len(sample) < MIN_DECIDED or foreign or read_in_prompt or facts.label_count:
        return None
    if labels_of([answers_to_find(row)[0] for row in sample]):
        return None
    texts = (text for row in sample for text in (*asked_texts(row), *answers_to_find(row)))
    finder = AnswerFinder(packed_texts(documents), texts)
    results = [(row, find_gold_passage(finder, row)) for row in sample]
    held = sum(result.passage is not None for _, result in results)
    missing = [row for row, result in results if result.passage is None and result.decided]
    decided = held + len(missing)
    if decided < max(MIN_DECIDED, MIN_DECIDED_SHARE * len(sample)):
        return None
    return AnswerCount(
        share=WilsonShare.of(held, decided),
        looked_up=len(sample),
        of=of,
        rows=name,
        missing=tuple(_place(row) for row in missing[:SHOWN_ROWS]),
    )


def _rows_to_look_up(
    questions: Sequence[Question], examples: Sequence[Example]
) -> tuple[Sequence[Question], int, str]:
    """Return the rows to look up, how many such rows there are, and what they are called."""
    asked = [row for row in questions if row.answerable and answers_to_find(row)]
    if len(asked) >= MIN_DECIDED:
        return _spread(asked), len(asked), "question"
    replies = [row for row in examples if not row.raw and not row.refuses and row.question]
    spread = _spread(replies)
    sample = [_as_question(row) for row in spread if _states_fact(row)]
    return sample, round(len(sample) * len(replies) / max(1, len(spread))), "example"


def _spread(rows: Sequence[Row]) -> Sequence[Row]:
    """Return at most :data:`LOOKED_UP_ROWS` rows, spread evenly."""
    return rows[:: max(1, -(-len(rows) // LOOKED_UP_ROWS))]


def _states_fact(row: Example) -> bool:
    """Whether a reply states a number, a date or a name that its prompt lacks: others may only show the style."""
    claim, asked = Claim.of(row.reply), Claim.of(row.question)
    facts = claim.numbers - asked.numbers or claim.dates - asked.dates or claim.names - asked.words
    return bool(facts) and bool(answers_to_find(_as_question(row)))


def _as_question(row: Example) -> Question:
    """Return an example as the question that it answers, with the fact or short answers that it names."""
    meta = row.meta
    named = meta.get("answers")
    document = meta.get("doc_id")
    return Question(
        id=row.place,
        question=row.question,
        answers=tuple(text for text in named if isinstance(text, str)) if isinstance(named, list) else (),
        reference=row.reply,
        references=(row.reply,),
        doc_id=None if document is None else str(document),
        line=row.line,
        history=tuple(turn for turn in row.messages[:-2] if turn["role"] != "system"),
    )


def _place(row: Question) -> str:
    return row.id if row.id.startswith("line ") or not row.line else f"{row.id} (line {row.line})"
