"""The form of a made row: one question in the right language that can be read without its passage, and a reply to it."""

from __future__ import annotations

import re

from rag.embedding.language import LANGUAGES, detect_language
from rag.errors import BadInput
from rag.grounding.fields import structured_fields
from rag.sentences.statements import states_fact
from runners.data.examples import normalise_text
from runners.data.refusals import is_refusal
from runners.synthesis.passage_reading import CODE_MARK

MIN_QUESTION_WORDS, MAX_QUESTION_WORDS = 2, 60
"""Words of a question: fewer ask nothing by themselves, more are a text and not a question."""
MAX_REPLY_WORDS = 220
"""Words of a reply: more than a passage of usual length holds."""
LANGUAGE_CODES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "sv": "Swedish",
    "da": "Danish or Norwegian",
    "no": "Danish or Norwegian",
    "pl": "Polish",
    "cs": "Czech",
    "tr": "Turkish",
    "fi": "Finnish",
    "hu": "Hungarian",
    "ro": "Romanian",
    "id": "Indonesian or Malay",
    "ms": "Indonesian or Malay",
    "vi": "Vietnamese",
    "ru": "Cyrillic script",
    "uk": "Cyrillic script",
    "el": "Greek",
    "ar": "Arabic script",
    "he": "Hebrew",
    "hi": "Devanagari script",
    "th": "Thai",
    "ko": "Korean",
    "ja": "Japanese",
    "zh": "Chinese",
}
"""ISO 639-1 codes and the names that :func:`rag.embedding.language.detect_language` gives."""
_SOURCE = (
    r"passage|text|paragraph|excerpt|snippet|extract|abschnitt|textstelle|auszug|pasaje|texto|párrafo|fragmento|extrait"
    r"|texte|paragraphe|brano|testo"
)
_ARTICLE = r"the|this|that|dem|der|den|diesem|dieser|im|el|este|del|le|la|ce|cet|il|questo"
_GIVEN = r"above|given|following|provided|short|same|obigen|folgenden"
_OTHER_SOURCE = (
    r"document|article|author|information (?:above|given|provided)|context|source"
    r"|dokument|artikel|autor|documento|artículo"
)
_TEXT_OF_SOFTWARE = r"message|file|field|box|editor|color|colour|size|align|book|mode"
_ABOUT_PASSAGE = re.compile(
    rf"\b(?:{_ARTICLE}|{_GIVEN})\s+(?:(?:{_GIVEN}) )?(?:{_SOURCE})\b(?! (?:{_TEXT_OF_SOFTWARE}))"
    r"|\b(?:according to|based on|as (?:stated|described|mentioned|noted|given) (?:in|by)|mentioned in|described in"
    rf"|laut|gemäß|según|selon|d'après|secondo)\s+(?:(?:{_ARTICLE}) )?(?:(?:{_GIVEN}) )?(?:{_SOURCE}|{_OTHER_SOURCE})\b"
    r"|\b(?:mentioned|described|stated|listed|given|shown|quoted) (?:above|below|here)\b|\bthe above\b|\bpassage \[?\d",
    re.I,
)
"""A text that speaks of the passage, which no reader will see."""
_WH = (
    r"what|when|where|who|whom|whose|why|how|which|was|wann|wo|wer|wem|warum|wieso|wie|welche[rsnm]?|wieviel|qué|cuándo|dónde"
    r"|quién(?:es)?|cómo|cuánt[oa]s?|cuál(?:es)?|quand|où|qui|comment|pourquoi|combien|quel(?:le)?s?|cosa|quando|dove|chi|come|perché|quanto"
)
_DOUBLE = re.compile(
    rf"\b(?:and|or|also|plus|as well as|und|oder|sowie|y|o|et|ou|e)\b,? (?:also |if so,? |auch |también |aussi )?"
    rf"(?:(?:in|at|for|by|to|from|on) )?(?:{_WH})\b(?! (?:and|or|und|y|et)\b)[^?]+"
    r"|(?:,|\band\b|\bor\b)\s+(?:is|are|do|does|did|can|could|will|would|should|has|have|was|were) "
    r"(?:it|they|there|the|you|i|we|he|she|this|that|these|a|an|my|your)\b",
    re.I,
)
"""A second question in one sentence."""
_ASKS = re.compile(
    rf"\b(?:{_WH}|is|are|do|does|did|can|could|will|would|should|has|have|may|am|which|name|list|tell|explain|describe|kann|ist|sind"
    r"|gibt|hat|darf|muss|es|hay|puedo|puede|est|a-t-il|peut)\b",
    re.I,
)
_ASKS_INSIDE = re.compile(rf"\b(?:{_WH})\b", re.I)
"""A word that asks, anywhere: "the ferry leaves from which pier", as people type it."""
_CONTROL_MARKS = re.compile(
    r"<\|[^|>]{1,40}\|>|</?(?:s|bos|eos|start_of_turn|end_of_turn|system|user|assistant)>|\[/?INST\]|^\s*(?:QUESTION|REPLY|ANSWER)\s*:",
    re.I | re.M,
)
"""Marks of chat templates, and the labels that a teacher's text is read by."""
_CODE_SPAN = re.compile(r"```.*?```|`[^`]*`|https?://\S+", re.S)
_MIN_PROSE_VALUE = 4
"""Words of a value of a structured reply from which its language can be told."""
_MAX_QUERY_WORDS = 12
_PLACEHOLDER = re.compile(
    r"\[(?:your|insert|name|topic|question|answer|reply)[^\]]*\]|\bas an ai\b|\blorem ipsum\b", re.I
)


def language_name(given: str) -> str:
    """Return the name of a language given as a code or a name; BadInput for an unknown one."""
    plain = given.strip().lower()
    if plain in LANGUAGE_CODES:
        return LANGUAGE_CODES[plain]
    for name in (*(known.name for known in LANGUAGES), *LANGUAGE_CODES.values()):
        if plain == name.lower() or plain in name.lower().split(" or "):
            return name
    raise BadInput(f"--language {given!r} is not known", f"give a code: {', '.join(sorted(LANGUAGE_CODES))}")


def form_fault(question: str, reply: str | None, language: str = "") -> str:
    """Return what is wrong with the form of a row, "" where nothing is.

    Args:
        question: the question.
        reply: the reply; None for a row without one.
        language: name of the language that both must be in, as ``detect_language`` gives it; "" for any.
    """
    return question_fault(question, language) or (
        "" if reply is None else reply_fault(question, reply, language)
    )


def question_fault(question: str, language: str = "") -> str:
    """Return what is wrong with the form of a question, "" where nothing is."""
    text = question.strip()
    count = len(text.split())
    if _CONTROL_MARKS.search(text) or _PLACEHOLDER.search(text):
        return "the question contains marks of a prompt"
    if count < MIN_QUESTION_WORDS and not re.search(r"[\u3040-\u9fff\u0e00-\u0eff]{4}", text):
        return "the question is too short to be understood"
    if count > MAX_QUESTION_WORDS:
        return f"the question has {count} words"
    marks = re.findall(r"[?？؟]+(?=\s|$|[\"'”’)\]])", text)
    if len(marks) > 1:
        return "two questions in one"
    asks_inside = not text.endswith((".", "!")) and _ASKS_INSIDE.search(text) is not None
    asks = _begins_asking(text) or asks_inside or _is_search_query(text)
    if not marks and (states_fact(text) or text.endswith(".")) and not asks:
        return "no question"
    last = re.split(r"(?<=[.!:])\s+", text)[-1]
    if (double := _DOUBLE.search(last)) and _ASKS.search(last[: double.start()]):
        return "two questions in one"
    if _ABOUT_PASSAGE.search(text):
        return "the question speaks of the passage"
    if _other_language(text, language):
        return f"the question is not in {language}"
    return ""


def reply_fault(question: str, reply: str, language: str = "") -> str:
    """Return what is wrong with the form of a reply, "" where nothing is."""
    text = reply.strip()
    if not text:
        return "the reply is empty"
    if _CONTROL_MARKS.search(text) or _PLACEHOLDER.search(text):
        return "the reply contains marks of a prompt"
    if len(text.split()) > MAX_REPLY_WORDS:
        return f"the reply has {len(text.split())} words"
    if normalise_text(text) == normalise_text(question):
        return "the reply repeats the question"
    if _ABOUT_PASSAGE.search(text):
        return "the reply speaks of the passage"
    if is_refusal(text, ()):
        return "the reply refuses"
    prose = _prose_of(text)
    if len(prose.split()) >= 4 and _other_language(prose, language):
        return f"the reply is not in {language}"
    return ""


def _prose_of(text: str) -> str:
    """Return a text without code and addresses, and a structured one without its short values, to tell its language."""
    plain = _CODE_SPAN.sub(" ", text)
    fields = structured_fields(text)
    if fields:
        values = [_CODE_SPAN.sub(" ", field.value) for field in fields]
        plain = " ".join(value for value in values if len(value.split()) >= _MIN_PROSE_VALUE)
    return " ".join(word for word in plain.split() if not CODE_MARK.search(word))


def _is_search_query(text: str) -> bool:
    """Return whether a text is typed as into a search box: a few words in small letters, without marks of a sentence."""
    return len(text.split()) <= _MAX_QUERY_WORDS and text[:1].islower() and re.search(r"[.!:;]", text) is None


def _begins_asking(text: str) -> bool:
    """Return whether a text without a question mark begins as a question or a request."""
    first = re.split(r"(?<=[.!:])\s+", text)[-1].split()[:1]
    return bool(first) and _ASKS.fullmatch(first[0].strip("¿,")) is not None


def _other_language(text: str, language: str) -> bool:
    """Return whether a text is clearly in another language than the wanted one."""
    if not language:
        return False
    if "¿" in text or "¡" in text:
        return language != "Spanish"
    seen = detect_language(text)
    return bool(seen) and seen != language
