"""A passage and a question taken apart, as the replies of made rows are compared with them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from rag.quantities.comparing import Quantity, agree
from rag.quantities.reading import read_quantities
from rag.sentences import lexicon
from rag.sentences.claims import proper_names
from rag.sentences.clauses import Clause, coverage, is_covered
from rag.sentences.lexicon import FILLERS
from rag.sentences.statements import ParsedStatement, read_statement, states_fact
from rag.text.words import STOP_WORDS, content_words, sentence_spans, stem, words
from rag.types import Chunk

Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""Cosine of a text with each of several others, -1 to 1."""
SUPPORTED, CONSISTENT, QUOTED = "supported", "consistent", "quoted"
SUPPORT_LEVELS = (SUPPORTED, CONSISTENT, QUOTED)
_PLACE_TEXT = """
    site establishment property place station company organisation team this here question today now
"""
GENERAL_STEMS = FILLERS | frozenset(map(stem, _PLACE_TEXT.split()))
"""Stems of words that a reply may add without saying more: what the passage is about, in general terms."""
_NAME_RUN = re.compile(r"(?<=[\w,)] )[A-Z][\w'’&-]+(?: (?:of |the |de |van |von )?[A-Z][\w'’&-]*)*")
"""A name inside a question: neither at its beginning nor after a colon."""
MAX_BEHIND = 0.2
"""By how much another sentence of the passage may suit the question better than the one that the reply stands in.

Chosen on 391 questions of XQuAD: 5 % of the right answers are further behind, and 57 % of other answers of the passage."""
_MIN_MISSPELT, _MIN_ALIKE = 6, 0.85
"""Letters of a name, and likeness of two, from which one is the other with a letter wrong."""
CODE_MARK = re.compile(r"(?:^|\s)--?\w|[{}<>|\\_$=]|\w/\w|://")
"""A command, an address or other text that is wrong when one letter is."""
CODE_QUOTES = "`'\"“”‘’.,;:()<>*"
"""Marks around a piece of code or an address that are no part of it."""


_APART = re.compile(r"( )([,.;:!?)]|'s)(?= |$)", re.M)
"""A space before a mark or a genitive, as in texts that were split into tokens."""
_MIN_RUN_SHARE = 0.34
"""Share of the words of a long name that a passage must have for the name to be its own."""


@dataclass(frozen=True, slots=True)
class ReplySupport:
    """What was found about a reply."""

    level: str
    """One of :data:`SUPPORT_LEVELS`, the weakest of the reply's sentences; "" where the reply is not borne out."""
    reason: str = ""
    """What is wrong with it."""
    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) in the passage's text of the sentences that bear it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageSentence:
    """One sentence of the passage."""

    start: int
    end: int
    text: str
    statement: ParsedStatement
    words: frozenset[str]
    relevance: float
    """Mean of the share of the question's words that it has and its cosine with the question: 0 to 1."""
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageReading:
    """The passage and the question, as replies are compared with them."""

    question: str
    passage: Chunk
    sentences: tuple[PassageSentence, ...]
    ordered: tuple[str, ...]
    """Words of title and passage in order."""
    words: frozenset[str]
    """All words of passage, title and question."""
    title: frozenset[str]
    asked: frozenset[str]
    """Content words of the question."""
    quantities: tuple[Quantity, ...]
    """Those of title and question, which a reply may repeat."""
    similarity: Similarity | None


def take_apart(question: str, passage: Chunk, similarity: Similarity | None) -> PassageReading:
    """Return a passage and a question, taken apart for the comparison with replies.

    Args:
        question: the question.
        passage: the passage; spaces before its commas and full stops ("May 3 , 1990") are read as if behind them.
        similarity: compares the question with sentences by meaning; None compares by words alone.
    """
    passage = replace(passage, text=_APART.sub(lambda match: match[2] + match[1], passage.text))
    spans = [
        (start, end)
        for start, end in _code_whole(passage.text, sentence_spans(passage.text))
        if not passage.text[start:end].rstrip("\"'”’)]* ").endswith("?")
    ]
    texts = [passage.text[start:end] for start, end in spans]
    above = f"{passage.title} {passage.heading}".replace("_", " ").strip()
    title = frozenset(words(above))
    asked = frozenset(content_words(question)) - {"question"}
    statements = [read_statement(text) for text in texts]
    # a sentence that goes on from the one before is read with it; so is a line of code, which that one describes
    before = [
        texts[n - 1] if n and (statements[n].continues or _is_code_line(texts[n], texts[n - 1])) else ""
        for n in range(len(texts))
    ]
    windows = [f"{head} {text}".strip() for head, text in zip(before, texts, strict=True)]
    titled = [f"{above}: {window}" if above else window for window in windows]
    cosines = list(similarity(question, titled)) if similarity and titled else [0.0] * len(titled)
    sentences = tuple(
        PassageSentence(
            start=start,
            end=end,
            text=text,
            statement=statement,
            words=frozenset(words(text)),
            relevance=(coverage(asked - title, frozenset(words(window))) + max(0.0, cosine)) / 2,
            cosine=cosine,
        )
        for (start, end), text, statement, window, cosine in zip(
            spans, texts, statements, windows, cosines, strict=True
        )
    )
    ordered = (*words(above), *words(passage.text))
    return PassageReading(
        question=question,
        passage=passage,
        sentences=sentences,
        ordered=ordered,
        words=frozenset(ordered) | frozenset(words(question)),
        title=title,
        asked=asked,
        quantities=(*read_quantities(question), *read_quantities(f"{above}.")),
        similarity=similarity,
    )


def _code_whole(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans of sentences, those joined that are parts of one piece of code on one line."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        last = joined[-1] if joined else (0, 0)
        if joined and text.count("`", *last) % 2 and "\n" not in text[last[1] : start]:
            joined[-1] = (last[0], end)
        else:
            joined.append((start, end))
    return joined


def _is_code_line(text: str, before: str) -> bool:
    """Return whether a text is a line of code and the one before it is none."""
    plain = text.strip()
    marked = plain.startswith("`") and plain.endswith("`")
    return (marked or not states_fact(plain)) and bool(
        (marked or CODE_MARK.search(plain)) and not before.strip().startswith("`")
    )


def is_verbatim(text: str, sentence: str) -> bool:
    """Return whether the words of a text stand in a sentence in their order."""
    own = " ".join(words(text))
    return bool(own) and f" {own} " in f" {' '.join(words(sentence))} "


def has_quantity(quantity: Quantity, sentence: PassageSentence) -> bool:
    """Return whether a sentence has a quantity; "at 5" is 05:00."""
    return any(
        agree(quantity, own) or (own.timed and f"{quantity.value:0>2}:00" == own.value)
        for own in sentence.statement.quantities
    )


def unknown_names(text: str, given: PassageReading) -> frozenset[str]:
    """Return the words of a reply's names that neither passage nor question have."""
    return frozenset(
        name
        for name in proper_names(text)
        if name not in STOP_WORDS
        and name not in GENERAL_STEMS
        and not name.startswith("i'")
        and not is_known_name(name, given.words, given.ordered)
    )


def asked_elsewhere(given: PassageReading) -> str:
    """Return a name of the question that the passage does not have, "" where there is none.

    A name of one word may be missing where the passage has another of the question. A name is known by one
    of its words: a passage about the Panthers answers for the Carolina Panthers.
    """
    unknown, runs = strange_names(given), _name_runs(given.question)
    whole = [run for run in unknown if " " in run]
    if whole:
        return whole[0]
    return unknown[0] if unknown and len(unknown) == len(runs) else ""


def strange_names(given: PassageReading) -> list[str]:
    """Return the names of the question that the passage does not have."""
    known = frozenset(given.ordered)
    runs = _name_runs(given.question)
    return [run for run in runs if _known_share(run, known, given.ordered) < _MIN_RUN_SHARE]


def _name_runs(question: str) -> list[str]:
    """Return the names inside a question."""
    name_runs = [match.group().split() for match in _NAME_RUN.finditer(question)]
    runs = []
    for run_words in name_runs:
        while run_words and run_words[0].lower() in STOP_WORDS:
            run_words = run_words[1:]
        runs += [" ".join(run_words)] if run_words else []
    return runs


def _known_share(run: str, known: frozenset[str], ordered: Sequence[str]) -> float:
    """Return the share of the words of a name that are known; 1 for a name without words."""
    own = [word for word in words(run) if word not in STOP_WORDS] or words(run)
    return sum(is_known_name(word, known, ordered) for word in own) / len(own) if own else 1.0


def is_known_name(name: str, known: frozenset[str], ordered: Sequence[str]) -> bool:
    """Return whether a word of a name is known, also shortened ("Amex"), joined or with a letter wrong."""
    if name in known or is_covered(name, known):
        return True
    if any(
        min(len(word), len(name)) > 2 and (word.startswith(name) or name.startswith(word)) for word in known
    ):
        return True
    if any(_shortens(name, ordered[at : at + 4]) for at in range(len(ordered))) or _is_joined(name, ordered):
        return True
    return len(name) >= _MIN_MISSPELT and any(
        abs(len(word) - len(name)) <= 1 and SequenceMatcher(None, name, word).ratio() >= _MIN_ALIKE
        for word in known
        if word[:1] == name[:1]
    )


def _shortens(name: str, following: Sequence[str]) -> bool:
    """Return whether a name is made of the beginnings of two and more neighbouring words."""
    return len(name) > 1 and any(
        name == "".join(word[:size] for word in following[:count])
        for count in (2, 3, 4)
        for size in (1, 2, 3)
        if len(following) >= count
    )


def _is_joined(name: str, ordered: Sequence[str]) -> bool:
    """Return whether a name is two neighbouring words written as one: "Mastercard"."""
    return any(name == a + b for a, b in itertools.pairwise(ordered))


def same_sense(claim: ParsedStatement, sources: Sequence[PassageSentence]) -> bool:
    """Return whether each clause of a claim denies as a nearest clause of some sentences does, opposites counted."""
    clauses = [own for source in sources for own in source.statement.clauses]
    for clause in claim.clauses:
        if not clause.content and not clause.negated:
            continue
        scores = [sum(is_covered(word, own.words) for word in clause.content) for own in clauses]
        most = max(scores, default=0)
        nearest = [own for own, score in zip(clauses, scores, strict=True) if score == most]
        if nearest and not any(_agree_in_sense(clause, own) for own in nearest):
            return False
    return True


def _agree_in_sense(clause: Clause, own: Clause) -> bool:
    opposite = sum(
        not is_covered(word, own.words)
        # "rough and smooth": what the claim has too is not turned
        and any(lexicon.are_opposite(word, other) and other not in clause.words for other in own.words)
        for word in clause.content
    )
    return (clause.negated != own.negated) == (opposite % 2 == 1)
