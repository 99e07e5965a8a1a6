"""Questions generated from the documents themselves, for tuning an index before users have asked any.

:func:`make_questions` turns statements of the chunks into questions with :func:`statement_to_question` and keeps those
that no other passage could answer: every passage that contains the question's content words must contain the statement
itself. Where the words alone are ambiguous, the document's title is added. Generated questions use the words of the
documents, so they can judge how these are cut, but not how much word matching should count against meaning. Every one
is marked as synthetic.

:func:`statement_to_question` inverts subject and verb of an English statement, found by its first verb, with word lists
and patterns and without a model: "The office is open from 7 am" asks "When is the office open?". It asks for the time,
price, number or name that the statement contains, else a yes-or-no question. A sentence that does not begin with a
plain subject is skipped, and so is a question that breaks the rule of :mod:`rag.evaluation.question_rule`: a missing
question is better than one that no user would ask.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rag.evaluation.question_rule import (
    AUXILIARIES,
    CLAUSE_WORDS,
    DETERMINERS,
    ONLY_PAST,
    PLURAL,
    PREPOSITIONS,
    SENTENCE_OPENERS,
    VERB_FORMS,
    is_complete,
    subject_agrees,
)
from rag.files import sha256_text
from rag.text.words import content_words, sentence_spans, words
from rag.types import Chunk

_LARGE = r"(?: (?:million|billion))?"
_NUMBER = r"\d(?:[\d,.]*\d)?"
_MONEY = rf"(?:[$€£]\s?{_NUMBER}{_LARGE}|{_NUMBER}{_LARGE} (?:euros?|dollars?|pounds|cents))"
_COUNT = (
    r"(?:\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty)"
)
_CLOCK = r"(?:noon|midnight|\d{1,2}[:.]\d\d(?: ?[ap]\.?m\b\.?)?|\d{1,2} ?[ap]\.?m\b\.?)"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_WEEKDAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?"
_PART = r"(?: (?:morning|afternoon|evening|night)s?)?"
_DAY = rf"(?:(?:every |each )?{_WEEKDAY}{_PART}(?:(?:, | and | or ){_WEEKDAY}{_PART})*)"
_DATE = rf"(?:(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}})?(?:,? \d{{4}})?|(?:1[5-9]|20)\d\d)"
_UNIT = r"(?:working |business |school )?(?:seconds|minutes|hours|days|nights|weeks|months|years)"
_SPAN = rf"(?:(?:up to|at most|at least|about) )?{_COUNT} {_UNIT}"
_NAME = r"(?:the )?[A-Z][\w'’-]*(?: (?:of |the |and )?[A-Z][\w'’-]*)*"
_SLOTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("Why", re.compile(r",? because (?P<slot>.+)$")),
    (
        "How often",
        re.compile(
            rf"\b(?P<slot>every (?:{_COUNT} (?:minutes|hours|days|weeks|months|years)|hour|week|month|year))$"
        ),
    ),
    ("After how long", re.compile(rf"\bafter (?P<slot>{_SPAN})")),
    ("Within what time", re.compile(rf"\bwithin (?P<slot>{_SPAN})")),
    ("For how long", re.compile(rf"\bfor (?P<slot>{_SPAN})")),
    ("By when", re.compile(rf"\bby (?P<slot>{_CLOCK}|{_DATE})")),
    ("Until when", re.compile(rf"\b(?:until|till) (?P<slot>{_CLOCK}|{_DATE}|{_DAY})")),
    (
        "When",
        re.compile(
            rf"\bfrom (?P<slot>(?:{_CLOCK}|{_DATE}|{_DAY}) (?:to|until|till) (?:{_CLOCK}|{_DATE}|{_DAY}))"
        ),
    ),
    (
        "When",
        re.compile(
            rf"\b(?:only )?(?:at|before|after|since|on|in|every) (?P<slot>{_CLOCK}|{_DATE}|{_DAY})(?![\w-])"
        ),
    ),
)
_VALUED = re.compile(rf"\b(?:{_CLOCK}|{_DATE}|{_DAY}|{_SPAN})\b")
_PRICED = re.compile(_MONEY)
"""If a second value of the kind asked for is left over, the question would not say which of them it asks for."""
_FIRST = {
    "How much": re.compile(rf"^(?:only )?(?P<slot>{_MONEY})(?![\w-])"),
    "How many {noun}": re.compile(
        rf"^(?P<slot>{_COUNT}) (?P<noun>[a-z]+s)(?![\w-])(?! (?:of|long|wide|deep|high|tall|old|away|ahead|before|after)\b)"
    ),
}
_PLACED = re.compile(
    r"(?:land|dock|park|stand|lie|sit|stay|stop|meet|live|work|located|held|kept|sold|moored|found)$"
)
_WHERE = re.compile(
    rf"^\s?(?P<slot>(?:in|at|on|near|behind|beside|opposite) {_NAME})(?=$| (?:on|in|for|when|from|until|every|instead)\b)"
)
_PERSON = re.compile(
    r"(?:er|or|ist|man|woman|captain|doctor|vet|chef|clerk|head|pilot|steward|warden|gardener|president|king|queen|keeper)s?$"
)
_MEASURED_BY = """
    carry contain cost earn have hold last need offer pay seat take weigh
"""
_MEASURING = frozenset(_MEASURED_BY.split()) | {""}
"""Verbs that a price or a number of things may follow; "" is the verb to be."""
_POINTING = re.compile(r"\b(?:this|these|those)\b")
"""These refer to something in another sentence."""
_LIST_MARK = re.compile(
    r"^(?:[-*•+]|\d{1,3}[.)]|\d{1,3}(?:\.\d{1,3})+(?=\s+[A-Z]))\s+|^(?:yes|no|sorry|unfortunately),\s+", re.I
)
_ODD = re.compile(r"[@<>|{}\\_*#\[\]=“”\"…;]|(?<!\d):|:(?!\d)|--|``|''|\s['’,.]|\brespectively\b")
_SET_APART = re.compile(r" (?=[,.;:!?](?: |$)|'s\b|n't\b|\))|(?<=\() ")
"""Spaces before marks in text that was cut into tokens ("In 1912 , it sank ."), as data sets of questions have it."""
_CUT = re.compile(
    r"(?:^|[\s.(])[A-Z]\.$|(?:^|\s)(?:Maj|Gen|Lt|Col|Capt|Sgt|Rev|Gov|Sen|Rep|Pres|Mt|Ft|Bros)\.$"
)
"""The end of a sentence that goes on: an initial or a title ("when General Robert E.")."""
_MAX_WORDS = 26
"""Questions made from longer statements are not questions that a user would ask."""
_CAPITALISED_INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][\w'’-]*")
"""Words with a capital letter inside a sentence; those that are never written without one are names."""
_MIN_OWN_WORDS = 2
"""Content words that a question must have besides those of the title."""


@dataclass(frozen=True, slots=True)
class QuestionAndAnswer:
    """A question and the statement's answer to it."""

    question: str
    answer: str
    """The words asked for; yes or no for a yes-or-no question."""


@dataclass(frozen=True, slots=True)
class SyntheticQuestion:
    """A question generated from one statement of a chunk."""

    id: str
    question: str
    answers: tuple[str, ...]
    """The words asked for, or yes or no."""
    doc_id: str
    spans: tuple[tuple[int, int], ...]
    """(start, end) of the statement in the document's source text."""
    statement: str
    answerable: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the question as a row of a questions file, marked synthetic."""
        return {
            "id": self.id,
            "question": self.question,
            "answers": list(self.answers),
            "doc_id": self.doc_id,
            "spans": [{"start": start, "end": end} for start, end in self.spans],
            "answerable": True,
            "synthetic": True,
        }


def statement_to_question(sentence: str, names: Collection[str] = ()) -> QuestionAndAnswer | None:
    """Return the question that a statement answers, or None if it is not a plain statement.

    Args:
        sentence: one English sentence.
        names: words that keep their capital letter at the beginning of a sentence.
    """
    text = " ".join(_LIST_MARK.sub("", sentence.strip()).split())
    if text.endswith((" .", " !")):
        text = _SET_APART.sub("", text)
    if (
        not text.endswith((".", "!"))
        or _CUT.search(text)
        or _ODD.search(text)
        or len(text.split()) > _MAX_WORDS
    ):
        return None
    main_clause = re.split(
        r"(?:,| -)? (?:but|so that|whereas)\b|(?:,| -) (?:which|who)\b|,? and (?:the|it|they|you|we)\b"
        r"|, (?:and|however|otherwise|so|therefore|thus|where|while)\b",
        text.rstrip(".! "),
    )[0]
    tokens = main_clause.split()
    for position in range(1, min(9, len(tokens))):
        verb = _verb(tokens, position)
        subject = _subject(tokens[:position], names)
        if (
            verb
            and subject
            and (question := _question_about(subject, *verb, " ".join(tokens[position + 1 :])))
        ):
            return question
    return None


def make_questions(chunks: Sequence[Chunk], most: int, seed: int = 0) -> tuple[SyntheticQuestion, ...]:
    """Generate questions from chunks, spread over as many documents as possible.

    English statements only: documents in other languages give none.

    Args:
        chunks: of all documents.
        most: most questions to return.
        seed: of the order of documents and questions; equal chunks and seed give equal questions.
    """
    corpus = _Corpus(chunks)
    by_document: defaultdict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_document[chunk.doc].append(chunk)
    ranked: list[list[SyntheticQuestion]] = []
    for doc in sorted(by_document, key=lambda doc: _draw(seed, doc)):
        by_text = {
            question.question: question for chunk in by_document[doc] for question in corpus.questions(chunk)
        }
        if by_text:
            ranked.append(
                sorted(
                    by_text.values(),
                    key=lambda question: (question.answers[0] in ("yes", "no"), _draw(seed, question.id)),
                )
            )
        if len(ranked) == most:
            break
    # the best question of every document first, then the second of each, so that few documents do not dominate
    rounds = (questions[n] for n in range(most) for questions in ranked if n < len(questions))
    return tuple(islice(rounds, most))


def _question_about(subject: str, auxiliary: str, base: str, rest: str) -> QuestionAndAnswer | None:
    """Ask for what the rest of a statement contains, else whether it is so; None where no question keeps the rule.

    Args:
        subject: as it is written inside a sentence.
        auxiliary: the verb that moves in front of the subject.
        base: base form of the main verb; "" if the auxiliary is the only verb.
        rest: what follows the verb.
    """
    rest, negated = _positive(rest)
    if not rest or _POINTING.search(rest) or (base and _has_other_verb(rest)):
        return None
    if not subject_agrees(subject, auxiliary):
        return None
    clause = _Clause(subject, auxiliary, base)
    if (auxiliary == "is" or base) and base in _MEASURING:
        for asking, pattern in _FIRST.items():
            if match := pattern.match(rest):
                asking = asking.format(noun=match.groupdict().get("noun", ""))
                if asked := clause.value_question(asking, rest, match, _PRICED):
                    return asked
    if not base and (match := re.match(r"(?:called|named) (?P<slot>(?:the |a )?[A-Z].*)$", rest)):
        return clause.question("What", "called", match["slot"])
    if not base and (named := _identity(subject, auxiliary, rest)):
        return named
    for asking, pattern in _SLOTS if not negated else ():
        match = pattern.search(rest)
        if match and (asked := clause.value_question(asking, rest, match, _VALUED)):
            return asked
    word = base or rest.split()[0]
    after = rest if base else rest.removeprefix(word)
    if _PLACED.match(word) and not negated and (match := _WHERE.match(after)):
        left = after[match.end() :] if base else f"{word}{after[match.end() :]}"
        return clause.question("Where", left, match["slot"].strip())
    return clause.question("", rest, "no" if negated else "yes")


@dataclass(frozen=True, slots=True)
class _Clause:
    """Subject and verb of a statement."""

    subject: str
    auxiliary: str
    base: str

    def question(self, asking: str, left: str, answer: str) -> QuestionAndAnswer | None:
        """Return the question that begins with ``asking`` ("" for yes or no) and ends with what is left of the statement.

        None where that is not whole.
        """
        left = left.strip()
        if not is_complete(left, self.base):
            return None
        text = " ".join(filter(None, (asking, self.auxiliary, self.subject, self.base, left)))
        return QuestionAndAnswer(f"{text[0].upper()}{text[1:]}?", answer)

    def value_question(
        self, asking: str, rest: str, match: re.Match[str], values: re.Pattern[str]
    ) -> QuestionAndAnswer | None:
        """Return the question for the value that a match found in the rest of a statement.

        None where the statement holds a second such value, so that the question would not say which of them it asks for.
        """
        before, after = rest[: match.start()].rstrip(), rest[match.end() :]
        of_subclause = CLAUSE_WORDS.intersection(before.split())
        if (
            of_subclause
            or (before.endswith(",") and after)
            or (after and before.endswith((" asked", " applied")))
        ):
            return None
        before = re.sub(r",$| ?\bonly$", "", before)
        if after.startswith(","):
            if asking.startswith("How many") or re.search(rf"\d|\b{_COUNT}\b", after):
                return None
            after = ""
        if re.match(r" ?(?:and|or|of|to|plus|more|extra|worth|long|old|each(?= for|$))\b", after):
            return None
        left = f"{before} {after.strip()}".strip()
        if not self.base and ((not left and values is _VALUED) or re.match(r"(?:an?|the|one|only)\b", left)):
            return None
        if values.search(f"{self.subject} {left}"):
            return None
        return self.question(asking, left, match["slot"])


def _identity(subject: str, auxiliary: str, rest: str) -> QuestionAndAnswer | None:
    """Ask who or what something is, if the statement says just that."""
    if auxiliary not in ("is", "are", "was", "were") or subject == "there":
        return None
    if re.fullmatch(_NAME, rest) and not rest.startswith("the "):
        head = re.split(r" (?:of|for|in|at|on|near|from|with|to)\b", subject)[0].split()[-1]
        is_person = _PERSON.search(head) or rest.split()[0] in ("Dr", "Miss", "Mr", "Mrs", "Ms")
        return QuestionAndAnswer(f"{'Who' if is_person else 'What'} {auxiliary} {subject}?", rest)
    if subject[:1].isupper() and re.match(r"(?:an?|the|one of) ", rest):
        return QuestionAndAnswer(f"What {auxiliary} {subject}?", rest)
    return None


def _verb(tokens: list[str], position: int) -> tuple[str, str] | None:
    """Return the auxiliary that asks and the verb's base form, if the statement's verb is at this position; else None."""
    token = tokens[position]
    before = tokens[position - 1].lower()
    if token in AUXILIARIES:
        return token, ""
    if (
        token in ("has", "have", "had")
        and position + 1 < len(tokens)
        and re.search(
            r"(?:ed|en|been|not|made|had|held|kept|paid|sold|sent|built|become|come)$", tokens[position + 1]
        )
    ):
        return token, ""
    after = tokens[position + 1] if position + 1 < len(tokens) else ""
    if token in ("does", "do", "did") and (after == "not" or VERB_FORMS.get(after) == ("do", after)):
        return token, ""
    form = VERB_FORMS.get(token)
    if form is None or before in SENTENCE_OPENERS | DETERMINERS:
        return None
    possessive = "'" in before or "’" in before
    plural = (
        before.endswith("s") and not before.endswith(("ss", "us")) and not possessive
    ) or before in PLURAL
    if form[0] == "does":
        return None if plural else form
    if form[0] == "did":
        participle = (
            token not in ONLY_PAST
            and tokens[position + 1 : position + 2]
            and tokens[position + 1] in PREPOSITIONS
        )
        return None if participle or any(word in VERB_FORMS for word in tokens[position + 1 :]) else form
    return form if plural else None


def _subject(tokens: list[str], names: Collection[str]) -> str:
    """Return the subject as it is written inside a sentence, or "" if it is not a plain one."""
    first = re.split("['’]", tokens[0].lower())[0]
    if first == "there" and len(tokens) == 1:
        return "there"
    lowered = {token.lower() for token in tokens}
    if (
        first in SENTENCE_OPENERS
        or lowered & (CLAUSE_WORDS | {"it", "this", "these", "those"})
        or any("," in token for token in tokens)
    ):
        return ""
    is_name = (
        tokens[0] in names
        or not tokens[0][1:].islower()
        or tokens[1:2] != [word.lower() for word in tokens[1:2]]
    )
    return " ".join(tokens if is_name and first not in DETERMINERS else [tokens[0].lower(), *tokens[1:]])


def _positive(rest: str) -> tuple[str, bool]:
    """Return the rest of a statement without its negation, and whether it was negated."""
    replaced = re.subn(r"^(?:not|never)\s+|^no longer\s+", "", rest)
    if replaced[1]:
        return replaced[0], True
    if match := re.match(r"no (?=[a-z])", rest):
        return f"any {rest[match.end() :]}", True
    return rest, False


def _has_other_verb(rest: str) -> bool:
    """Return whether another verb follows outside a subordinate clause; then the first one was not the main verb."""
    for word in rest.split():
        if word in CLAUSE_WORDS:
            return False
        if word in AUXILIARIES:
            return True
    return False


class _Corpus:
    """An inverted index: which chunks contain which words."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._rows_with: defaultdict[str, set[int]] = defaultdict(set)
        capitalised: set[str] = set()
        lower_case: set[str] = set()
        for row, chunk in enumerate(chunks):
            for word in words(f"{chunk.title} {chunk.heading} {chunk.text}"):
                self._rows_with[word].add(row)
            capitalised.update(_CAPITALISED_INSIDE.findall(chunk.text))
            lower_case.update(word for word in chunk.text.split() if word.islower())
        self._names = frozenset(word for word in capitalised if word.lower() not in lower_case)

    def questions(self, chunk: Chunk) -> Iterator[SyntheticQuestion]:
        """Yield the questions of a chunk's statements that nothing else in the corpus answers."""
        statement = ""
        for start, end in sentence_spans(chunk.text):
            before, statement = statement, chunk.text[start:end]
            pair = statement_to_question(statement, self._names)
            if pair is None or _CUT.search(before):  # the rest of a sentence that was cut at an initial
                continue
            span = _source_span(chunk, start, end)
            question = self._unambiguous(pair.question, chunk, span)
            if question and not _repeats(question, chunk):
                id = f"made-{sha256_text(f'{chunk.doc}:{question}')[:12]}"
                yield SyntheticQuestion(id, question, (pair.answer,), chunk.doc, (span,), statement)

    def _unambiguous(self, question: str, chunk: Chunk, span: tuple[int, int]) -> str:
        """Return the question, with the title where it needs one; "" if other passages could answer it too."""
        asked_words = set(content_words(question))
        title_words = set(content_words(chunk.title))
        if len(asked_words - title_words) < _MIN_OWN_WORDS:
            return ""
        if self._is_only(asked_words, chunk, span) and (
            title_words <= asked_words or not self._is_common(asked_words, chunk)
        ):
            return question
        if (
            title_words
            and not title_words <= asked_words
            and self._is_only(asked_words | title_words, chunk, span)
        ):
            return f"According to {chunk.title}, {question[0].lower()}{question[1:]}"
        return ""

    def _is_only(self, asked_words: set[str], chunk: Chunk, span: tuple[int, int]) -> bool:
        """Return whether all chunks that contain these words contain the statement itself."""
        return all(
            c.doc == chunk.doc and c.start < span[1] and span[0] < c.end
            for c in self._chunks_with(asked_words)
        )

    def _is_common(self, asked_words: set[str], chunk: Chunk) -> bool:
        """Return whether another document contains all of these words but one: it may say the same in other words."""
        return any(
            c.doc != chunk.doc
            for word in sorted(asked_words)
            for c in self._chunks_with(asked_words - {word})
        )

    def _chunks_with(self, asked_words: set[str]) -> list[Chunk]:
        rows = set.intersection(*sorted((self._rows_with[word] for word in asked_words), key=len))
        return [self._chunks[row] for row in rows]


def _source_span(chunk: Chunk, start: int, end: int) -> tuple[int, int]:
    """Return the source span of ``chunk.text[start:end]``, or the chunk's own if its text is not a slice of it."""
    exact = len(chunk.text) == chunk.end - chunk.start
    return (chunk.start + start, chunk.start + end) if exact else (chunk.start, chunk.end)


def _repeats(question: str, chunk: Chunk) -> bool:
    """Return whether the question occurs word for word in the chunk."""
    return f" {' '.join(words(question))} " in f" {' '.join(words(chunk.text))} "


def _draw(seed: int, text: str) -> str:
    """Return a pseudo-random sort key that depends only on the seed and the text."""
    return sha256_text(f"{seed}\0{text}")
