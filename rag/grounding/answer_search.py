"""Whether a set of passages holds the right answer to a question, and which passage does: :class:`AnswerFinder`.

That the answer's text occurs is not enough: "12" occurs anywhere. A passage holds a short answer if the sentence or table
row that states it, with title and headings, shares so many of the question's words that as good a match is not expected by
chance. With n places that state the answer, and the one of rank r among N places by the question's words, n * r / N are
expected to do as well. A longer answer must share most of its words and all of its numbers with a passage.

Words alone cannot decide where a question shares none with the documents, as customers write: then it is not known, unless
the row names its document, or no passage states the answer at all.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rag.grounding import citations
from rag.grounding.evidence import is_checkable
from rag.grounding.fields import structured_fields
from rag.quantities.comparing import Quantity, are_among, unbounded
from rag.quantities.reading import read_quantities
from rag.sentences.claims import normalise_quotation
from rag.text.words import content_words, sentence_spans, sentences
from rag.types import Chunk

LONG_ANSWER = 4
"""Content words from which an answer is compared by its words and numbers and need not occur word for word."""
MAX_BY_CHANCE = 0.1
"""Places that may be expected by chance to match a short answer and its question as well as the one that was found."""
MAX_PASSAGES_BY_CHANCE = 0.05
"""The same for whole passages, whose other sentences share the question's words."""
MIN_ASKED = 0.2
"""Weighed share of the question's words that a sentence or row must have, with its title and headings."""
MIN_ASKED_OF_PASSAGE = 0.35
"""The same of a passage; from it on, a passage is about what is asked."""
MIN_ASKED_OF_BEST = 0.5
"""The same of the sentence that shares most of all: in a few pages any match may be chance by its number."""
MIN_STATED = 0.5
"""Weighed share of a longer answer's words that a passage must have to state it."""
MIN_STATED_WHOLE = 0.75
"""The same where no passage shares enough of the question's words: customers' words are others than the documents'."""
MIN_LIKE = 0.3
"""Weighed share of a longer answer's words below which a passage says nothing like it."""
MAX_RANK = 0.1
"""Share of all passages that may share more of the question's words than one that states a longer answer."""
_READ = 30
"""Places, best by the question's words, whose amounts are compared: 7 pm for 19:00."""
_BARE = frozenset({"", "yes", "no", "true", "false", "ja", "nein", "sí", "si", "oui", "non"})
"""Answers that any passage could contain."""


@dataclass(frozen=True, slots=True)
class FoundAnswer:
    """What was found of the answer to one question."""

    passage: Chunk | None = None
    """The passage that holds the answer."""
    decided: bool = True
    """Whether it is known that no passage holds it, where there is none."""
    other_amounts: bool = False
    """Whether passages about what is asked say it with other numbers, times or dates."""


class AnswerFinder:
    """Passages and their sentences, indexed once by their words, so that many answers can be looked up."""

    def __init__(self, chunks: Sequence[Chunk], texts: Iterable[str] | None = None) -> None:
        """Index the passages.

        Args:
            chunks: all passages.
            texts: the questions and answers that will be looked up, where they are known: only their words are indexed,
                which is faster for many passages.
        """
        self._chunks = chunks
        only = None if texts is None else {word for text in texts for word in content_words(text)}
        self._of_document: dict[str, list[int]] = {}
        self._passages = _Places(only)
        self._sentences = _Places(only)
        self._spans: list[tuple[int, int]] = []
        self._passage_of = array("q")
        for row, chunk in enumerate(chunks):
            self._of_document.setdefault(chunk.doc, []).append(row)
            head = set(content_words(f"{chunk.title} {chunk.heading}"))
            all_words = set(head)
            for span in sentence_spans(chunk.text):
                own = set(content_words(chunk.text[slice(*span)]))
                all_words |= own
                self._sentences.add(own | head)
                self._spans.append(span)
                self._passage_of.append(row)
            self._passages.add(all_words)
        self._plain: dict[int, str] = {}
        self._amounts: dict[str, list[Quantity]] = {}

    def find(
        self, asked: Sequence[str], answers: Sequence[str], documents: Collection[str] = ()
    ) -> FoundAnswer:
        """Return the passage that holds one of the right answers to a question.

        Args:
            asked: the question, and other texts that say what is asked: its other wordings, a full reply.
            answers: the right answers, each of which is enough.
            documents: ids of the documents that the row names, where it does; those of the passages are looked in first.
        """
        rows = [row for name in documents for row in self._of_document.get(name, ())]
        outcomes = [outcome for answer in answers if (outcome := self._find_one(asked, answer, rows))]
        if (held := next((o for o in outcomes if o.passage is not None), None)) is not None:
            return held
        decided = bool(outcomes) and all(outcome.decided for outcome in outcomes)
        return FoundAnswer(decided=decided, other_amounts=any(o.other_amounts for o in outcomes))

    def _find_one(self, asked: Sequence[str], answer: str, named: Sequence[int]) -> FoundAnswer | None:
        """Return what holds one answer, None for one that states nothing to look for."""
        outcomes = [
            (self._find_long if whole else self._find_short)(asked, stated, named)
            for stated, whole in _statements(answer)
        ]
        # a reply whose first sentence has another price is not held by the passage of its second
        differing = next((outcome for outcome in outcomes if outcome.other_amounts), None)
        held = next((outcome for outcome in outcomes if outcome.passage is not None), None)
        undecided = next((outcome for outcome in outcomes if not outcome.decided), None)
        return differing or held or undecided or next(iter(outcomes), None)

    def overlapping(self, document: str, spans: Sequence[tuple[int, int]]) -> Chunk | None:
        """Return the first passage of a document that has a part of one of these spans of characters, None for none."""
        chunks = (self._chunks[row] for row in self._of_document.get(document, ()))
        return next((c for c in chunks if any(c.start < end and start < c.end for start, end in spans)), None)

    def _find_short(self, asked: Sequence[str], answer: str, named: Sequence[int]) -> FoundAnswer:
        answer_words = set(content_words(answer))
        best = 0.0
        stating: set[int] = set()
        for text in asked:
            words = set(content_words(text))
            about = words - answer_words or words
            share = self._sentences.shares(about)
            best = max(best, float(share.max(initial=0.0)))
            places = self._stating(answer, answer_words, share)
            stating |= set(places)
            if (row := self._in_named(places, share, named)) is not None:
                return FoundAnswer(self._chunks[row])
            if (row := self._beyond_chance(places, share, about)) is not None:
                return FoundAnswer(self._chunks[row])
        return FoundAnswer(decided=not stating or best >= MIN_ASKED_OF_PASSAGE)

    def _in_named(self, places: Sequence[int], share: np.ndarray, named: Sequence[int]) -> int | None:
        """Return the named passage whose sentence states an answer, unless another there is more about what is asked."""
        rows = set(named)
        inside = [place for place in places if self._passage_of[place] in rows]
        if not inside:
            return None
        place = max(inside, key=lambda place: share[place])
        of_named = np.isin(np.frombuffer(self._passage_of, dtype=np.int64), np.array(named))
        most = float(share[of_named].max())
        fits = share[place] >= most / 2 or most < MIN_ASKED_OF_PASSAGE
        return self._passage_of[place] if fits else None

    def _beyond_chance(self, places: Sequence[int], share: np.ndarray, about: set[str]) -> int | None:
        """Return the passage that states the answer and is about what is asked, None where chance does as well."""
        if not places:
            return None
        place = max(places, key=lambda place: share[place])
        rank = int((share >= share[place]).sum())
        by_number = len(places) * rank <= MAX_BY_CHANCE * len(share) and share[place] >= MIN_ASKED
        if by_number or (rank == 1 and share[place] >= MIN_ASKED_OF_BEST):
            return self._passage_of[place]
        shares = self._passages.shares(about)
        rows = {self._passage_of[place] for place in places}
        row = max(rows, key=lambda row: shares[row])
        rank = int((shares >= shares[row]).sum())
        fits = shares[row] >= MIN_ASKED_OF_PASSAGE and len(rows) * rank <= MAX_PASSAGES_BY_CHANCE * len(
            shares
        )
        return row if fits else None

    def _stating(self, answer: str, answer_words: set[str], share: np.ndarray) -> list[int]:
        """Return the places that state a short answer: word for word, or by its amounts."""
        plain = normalise_quotation(answer)
        pattern = re.compile(rf"(?<![\w£$€.]){re.escape(plain)}(?!\w|[.:,]\d)")
        places = [
            place
            for place in self._sentences.with_all(answer_words)
            if pattern.search(self._plain_text(place))
        ]
        amounts = [unbounded(quantity) for quantity in read_quantities(answer)]
        if amounts:
            others = {word for word in answer_words if not read_quantities(word)}
            with_words = set(self._sentences.with_all(others)) if others else None
            nearest = np.argsort(-share, kind="stable")[:_READ]
            places += [
                int(place)
                for place in nearest
                if share[place] > 0
                and (with_words is None or place in with_words)
                and are_among(amounts, self._amounts_of(self._text(int(place))))
            ]
        elif not places:
            places = self._sentences.with_all(answer_words)  # in another order, or with words between
        return sorted(set(places))

    def _find_long(self, asked: Sequence[str], statement: str, named: Sequence[int]) -> FoundAnswer:
        stated_words = set(content_words(statement))
        stated = self._passages.shares(stated_words)
        amounts = [unbounded(quantity) for quantity in read_quantities(statement)]
        of_named = set(named)
        shares = [self._passages.shares(set(content_words(text))) for text in asked]
        best = max(float(share.max(initial=0.0)) for share in shares)
        elsewhere = other_amounts = False
        for share in shares:
            order = np.argsort(-(stated + share), kind="stable")[:_READ]
            for row in (int(row) for row in order if stated[row] >= MIN_STATED):
                near = share[row] >= MIN_ASKED and (share >= share[row]).sum() <= 1 + MAX_RANK * len(share)
                if amounts and not are_among(amounts, self._amounts_of(self._chunks[row].text)):
                    other_amounts |= near
                    elsewhere = True
                    continue
                strange = best < MIN_ASKED_OF_PASSAGE and stated[row] >= MIN_STATED_WHOLE
                if near or strange or row in of_named:
                    return FoundAnswer(self._chunks[row])
                elsewhere |= best >= MIN_ASKED_OF_PASSAGE
        nothing_like_it = float(stated.max(initial=0.0)) < MIN_LIKE
        return FoundAnswer(decided=nothing_like_it or elsewhere, other_amounts=other_amounts)

    def _text(self, place: int) -> str:
        """Return a sentence with the title and headings of its passage."""
        chunk = self._chunks[self._passage_of[place]]
        return f"{chunk.title}. {chunk.heading}. {chunk.text[slice(*self._spans[place])]}"

    def _plain_text(self, place: int) -> str:
        if place not in self._plain:
            self._plain[place] = normalise_quotation(self._text(place))
        return self._plain[place]

    def _amounts_of(self, text: str) -> list[Quantity]:
        """Return the amounts of a text, stored because reading them takes milliseconds."""
        if text not in self._amounts:
            self._amounts[text] = [unbounded(quantity) for quantity in read_quantities(text)]
        return self._amounts[text]


class _Places:
    """Texts by their words, each word weighed by its rarity among them."""

    def __init__(self, only: Collection[str] | None) -> None:
        self._only = None if only is None else frozenset(only)
        self._with: dict[str, array[int]] = {}
        self.count = 0

    def add(self, words: set[str]) -> None:
        for word in words if self._only is None else words & self._only:
            self._with.setdefault(word, array("q")).append(self.count)
        self.count += 1

    def shares(self, words: Collection[str]) -> np.ndarray:
        """Return for every text the weighed share of these words that it has, float64 of shape (count,)."""
        total = 0.0
        sums = np.zeros(self.count)
        for word in sorted(words):
            with_word = np.frombuffer(self._with[word], dtype=np.int64) if word in self._with else ()
            # inverse document frequency: a word that no text has weighs most
            weight = math.log(1 + self.count / (1 + len(with_word)))
            total += weight
            if len(with_word):
                sums[with_word] += weight
        return sums / total if total else sums

    def with_all(self, words: Collection[str]) -> list[int]:
        """Return the texts that have all of these words, [] for no words."""
        of_words = [self._with.get(word) for word in words]
        if not of_words or any(texts is None for texts in of_words):
            return []
        sets = sorted((set(texts) for texts in of_words if texts is not None), key=len)
        return sorted(set.intersection(*sets))


def states_something(answer: str) -> bool:
    """Return whether an answer holds words or numbers to look for: a bare yes or no could be of any passage."""
    return normalise_quotation(answer) not in _BARE and bool(content_words(answer))


def _statements(answer: str) -> Iterator[tuple[str, bool]]:
    """Yield what an answer states, and whether it is compared by its words and numbers: its sentences, or the whole."""
    fields = [field.value for field in structured_fields(answer) if is_checkable(field)]
    plain = citations.strip_marks(answer)
    stated = [] if fields else [sentence for sentence in sentences(plain) if citations.is_factual(sentence)]
    text = " . ".join(fields) or " ".join(stated) or plain
    if not states_something(text):
        return
    if len(set(content_words(text))) < LONG_ANSWER:
        yield text, False
        return
    long = [sentence for sentence in stated if len(set(content_words(sentence))) >= LONG_ANSWER]
    yield from ((sentence, True) for sentence in long or [text])
