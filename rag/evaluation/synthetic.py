"""Questions made from documents, for tuning an index when nobody has asked any yet; every one marked synthetic.

A statement of a chunk is turned round (``grammar.turned``) and kept when no other passage could answer the
question too: all passages that hold its content words must be the statement's own. Where the words alone do
not tell, the document's title is named. Made questions use the words of the documents, so they can judge how
these are cut, but not how much words should count against meaning.

English words that ``grammar`` needs to turn a statement round.

Turn an English statement into a question that it answers, by its first verb: no model, no guess.

The subject and the verb change places ("The office is open from 7 am" asks "When is the office open?"); where
the statement holds a time, a price, a number or a name, that is what is asked for, else yes or no. A sentence
that does not begin with a plain subject is left alone: a question less is better than one nobody would ask.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rag.files import sha256_text
from rag.text.words import content_words, sentence_spans, words
from rag.types import Chunk

_AUXILIARIES = """
    are can could is may might must shall should was were will would
"""
_REGULAR = """
    accept add agree allow answer appear apply arrive ask belong board call carry cause change charge claim
    close collect consider consist contain continue cost count cover create cross dance deliver depart
    depend describe develop dock earn employ end expect feature finish fit follow help hire include increase
    issue join land last launch learn lend listen live lock love mark mean measure need offer open operate
    order own park pass pause play prevent produce promise protect provide pull reach receive recognise
    recommend refresh release remain repair replace represent require reserve return ring sail save seat
    serve show sign sleep start stay stop store suggest support tie travel turn use visit want wash watch
    weigh welcome work
"""
_IRREGULAR = """
    become became  begin began  bring brought  build built  buy bought  come came  cost cost  drink drank
    eat ate  fall fell  find found  get got  give gave  go went  grow grew  have had  hold held  keep kept
    lead led  leave left  lend lent  lie lay  lose lost  make made  meet met  pay paid  rise rose  run ran
    say said  sell sold  send sent  sit sat  sleep slept  stand stood  take took  teach taught  wear wore
    win won  write wrote
"""
_ONLY_PAST = """
    ate became began came drank fell gave grew ran rose took went wore wrote
"""
_PREPOSITIONS = """
    at by for from in of on to under with without
"""
_PLURAL = """
    children crew men people police staff they women you
"""
_OPENERS = """
    after also although among and as at because before being between both but by despite during for from having he her
    here his how however i if in it its let my no nor not on once other or our over please she since so such that
    their then these they this those though to under unless until we what when where which while who why
    with without yet
"""
_DETERMINERS = """
    a all an any both each every most only some the
"""
_CLAUSE = """
    although because if that when where whether which while who whom whose
"""
AUXILIARIES = frozenset(_AUXILIARIES.split())
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
ONLY_PAST = frozenset(_ONLY_PAST.split())
"""Past forms that are no participles, so that a preposition may follow."""
PLURAL = frozenset(_PLURAL.split())
"""Subjects of many without an s."""
SENTENCE_OPENERS = frozenset(_OPENERS.split())
"""A sentence that begins with one of these has no plain subject in front, or one that stands elsewhere."""
DETERMINERS = frozenset(_DETERMINERS.split())
CLAUSE_WORDS = frozenset(_CLAUSE.split())
"""Words that begin a subordinate clause."""


def _forms() -> dict[str, tuple[str, str]]:
    irregular = dict(zip(*[iter(_IRREGULAR.split())] * 2, strict=True))
    found: dict[str, tuple[str, str]] = {}
    for base in [*_REGULAR.split(), *irregular]:
        y = base.endswith("y") and base[-2] not in "aeou"
        past = (
            base[:-1] + "ied"
            if y
            else base + ("d" if base.endswith("e") else "ped" if base == "stop" else "ed")
        )
        third = (
            base[:-1] + "ies" if y else base + ("es" if base.endswith(("s", "sh", "ch", "x", "o")) else "s")
        )
        found.setdefault(base, ("do", base))
        found.setdefault(irregular.get(base, past), ("did", base))
        found["has" if base == "have" else third] = ("does", base)
    return found


VERB_FORMS = _forms()
"""Each form of a verb with the auxiliary that asks for it and its base form: "leaves" gives does, leave."""


_LARGE = r"(?: (?:million|billion))?"
_MONEY = rf"(?:[$€£]\s?\d[\d,.]*{_LARGE}|\d[\d,.]*{_LARGE} (?:euros?|dollars?|pounds|cents))"
_COUNT = (
    r"(?:\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty)"
)
_CLOCK = r"(?:noon|midnight|\d{1,2}[:.]\d\d(?: ?[ap]\.?m\b\.?)?|\d{1,2} ?[ap]\.?m\b\.?)"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_WEEKDAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?"
_DAY = rf"(?:(?:every |each )?{_WEEKDAY}(?:(?:, | and | or ){_WEEKDAY})*)"
_DATE = rf"(?:(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}})?(?:,? \d{{4}})?|(?:1[5-9]|20)\d\d)"
_SPAN = rf"(?:(?:up to|at most|at least|about) )?{_COUNT} (?:seconds|minutes|hours|days|nights|weeks|months|years)"
_NAME = r"(?:the )?[A-Z][\w'’-]*(?: (?:of |the |and )?[A-Z][\w'’-]*)*"
_SLOTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("Why", re.compile(r",? because (?P<slot>.+)$")),
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
_DATED = re.compile(rf"\b(?:{_CLOCK}|{_DATE})")
"""With a second date left over, it would be open which of them is asked for."""
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
    r"(?:er|or|ist|man|woman|captain|doctor|vet|chef|clerk|head|president|king|queen|keeper)$"
)
_POINTING = re.compile(r"\b(?:this|these|those)\b")
"""What these point to stands in another sentence."""
_LIST_MARK = re.compile(r"^(?:[-*•+]|\d{1,3}[.)])\s+|^(?:yes|no|sorry|unfortunately),\s+", re.I)
_ODD = re.compile(r"[@<>|{}\\_*#\[\]=“”\"…;]|(?<!\d):|:(?!\d)|--|\s['’,.]|\brespectively\b")
_WORDS = 26
"""A longer statement makes a question that nobody would ask."""


@dataclass(frozen=True, slots=True)
class QuestionAndAnswer:
    """A question and what the statement answers to it."""

    question: str
    answer: str
    """The words asked for; yes or no where nothing was asked for but whether it is so."""


def statement_to_question(sentence: str, names: Collection[str] = ()) -> QuestionAndAnswer | None:
    """Return the question that a statement answers, or None when it is not a plain one.

    ``names`` are words that keep their capital letter at the beginning of a sentence.
    """
    text = " ".join(_LIST_MARK.sub("", sentence.strip()).split())
    if not text.endswith((".", "!")) or _ODD.search(text) or len(text.split()) > _WORDS:
        return None
    said = re.split(
        r"(?:,| -)? (?:but|which|who|so that|whereas)\b|,? and (?:the|it|they|you|we)\b", text.rstrip(".! ")
    )[0]
    tokens = said.split()
    for at in range(1, min(9, len(tokens))):
        verb, subject = _verb(tokens, at), _subject(tokens[:at], names)
        if verb and subject and (found := _asked(subject, *verb, " ".join(tokens[at + 1 :]))):
            return found
    return None


def _asked(subject: str, auxiliary: str, base: str, rest: str) -> QuestionAndAnswer | None:
    """Ask for what the rest of a statement holds; ``base`` is empty where the auxiliary is the only verb."""
    rest, denied = _positive(rest)
    verb = f" {base}" if base else ""
    if not rest or _POINTING.search(rest) or (base and _has_other_verb(rest)):
        return None
    if base in (
        "",
        "cost",
        "take",
        "have",
        "need",
        "carry",
        "hold",
        "seat",
        "offer",
        "last",
        "contain",
        "weigh",
        "pay",
    ):
        for asking, pattern in _FIRST.items():
            match = pattern.match(rest)
            if match and (auxiliary == "is" or base):
                asking = asking.format(noun=match.groupdict().get("noun", ""))
                return QuestionAndAnswer(
                    f"{asking} {auxiliary} {subject}{verb}{rest[match.end() :]}?", match["slot"]
                )
    if not base and (match := re.match(r"(?:called|named) (?P<slot>.+)$", rest)):
        return QuestionAndAnswer(f"What {auxiliary} {subject} called?", match["slot"])
    if not base and (named := _identity(subject, auxiliary, rest)):
        return named
    for asking, pattern in _SLOTS:
        match = pattern.search(rest)
        left = f"{rest[: match.start()].rstrip(' ,')}{rest[match.end() :]}".strip() if match else ""
        if match and (left or base) and not denied and not _DATED.search(left):
            return QuestionAndAnswer(
                f"{asking} {auxiliary} {subject}{verb}{' ' if left else ''}{left}?", match["slot"]
            )
    word = base or rest.split()[0]
    after = rest if base else rest.removeprefix(word)
    if _PLACED.match(word) and not denied and (match := _WHERE.match(after)):
        left = after[match.end() :]
        return QuestionAndAnswer(f"Where {auxiliary} {subject} {word}{left}?", match["slot"].strip())
    return QuestionAndAnswer(f"{auxiliary.capitalize()} {subject}{verb} {rest}?", "no" if denied else "yes")


def _identity(subject: str, auxiliary: str, rest: str) -> QuestionAndAnswer | None:
    """Ask who or what something is, where the statement says just that."""
    if auxiliary not in ("is", "are", "was", "were") or subject == "there":
        return None
    if re.fullmatch(_NAME, rest) and not rest.startswith("the "):
        head = re.split(r" (?:of|for|in|at|on|near|from|with|to)\b", subject)[0].split()[-1]
        return QuestionAndAnswer(f"{'Who' if _PERSON.search(head) else 'What'} {auxiliary} {subject}?", rest)
    if subject[:1].isupper() and re.match(r"(?:an?|the|one of) ", rest):
        return QuestionAndAnswer(f"What {auxiliary} {subject}?", rest)
    return None


def _verb(tokens: list[str], at: int) -> tuple[str, str] | None:
    """Return the auxiliary that asks and the verb's base form, when the verb of a statement stands here."""
    token, before = tokens[at], tokens[at - 1].lower()
    if token in AUXILIARIES:
        return token, ""
    if (
        token in ("has", "have", "had")
        and at + 1 < len(tokens)
        and re.search(
            r"(?:ed|en|been|not|made|had|held|kept|paid|sold|sent|built|become|come)$", tokens[at + 1]
        )
    ):
        return token, ""
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    if token in ("does", "do", "did") and (after == "not" or VERB_FORMS.get(after) == ("do", after)):
        return token, ""
    form = VERB_FORMS.get(token)
    if form is None or before in SENTENCE_OPENERS | DETERMINERS:
        return None
    plural = (before.endswith("s") and not before.endswith(("ss", "us"))) or before in PLURAL
    if form[0] == "does":
        return None if plural else form
    if form[0] == "did":
        participle = token not in ONLY_PAST and tokens[at + 1 : at + 2] and tokens[at + 1] in PREPOSITIONS
        return None if participle or any(word in VERB_FORMS for word in tokens[at + 1 :]) else form
    return form if plural else None


def _subject(tokens: list[str], names: Collection[str]) -> str:
    """Return the subject as it stands inside a sentence, or nothing when it is no plain one."""
    first = re.split("['’]", tokens[0].lower())[0]
    if first == "there" and len(tokens) == 1:
        return "there"
    lowered = {token.lower() for token in tokens}
    if (
        first in SENTENCE_OPENERS
        or lowered & (CLAUSE_WORDS | {"it", "this", "these", "those"})
        or any("," in t for t in tokens)
    ):
        return ""
    named = (
        tokens[0] in names or not tokens[0][1:].islower() or tokens[1:2] != [w.lower() for w in tokens[1:2]]
    )
    return " ".join(tokens if named and first not in DETERMINERS else [first, *tokens[1:]])


def _positive(rest: str) -> tuple[str, bool]:
    """Return what a statement says without its denial, and whether there was one."""
    found = re.subn(r"^(?:not|never)\s+|^no longer\s+", "", rest)
    if found[1]:
        return found[0], True
    if match := re.match(r"no (?=[a-z])", rest):
        return f"any {rest[match.end() :]}", True
    return rest, False


def _has_other_verb(rest: str) -> bool:
    """Return whether another verb follows that no subordinate clause holds; then the first was none."""
    for word in rest.split():
        if word in CLAUSE_WORDS:
            return False
        if word in AUXILIARIES:
            return True
    return False


_INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][\w'’-]*")
"""Words that have a capital letter inside a sentence; those that never have a small one are names."""
_FEWEST_WORDS = 2
"""Content words that a question must have besides those of the title."""


@dataclass(frozen=True, slots=True)
class SyntheticQuestion:
    """A question made from one statement of a chunk."""

    id: str
    question: str
    answers: tuple[str, ...]
    """The words asked for, or yes or no."""
    doc_id: str
    spans: tuple[tuple[int, int], ...]
    """Where the statement stands in the document's source text."""
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


def make_questions(chunks: Sequence[Chunk], most: int, seed: int = 0) -> tuple[SyntheticQuestion, ...]:
    """Return at most ``most`` questions, from as many documents as possible; the same chunks give the same.

    English statements only: documents in other languages give none.
    """
    corpus = _Corpus(chunks)
    by_document: defaultdict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        by_document[chunk.doc].append(chunk)
    ranked: list[list[SyntheticQuestion]] = []
    for doc in sorted(by_document, key=lambda doc: _draw(seed, doc)):
        made = {each.question: each for chunk in by_document[doc] for each in corpus.questions(chunk)}
        if made:
            ranked.append(
                sorted(made.values(), key=lambda m: (m.answers[0] in ("yes", "no"), _draw(seed, m.id)))
            )
        if len(ranked) == most:
            break
    rounds = (found[n] for n in range(most) for found in ranked if n < len(found))
    return tuple(islice(rounds, most))


class _Corpus:
    """Which chunks hold which words."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._holding: defaultdict[str, set[int]] = defaultdict(set)
        inside: set[str] = set()
        small: set[str] = set()
        for row, chunk in enumerate(chunks):
            for word in words(f"{chunk.title} {chunk.heading} {chunk.text}"):
                self._holding[word].add(row)
            inside.update(_INSIDE.findall(chunk.text))
            small.update(word for word in chunk.text.split() if word.islower())
        self._names = frozenset(word for word in inside if word.lower() not in small)

    def questions(self, chunk: Chunk) -> Iterator[SyntheticQuestion]:
        """Yield what the statements of a chunk answer and nothing else in the corpus does."""
        for start, end in sentence_spans(chunk.text):
            statement = chunk.text[start:end]
            found = statement_to_question(statement, self._names)
            if found is None:
                continue
            span = _place(chunk, start, end)
            question = self._told_apart(found.question, chunk, span)
            if question and not _repeats(question, chunk):
                name = f"made-{sha256_text(f'{chunk.doc}:{question}')[:12]}"
                yield SyntheticQuestion(name, question, (found.answer,), chunk.doc, (span,), statement)

    def _told_apart(self, question: str, chunk: Chunk, span: tuple[int, int]) -> str:
        """Return the question, with the title where it needs one; nothing when others could answer it too."""
        wanted, title = set(content_words(question)), set(content_words(chunk.title))
        if len(wanted - title) < _FEWEST_WORDS:
            return ""
        if self._is_only(wanted, chunk, span) and (title <= wanted or not self._is_common(wanted, chunk)):
            return question
        if title and not title <= wanted and self._is_only(wanted | title, chunk, span):
            return f"According to {chunk.title}, {question[0].lower()}{question[1:]}"
        return ""

    def _is_only(self, wanted: set[str], chunk: Chunk, span: tuple[int, int]) -> bool:
        """Return whether all chunks that hold these words hold the statement itself."""
        return all(
            c.doc == chunk.doc and c.start < span[1] and span[0] < c.end for c in self._holders(wanted)
        )

    def _is_common(self, wanted: set[str], chunk: Chunk) -> bool:
        """Return whether another document holds all of these words but one: it may say the same in other words."""
        return any(c.doc != chunk.doc for word in sorted(wanted) for c in self._holders(wanted - {word}))

    def _holders(self, wanted: set[str]) -> list[Chunk]:
        rows = set.intersection(*sorted((self._holding[word] for word in wanted), key=len))
        return [self._chunks[row] for row in rows]


def _place(chunk: Chunk, start: int, end: int) -> tuple[int, int]:
    """Return the place of ``chunk.text[start:end]`` in the source; the chunk's own where that is not exact."""
    exact = len(chunk.text) == chunk.end - chunk.start
    return (chunk.start + start, chunk.start + end) if exact else (chunk.start, chunk.end)


def _repeats(question: str, chunk: Chunk) -> bool:
    """Return whether the question stands word for word in the chunk."""
    return f" {' '.join(words(question))} " in f" {' '.join(words(chunk.text))} "


def _draw(seed: int, text: str) -> str:
    return sha256_text(f"{seed}\0{text}")
