"""What a text states, in several languages: content tokens, numbers, dates, and whether it affirms or denies.

Used by :mod:`runners.scoring.correctness` to compare an answer with its gold. English goes through the functions
of :mod:`rag.text`, so that a number or a denial means the same here as in citations; this module adds decimal
commas, numerals, months, denials and function words of other languages, and scripts without spaces.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from rag.embedding.language import LANGUAGES, detect_language
from rag.quantities.phrases import spoken_times
from rag.quantities.reading import bounds
from rag.sentences.lexicon import SYNONYMS
from rag.text.dates import Date, extract_dates, without_dates
from rag.text.numbers import NUMBER_WORDS, extract_numbers, polarity
from rag.text.words import STOP_WORDS, sentences, stem

_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff"
_TOKEN = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+(?:['’][^\W_{_UNSPACED}]+)*")
_UNSPACED_RUN = re.compile(rf"[{_UNSPACED}]+")
_UNSPACED_PARTICLES = re.compile("(?:です|ます|ました|ません|は|が|を|に|で|と|も|の|か|的|了|是|在|吗)")
"""Endings and particles of Japanese and Chinese: they split a run of characters and carry no content."""
_FUNCTION_WORDS = {language.name: language.function_words for language in LANGUAGES}
_MONTHS = {
    "January": "januar|jänner|enero|janvier|gennaio|janeiro|januari",
    "February": "februar|febrero|février|febbraio|fevereiro|februari",
    "March": "märz|marzo|mars|março|maart",
    "April": "abril|avril|aprile",
    "May": "mai|mayo|maggio|maio|mei",
    "June": "juni|junio|juin|giugno|junho",
    "July": "juli|julio|juillet|luglio|julho",
    "August": "agosto|août|augustus",
    "September": "septiembre|septembre|settembre|setembro",
    "October": "oktober|octubre|octobre|ottobre|outubro",
    "November": "noviembre|novembre|novembro",
    "December": "dezember|diciembre|décembre|dicembre|dezembro",
}
_MONTH = {name: month for month, names in _MONTHS.items() for name in names.split("|")}
_FOREIGN_DATE = re.compile(
    rf"\b(?P<day>[0-3]?\d)\s*(?:\.|er|º|°)?\s+(?:de\s+|di\s+)?(?P<month>{'|'.join(_MONTH)})\b(?:\s+(?:de[l]?\s+)?(?=\d{{4}}))?",
    re.I,
)
_NUMERALS = {
    "German": "null zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    "Spanish": "cero dos tres cuatro cinco seis siete ocho nueve diez once doce",
    "French": "zéro deux trois quatre cinq six sept huit neuf dix onze douze",
    "Italian": "zero due tre quattro cinque sei sette otto nove dieci undici dodici",
    "Portuguese": "zero dois três quatro cinco seis sete oito nove dez onze doze",
    "Dutch": "nul twee drie vier vijf zes zeven acht negen tien elf twaalf",
}
_NUMERAL = {
    language: {word: 0 if n == 0 else n + 1 for n, word in enumerate(words.split())}
    for language, words in _NUMERALS.items()
}
"""Numerals from zero to twelve but one, which is an article too."""
_ENGLISH_NUMERALS = frozenset((*NUMBER_WORDS, "hundred", "thousand", "million")) - {"one"}
_SYNONYMS = (
    "id identity identification|old previous former|door entrance entry|online internet web|put drop|"
    "help assist support|tell inform notify|mobile cellphone|mailbox letterbox postbox|"
    "broken damaged defective|throw discard dispose|leftover unsold|fridge refrigerator|"
    "change alter affect distort influence|food eat meal|register enrol enroll|swap exchange replac|"
    "address residence|certificat certification"
)
_FORMS = (
    "hold held|eat ate eaten|drive driven drove|run ran|know known knew|throw thrown threw|wear worn wore|"
    "forget forgotten forgot"
)
_SAME_MEANING = {
    stem(word): stem(group.split()[0])
    for group in f"{_FORMS}|{_SYNONYMS}".split("|")
    for word in group.split()
}
"""The stem that stands for those of words that mean the same, besides those of :mod:`rag.sentences.lexicon`."""
_NO_TOKENS: frozenset[str] = frozenset()
_FULL_WIDTH = str.maketrans("０１２３４５６７８９：．，", "0123456789:.,")
_FILE_REFERENCE = re.compile(r"[(\[][^()\[\]\n]{0,60}\.\w{1,5}:\d+(?:-\d+)?[)\]]?|\[\d{1,3}\]")
"""A source as a prompt shows it, "(ticket.md:12-13)", or a mark such as [2]."""
_LIST_MARK = re.compile(r"^\s*(?:\d{1,2}[.)]|[-*•])\s+", re.M)
_EMOTICON = re.compile(r"(?<=[\s.!?])[:;]-?[)(DP](?=\s|$)")
_OFFER = re.compile(
    r"\s+(?=(?:Shall|Should|Would|Will|May|Can|Could|Do|Did|Is|Are|Have|Soll|Sollen|Darf|Dürfen|Kann|Möchten|Brauchen)"
    r"\s+(?:I|we|you|it|that|there|this|ich|wir|Sie|es)\b)|\s*(?=¿)"
)
"""Where a closing question begins, also after a statement without a full stop ("7.80 euros Shall I book?")."""
_YES = (
    r"yes|yeah|yep|yup|ja|jawohl|natürlich|selbstverständlich|sí|claro|por supuesto|oui|bien sûr|sì|certo|sim"
    r"|はい|是的|可以"
)
_NO = r"no|nope|nein|non|não|nee|いいえ|いや|不是|不可以|不行|不能|没有"
_LEAD = re.compile(
    rf"\W*(?:(?:thank you|thanks|danke|gracias|merci|sorry|that (?:would be|is)(?=:)|das (?:wäre|ist)(?=:)"
    rf"|(?:i'?m|we'?re) (?:sorry|afraid)|unfortunately|leider"
    rf"|lo siento|well|hello|hi|(?:the |die |la )?(?:final |short )?(?:answer|antwort|respuesta)(?: is| ist| es)?)"
    rf"[^\w\n]+)*(?:(?P<not>(?:certainly|absolutely|of course|definitely|sure)\s+not|not at all|not really"
    rf"|by no means|not (?:any ?more|any longer|yet|currently|at present|at the moment)|not(?=\W*$))"
    rf"|(?P<yes>{_YES}|certainly|absolutely|of course|definitely|indeed|sure)|(?P<no>{_NO}))(?!\w)",
    re.I,
)
_DENIALS = {
    "German": r"\b(?:nicht|kein\w*|nie(?:mals)?|nein|ohne|verboten|untersagt|unzulässig|nirgends|weder|leider)\b",
    "Spanish": r"\b(?:no|nunca|ning[uú]n\w*|nadie|ni|sin|tampoco|prohibid\w+|jamás)\b",
    "French": r"\b(?:ne|non|pas|jamais|aucun\w*|sans|interdit\w*)\b|\bn['’]",
    "Italian": r"\b(?:non|no|mai|nessun\w*|senza|vietat\w+)\b",
    "Portuguese": r"\b(?:não|nunca|nenhum\w*|sem|proibid\w+)\b",
    "Dutch": r"\b(?:niet|geen|nooit|zonder|verboden|nee)\b",
    "Japanese": r"ません|ない|いいえ|禁止|不可|なし",
    "Chinese": r"不|没|禁止|无",
}
_DENIAL = {language: re.compile(pattern, re.I) for language, pattern in _DENIALS.items()}
_ENGLISH_DENIAL = re.compile(
    r"\b(?:closed|declined|disallowed|impossible|denied|free of|lacks?|too (?:late|early|young|old|big|large|heavy"
    r"|\w+ (?:for|to))|illegal|against|(?:stay|remain|wait|left|kept?)s? outside|keep out|not at all"
    r"|(?:day|days) off|rest days?)\b",
    re.I,
)
"""Words that deny in an answer to a yes-or-no question, besides those of :func:`rag.text.numbers.polarity`."""
LEADING_ARTICLES = frozenset(
    ["the", "a", "an", "der", "die", "das", "el", "la", "los", "las", "le", "les", "il", "lo"]
)
_QUESTION_END = re.compile(r"[?？]+[\"'”’)\]]*$")


@lru_cache(maxsize=4096)
def language_of(text: str) -> str:
    """Return the language of a text as :func:`rag.embedding.language.detect_language` names it, English when unclear."""
    return detect_language(text) or "English"


def statements(text: str) -> list[str]:
    """Return the sentences of a text that state something: without questions, source marks and repeats."""
    plain = _FILE_REFERENCE.sub(" ", text)
    plain = _OFFER.sub("\n", _EMOTICON.sub("\n", _LIST_MARK.sub("", plain)))
    lines = [line.strip() for line in re.split(r"\n+|(?<=[。！？])", plain) if line.strip()]
    parts = [sentence for line in lines for sentence in sentences(line)]
    return list(dict.fromkeys(part for part in parts if not _QUESTION_END.search(part)))


@lru_cache(maxsize=16384)
def content_tokens(text: str, language: str) -> tuple[str, ...]:
    """Return the distinct content tokens of a text, in order.

    Words are lower case and stemmed, without function words, numerals and digits (numbers are compared as numbers). In
    scripts without spaces the tokens are pairs of neighbouring characters.
    """
    ignored = _FUNCTION_WORDS.get(language, frozenset())
    ignored = ignored | STOP_WORDS if language == "English" else ignored
    numerals = _NUMERAL.get(language, _ENGLISH_NUMERALS)
    tokens: dict[str, None] = {}
    for match in _TOKEN.finditer(text.lower()):
        word = match.group()
        if _UNSPACED_RUN.match(word):
            runs = [run for run in _UNSPACED_PARTICLES.split(word) if run]
            tokens |= dict.fromkeys(run[at : at + 2] for run in runs for at in range(max(1, len(run) - 1)))
            continue
        word = word.replace("’", "'").removesuffix("'s")
        if word in ignored or word in numerals or word.endswith("n't") or word[0].isdigit():
            continue
        token = stem(word)
        tokens[same_meaning(token) if language == "English" else token] = None
    return tuple(tokens)


def same_meaning(token: str) -> str:
    """Return the stem that stands for an English one and those that mean the same."""
    return _SAME_MEANING.get(token, token)


def shared_tokens(wanted: Iterable[str], have: Collection[str]) -> list[str]:
    """Return the tokens of ``wanted`` that ``have`` holds, also in another inflection.

    Two words count as one when one is the other with up to two letters more ("abre", "abren"; "erlaubt", "erlaubte"), or
    when long ones differ in their last letter ("permitido", "permitida").
    """
    by_start: dict[str, list[str]] = {}
    for token in have:
        by_start.setdefault(token[:4], []).append(token)
    return [
        token
        for token in wanted
        if any(_same_word(token, other) for other in by_start.get(token[:4], ()))
        or not SYNONYMS.get(token, _NO_TOKENS).isdisjoint(have)
    ]


@lru_cache(maxsize=2048)
def numbers_of(text: str, language: str) -> frozenset[str]:
    """Return the numbers and times of a text in one form each, as :func:`rag.text.numbers.extract_numbers` does."""
    text = text.translate(_FULL_WIDTH)
    if language not in ("English", "Japanese", "Chinese"):
        text = re.sub(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?![\d])", lambda m: m.group().replace(".", ""), text)
        text = re.sub(r"(?<=\d),(?=\d{1,2}(?!\d))", ".", text)
    text = re.sub(r"(?<=\d)\s*(?:時|点)(?!\d)", ":00 ", text)
    # Digits between letters of a script without spaces stand at no word boundary.
    text = re.sub(rf"(?<=[{_UNSPACED}])(?=\d)|(?<=\d)(?=[{_UNSPACED}])", " ", text)
    words = _NUMERAL.get(language, {})
    spelt = (
        {str(words[word]) for word in re.findall(r"\w+", text.lower()) if word in words} if words else set()
    )
    return extract_numbers(text) | spelt | spoken_times(text)


@lru_cache(maxsize=2048)
def dates_of(text: str) -> frozenset[Date]:
    """Return the dates of a text, as :func:`rag.text.dates.extract_dates` does, with months of other languages."""
    return extract_dates(_english_months(text))


def text_besides_dates(text: str) -> str:
    """Return the text without its dates, whose numbers and months are compared as dates."""
    return without_dates(_english_months(text))


def states_number(number: str, have: Collection[str]) -> bool:
    """Return whether a number is among others; an hour without minutes equals the bare number, in both halves of the day."""
    if number in have:
        return True
    hour, colon, minutes = number.partition(":")
    if colon:
        bare = (
            {str(int(hour)), str(int(hour) % 12)}
            if minutes == "00"
            else {f"{int(hour)}.{minutes}".rstrip("0")}
        )
        return not bare.isdisjoint(have) or (minutes == "00" and int(hour) == 12 and "12" in have)
    clocks = [other for other in have if other.endswith(":00")]
    return number.isdigit() and any(int(other[:-3]) % 24 == int(number) for other in clocks)


def leading_answers(texts: Sequence[str]) -> set[str]:
    """Return "yes" and "no" as far as sentences begin with one, or are "The answer is: yes"."""
    leads = [match for text in texts if (match := _LEAD.match(text))]
    return {"yes" if match["yes"] else "no" for match in leads}


def without_lead(text: str) -> str:
    """Return a sentence without the yes or no that it begins with."""
    match = _LEAD.match(text)
    return text[match.end() :] if match else text


def denies(text: str, language: str) -> bool:
    """Return whether a statement denies: by its first word, or by a word such as "not", "without", "forbidden"."""
    if pattern := _DENIAL.get(language):
        return bool(pattern.search(text))
    return polarity(text) == "no" or denies_by_word(text)


def denies_by_word(text: str) -> bool:
    """Return whether an English statement denies by words that negate nothing else: "closed", "too late", "day off"."""
    return _ENGLISH_DENIAL.search(text) is not None


def denying_words(text: str) -> list[str]:
    """Return the words by which :func:`denies_by_word` finds a denial, in lower case."""
    return [match.group().lower() for match in _ENGLISH_DENIAL.finditer(text)]


@lru_cache(maxsize=2048)
def bounds_of(text: str) -> frozenset[tuple[str, bool]]:
    """Return (number, is an upper bound), as :func:`rag.quantities.bounds` does."""
    return bounds(text.translate(_FULL_WIDTH))


def _english_months(text: str) -> str:
    return _FOREIGN_DATE.sub(lambda m: f"{m['day']} {_MONTH[m['month'].lower()]} ", text)


def _same_word(a: str, b: str) -> bool:
    if a == b:
        return True
    shorter, longer = sorted((len(a), len(b)))
    if shorter < 4 or longer - shorter > 2:
        return False
    common = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), shorter)
    # Short words must be a beginning of one another: "thing" and "think" are two words.
    return common == shorter or (shorter >= 6 and common >= longer - 1)
