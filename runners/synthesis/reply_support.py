"""Whether a passage bears out a reply to a question, and whether the reply answers that question.

Every factual sentence of a reply must pass. :func:`rag.grounding.citations.supporting_passages` is asked first. It is made
to find a wrong citation among good ones, so it also refuses many replies that only say the same in other words. Where the
passage is known, as for a row made from it, one can ask instead what in the reply could be wrong: a number, a date, a name,
a denial, a word with the opposite meaning, or too many words that neither question nor passage have. A reply of a few words
is read as the answer that stands in the sentence that the question asks about.
"""

from __future__ import annotations

import re

from rag.grounding import citations
from rag.grounding.evidence import is_checkable
from rag.grounding.fields import structured_fields
from rag.quantities.comparing import Quantity, agree
from rag.sentences.clauses import coverage, is_covered
from rag.sentences.statements import ParsedStatement, read_statement, states_fact
from rag.text.numbers import polarity
from rag.text.words import STOP_WORDS, content_words, sentence_spans, words
from rag.types import Chunk
from runners.synthesis.field_support import check_fields, mislabelled, stands_at_label
from runners.synthesis.passage_reading import (
    CONSISTENT,
    GENERAL_STEMS,
    MAX_BEHIND,
    QUOTED,
    SUPPORT_LEVELS,
    SUPPORTED,
    PassageReading,
    PassageSentence,
    ReplySupport,
    Similarity,
    asked_elsewhere,
    has_quantity,
    is_known_name,
    is_verbatim,
    same_sense,
    take_apart,
    unknown_names,
)

MIN_KNOWN_WORDS = 0.5
"""Share of a sentence's content words that passage, title or question must have, where the claim check did not decide."""
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
_OFFERS_CHOICE = re.compile(r"\b(?:or|between|which of|oder|zwischen|o|entre|ou)\b", re.I)
"""A question that names the answers to choose from."""
_NAME_ANYWHERE = re.compile(r"\b[A-Z][\w'’&-]+(?: (?:of |the |de |van |von )?[A-Z][\w'’&-]*)*")
_SHORT_REPLY = 3
"""Words up to which a reply is a name from its first word on."""
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
_PART = re.compile(r"[,;:()] |\b(?:and|but|while|which|who|und|y|et)\b")
"""Where one part of a sentence ends."""
_MIN_AROUND = 0.6
"""Share of the words around a quantity that a sentence must have to say it of the same."""
_FEW_WORDS, _NEAR_LETTERS = 2, 60
"""Content words of a part below which the text around it is taken instead, and letters of that on each side."""
_NUMBER_ALONE = re.compile(r"\W*(?:\d[\d.,:%]*\s*(?:am|pm|st|nd|rd|th|%)?\W*)+")


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
    given = take_apart(question, passage, similarity)
    if not given.sentences:
        return ReplySupport("", "the passage states nothing")
    fields = tuple(field for field in structured_fields(reply) if is_checkable(field))
    if len(fields) > 1:
        return check_fields(fields, given)
    if name := asked_elsewhere(given):
        return ReplySupport("", f"the question is about {name}, which the passage does not name")
    if reason := _wrong_kind(question, reply):
        return ReplySupport("", reason)
    sentences = reply_statements(reply)
    if not sentences:
        return _check_bare(reply, given)
    checked = [_check_sentence(sentence, given, alone=len(sentences) == 1) for sentence in sentences]
    failed = next((each for each in checked if not each.level), None)
    if failed is not None:
        return failed
    level = max((each.level for each in checked), key=SUPPORT_LEVELS.index)
    spans = tuple(dict.fromkeys(span for each in checked for span in each.spans))
    return _answers(given, reply, ReplySupport(level, spans=spans))


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


def _check_sentence(sentence: str, given: PassageReading, alone: bool) -> ReplySupport:
    """Return whether the passage bears out one sentence of a reply.

    Args:
        sentence: the sentence.
        given: the passage and the question.
        alone: whether it is the whole reply; of a longer one the place is compared as a whole.
    """
    if not states_fact(sentence) and len(content_words(sentence)) <= _FRAGMENT_WORDS and alone:
        return _check_fragment(sentence, given)
    level, supports = citations.supporting_passages(sentence, [given.passage])
    if level == citations.SUPPORTED:
        return ReplySupport(SUPPORTED, spans=tuple((s.start, s.end) for s in supports))
    return _check_consistent(sentence, given)


def _check_fragment(text: str, given: PassageReading) -> ReplySupport:
    """Return whether a few words stand in the sentence that the question asks about."""
    claim = read_statement(text)
    content = claim.content - given.title
    repeated = claim.content and claim.content <= frozenset(words(given.question))
    if repeated and not claim.quantities and not polarity(text) and not _OFFERS_CHOICE.search(given.question):
        return ReplySupport("", "the reply only repeats words of the question")
    places = [
        sentence
        for sentence in given.sentences
        if is_verbatim(text, sentence.text)
        or (
            all(is_covered(word, sentence.words) for word in content)
            and all(has_quantity(q, sentence) for q in claim.quantities)
        )
    ]
    if name := _strange_run(text, given, bool(places)):
        return ReplySupport("", f"the passage does not name {name}")
    if not places:
        return _check_consistent(text, given)
    if reason := mislabelled(text, given, places):
        return ReplySupport("", reason)
    best = max(places, key=lambda sentence: sentence.relevance)
    denies = any(clause.negated for clause in claim.clauses)
    if denies and not is_verbatim(text, best.text) and not same_sense(claim, [best]):
        return ReplySupport("", "the reply denies what the passage states, or states what it denies")
    rival = max(given.sentences, key=lambda sentence: sentence.relevance)
    if rival.relevance - best.relevance > MAX_BEHIND:
        return ReplySupport("", "the reply is in another sentence than the one asked about")
    return ReplySupport(QUOTED, spans=((best.start, best.end),))


def _strange_run(text: str, given: PassageReading, placed: bool) -> str:
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
        known = all(is_known_name(word, given.words, given.ordered) for word in plain.split())
        if not known or (placed and not is_verbatim(run, given.question)):
            return run
    return ""


def _check_consistent(text: str, given: PassageReading) -> ReplySupport:
    """Return whether nothing in a sentence could be wrong: its quantities, names, denial, opposites and other words."""
    claim = read_statement(text)

    def shared(sentence: PassageSentence) -> float:
        alike = sum(is_covered(word, sentence.words) for word in claim.content | given.asked)
        return alike + 2 * sum(has_quantity(q, sentence) for q in claim.quantities) + sentence.relevance

    best = max(given.sentences, key=shared)
    bearers = [best]
    for q in claim.quantities:
        if has_quantity(q, best) or any(agree(q, other) for other in given.quantities):
            continue
        if (bearer := _bearer(q, claim, text, given)) is not None:
            bearers.append(bearer)
        else:
            return ReplySupport(
                "", f"the passage does not have {text[q.start : q.through].strip()!r} for this"
            )
    if names := unknown_names(text, given):
        return ReplySupport("", f"the passage does not name {', '.join(sorted(names))}")
    source = f"{given.passage.text} {given.passage.title} {given.question}"
    if missing := _calendar(text) - _calendar(source):
        return ReplySupport("", f"the passage does not have {', '.join(sorted(missing))}")
    alike = [*bearers, *_as_near(claim, best, given)]
    if not same_sense(claim, alike) and not (polarity(text) == polarity(best.text) == "no"):
        return ReplySupport("", "the reply denies what the passage states, or states what it denies")
    content = claim.content - GENERAL_STEMS
    known = sum(is_covered(word, given.words) for word in content)
    own = content - given.asked - given.title
    strange = (
        bool(own)
        and not claim.quantities
        and not any(is_covered(word, bearer.words) for word in own for bearer in bearers)
    )
    if (content and known < MIN_KNOWN_WORDS * len(content)) or strange:
        titled = f"{given.passage.title.replace('_', ' ')}: {best.text}"
        near = max(given.similarity(text, [best.text, titled])) if given.similarity else 0.0
        if near < MIN_SAME_COSINE:
            return ReplySupport("", "the passage does not state it")
    return ReplySupport(CONSISTENT, spans=tuple(dict.fromkeys((s.start, s.end) for s in bearers)))


def _bearer(
    quantity: Quantity, claim: ParsedStatement, text: str, given: PassageReading
) -> PassageSentence | None:
    """Return a sentence that says a quantity of what the claim says it of, None where there is none.

    A sentence of a reply may join several of a passage. Then most words around the quantity are in the sentence that has
    it, its title, or the one before.
    """
    around = _words_around(quantity, text) & claim.content
    for n, sentence in enumerate(given.sentences):
        if not has_quantity(quantity, sentence):
            continue
        before = given.sentences[n - 1].words if n else frozenset()
        context = sentence.words | given.title
        own = sum(is_covered(word, context) for word in around)
        joint = sum(is_covered(word, context | before) for word in around)
        if around and own and joint >= _MIN_AROUND * len(around):
            return sentence
    return None


def _words_around(quantity: Quantity, text: str) -> frozenset[str]:
    """Return the content words of the part of a sentence, up to its commas and conjunctions, that has a quantity."""
    start, end = quantity.start, max(quantity.end, quantity.through)
    head = _PART.split(text[:start])[-1]
    tail = _PART.split(text[end:])[0]
    if len(content_words(f"{head} {tail}")) < _FEW_WORDS:  # "In 1996, ..."
        head, tail = text[max(0, start - _NEAR_LETTERS) : start], text[end : end + _NEAR_LETTERS]
        head, tail = (
            head.partition(" ")[2] if start > _NEAR_LETTERS else head,
            tail.rpartition(" ")[0] or tail,
        )
    return frozenset(content_words(f"{head} {tail}"))


def _as_near(claim: ParsedStatement, best: PassageSentence, given: PassageReading) -> list[PassageSentence]:
    """Return the sentences that have as many words of a claim as the best one."""
    most = sum(is_covered(word, best.words) for word in claim.content)
    return [
        sentence
        for sentence in given.sentences
        if sentence is not best and sum(is_covered(word, sentence.words) for word in claim.content) >= most
    ]


def _calendar(text: str) -> frozenset[str]:
    """Return the weekdays and months of a text."""
    return frozenset(match.lower().removesuffix("s") for match in _CALENDAR.findall(text))


def _check_bare(reply: str, given: PassageReading) -> ReplySupport:
    """Return whether a mere yes or no is what the passage says of the question."""
    text = citations.strip_marks(reply)
    answer = _BARE_ANSWER.fullmatch(text)
    if stands_at_label(text, given):
        return _check_fragment(text, given)
    if answer is None and any(is_verbatim(text, sentence.text) for sentence in given.sentences):
        return _check_fragment(text, given)
    if answer is None:
        return ReplySupport("", "the reply states nothing")
    best = max(given.sentences, key=lambda sentence: sentence.relevance)
    if (polarity(best.text) == "no") == bool(answer["yes"]):
        return ReplySupport("", "the reply denies what the passage states, or states what it denies")
    return ReplySupport(CONSISTENT, spans=((best.start, best.end),))


def _answers(given: PassageReading, reply: str, support: ReplySupport) -> ReplySupport:
    """Return the support, or that the reply is about something else than the question."""
    around = frozenset(given.ordered)
    near = max(sentence.cosine for sentence in given.sentences)
    if given.asked and coverage(given.asked, around) < MIN_QUESTION_WORDS and near < MIN_COSINE:
        return ReplySupport("", "the passage is not about what is asked")
    best = max(sentence.relevance for sentence in given.sentences)
    own = max((s.relevance for s in given.sentences if (s.start, s.end) in support.spans), default=best)
    if best - max(own, _relevance(reply, given)) > MAX_ELSEWHERE:
        return ReplySupport("", "the reply answers another question")
    return support


def _relevance(reply: str, given: PassageReading) -> float:
    """Return how much a reply of whole sentences is about the question, as the sentences of the passage are measured."""
    cosine = max(given.similarity(given.question, [reply])) if given.similarity else 0.0
    return (coverage(given.asked - given.title, frozenset(words(reply))) + max(0.0, cosine)) / 2
