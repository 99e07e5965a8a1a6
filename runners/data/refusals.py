"""Recognise refusals ("that is not in our documents") and texts that state the absence of a value ("n/a").

:func:`is_refusal` judges one text: :meth:`runners.plan.schema.Plan.refuses` calls it for answers, with all that a plan
knows, and :attr:`runners.data.examples.Example.refuses` for replies of examples. :func:`is_no_value` is used on gold
answers and fields.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rag.text.words import content_words, sentences
from runners.data.refusal_patterns import refuses_in_words

MIN_SIMILARITY = 0.6
"""Jaccard similarity of content words from which a clause counts as a clause of one of the plan's "
"refusals."""
_CLAUSE_END = re.compile(
    r"\s*(?:;|,\s+(?=(?:as|because|since)\s)|\s[–—-]\s|(?:,\s*|\s)(?=(?:but|however|though|although|yet"
    r"|except|only that|aber|jedoch|allerdings|sondern|pero|sino|aunque|mais|maar)\b)|,?\s+(?=(?:and|und|y"
    r"|et)\s+(?:we|it|they|you|there|wir|es|sie|nous|il)\b))\s*"
)
_UNSURE = re.compile(
    # the comma after it begins what is known nevertheless
    r"^((?:\w+,? ){0,2}?(?:i'm|i am|we're|we are|i|we) (?:really |quite |do |just )?(?:not sure|not certain"
    r"|don't know|do not know|not know)), ",
    re.IGNORECASE,
)
_CONJUNCTION = re.compile(
    r"^(?:as|because|since|but|however|though|although|yet|except|only|and|so|aber|jedoch|allerdings|sondern"
    r"|und|pero|sino|aunque|y|mais|et|maar)\b,?\s*"
)
_COURTESY = re.compile(
    r"^(?:(?:i'm|i am|we're|we are)?\s*(?:very |so |really |terribly |afraid )?(?:sorry|apolog\w+"
    r"|afraid)\b.{0,40}|(?:good|happy|dear|hello|hi|hey|welcome|greetings|thanks?|many thanks|thank you"
    r"|cheers|best|kind|warm|yours|take care|see you|enjoy|have a|stay|bye|goodbye|regards|sincerely|great "
    r"question|that's a good question|interesting question|i understand|i wish i|i'd rather not|i'd have to "
    r"guess|i would have to guess)\b.{0,60}|(?:unfortunately|sadly|regrettably|alas|well|so|it seems|hm+"
    r"|leider|lamentablemente|malheureusement|infelizmente|helaas|purtroppo)|(?:tut mir leid|es tut mir leid"
    r"|entschuldig\w+|guten|gute|hallo|danke|vielen dank|mit freundlichen|viele grüße|schöne\w*|moin|servus"
    r"|grüß)\b.{0,60}|(?:lo siento|lamento|disculp\w+|perd\w+|hola|buen[oa]s?|gracias|saludos|un saludo|que "
    r"tenga)\b.{0,60}|(?:désolé\w*|je suis désolé\w*|bonjour|merci|cordialement|spiacente|mi dispiace"
    r"|buongiorno|grazie|desculp\w+|obrigad\w+|olá|sorry|dank)\b.{0,60})$"
)
_POINTER = re.compile(
    # an offer, a question passed on, or the address of somebody who knows
    r"^(?:so |then |instead,? |for (?:that|this|more|further)[\w ]{0,30},? |if you (?:like|wish|want|prefer"
    r"|have|need|can|tell|could)[^,]{0,60}, |you (?:may|might|can|could|should|will|would) (?:want to |wish "
    r"to |like to |need to |have to |have better luck )?|we (?:recommend|suggest|advise)(?: that)? |i "
    r"(?:recommend|suggest|advise)(?: that)? |it may help to |it's best to |it is best to )*(?:please "
    r"|kindly |do |just |simply |perhaps |maybe )*(?:ask|asking|contact|contacting|call|calling|check"
    r"|checking|try|trying|email|e-mail|write|writing|see|consult|consulting|visit|visiting|refer|speak"
    r"|speaking|talk|get in touch|reach|phone|ring|rephrase|provide|let (?:me|us) know|feel free|turn to"
    r"|drop|send|look (?:at|in|on|up)|tell (?:me|us)|give (?:me|us)|inquire|enquire|make sure|by asking"
    r"|with)\b(?!-)|^(?:i|we)(?:'ll|'d| will| can| could| would| shall| am happy to| are happy to|'m happy "
    r"to| have passed| have noted| am going to) (?:be (?:happy|glad) to |gladly |happily |only |still |also "
    r"|try to |have to |need to )*(?:ask|pass|forward|check|find|look|send|get|raise|note|help|assist|let"
    r"|hand|put|enquire|inquire|connect|refer|suggest|recommend|passed|search)\b|^let me\b|^(?:i|we)(?:'ve| "
    r"have)? (?:also |even |carefully )*(?:looked|searched|checked|went|read|gone|tried|reviewed)\b|^(?:\w+ "
    r"){0,4}?(?:staff|colleagues?|team|desk|office|reception\w*|support|manager|crew|person|people"
    r"|department|specialist|expert|agent|warden|librarian|doctor|expert|somebody|someone|they|he"
    r"|she)\b[\w' ]{0,30}? (?:can|may|might|will|could|should|would) (?:be able to |surely |certainly "
    r"|probably |gladly |happily )*(?:help|know|tell|answer|assist|advise|be of help|have)\b|^it (?:may"
    r"|might|could) (?:be|have)\b|^(?:bitte|fragen sie|frag|wenden sie|kontaktieren|rufen sie|schreiben sie"
    r"|ich (?:frage|gebe|leite|werde|kann)|wir (?:fragen|geben|leiten|werden)|gerne? )\b|^(?:por favor"
    r"|pregunte|pregunta|consulte|consulta|contacte|póngase|llame|escriba|puede|puedes|podría|le "
    r"(?:recomiendo|sugiero)|te (?:recomiendo|sugiero))\b|^(?:veuillez|demandez|contactez|vous pouvez|je "
    r"peux|chieda|contatti|pergunte|contacte|vraag|neem contact)\b"
)
_ABOUT_SOURCES = re.compile(
    # what an answer rests on, or what the documents are about instead
    r"^(?:as )?(?:an?|your) (?:\w+ )?(?:ai|assistant|language model|chatbot|bot|help desk"
    r"|model)\b[^,]{0,80}$|^(?:i|we) (?:can )?only (?:use|answer|see|read|rely|know|have|work)\b"
    r"|^what (?:i|we) (?:can see|see|have|know|found|was given|were given)(?: here)? (?:is|are) (?:only |just |all )?about\b"
    r"|^(?:the|our"
    r"|these|those|this|they|it) (?:[\w'-]+ ){0,3}?(?:only |just |mainly |mostly )?(?:cover|covers|deal"
    r"|deals|focus\w*|describes?|discuss\w*|concerns?|mention|mentions|talk|talks|are about|is about)\b"
    r"|^(?:based on|according to|from|in|having read|after (?:reading|checking|searching)|as far as|for|laut"
    r"|nach|según|d'après|with|given)\b[^,]{0,80}$"
)
_NEGATION = re.compile(
    r"n't\b|\b(?:not|no|never|nothing|nobody|none|cannot|without|nowhere|unable|silent|nicht\w*|kein\w*"
    r"|niemand|nada|nadie|nunca|ne|pas|rien|non|niente|não|niet|geen)\b"
)


def is_refusal(answer: str, refusals: Sequence[str], formulas: Sequence[str] = ()) -> bool:
    """Whether a text says that the documents do not hold the answer, or that it cannot be found, and states nothing else.

    The text is read clause by clause. Questions, the formulas, greetings, offers and advice on whom to ask are left
    out. Of the clauses that are left, one must refuse: by its words (:mod:`runners.data.refusal_patterns`), or since it
    is similar to a refusing clause of one of the plan's refusals. When another clause states a number or a fact, it is
    an answer.

    Args:
        answer: the text.
        refusals: the plan's own refusals.
        formulas: sentences that every answer may have, such as a greeting.
    """
    plain = _plain(answer)
    if not plain:
        return False
    if any(plain == _plain(refusal) for refusal in refusals):
        return True
    own = _refusal_clauses(tuple(refusals), tuple(formulas))
    refused = False
    for clause in _clauses(answer, formulas):
        if refuses_in_words(clause) or _similar_to_any(clause, own.refusing):
            refused = True
        elif _states_fact(clause) and not _similar_to_any(clause, own.beside):
            return False
    return refused


@dataclass(frozen=True, slots=True)
class _RefusalClauses:
    """The clauses of a plan's refusals."""

    refusing: tuple[str, ...]
    beside: tuple[str, ...]
    """Those that do not refuse, such as a closing line."""


@lru_cache(maxsize=64)
def _refusal_clauses(refusals: tuple[str, ...], formulas: tuple[str, ...]) -> _RefusalClauses:
    """Divide the clauses of refusals into those that refuse and the others.

    A refusal in no known wording refuses with its longest clause that is not shared by most refusals.
    """
    clauses = [_clauses(refusal, formulas) or _sentences(refusal, ()) for refusal in refusals]
    frequency = Counter(clause for each in clauses for clause in {_plain(text) for text in each})
    refusing: list[str] = []
    beside: list[str] = []
    for each in clauses:
        chosen = [clause for clause in each if refuses_in_words(clause)]
        if not chosen:
            rare = [clause for clause in each if not 1 < frequency[_plain(clause)] > len(clauses) / 2]
            chosen = [max(rare or each, key=lambda clause: len(content_words(clause)))] if each else []
        refusing += chosen
        beside += [clause for clause in each if clause not in chosen]
    return _RefusalClauses(tuple(refusing), tuple(beside))


def _clauses(text: str, formulas: Sequence[str]) -> list[str]:
    """Return the clauses that may state something: without formulas, questions, courtesies, offers and "
    "advice."""
    parts = [
        part
        for sentence in _sentences(text, formulas)
        for part in _CLAUSE_END.split(_UNSURE.sub(r"\1; ", sentence))
        if part and re.search(r"\w", part)
    ]
    return [part for part in parts if not _is_courtesy(part)]


def _sentences(text: str, formulas: Sequence[str]) -> list[str]:
    """Return the sentences of a text that are neither a formula nor a question."""
    for formula in formulas:
        text = text.replace(formula, "\n\n")
    return [
        sentence
        for block in text.split("\n")
        for sentence in sentences(block)
        if not sentence.rstrip("\"'”’) ").endswith("?")
    ]


def _is_courtesy(clause: str) -> bool:
    """Whether a clause is a greeting, an apology, an offer or advice on whom to ask, and does not refuse "
    "itself."""
    plain = _CONJUNCTION.sub("", clause.casefold().replace("’", "'").strip(' ,.!:"“”')).strip()
    if refuses_in_words(clause):
        return False
    if _POINTER.match(plain):
        return True
    return not re.search(r"\d", plain) and bool(_COURTESY.match(plain) or _ABOUT_SOURCES.match(plain))


def _states_fact(clause: str) -> bool:
    """Whether a clause states a number or at least two words of content."""
    return bool(re.search(r"\d", clause)) or len(content_words(clause)) >= 2


def _similar_to_any(clause: str, others: Sequence[str]) -> bool:
    """Whether a clause has the content words, the negation and no other numbers than one of the others."""
    words = set(content_words(clause))
    numbers = set(re.findall(r"\d+", clause))
    negated = bool(_NEGATION.search(clause.casefold().replace("’", "'")))
    return any(
        _overlap(words, set(content_words(other))) >= MIN_SIMILARITY
        and negated == bool(_NEGATION.search(other.casefold().replace("’", "'")))
        and numbers <= set(re.findall(r"\d+", other))
        for other in others
    )


def _plain(text: str) -> str:
    """Return the words of a text in lower case, one space apart."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _overlap(a: set[str], b: set[str]) -> float:
    """Return the Jaccard similarity of two sets, 0 when one is empty."""
    return len(a & b) / len(a | b) if a and b else 0.0


_NOTHING = frozenset(
    {
        "",
        "none",
        "null",
        "nil",
        "n a",
        "na",
        "nothing",
        "unknown",
        "unspecified",
        "unstated",
        "missing",
        "absent",
        "no value",
        "no answer",
        "empty",
        "not applicable",
    }
)
_SAID = "stated|mentioned|specified|given|provided|available|known|disclosed|listed|indicated|recorded|found"
_NOT_SAID = re.compile(
    rf"(?:\w+ ){{0,4}}(?:not|\w+n t) (?:{_SAID})(?: here| anywhere| (?:in|by|on|from|within)(?: \w+){{1,5}})?"
)


def is_no_value(text: str) -> bool:
    """Whether the whole text states the absence of a value: "", "n/a", "null", "[]", "It is not stated."

    A text that continues after that, or has a number, counts as a value ("not stated, but 12 euros").
    """
    plain = _plain(text)
    return plain in _NOTHING or bool(_NOT_SAID.fullmatch(plain) and not re.search(r"\d", plain))


def all_no_value(golds: Sequence[str]) -> bool:
    """Whether there are gold answers and every one states the absence of a value."""
    return bool(golds) and all(is_no_value(gold) for gold in golds)
