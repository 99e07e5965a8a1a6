"""The yes or no of facts and answers: by their first word, or by whether they deny what is asked."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rag.sentences.clauses import JOINS, Clause, Token, negation_at
from rag.sentences.lexicon import OPPOSITES
from rag.sentences.qualifiers import FORBIDDEN, MUST, NOT_NEEDED, modality
from rag.sentences.statements import read_statement
from rag.text.words import stem
from runners.scoring.enumerations import weekdays_of
from runners.scoring.statements import (
    content_tokens,
    denies,
    denies_by_word,
    denying_words,
    leading_answers,
    same_meaning,
    shared_tokens,
)

TOPICAL_SHARE = 0.34
"""Least share of the content words of question and fact that a sentence needs to count as its affirmation."""
MAX_DENIAL_WORDS = 14
"""A fact of more words is a text, in which a denial may be of a detail."""
MAX_LIMITING_WORDS = 3
"""Content words of a reply that names what alone is so without a word of the question."""
_YES_OR_NO = re.compile(
    r"\W*(?:(?P<yes>yes|ja|sí|si|oui|sì|sim|true|はい|是)|no|nein|non|não|nee|false|いいえ|否)\W*", re.I
)
_LEADING_YES_OR_NO = re.compile(
    r"\W*(?:(?P<yes>yes|ja|sí|oui|sì|sim|はい)|no(?!\s+\w)|nein|non|não|nee|いいえ)(?=\W|$)", re.I
)
_WH_WORD = re.compile(
    r"\b(?:what|when|where|who|whom|whose|which|why|how|name|list|tell|give|describe|explain"
    r"|was|wann|wo|wer|wem|wen|wessen|warum|wieso|wie|welche\w*|woher|wohin|womit"
    r"|qué|cuándo|dónde|quién\w*|cuál\w*|cómo|cuánt\w*|que|quand|où|qui|quel\w*|pourquoi|comment|combien)\b"
    r"|何|いつ|どこ|誰|だれ|なぜ|どう|いくら|何時|什么|谁|哪|几|多少",
    re.I,
)
_ENGLISH_WH_WORD = re.compile(r"\b(?:what|when|where|who|whom|whose|which|why|how)\b", re.I)
_ENGLISH_AUXILIARY = re.compile(
    r"(?:^|[.!?,:;]\s*|\b(?:and|so|then|but)\s+)(?:do|does|did|is|are|was|were|am|can|could|may|might|must|shall|should"
    r"|will|would|has|have|had|isn't|aren't|don't|doesn't|can't|won't)\b[^.!?]*\?",
    re.I,
)
_APOLOGY = re.compile(
    r"^\W*(?:(?:(?:I['’]?m|I am|we['’]?re|we are)\s+(?:\w+\s+)?(?:sorry|afraid)|sorry|unfortunately|sadly)"
    r"\W+(?:but\s+|that\s+)?)+",
    re.I,
)
_FIRST_PERSON = re.compile(r"\W*(?:I|ich|yo)\b", re.I)
"""A sentence about the assistant itself ("I cannot help with that") affirms or denies nothing of the matter."""
_AUXILIARY = r"(?:is|are|was|were|does|do|did|can|could|may|must|should|will|would|has|have)"
_SHORT_REPLY = re.compile(
    rf"\W*(?:that|this|it|they|these|those|we|you|he|she|there)(?:['’](?:s|re)|\s+{_AUXILIARY})(?:n['’]t)?\b"
    r"(?:\s+(?:not|indeed|certainly|always|never|absolutely|all|so|even|fully|quite))*\s*"
    r"(?:[.,;!:]|$|possible|impossible|allowed|permitted|forbidden|fine|ok(?:ay)?|correct|right|true|the case|necessary"
    r"|required|available|welcome|no problem|have to|need to|need one)",
    re.I,
)
"""A reply whose subject stands for that of the question: "They are indeed.", "That's not possible."."""
_CLOSING_ANSWER = re.compile(r"(?:\bso|,) (yes|no)\W*$", re.I)
_NEED = re.compile(
    r"\b(?:need(?:s|ed)?|have to|must|require[sd]?|requirement|necessary|obligatory|compulsory|mandatory)\b",
    re.I,
)
_FREE_TO = re.compile(
    r"\W*(?:\w+\W+){0,3}?(?:just|simply|optional|voluntary|free to|up to you|any time|anyone)\b", re.I
)
"""Words near the start of a reply that says that nothing has to be done first."""
_ONLY = re.compile(r"\b(?:only|exclusively|nur|solo|seulement)\b", re.I)
_WITHOUT_ASKED = re.compile(r"\bwithout\b", re.I)
_CONDITION = re.compile(r"\b(?:without|unless|non-\w+|until|before)\b", re.I)
_STILL = re.compile(r"\b(?:still|currently|these days|any ?more)\b", re.I)
_ENDED = re.compile(
    r"\b(?:stopped|ceased|quit|discontinued|ended|gave up|given up|phased out|did away with|used to|no longer"
    r"|not any ?more)\b",
    re.I,
)
_INCLUDED = re.compile(r"\b(?:included?|part of|covered|free)\b", re.I)
_EXTRA = re.compile(r"\b(?:extra|separately|additional|on top|surcharge)\b", re.I)
_WITHOUT = re.compile(
    r"\b(?:without|free of)\s+(?:any |an? |the |further |extra |additional )?(?P<what>(?:[\w'-]+\s*){1,3})",
    re.I,
)
_ALLOWING = frozenset(map(stem, ("can", "may", "allowed", "do", "does", "is", "are")))
_OPEN = (
    "something anything case part possibl option offer provid provision availabl allow permit able exist way includ serv"
    " deal handl accept have do get take need possibility there cover sort kind longer currently yet plan"
)
_OPEN_WORDS = frozenset(_OPEN.split())
"""Stems after a negation that carry no matter of their own: "isn't something we do", "isn't part of"."""


_NOT_STEMS = frozenset(map(stem, ("not", "never", "cannot")))
_NO_DENIAL = frozenset(map(stem, ("only", "just", "have", "need", "until", "before", "later")))
NEGATES = re.compile(r"\b(?:not|never|cannot|no)\b|n['’]t\b", re.I)


def asks_yes_or_no(question: str, language: str) -> bool:
    """Return whether a question asks for a yes or no, and for no choice."""
    last = question.strip().rsplit("\n", 1)[-1]
    asked = last.rstrip().endswith(("?", "？", "か。", "か", "吗"))
    if language == "English":
        sentence = next((m.group() for m in _ENGLISH_AUXILIARY.finditer(last)), "")
        chooses = " or " in sentence.lower().rstrip("?").removesuffix(" or not")
        return bool(sentence) and not chooses and not _ENGLISH_WH_WORD.search(sentence)
    return asked and not _WH_WORD.search(last)


def leading_stance(text: str) -> str | None:
    """Return the yes or no that a text is or begins with, None for neither; "No licence" begins with none."""
    match = _YES_OR_NO.fullmatch(text) or _LEADING_YES_OR_NO.match(text)
    return match and ("yes" if match["yes"] else "no")


def is_denial(fact: str, language: str) -> bool:
    """Return whether a short fact denies something: "Breakfast is not included"."""
    words = len(fact.split())
    return 2 < words <= MAX_DENIAL_WORDS and language == "English" and denies(fact, language)


def stance_of(
    sentences: Sequence[str], question: str, topic: Collection[str], wanted: str, language: str
) -> str | None:
    """Return the yes or no of an answer to a question that asks for one; None where it takes none, "both" for both.

    Args:
        sentences: those of the answer.
        question: the question.
        topic: the content words of question and fact.
        wanted: the yes or no of the fact.
        language: of the words.
    """
    leads = leading_answers(sentences) or {
        match[1].lower() for s in sentences if (match := _CLOSING_ANSWER.search(s))
    }
    if leads:
        return leads.pop() if len(leads) == 1 else "both"
    if sentences and (marked := stance_by_question(sentences[0], question, language)):
        return marked
    stances = set()
    for at, sentence in enumerate(sentences):
        plain = _APOLOGY.sub("", sentence)
        about = shared_tokens(topic, content_tokens(sentence, language))
        topical = len(about) >= max(1, int(TOPICAL_SHARE * len(set(topic))))
        if at == 0 and (reply := _SHORT_REPLY.match(plain)):
            stances.add("no" if denies(reply.group(), language) else "yes")
        elif (at == 0 and _limits(plain, about, language)) or (topical and not _FIRST_PERSON.match(plain)):
            stances.add(_stance(sentence, question, topic, language))
        # A denial beside other remarks on the matter is a denial ("No dogs here. Cats are fine.").
        if "no" in stances and wanted == "no":
            return "no"
        if len(stances) > 1:
            return None
    return stances.pop() if stances else None


def _limits(sentence: str, about: Sequence[str], language: str) -> bool:
    """Return whether a first sentence replies with what alone is so: "Only acoustic ones."."""
    short = len(content_tokens(sentence, language)) <= MAX_LIMITING_WORDS
    return _ONLY.search(sentence) is not None and bool(about or short)


def stance_by_question(sentence: str, question: str, language: str) -> str | None:
    """Return the yes or no that a sentence is by what is asked: whether one must, may without, still, or as part of it.

    "Just drop in" is a no to "Do I need a booking?" and a yes to "Can I come without a booking?".
    """
    if _INCLUDED.search(question) and _EXTRA.search(sentence):
        return "no"
    sentence = _APOLOGY.sub("", sentence)
    if language != "English":
        return None
    if _STILL.search(question) and _ENDED.search(sentence):
        return "no"
    needs, without = _NEED.search(question), _WITHOUT_ASKED.search(question)
    if not (needs or without):
        return None
    kinds = {modality(clause) for clause in read_statement(sentence).clauses}
    free = NOT_NEEDED in kinds or bool(_FREE_TO.match(sentence) and MUST not in kinds)
    if needs:
        excluded = FORBIDDEN in kinds and bool(_CONDITION.search(sentence))
        return "yes" if excluded else "no" if free else None
    if free:
        return "yes"
    return "no" if MUST in kinds or _ONLY.search(sentence) else None


def _stance(sentence: str, question: str, topic: Collection[str], language: str) -> str:
    if _denies_topic(_without_foreign(without_asked(sentence, question), topic, language), topic, language):
        return "no"
    share = len(shared_tokens(topic, content_tokens(sentence, language))) / max(1, len(set(topic)))
    if _ONLY.match(sentence) or (_ONLY.search(sentence) and share < 0.5):
        return "no"
    days_asked, days_named = weekdays_of(question), weekdays_of(sentence, groups=True)
    if _ONLY.search(sentence) and days_asked and days_named and days_asked.isdisjoint(days_named):
        return "no"
    return "yes"


def _denies_topic(sentence: str, topic: Collection[str], language: str) -> bool:
    """Return whether a sentence denies, in the clause that has most words of the topic where one has more than others."""
    if not denies(sentence, language):
        return False
    if language != "English":
        return True
    clauses = read_statement(sentence).clauses
    shares = [len(shared_tokens(topic, _content_of(clause.tokens))) for clause in clauses]
    nearest = [clause for clause, share in zip(clauses, shares, strict=True) if share == max(shares)]
    if len(nearest) != 1 or leading_answers([sentence]) == {"no"}:
        return True
    by_word = frozenset(stem(words.split()[0]) for words in denying_words(sentence))
    return nearest[0].negated or not by_word.isdisjoint(nearest[0].words)


def states_exception(excepted: str, sentences: Sequence[str]) -> bool:
    """Return whether an answer leaves out what a fact excepts: by "except", or in a clause that denies."""
    wanted = content_tokens(excepted, "English")
    clauses = [clause for sentence in sentences for clause in read_statement(sentence).clauses]
    return any(
        (clause.negated or "except" in clause.words)
        and len(shared_tokens(wanted, _content_of(clause.tokens))) == len(wanted)
        for clause in clauses
    )


def without_asked(text: str, question: str) -> str:
    """Return a text without "without ..." where the question has it: to come without booking is no denial then."""
    return _WITHOUT.sub(" ", text) if _WITHOUT_ASKED.search(question) else text


def _without_foreign(sentence: str, topic: Collection[str], language: str) -> str:
    """Return a sentence without "without ..." of things that are not asked for: "made without eggs" denies no sale."""

    def keep(match: re.Match[str]) -> str:
        tokens = content_tokens(match["what"], language)
        return match.group() if not tokens or shared_tokens(tokens, topic) else " "

    return _WITHOUT.sub(keep, sentence) if language == "English" else sentence


def denies_the_same(fact: str, sentences: Sequence[str], question: str, language: str) -> bool:
    """Return whether an answer denies what a fact denies, in its own words, in the clause that is about it."""
    topic = content_tokens(fact, language)
    asked = content_tokens(question, language)
    own = [token for token in topic if token not in shared_tokens(topic, asked)] or list(topic)
    known = {*topic, *asked}
    clauses = [clause for sentence in sentences for clause in read_statement(sentence).clauses]
    tokens = [_content_of(clause.tokens) for clause in clauses]
    saying = [clause for clause, have in zip(clauses, tokens, strict=True) if shared_tokens(own, have)]
    stated = {token for have in tokens for token in have}
    foreign = len(stated) > len(shared_tokens(stated, known))
    if (
        foreign
        and 2 * len(shared_tokens(topic, stated)) < len(topic)
        and 3 * len(shared_tokens(known, stated)) < len(known)
    ):
        return False
    # One need not and one may not are two things.
    needless = any(modality(clause) == NOT_NEEDED for clause in read_statement(fact).clauses)
    other = FORBIDDEN if needless else NOT_NEEDED
    if _INCLUDED.search(fact) and any(map(_EXTRA.search, sentences)):
        return True
    for at, clause in enumerate(clauses):
        contrasted = at and _denies_in(clauses[at - 1], own, known)
        new = set(tokens[at]) - set(tokens[at - 1])
        if contrasted and negation_at(clause) is None and _allows(clause) and shared_tokens(asked, new):
            return False  # "not in the rooms, but you can on the balconies"
    if saying and own != list(topic):
        clauses = saying
    return any(_denies_in(clause, own, known, other) for clause in clauses) or any(
        denies_by_word(sentence) and shared_tokens(topic, content_tokens(sentence, language))
        for sentence in sentences
    )


def _denies_in(clause: Clause, own: Sequence[str], known: Collection[str], other: int = 0) -> bool:
    """Return whether a clause denies something that is known, not only another thing in it, and not by another modality."""
    at = negation_at(clause)
    if at is None or (other and modality(clause) == other and "without" not in clause.words):
        return False
    behind = _content_of(clause.tokens[at + 1 :])
    return (
        not behind
        or bool(shared_tokens(behind[:1], known))
        or behind[0] in _OPEN_WORDS
        or bool(shared_tokens(own, behind[1:3]))
    )


def _allows(clause: Clause) -> bool:
    """Return whether a clause begins with what may be done, but for its subject: "but you can on the balconies"."""
    keys = [token.key for token in clause.tokens if token.key not in JOINS]
    return any(key in _ALLOWING for key in keys[:2])


def _content_of(tokens: Sequence[Token]) -> list[str]:
    return [same_meaning(token.key) for token in tokens if token.content]


def negates_word(wanted: Collection[str], sentences: Sequence[str], language: str) -> bool:
    """Return whether "not" stands right before a word of an affirmative fact, which the answer does not state besides."""
    negated: set[str] = set()
    stated: set[str] = set()
    for sentence in sentences:
        if not NEGATES.search(sentence):
            stated.update(shared_tokens(wanted, content_tokens(sentence, language)))
            continue
        for clause in read_statement(sentence).clauses:
            reach = _reach(clause.tokens)
            for n, token in enumerate(clause.tokens):
                hit = shared_tokens(wanted, [same_meaning(token.key)]) if token.content else ()
                (negated if n == reach else stated).update(hit)
    return bool(negated - stated)


def _reach(tokens: Sequence[Token]) -> int | None:
    """Return the place of the first content word after "not"; None without one, and for "not only", "not until"."""
    at = next((n for n, token in enumerate(tokens) if token.key in _NOT_STEMS), None)
    if at is None or (at + 1 < len(tokens) and tokens[at + 1].key in _NO_DENIAL):
        return None
    return next((n for n in range(at + 1, min(at + 4, len(tokens))) if tokens[n].content), None)


def states_opposite(wanted: Collection[str], known: Collection[str], sentences: Sequence[str]) -> bool:
    """Return whether an answer has the opposite of a fact's word in that word's place: "outside" for "inside".

    Args:
        wanted: the content words of an affirmative fact that the question lacks.
        known: those of fact, references and question.
        sentences: those of the answer.
    """
    opposites = {other: word for word in wanted for other in OPPOSITES.get(word, ()) if other not in known}
    if not opposites:
        return False
    stated = {token for sentence in sentences for token in content_tokens(sentence, "English")}
    reversed_by = [other for other in stated & opposites.keys() if opposites[other] not in stated]
    return any(
        other in _content_of(clause.tokens) and not clause.negated
        for other in reversed_by
        for sentence in sentences
        for clause in read_statement(sentence).clauses
    )
