"""Whether what an answer cites is what was asked: a fact of a passage may be true and beside the question.

:func:`check_citations` reads every cited statement and its passage's sentence with the answerability model. Where none of
them answers the question, what is cited is marked ``beside``: shown with its passage, and not counted as supported. How
likely the likeliest cited sentence is to answer the question is the answer's support: of the answers that six arms gave,
right ones have more of it than wrong ones in 79 to 93 % of pairs (benchmarks/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.embedding.reranker import Scorer
from rag.grounding.citations import PARTLY, SUPPORTED
from rag.grounding.refusal import AnswerCuts, question_coverage
from rag.types import Citation

BESIDE = "beside"
"""``Citation.support`` of a statement that a passage makes and that is not what was asked."""
CHECK_CUTS = AnswerCuts(other_words=-0.3, same_words=1.0, few=0.2, many=0.6)
"""Log odds under which a statement counts as beside the question, by the words that they share. On two of the houses in
benchmarks/houses/dev some 4 % of the sentences that answer lie below in the documents' words and 13 % in far ones, and of
the other sentences of the first passages 91 and 84 %."""


UNCITED = -99.0
"""Support of an answer that cites nothing."""


def check_citations(
    question: str, answer: str, citations: Sequence[Citation], reader: Scorer | None
) -> tuple[tuple[Citation, ...], float]:
    """Return the citations, all marked where no statement that they support answers the question, and the answer's support.

    The support is in log odds, for the likeliest cited sentence of the passages. Without a reader it is 1 where all
    statements are supported, 0 where some are in part, and :data:`UNCITED` otherwise.

    Args:
        question: the question.
        answer: the answer as it is shown, to which the citations' offsets refer.
        citations: of the answer.
        reader: the answerability model.
    """
    cited = [citation for citation in citations if citation.n]
    if not cited:
        return tuple(citations), UNCITED
    if reader is None:
        kinds = {citation.support for citation in citations}
        return tuple(citations), 1.0 if kinds == {SUPPORTED} else 0.0 if kinds <= {
            SUPPORTED,
            PARTLY,
        } else UNCITED
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
        # a statement counts by the lower of two readings: of the answer's own sentence, and of the one that supports it
        margins.append(float(scores[pair].min()) - CHECK_CUTS.at(coverage))
    support = float(scores[1::2].max())
    if max(margins) >= 0:
        return tuple(citations), support
    marked = (replace(c, supported=False, support=BESIDE) if c.n else c for c in citations)
    return tuple(marked), support
