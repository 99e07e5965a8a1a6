"""Who "he", "she" and "it" are: the person or named thing before them, put in their place before sentences are compared.

A person's gender is known by a title or a role ("Ms", "headmistress", "her husband"), by a common first name, or because
the only other person before has the other one. Where that leaves two, a pronoun stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SHE = frozenset(
    [
        "ms",
        "mrs",
        "miss",
        "madam",
        "lady",
        "dame",
        "queen",
        "princess",
        "chairwoman",
        "headmistress",
        "saleswoman",
        "stewardess",
        "waitress",
        "actress",
        "manageress",
        "landlady",
        "mother",
        "wife",
        "sister",
        "daughter",
        "aunt",
        "niece",
        "widow",
        "woman",
        "girl",
        "grandmother",
        "hostess",
        "anna",
        "anne",
        "maria",
        "mary",
        "sarah",
        "sara",
        "emma",
        "laura",
        "julia",
        "lisa",
        "eva",
        "clara",
        "carla",
        "nina",
        "nora",
        "ida",
        "ella",
        "ellen",
        "helen",
        "helena",
        "elena",
        "ingrid",
        "astrid",
        "birgit",
        "karin",
        "katrin",
        "petra",
        "sophie",
        "sofia",
        "olga",
        "ines",
        "irene",
        "agnes",
        "alice",
        "amelia",
        "emily",
        "charlotte",
        "grace",
        "hannah",
        "jane",
        "joan",
        "judith",
        "kate",
        "lena",
        "linda",
        "lotte",
        "lucy",
        "lucia",
        "margaret",
        "marie",
        "martha",
        "mei",
        "monica",
        "nadia",
        "naomi",
        "paula",
        "rachel",
        "rebecca",
        "rosa",
        "ruth",
        "signe",
        "susan",
        "sylvia",
        "tina",
        "ulla",
        "ursula",
        "vera",
        "victoria",
        "wendy",
        "yvonne",
        "zoe",
        "fay",
        "freya",
        "greta",
        "gudrun",
        "heidi",
        "ilse",
        "elsa",
        "fatima",
        "aisha",
        "leila",
        "mila",
        "mira",
        "ana",
        "isabel",
        "carmen",
        "beatrice",
        "bianca",
        "chiara",
        "claudia",
        "diana",
        "dora",
        "edith",
        "erika",
        "esther",
    ]
)
_HE = frozenset(
    [
        "mr",
        "sir",
        "lord",
        "king",
        "prince",
        "chairman",
        "headmaster",
        "salesman",
        "steward",
        "waiter",
        "actor",
        "landlord",
        "father",
        "husband",
        "brother",
        "son",
        "uncle",
        "nephew",
        "widower",
        "man",
        "boy",
        "grandfather",
        "adam",
        "albert",
        "alan",
        "andrew",
        "anton",
        "arno",
        "arthur",
        "ben",
        "boris",
        "bruno",
        "carl",
        "charles",
        "christian",
        "daniel",
        "david",
        "dev",
        "dieter",
        "edwin",
        "eric",
        "erik",
        "felix",
        "frank",
        "frederick",
        "fritz",
        "george",
        "gerard",
        "hans",
        "harold",
        "harry",
        "henrik",
        "henry",
        "hugo",
        "igor",
        "ivan",
        "jack",
        "jacob",
        "james",
        "jan",
        "jens",
        "joe",
        "johan",
        "john",
        "jonas",
        "joseph",
        "karim",
        "karl",
        "kevin",
        "klaus",
        "kurt",
        "lars",
        "leo",
        "liam",
        "louis",
        "luis",
        "lukas",
        "marco",
        "mario",
        "mark",
        "martin",
        "matthew",
        "max",
        "michael",
        "mohammed",
        "nils",
        "oliver",
        "omar",
        "oskar",
        "otto",
        "pablo",
        "paul",
        "pavel",
        "pedro",
        "per",
        "peter",
        "philip",
        "piet",
        "ralph",
        "richard",
        "robert",
        "roger",
        "sam",
        "samuel",
        "sean",
        "simon",
        "stefan",
        "steven",
        "sven",
        "thomas",
        "tim",
        "tom",
        "victor",
        "walter",
        "william",
        "yusuf",
        "ahmed",
        "ali",
        "anders",
    ]
)
_TITLES = [
    *("Mr", "Mrs", "Ms", "Miss", "Dr", "Prof", "Professor", "Captain", "Sir", "Lady", "Lord", "Reverend"),
    *("Father", "Sister", "Judge", "Inspector", "Chef", "Nurse"),
]
_ROLES = frozenset(("chairman", "chairwoman", "headmaster", "headmistress", "director", "doctor", "chief"))
_TITLE = rf"(?:{'|'.join(_TITLES)})\.?"
_NAME = r"[A-Z][\w’'-]*[a-z](?:\s(?:de|van|von|der|la)\b)?"
_PERSON = re.compile(
    rf"(?P<role>\b[a-zA-Z]+\s)?(?P<name>\b{_TITLE}\s{_NAME}(?:\s{_NAME})*|\b(?!(?:The|A|An|In|On|At|From|Our|Its|Each|All)\b){_NAME}(?:\s{_NAME})+"
    rf"|(?<=husband )[A-Z]\w+|(?<=wife )[A-Z]\w+"
    r"|(?<=sister )[A-Z]\w+|(?<=brother )[A-Z]\w+)"
)
_PRONOUN = re.compile(r"\b(?P<pronoun>[Hh]e|[Ss]he)\b(?!['’])")
_THING = re.compile(
    r"^(?:(?:Yes|No),\s+)?(?P<thing>(?:(?:The|A|An)\s(?:[a-z]+\s)?)?(?:[A-Z][\w’'-]*|\d+)(?:\s(?:[A-Z][\w’'-]*"
    r"|\d+))*)\s(?=[a-z])"
)
_LABELLED = re.compile(r"\b[A-Z][\w’'-]*(?:\s[A-Z][\w’'-]*)*\s\d+\b(?![.,]\d)")
"""A name that ends in a number."""
_MAX_CLAUSE = 300
"""Characters before a pronoun in which the clause before it is looked for."""
_CLAUSE_END = re.compile(
    r"[;,]\s+(?:(?:and|but|while|whereas|since|because|as)\s+)?|\s(?:and|but|while|whereas)\s"
)
_ONE_WORD = re.compile(r"[A-Z][\w’'-]*")
_IT = re.compile(
    r"(?:^|(?<=\s))[Ii]t\b(?=\s(?:\w+s|\w+ed|had|can|may|must|will|did)\b)"
    r"(?! (?:is|was) (?:possible|necessary|forbidden|not allowed|allowed|worth|recommended|advisable))"
)


_ITEM = r"(?:(?:the|a|an)\s)?(?:[A-Z][\w’'-]*(?:\s(?:[A-Z][\w’'-]*|\d+))*|[$£€]?\d[\w.,]*(?:\s[a-z]+)?)"
_RESPECTIVELY = re.compile(
    rf"^(?P<head>.*?)(?P<a>{_ITEM}) and (?P<b>{_ITEM})(?P<middle>,?\s[a-z](?:(?! and ).)*?\s)"
    rf"(?P<x>{_ITEM}) and (?P<y>{_ITEM}),? respectively"
)


def spread_lists(sentence: str) -> str:
    """Return a sentence with "A and B are X and Y respectively" as "A are X; B are Y"."""
    match = _RESPECTIVELY.match(sentence)
    if not match:
        return sentence
    middle = match["middle"].lstrip(",")
    head = match["head"]
    shared = head if "," not in head else ""
    first, second = f"{head}{match['a']}{middle}{match['x']}", f"{shared}{match['b']}{middle}{match['y']}"
    return f"{first}; {second}{sentence[match.end() :]}"


@dataclass(slots=True)
class _Person:
    name: str
    she: bool | None


def resolve_pronouns(sentences: Sequence[str]) -> list[str]:
    """Return the sentences of one text with names from before instead of "he", "she" and "it"."""
    persons: list[_Person] = []
    thing = ""
    resolved: list[str] = []
    for sentence in map(spread_lists, sentences):
        text, at = "", 0
        places = sorted([*_PERSON.finditer(sentence), *_PRONOUN.finditer(sentence)], key=lambda m: m.start())
        for match in places:
            if match.start() < at:
                continue
            if "pronoun" not in match.re.groupindex:
                _note(match, persons)
                continue
            she = match["pronoun"].lower() == "she"
            person = _meant(she, persons) or _subject_before(sentence[: match.start()], she, persons)
            if person is not None:
                text, at = text + sentence[at : match.start()] + person.name, match.end()
        text += sentence[at:]
        if place := _IT.search(text):
            # a name that ends in a number in the clause before is nearer than the subject of the sentence before
            near = _LABELLED.search(_clause_before(text[: place.start()]))
            if meant := near.group() if near else thing:
                text = text[: place.start()] + meant + text[place.end() :]
        head = _THING.match(text)
        named = head is not None and not _ONE_WORD.fullmatch(head["thing"])
        if head is not None and named and not _is_person(head["thing"], persons):
            thing = head["thing"]
        elif text == sentence:
            thing = ""
        resolved.append(text)
    return resolved


def _note(match: re.Match[str], persons: list[_Person]) -> None:
    """Add a person, or move one that is named again to the end."""
    name, role = match["name"], (match["role"] or "").strip().lower()
    signs = [role, *(word.strip(".").lower() for word in name.split())]
    she = True if any(s in _SHE for s in signs[:2]) else False if any(s in _HE for s in signs[:2]) else None
    for other in persons:
        if _own_names(name) & _own_names(other.name):
            other.she = she if other.she is None else other.she
            persons.remove(other)
            persons.append(other)
            return
    persons.append(_Person(name, she))


def _own_names(name: str) -> set[str]:
    """Return the words of a name without titles and roles."""
    words = (word.strip(".") for word in name.split())
    return {word for word in words if word not in _TITLES and word.lower() not in _ROLES}


def _meant(she: bool, persons: list[_Person]) -> _Person | None:
    known = [person for person in persons if person.she is she]
    if known:
        return known[-1]
    unknown = [person for person in persons if person.she is None]
    if len(unknown) != 1:
        return None
    unknown[0].she = she
    return unknown[0]


def _subject_before(before: str, she: bool, persons: Sequence[_Person]) -> _Person | None:
    """Return the first person of the clause before a pronoun in its sentence: "A leads, and B cooks; she also paints"."""
    match = _PERSON.search(_clause_before(before))
    if match is None:
        return None
    named = _own_names(match["name"])
    return next((p for p in persons if p.she is not (not she) and named & _own_names(p.name)), None)


def _clause_before(text: str) -> str:
    """Return the last clause of the beginning of a sentence."""
    return next((piece for piece in reversed(_CLAUSE_END.split(text[-_MAX_CLAUSE:])) if piece.strip()), "")


def _is_person(thing: str, persons: Sequence[_Person]) -> bool:
    return any(person.name in thing for person in persons)
