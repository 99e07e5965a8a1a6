"""Whether a passage bears out a reply to a question, and whether the reply answers that question.

Every factual sentence of a reply must pass. :func:`rag.grounding.citations.supporting_passages` is asked first. It is made
to find a wrong citation among good ones, so it also refuses many replies that only say the same in other words. Where the
passage is known, as for a row made from it, one can ask instead what in the reply could be wrong: a number, a date, a name,
a denial, a word with the opposite meaning, or too many words that neither question nor passage have. A reply of a few words
is read as the answer that stands in the sentence that the question asks about.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from rag.grounding import citations, lexicon
from rag.grounding.agreement import FILLERS
from rag.grounding.claims import proper_names
from rag.grounding.clauses import Clause, coverage, is_covered
from rag.grounding.evidence import is_checkable, supports_field
from rag.grounding.fields import Field, structured_fields
from rag.grounding.gold import MIN_FIELDS_SUPPORTED
from rag.grounding.quantities import Quantity, agree, read_quantities
from rag.grounding.statements import ParsedStatement, read_statement, states_fact
from rag.text.numbers import polarity
from rag.text.words import STOP_WORDS, content_words, sentence_spans, stem, words
from rag.types import Chunk

Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""Cosine of a text with each of several others, -1 to 1."""
SUPPORTED, CONSISTENT, QUOTED = "supported", "consistent", "quoted"
SUPPORT_LEVELS = (SUPPORTED, CONSISTENT, QUOTED)
MIN_KNOWN_WORDS = 0.5
"""Share of a sentence's content words that passage, title or question must have, where the claim check did not decide."""
MAX_BEHIND = 0.2
"""By how much another sentence of the passage may suit the question better than the one that the reply stands in.

Chosen on 391 questions of XQuAD: 5 % of the right answers are further behind, and 57 % of other answers of the passage."""
MIN_QUESTION_WORDS = 0.34
"""Share of the question's content words that passage and title must have, unless both are near in meaning."""
MAX_ELSEWHERE = 0.35
"""The same of a reply of whole sentences, which may say more than what was asked."""
MIN_COSINE = 0.35
"""Cosine of question and sentence from which they are about the same, whatever their words."""
MIN_SAME_COSINE = 0.6
"""Cosine of two sentences from which one may say the other in other words."""
_FRAGMENT_WORDS = 10
"""Most content words of a reply without a verb that is read as the answer itself."""
_RUN_ON = re.compile(
    r"(?<=[a-z0-9)])\s+(?=(?:would you like|can i|should i|do you (?:need|want)|is there anything) "
    r"|(?:Would|Do|Does|Did|Is|Are|Can|Could|Shall|Should|Will|May|Any|Anything|What|Have) \w)"
)
"""A question that follows a statement without a full stop between them."""
_ASKS_FIRST = re.compile(
    r"\W*(?:would|do|does|did|is|are|can|could|shall|should|will|may|what|how|when|where|any)\s"
    r"(?:you|there|it|i|we|that|this|these|the|else|other|more|anything|about)\b",
    re.I,
)
"""A question that may end with a full stop."""
_BARE_ANSWER = re.compile(
    r"\W*(?:(?P<yes>yes|yeah|yep|correct|true)|no|nope|false)\b\W*(?:(?:it|they|you) \w+\W*)?$", re.I
)
_CALENDAR = re.compile(
    r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\b(?:january|february|march|april|june|july|august|september|october"
    r"|november|december)\b",
    re.I,
)
_PLACE_TEXT = """
    site establishment property place station company organisation team this here question today now
"""
_GENERAL = FILLERS | frozenset(map(stem, _PLACE_TEXT.split()))
"""Stems of words that a reply may add without saying more: what the passage is about, in general terms."""
_OFFERS_CHOICE = re.compile(r"\b(?:or|between|which of|oder|zwischen|o|entre|ou)\b", re.I)
"""A question that names the answers to choose from."""
_NAME_RUN = re.compile(r"(?<=[\w,)] )[A-Z][\w'’&-]+(?: (?:of |the |de |van |von )?[A-Z][\w'’&-]*)*")
"""A name inside a question: neither at its beginning nor after a colon."""
_NAME_ANYWHERE = re.compile(r"\b[A-Z][\w'’&-]+(?: (?:of |the |de |van |von )?[A-Z][\w'’&-]*)*")
_SHORT_REPLY = 3
"""Words up to which a reply is a name from its first word on."""
_MIN_MISSPELT, _MIN_ALIKE = 6, 0.85
"""Letters of a name, and likeness of two, from which one is the other with a letter wrong."""
_ASKS_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|old|tall|far|often|big|large|high|wide|deep|fast|heavy)|(?:what|which|in what|in which)"
    r" (?:year|date|day|month|time|century|decade|percentage|percent|number|age|version)"
    r"|(?:^\W*|[:,.] |(?:since|by|until|from) )when)\b(?![^?]*[,] (?:what|who|which|where|how|why)\b)",
    re.I,
)
"""Questions whose answer has a number, a date or a word for a quantity."""
_QUANTITY_WORD = re.compile(
    r"\d|\b(?:one|once|twice|half|quarter|double|third|couple|dozen|several|some|many|few|most|all|none|no|any|every|each|free"
    r"|daily|weekly|monthly|yearly|annual\w*|always|never|before|after|during|until|since|while|when|as soon|first|last|next"
    r"|early|late|century|year|month|week|day|hour|minute|night|morning|evening|noon|summer|winter|spring|autumn|fall"
    r"|rarely|often|seldom|sometimes|usually|frequently|occasionally|regularly|january|february|march|april|may|june|july"
    r"|august|september|october|november|december|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
    r"|hundred|thousand|million|billion|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty"
    r"|vary|varies|depend\w*|unlimited|little|small|large|long|short|high|low|more|less)s?\b"
    r"|(?-i:\b[A-Z][a-z]+ (?:War|era|Age))",
    re.I,
)
_ASKS_OTHER = re.compile(r"^\W*(?:who|whom|whose|why|where)\b", re.I)
"""Questions whose answer is not a number alone."""
_CODE = re.compile(r"(?:^|\s)--?\w|[{}<>|\\_$=]|\w/\w|://")
"""A command, an address or other text that is wrong when one letter is."""
_QUOTES = "`'\"“”‘’.,;:()<>*"
"""Marks around a piece of code or an address that are no part of it."""
_NUMBER_ALONE = re.compile(r"\W*(?:\d[\d.,:%]*\s*(?:am|pm|st|nd|rd|th|%)?\W*)+")


@dataclass(frozen=True, slots=True)
class ReplySupport:
    """What was found about a reply."""

    level: str
    """One of :data:`SUPPORT_LEVELS`, the weakest of the reply's sentences; "" where the reply is not borne out."""
    reason: str = ""
    """What is wrong with it."""
    spans: tuple[tuple[int, int], ...] = ()
    """(start, end) in the passage's text of the sentences that bear it out."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    """One sentence of the passage."""

    start: int
    end: int
    text: str
    statement: ParsedStatement
    words: frozenset[str]
    relevance: float
    """Mean of the share of the question's words that it has and its cosine with the question: 0 to 1."""
    cosine: float


@dataclass(frozen=True, slots=True)
class _Given:
    """The passage and the question, as replies are compared with them."""

    question: str
    passage: Chunk
    sentences: tuple[_Sentence, ...]
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


def check_reply(
    question: str, reply: str, passage: Chunk, similarity: Similarity | None = None
) -> ReplySupport:
    """Return whether the passage bears out every factual sentence of a reply, and the reply answers the question.

    Args:
        question: the question.
        reply: the reply, without what only greets or asks.
        passage: the passage that both were made from.
        similarity: compares the question with sentences by meaning; None compares by words alone.
    """
    given = _read_given(question, passage, similarity)
    if not given.sentences:
        return ReplySupport("", "the passage states nothing")
    fields = tuple(field for field in structured_fields(reply) if is_checkable(field))
    if len(fields) > 1:
        return _check_fields(fields, given)
    if name := _asked_elsewhere(given):
        return ReplySupport("", f"the question is about {name}, which the passage does not name")
    if reason := _wrong_kind(question, reply):
        return ReplySupport("", reason)
    sentences = reply_statements(reply)
    if not sentences:
        return _check_bare(reply, given)
    checked = [_check_sentence(sentence, given) for sentence in sentences]
    failed = next((each for each in checked if not each.level), None)
    if failed is not None:
        return failed
    level = max((each.level for each in checked), key=SUPPORT_LEVELS.index)
    spans = tuple(dict.fromkeys(span for each in checked for span in each.spans))
    return _answers(given, ReplySupport(level, spans=spans))


def reply_statements(reply: str) -> list[str]:
    """Return the sentences of a reply that state something, without citation marks, greetings and closing questions."""
    text = citations.strip_marks(reply)
    parts = [
        part for start, end in sentence_spans(text) for part in _RUN_ON.split(text[start:end]) if part.strip()
    ]
    return [
        part
        for part in parts
        if citations.is_factual(part) and not _BARE_ANSWER.fullmatch(part) and not _ASKS_FIRST.match(part)
    ]


def _wrong_kind(question: str, reply: str) -> str:
    """Return why a reply cannot be of the kind that was asked for, "" where it can."""
    if _ASKS_NUMBER.search(question) and not _QUANTITY_WORD.search(reply) and not polarity(reply):
        return "a number or a time is asked for, and the reply has none"
    if _ASKS_OTHER.search(question) and _NUMBER_ALONE.fullmatch(reply):
        return "the reply is a number alone, which is not what is asked for"
    return ""


def _read_given(question: str, passage: Chunk, similarity: Similarity | None) -> _Given:
    spans = [
        (start, end)
        for start, end in sentence_spans(passage.text)
        if not passage.text[start:end].rstrip("\"'”’)]* ").endswith("?")
    ]
    texts = [passage.text[start:end] for start, end in spans]
    above = f"{passage.title} {passage.heading}".replace("_", " ").strip()
    title = frozenset(words(above))
    asked = frozenset(content_words(question)) - {"question"}
    statements = [read_statement(text) for text in texts]
    # a sentence that goes on from the one before is read with it
    before = [texts[n - 1] if n and statements[n].continues else "" for n in range(len(texts))]
    windows = [f"{head} {text}".strip() for head, text in zip(before, texts, strict=True)]
    titled = [f"{above}: {window}" if above else window for window in windows]
    cosines = list(similarity(question, titled)) if similarity and titled else [0.0] * len(titled)
    sentences = tuple(
        _Sentence(
            start,
            end,
            text,
            statement,
            frozenset(words(text)),
            (coverage(asked - title, frozenset(words(window))) + max(0.0, cosine)) / 2,
            cosine,
        )
        for (start, end), text, statement, window, cosine in zip(
            spans, texts, statements, windows, cosines, strict=True
        )
    )
    ordered = (*words(above), *words(passage.text))
    return _Given(
        question,
        passage,
        sentences,
        ordered,
        frozenset(ordered) | frozenset(words(question)),
        title,
        asked,
        (*read_quantities(question), *read_quantities(f"{above}.")),
        similarity,
    )


def _check_sentence(sentence: str, given: _Given) -> ReplySupport:
    """Return whether the passage bears out one sentence of a reply."""
    if not states_fact(sentence) and len(content_words(sentence)) <= _FRAGMENT_WORDS:
        return _check_fragment(sentence, given)
    level, supports = citations.supporting_passages(sentence, [given.passage])
    if level == citations.SUPPORTED:
        return ReplySupport(SUPPORTED, spans=tuple((s.start, s.end) for s in supports))
    return _check_consistent(sentence, given)


def _check_fragment(text: str, given: _Given) -> ReplySupport:
    """Return whether a few words stand in the sentence that the question asks about."""
    claim = read_statement(text)
    content = claim.content - given.title
    repeated = claim.content and claim.content <= frozenset(words(given.question))
    if repeated and not claim.quantities and not polarity(text) and not _OFFERS_CHOICE.search(given.question):
        return ReplySupport("", "the reply only repeats words of the question")
    places = [
        sentence
        for sentence in given.sentences
        if _is_verbatim(text, sentence.text)
        or (
            all(is_covered(word, sentence.words) for word in content)
            and all(_in_sentence(q, sentence) for q in claim.quantities)
        )
    ]
    if name := _strange_run(text, given, bool(places)):
        return ReplySupport("", f"the passage does not name {name}")
    if not places:
        return _check_consistent(text, given)
    best = max(places, key=lambda sentence: sentence.relevance)
    rival = max(given.sentences, key=lambda sentence: sentence.relevance)
    if rival.relevance - best.relevance > MAX_BEHIND:
        return ReplySupport("", "the reply stands in another sentence than the one asked about")
    return ReplySupport(QUOTED, spans=((best.start, best.end),))


def _strange_run(text: str, given: _Given, placed: bool) -> str:
    """Return a name of a short reply that the passage does not have as it is, "" where it has all.

    Args:
        text: the reply.
        given: the passage.
        placed: whether the words of the reply stand in one sentence; then a name put together from them is wrong.
    """
    source = f" {' '.join(given.ordered)} "
    for match in _NAME_ANYWHERE.finditer(text):
        run = match.group()
        plain = " ".join(words(run))
        # the first word of a longer text is capitalised whatever it is
        first = match.start() == 0 and " " not in run and len(text.split()) > _SHORT_REPLY
        if first or run.split()[0].lower() in STOP_WORDS or f" {plain} " in source:
            continue
        known = all(_is_known(word, given.words, given.ordered) for word in plain.split())
        if not known or (placed and not _is_verbatim(run, given.question)):
            return run
    return ""


def _is_verbatim(text: str, sentence: str) -> bool:
    """Return whether the words of a text stand in a sentence in their order."""
    own = " ".join(words(text))
    return bool(own) and f" {own} " in f" {' '.join(words(sentence))} "


def _check_consistent(text: str, given: _Given) -> ReplySupport:
    """Return whether nothing in a sentence could be wrong: its quantities, names, denial, opposites and other words."""
    claim = read_statement(text)

    def shared(sentence: _Sentence) -> float:
        alike = sum(is_covered(word, sentence.words) for word in claim.content | given.asked)
        return alike + 2 * sum(_in_sentence(q, sentence) for q in claim.quantities) + sentence.relevance

    best = max(given.sentences, key=shared)
    for q in claim.quantities:
        if not _in_sentence(q, best) and not any(agree(q, other) for other in given.quantities):
            return ReplySupport(
                "", f"the passage does not have {text[q.start : q.through].strip()!r} for this"
            )
    if names := _unknown_names(text, given):
        return ReplySupport("", f"the passage does not name {', '.join(sorted(names))}")
    source = f"{given.passage.text} {given.passage.title} {given.question}"
    if missing := _calendar(text) - _calendar(source):
        return ReplySupport("", f"the passage does not have {', '.join(sorted(missing))}")
    if not _same_sense(claim, best) and not (polarity(text) == polarity(best.text) == "no"):
        return ReplySupport("", "the reply denies what the passage states, or states what it denies")
    content = claim.content - _GENERAL
    known = sum(is_covered(word, given.words) for word in content)
    own = content - given.asked - given.title
    strange = bool(own) and not claim.quantities and not any(is_covered(word, best.words) for word in own)
    if (content and known < MIN_KNOWN_WORDS * len(content)) or strange:
        titled = f"{given.passage.title.replace('_', ' ')}: {best.text}"
        near = max(given.similarity(text, [best.text, titled])) if given.similarity else 0.0
        if near < MIN_SAME_COSINE:
            return ReplySupport("", "the passage does not state it")
    return ReplySupport(CONSISTENT, spans=((best.start, best.end),))


def _calendar(text: str) -> frozenset[str]:
    """Return the weekdays and months of a text."""
    return frozenset(match.lower().removesuffix("s") for match in _CALENDAR.findall(text))


def _in_sentence(quantity: Quantity, sentence: _Sentence) -> bool:
    """Return whether a sentence has a quantity; "at 5" is 05:00."""
    return any(
        agree(quantity, own) or (own.timed and f"{quantity.value:0>2}:00" == own.value)
        for own in sentence.statement.quantities
    )


def _unknown_names(text: str, given: _Given) -> frozenset[str]:
    """Return the words of a reply's names that neither passage nor question have."""
    return frozenset(
        name
        for name in proper_names(text)
        if name not in STOP_WORDS
        and name not in _GENERAL
        and not name.startswith("i'")
        and not _is_known(name, given.words, given.ordered)
    )


def _asked_elsewhere(given: _Given) -> str:
    """Return a name of the question that the passage does not have, "" where there is none.

    A name of one word may be missing where the passage has another of the question. A name is known by one
    of its words: a passage about the Panthers answers for the Carolina Panthers.
    """
    known = frozenset(given.ordered)
    name_runs = [match.group().split() for match in _NAME_RUN.finditer(given.question)]
    runs = []
    for run_words in name_runs:
        while run_words and run_words[0].lower() in STOP_WORDS:
            run_words = run_words[1:]
        runs += [" ".join(run_words)] if run_words else []
    unknown = [run for run in runs if not any(_is_known(word, known, given.ordered) for word in words(run))]
    whole = [run for run in unknown if " " in run]
    if whole:
        return whole[0]
    return unknown[0] if unknown and len(unknown) == len(runs) else ""


def _is_known(name: str, known: frozenset[str], ordered: Sequence[str]) -> bool:
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


def _same_sense(claim: ParsedStatement, source: _Sentence) -> bool:
    """Return whether each clause of a claim denies as its nearest clause of a sentence does, opposites counted."""
    for clause in claim.clauses:
        if not clause.content and not clause.negated:
            continue
        nearest = _nearest_clauses(clause, source)
        if nearest and not any(_agree_in_sense(clause, own) for own in nearest):
            return False
    return True


def _nearest_clauses(clause: Clause, source: _Sentence) -> list[Clause]:
    clauses = source.statement.clauses
    scores = [sum(is_covered(word, own.words) for word in clause.content) for own in clauses]
    most = max(scores, default=0)
    return [own for own, score in zip(clauses, scores, strict=True) if score == most]


def _agree_in_sense(clause: Clause, own: Clause) -> bool:
    opposite = sum(
        not is_covered(word, own.words) and any(lexicon.are_opposite(word, other) for other in own.words)
        for word in clause.content
    )
    return (clause.negated != own.negated) == (opposite % 2 == 1)


def _check_fields(fields: Sequence[Field], given: _Given) -> ReplySupport:
    """Return whether the passage has every value of a structured reply."""
    pieces = frozenset(piece.strip(_QUOTES) for piece in given.passage.text.split())
    missing = [field for field in fields if not _has_value(field, given.passage, pieces)]
    # a value in words may be derived (a priority, a yes); a number, a name, a command or an address may not
    exact = [field for field in missing if _CODE.search(field.value) or read_quantities(field.value)]
    if exact or len(missing) > (1 - MIN_FIELDS_SUPPORTED) * len(fields):
        return ReplySupport("", f"the passage does not have {(exact or missing)[0].value!r}")
    return ReplySupport(QUOTED, spans=((0, len(given.passage.text)),))


def _has_value(field: Field, passage: Chunk, pieces: frozenset[str]) -> bool:
    """Return whether a passage has a field's value: of a command or an address, each piece letter for letter."""
    if _CODE.search(field.value):
        return all(piece.strip(_QUOTES) in pieces for piece in field.value.split())
    return supports_field(field, passage)


def _check_bare(reply: str, given: _Given) -> ReplySupport:
    """Return whether a mere yes or no is what the passage says of the question."""
    text = citations.strip_marks(reply)
    answer = _BARE_ANSWER.fullmatch(text)
    if answer is None and any(_is_verbatim(text, sentence.text) for sentence in given.sentences):
        return _check_fragment(text, given)
    if answer is None:
        return ReplySupport("", "the reply states nothing")
    best = max(given.sentences, key=lambda sentence: sentence.relevance)
    if (polarity(best.text) == "no") == bool(answer["yes"]):
        return ReplySupport("", "the reply denies what the passage states, or states what it denies")
    return ReplySupport(CONSISTENT, spans=((best.start, best.end),))


def _answers(given: _Given, support: ReplySupport) -> ReplySupport:
    """Return the support, or that the reply is about something else than the question."""
    around = frozenset(given.ordered)
    near = max(sentence.cosine for sentence in given.sentences)
    if given.asked and coverage(given.asked, around) < MIN_QUESTION_WORDS and near < MIN_COSINE:
        return ReplySupport("", "the passage is not about what is asked")
    best = max(sentence.relevance for sentence in given.sentences)
    own = max((s.relevance for s in given.sentences if (s.start, s.end) in support.spans), default=best)
    if best - own > MAX_ELSEWHERE:
        return ReplySupport("", "the reply answers another question")
    return support
