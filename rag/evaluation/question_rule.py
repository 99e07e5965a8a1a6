"""English words by kind, and the rule by which a question made from a statement is asked or not.

The rule: the question has one finite verb, its subject agrees with that verb in number, and nothing is left over of what
the statement says besides, such as a second clause or a second value. A question that breaks it is not asked. The number
of a subject is that of its head, the last word before the first preposition; where that is uncertain (a name, "most of
..", "series"), every verb agrees.
"""

from __future__ import annotations

import re

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
    with without yet anything everything nothing none whoever whatever whichever hence thus therefore
    nonetheless nevertheless however moreover furthermore meanwhile instead later today now sometimes often
    otherwise elsewhere
"""
_DETERMINERS = """
    a all an any both each every most only some the
"""
_CLAUSE = """
    although because if than that unless when where whether which while who whom whose
"""
AUXILIARIES = frozenset(_AUXILIARIES.split())
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
ONLY_PAST = frozenset(_ONLY_PAST.split())
"""Past forms that are not also participles, so that a preposition may follow."""
PLURAL = frozenset(_PLURAL.split())
"""Plural subjects that do not end in s."""
SENTENCE_OPENERS = frozenset(_OPENERS.split())
"""A sentence that begins with one of these has no plain subject at the beginning."""
DETERMINERS = frozenset(_DETERMINERS.split())
CLAUSE_WORDS = frozenset(_CLAUSE.split())
"""Words that begin a subordinate clause."""


def _forms() -> dict[str, tuple[str, str]]:
    """Return each inflected form with the auxiliary that asks for it and the base form, built from the word lists."""
    irregular = dict(zip(*[iter(_IRREGULAR.split())] * 2, strict=True))
    forms: dict[str, tuple[str, str]] = {}
    for verb in [*_REGULAR.split(), *irregular]:
        ends_in_y = verb.endswith("y") and verb[-2] not in "aeou"
        past = (
            verb[:-1] + "ied"
            if ends_in_y
            else verb + ("d" if verb.endswith("e") else "ped" if verb == "stop" else "ed")
        )
        third = (
            verb[:-1] + "ies"
            if ends_in_y
            else verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s")
        )
        forms.setdefault(verb, ("do", verb))
        forms.setdefault(irregular.get(verb, past), ("did", verb))
        forms["has" if verb == "have" else third] = ("does", verb)
    return forms


VERB_FORMS = _forms()
"""Each form of a verb with the auxiliary that asks for it and its base form: "leaves" gives (does, leave)."""

_SUBJECT_ENDS = PREPOSITIONS | {
    "above",
    "after",
    "before",
    "behind",
    "below",
    "between",
    "beyond",
    "during",
    "inside",
    "into",
}
_SUBJECT_ENDS |= {"near", "off", "onto", "outside", "over", "per", "than", "through", "until", "up", "within"}
_UNCERTAIN = frozenset(
    ["crew", "gas", "lens", "means", "news", "police", "series", "species", "staff", "there"]
)
_QUANTITIES = frozenset(
    ["half", "lot", "majority", "most", "number", "percent", "rest", "some", "%", "all", "any"]
)
_PRONOUNS = frozenset(["he", "i", "she", "they", "we", "you"])
_POSSESSIVE = frozenset(["each", "every", "her", "his", "its", "my", "no", "our", "their", "your"])
_VERB_PARTS = frozenset(["be", "been", "did", "do", "does", "had", "has", "have"])
_NOT_IN_SUBJECT = AUXILIARIES | _VERB_PARTS | {"also", "always", "cannot", "never", "not", "only", "still"}
_ENDS_OPEN = PREPOSITIONS | CLAUSE_WORDS | {"a", "an", "and", "between", "into", "or", "the", "than"}
_SINGULAR = frozenset(["does", "has", "is", "was"])
_PLURAL_VERBS = frozenset(["are", "do", "have", "were"])
_NUMBER_WORDS = frozenset(
    "one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
)
"""At the end of a question: "takes fifteen minutes and with the preparation ten"."""
_REFERRING = frozenset(["him", "it", "them"])


def subject_agrees(subject: str, auxiliary: str) -> bool:
    """Return whether a plain subject agrees in number with the auxiliary that asks, and holds no verb of its own."""
    tokens = subject.lower().split()
    if any(token in _NOT_IN_SUBJECT for token in tokens) or (
        len(tokens) > 1 and any(token in _PRONOUNS for token in tokens[1:])
    ):
        return False
    if _has_relative_clause(tokens) or tokens[-1] in ("and", "or") or not tokens[0][0].isalnum():
        return False
    number = subject_number(subject)
    if number == "unclear":
        return False
    if auxiliary in _SINGULAR:
        return number != "plural"
    return auxiliary not in _PLURAL_VERBS or number != "singular"


def subject_number(subject: str) -> str:
    """Return "singular", "plural" or, where it is uncertain, ""; "unclear" for a number before a singular noun."""
    written = subject.split()
    tokens = [token.lower() for token in written]
    if tokens[0] in _PRONOUNS:
        return "singular" if tokens[0] in ("he", "she") else "plural"
    end = next((n for n, token in enumerate(tokens) if n and token in _SUBJECT_ENDS), len(tokens))
    head = tokens[:end]
    if head[0] in _QUANTITIES or head[-1] in _QUANTITIES | _UNCERTAIN or head[-1].endswith("ics"):
        return ""
    if head[0].endswith("ing") and len(head) > 1:
        return "singular"
    if "and" in head:
        return "" if head[0] in ("each", "every") or written[end - 1][0].isupper() else "plural"
    is_plural = _looks_plural(head[-1])
    if head[0][0].isdigit() and head[0] != "1":
        return "" if is_plural else "unclear"
    if written[end - 1][0].isupper() and end > 1 and not is_plural:
        return ""
    return "" if written[end - 1][0].isupper() else "plural" if is_plural else "singular"


def is_complete(rest: str, base: str) -> bool:
    """Return whether what follows a question's verb is whole: no open end, no second clause, nothing beside the point.

    Args:
        rest: the words after the verb, without the words asked for.
        base: base form of the main verb; "" if the auxiliary is the only verb.
    """
    tokens = rest.lower().split()
    if not tokens:
        return True
    first = tokens[0]
    if re.search(r",(?!\d)", rest) or not (first[0].isalnum() or first[0] in "(£$€"):
        return False
    if first in ("and", "or", "none") or (not base and first in ("to", "that", "what", "how", "why")):
        return False
    if tokens[-1] in _ENDS_OPEN | _NUMBER_WORDS or ("between" in tokens and "and" not in tokens):
        return False
    if base == "have" and re.match(r"(?:\w+ly |also |already |not |since |never )?\w+(?:ed|en|been)\b", rest):
        return False
    return not _second_clause(tokens, base)


def _second_clause(tokens: list[str], base: str) -> bool:
    """Return whether a verb follows that the question's own auxiliary does not carry, or a word that points elsewhere."""
    for n, token in enumerate(tokens):
        before, after = tokens[n - 1] if n else "", tokens[n + 1] if n + 1 < len(tokens) else ""
        if token in CLAUSE_WORDS:
            return False
        if token in _REFERRING:
            return True
        if token in ("and", "or", "but") and _opens_clause(before, tokens[n + 1 :]):
            return True
        if base and _is_finite(token, before, after):
            return True
    return False


def _opens_clause(before: str, after: list[str]) -> bool:
    """Return whether a verb follows a conjunction: "and costs 84 euros"; not "repaired and sold"."""
    while after and (
        after[0] in ("also", "has", "have", "is", "then", "thus", "was", "were") or after[0].endswith("ly")
    ):
        if not after[0].endswith("ly") and after[0] not in ("also", "then", "thus"):
            return True
        after = after[1:]
    if not after:
        return True
    word, following = after[0], after[1] if len(after) > 1 else ""
    if before.endswith(("ed", "en")) and word.endswith(("ed", "en")):
        return False
    if any(token in AUXILIARIES or token in ("has", "have") for token in after[1:5]):
        return True
    is_verb = word in VERB_FORMS or word in AUXILIARIES | {"cannot", "never", "not"}
    if word.endswith("ed") or following == "to":
        return True
    return is_verb or following in DETERMINERS | _POSSESSIVE


def _is_finite(token: str, before: str, after: str) -> bool:
    """Return whether a known verb stands behind a noun: the statement's verb was another one."""
    if token not in VERB_FORMS or VERB_FORMS[token][0] == "did":
        return False
    if before in DETERMINERS | PREPOSITIONS | _POSSESSIVE | {"and", "or", "per", "to"}:
        return False
    return after in DETERMINERS | PREPOSITIONS | _POSSESSIVE or bool(re.match(r"[£$€\d]", after))


def _has_relative_clause(tokens: list[str]) -> bool:
    """Return whether a subject holds a second noun phrase that no preposition joins: "crates the driver takes back"."""
    joins = _SUBJECT_ENDS | {"and", "or", "as", "both", "all", "half"}
    for n, token in enumerate(tokens[1:], 1):
        verb_before = tokens[0].endswith("ing") and n <= 2
        if token in ("a", "an", "the") and tokens[n - 1] not in joins and not verb_before:
            return True
    return any(
        VERB_FORMS.get(token, ("",))[0] == "does" and n + 1 < len(tokens)
        for n, token in enumerate(tokens)
        if n
    ) and (len(tokens) > 2 and tokens[-1] in ("back", "down", "in", "off", "out", "up"))


def _looks_plural(word: str) -> bool:
    bare = re.sub(r"['’]s?$", "", word)
    if bare != word:
        return False
    return word in PLURAL or (word.endswith("s") and not word.endswith(("ss", "us", "is")))
