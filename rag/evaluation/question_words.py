"""In whose words questions are asked: how many of a question's words the sentence has that answers it.

Questions that are written with the document open take its words; who needs to know has his own. :func:`measure_words`
compares the mean over questions with public sets of both kinds (benchmarks/LOG.md, "in whose words questions are");
:func:`gold_sentences` finds the sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from rag.quantities.reading import has_amounts, read_quantities
from rag.text.words import content_words, sentence_spans

STATED_SHARE = 0.8
"""Share of a longer fact's content words that a sentence must have to state it."""
LONG_FACT = 4
"""Content words from which a fact need not occur word for word."""
DOCUMENTS_WORDS_FROM = 0.6
"""Mean share of a question's content words in the sentence that answers it, from which they are the documents' words."""
MIN_QUESTIONS = 20
"""Fewest questions that are judged: 20 real ones of clapnq_dev are taken for the other kind in 4 % of draws, 10 in 12 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionWords:
    """How near the questions of a trial are to the words of the documents."""

    n: int
    """Questions whose answering sentence is known."""
    share: float
    """Mean share of a question's content words that this sentence has."""
    documents_words: bool
    """Whether they are in the documents' words."""


def measure_words(asked: Iterable[tuple[str, Sequence[str]]]) -> QuestionWords | None:
    """Return how near questions are to the documents' words; None for fewer than :data:`MIN_QUESTIONS`.

    Args:
        asked: each question with the sentences that answer it; one without any, or of stop words alone, is not counted.
    """
    of_each = (share_in_sentence(question, sentences) for question, sentences in asked)
    shares = [share for share in of_each if share is not None]
    if len(shares) < MIN_QUESTIONS:
        return None
    share = round(fmean(shares), 3)
    return QuestionWords(n=len(shares), share=share, documents_words=share >= DOCUMENTS_WORDS_FROM)


def share_in_sentence(question: str, sentences: Sequence[str]) -> float | None:
    """Return the share of a question's content words in the sentence that has most of them; None without any of both."""
    words = set(content_words(question))
    if not words or not sentences:
        return None
    return max(len(words & set(content_words(text))) for text in sentences) / len(words)


def gold_sentences(
    text: str, question: str, facts: Sequence[str], gold_spans: Sequence[tuple[int, int]]
) -> list[str]:
    """Return the sentences of a document that hold the gold answer: those of its spans, else the likeliest that state it.

    Args:
        text: of the document.
        question: whose words decide between several sentences that state a fact.
        facts: each of which is the answer.
        gold_spans: offsets of the answer in the text; () where they are not known.
    """
    spans = sentence_spans(text)
    if gold_spans:
        return [
            text[start:end]
            for start, end in spans
            if any(start < last and first < end for first, last in gold_spans)
        ]
    stating = [text[start:end] for start, end in spans if states_any(text[start:end], facts)]
    asked = set(content_words(question))
    shared = [len(asked & set(content_words(sentence))) for sentence in stating]
    return [
        sentence for sentence, count in zip(stating, shared, strict=True) if count == max(shared, default=0)
    ]


def states_any(sentence: str, facts: Sequence[str]) -> bool:
    """Return whether a sentence states one of the facts: word for word, or a longer one by its numbers and most words."""
    plain = _bare(sentence)
    words = set(content_words(sentence))
    return any(_states_fact(fact, plain, words, sentence) for fact in facts)


def normalised_words(text: str) -> str:
    """Return a text in lower case with single spaces, with one in front and one behind, so that whole words are found."""
    return f" {' '.join(text.casefold().split())} "


def _states_fact(fact: str, plain: str, words: set[str], sentence: str) -> bool:
    if _bare(fact).strip() and _bare(fact) in plain:
        return True
    wanted = set(content_words(fact))
    if len(wanted) < LONG_FACT:
        # 14.50 in "£14.50", ten in "10 days"
        others = {word for word in wanted if not read_quantities(word)}
        return bool(read_quantities(fact)) and has_amounts(fact, sentence) and others <= words
    if len(wanted & words) / len(wanted) < STATED_SHARE:
        return False
    return has_amounts(fact, sentence) or not read_quantities(fact)


def _bare(text: str) -> str:
    """Return the words of a text without punctuation around them, with a space before each and behind the last."""
    return normalised_words(" ".join(word.strip(".,;:!?()[]{}\"'“”‘’*_`#|") for word in text.split()))
