"""Whether what an answer cites is what was asked: a fact of a passage may be true and beside the question.

:func:`mark_beside` reads every cited statement and its passage's sentence with the answerability model. Where none of them
answers the question, what is cited is marked ``beside``: shown with its passage, and not counted as supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.embedding.reranker import Scorer
from rag.grounding.refusal import AnswerCuts, question_coverage
from rag.types import Citation

BESIDE = "beside"
"""``Citation.support`` of a statement that a passage makes and that is not what was asked."""
CHECK_CUTS = AnswerCuts(other_words=-0.3, same_words=1.0, few=0.2, many=0.6)
"""Log odds under which a statement counts as beside the question, by the words that they share. On two of the houses in
benchmarks/houses/dev some 4 % of the sentences that answer lie below in the documents' words and 13 % in far ones, and of
the other sentences of the first passages 91 and 84 %."""


def mark_beside(
    question: str, answer: str, citations: Sequence[Citation], reader: Scorer
) -> tuple[Citation, ...]:
    """Return the citations, all marked where no statement that they support answers the question.

    Args:
        question: the question.
        answer: the answer as it is shown, to which the citations' offsets refer.
        citations: of the answer.
        reader: the answerability model.
    """
    cited = [citation for citation in citations if citation.n]
    if not cited:
        return tuple(citations)
    margin = answer_margin(question, answer, cited, reader)
    if margin >= 0:
        return tuple(citations)
    return tuple(
        replace(citation, supported=False, support=BESIDE) if citation.n else citation
        for citation in citations
    )


def answer_margin(question: str, answer: str, cited: Sequence[Citation], reader: Scorer) -> float:
    """Return how far the likeliest cited statement lies above its cut.

    A statement counts by the lower of two readings: of the answer's own sentence, and of the sentence that supports it.
    """
    texts = [
        text
        for citation in cited
        for text in (
            f"{citation.title}. {answer[citation.answer_start : citation.answer_end]}",
            f"{citation.title}. {citation.quote}",
        )
    ]
    scores = reader.scores(question, texts)
    margins = []
    for number in range(len(cited)):
        pair = slice(2 * number, 2 * number + 2)
        coverage = max(question_coverage(question, text) for text in texts[pair])
        margins.append(float(scores[pair].min()) - CHECK_CUTS.at(coverage))
    return max(margins)
