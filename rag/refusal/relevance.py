"""Whether what an answer cites is what was asked: a fact of a passage may be true and beside the question.

:func:`check_citations` reads the sentences that an answer cites with the answerability model. How likely the likeliest of
them is to answer the question is the answer's support: of the answers that six arms gave, right ones have more of it than
wrong ones in 79 to 93 % of pairs (benchmarks/LOG.md). Below :data:`LEAST_SUPPORT` what is cited is marked ``beside``: shown
with its passage, and not counted as supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.embedding.reranker import Scorer
from rag.grounding.citations import PARTLY, SUPPORTED
from rag.types import Citation

BESIDE = "beside"
"""``Citation.support`` of a statement that a passage makes and that is not what was asked."""
LEAST_SUPPORT = 1.0
"""Support of an answer that is what was asked, where the plan names no other. On the two houses of
benchmarks/houses/dev that are for it, 3 % of the sentences that answer lie below, in the documents' words and near them,
39 % in words that share none, and 90 to 95 % of the other sentences of the same document."""
UNCITED = -99.0
"""Support of an answer that cites nothing."""


def check_citations(
    question: str, citations: Sequence[Citation], reader: Scorer | None
) -> tuple[tuple[Citation, ...], float]:
    """Return the citations, all marked where what they cite is beside the question, and the answer's support.

    The support is in log odds. Without a reader it is 1 where all statements are supported, -1 where some are in part, and
    :data:`UNCITED` otherwise; then nothing is marked.

    Args:
        question: the question.
        citations: of the answer.
        reader: the answerability model.
    """
    cited = [citation for citation in citations if citation.n]
    if not cited:
        return tuple(citations), UNCITED
    if reader is None:
        kinds = {citation.support for citation in citations}
        level = 1.0 if kinds == {SUPPORTED} else -1.0 if kinds <= {SUPPORTED, PARTLY} else UNCITED
        return tuple(citations), level
    texts = list(dict.fromkeys(f"{citation.title}. {citation.quote}" for citation in cited))
    support = float(reader.scores(question, texts).max())
    if support >= LEAST_SUPPORT:
        return tuple(citations), support
    marked = (replace(c, supported=False, support=BESIDE) if c.n else c for c in citations)
    return tuple(marked), support
