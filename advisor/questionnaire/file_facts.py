"""Count what decides between methods and no question asks: labels, the language, prompts that hold their passages.

:func:`count_facts` is the entry point; what cannot be told stays None. A few hundred rows, spread evenly over the files, are
looked at, which takes milliseconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.row_sorting import share_stating_facts
from rag.embedding.language import LANGUAGES, detect_language
from rag.files import parse_json
from rag.text.words import content_words
from runners.data.examples import Example
from runners.data.labels import labels_of
from runners.data.questions import Question

SAMPLED_ROWS = 300
"""Rows looked at for the language and for passages, spread evenly."""
SAMPLED_CHARS = 20_000
"""Characters of a prompt or reply looked at; a longer prompt is cut there."""
LANGUAGE_CHARS = 400
"""Characters of a text from which its language is told."""
MIN_DETECTED = 0.2
"""Share of texts whose language must be clear; code and single words have none."""
MIN_AGREEING = 0.6
"""Share of the clear texts that must be in the same language."""
MIN_COUNTED = 5
"""Prompts with something to look for, from which their share is given."""
MIN_HELD = 0.8
"""Share of a reply's content words that a prompt must hold to count as holding its passage."""
MIN_PROMPT_WORDS = 25
"""Words of the shortest prompt that can hold a passage: a sentence or two and the question."""
TIMES_LONGER = 2.0
"""How many times longer than its reply a prompt must be: a rewriting, which is as long, has no passage to pick from."""
COMMON_WORD = 0.2
"""Share of replies above which a word belongs to their form, not to what they say."""
LABEL_WORDS = 6
"""Words of the longest reply that counts as a label where labels were named as the output."""

_LANGUAGE_CODES: dict[str, str] = {
    "English": "en",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
    "Italian": "it",
    "Portuguese": "pt",
    "Dutch": "nl",
    "Swedish": "sv",
    "Polish": "pl",
    "Czech": "cs",
    "Turkish": "tr",
    "Finnish": "fi",
    "Hungarian": "hu",
    "Romanian": "ro",
    "Indonesian or Malay": "id",
    "Vietnamese": "vi",
    "Greek": "el",
    "Hebrew": "he",
    "Bengali": "bn",
    "Tamil": "ta",
    "Thai": "th",
    "Georgian": "ka",
    "Armenian": "hy",
    "Korean": "ko",
    "Japanese": "ja",
    "Chinese": "zh",
}
"""Code of each name of :func:`rag.embedding.language.detect_language` that means one language."""
_TOLD_APART: dict[str, tuple[tuple[str, str], ...]] = {
    "Danish or Norwegian": (
        ("no", r"\b(?:av|hva|etter|seg|mellom|gjennom|blev?t?)\b"),
        ("da", r"\b(?:af|hvad|efter|sig)\b"),
    ),
    "Cyrillic script": (
        ("uk", r"[\u0456\u0457\u0454\u0491]"),
        # na, sa, se, ot, shte, koeto, tova
        (
            "bg",
            r"\b(?:\u043d\u0430|\u0441\u0430|\u0441\u0435|\u043e\u0442|\u0449\u0435|\u043a\u043e\u0435\u0442\u043e|\u0442\u043e\u0432\u0430)\b",
        ),
        ("ru", r"[\u044b\u044d\u0451]"),
    ),
    "Arabic script": (
        ("fa", r"[\u067e\u0686\u0698\u06af]"),
        ("ur", r"[\u0679\u0688\u0691\u06d2]"),
        ("ar", r"[\u0629\u0649\u0623\u0625]"),
    ),
    "Devanagari script": (("hi", r"[\u0915-\u0939]"),),
}
"""Patterns of the languages that share a name there; the one with most matches is meant."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """What is sent, what is answered, and the instructions."""

    prompt: str
    reply: str
    system: str = ""


def count_facts(
    examples: Sequence[Example],
    questions: Sequence[Question],
    documents: Sequence[str] | None = None,
    output_format: str | None = None,
    scale: float = 1.0,
) -> DataFacts:
    """Count the facts that the rows show.

    Args:
        examples: the training rows; raw texts only have a language.
        questions: the held-out questions; they stand in where there are no examples.
        documents: texts of documents, for their language, and that of the task where there are neither; None where none are
            named.
        output_format: the answer to the question of that name, where a person gave it.
        scale: how many times more rows there are than were read.
    """
    chats = [_example_exchange(row) for row in _spread(examples) if not row.raw]
    asked = [_question_exchange(row) for row in _spread(questions)]
    raw = [row.reply for row in _spread(examples) if row.raw]
    replies = [row.reply.strip() for row in examples if not row.raw]
    labels = _labels(replies, output_format)
    language = _language_of_exchanges(chats, bool(labels)) or language_of(raw)
    of_documents = language_of(_spread(documents or ()))
    language = language or _language_of_exchanges(asked, bool(labels)) or of_documents
    # A prompt that holds its passage in training but not when it is asked needs retrieval all the same.
    shares = [] if labels else [held_share(rows, language) for rows in (chats, asked)]
    looked_up = documents is None and not labels
    return DataFacts(
        label_count=len(labels) or None,
        rows_per_label=round(scale * median(labels.values()), 1) if labels else None,
        largest_label_share=round(max(labels.values()) / labels.total(), 4) if labels else None,
        language=language or None,
        passages_in_prompts=min((share for share in shares if share is not None), default=None),
        facts_in_replies=share_stating_facts(_spread(examples)) if looked_up else None,
        documents_language=of_documents or None,
        repeated_replies=None if labels else _repeated_share(replies),
    )


def _repeated_share(replies: Sequence[str]) -> float | None:
    """Return the share of replies that are given more than once; None for fewer than :data:`MIN_COUNTED`."""
    if len(replies) < MIN_COUNTED:
        return None
    times = Counter(replies)
    return round(sum(times[reply] > 1 for reply in replies) / len(replies), 4)


def language_of(texts: Sequence[str]) -> str:
    """Return the ISO 639-1 code of the language of texts, "" where it is not clear or they are in several.

    Detected text by text by script, and by py3langid for Latin letters (:func:`rag.embedding.language.detect_language`).
    """
    names = Counter(name for text in texts if (name := detect_language(text[:LANGUAGE_CHARS])))
    if not names or names.total() < MIN_DETECTED * len(texts):
        return ""
    name, count = names.most_common(1)[0]
    if count < MIN_AGREEING * names.total():
        return ""
    if name in _TOLD_APART:
        joined = "\n".join(text[:LANGUAGE_CHARS] for text in texts).lower()
        counts = [(len(re.findall(pattern, joined)), code) for code, pattern in _TOLD_APART[name]]
        most, code = max(counts)
        return code if most else ""
    return _LANGUAGE_CODES.get(name, "")


def held_share(exchanges: Sequence[_Exchange], language: str = "") -> float | None:
    """Return the share of prompts that already hold what their reply says; None where too few replies say anything.

    A prompt holds it that is clearly longer than the reply and holds nearly all of its content words. Words that many
    replies share are left out, as are instructions, unless they differ from row to row and so hold passages themselves.
    """
    if not exchanges:
        return None
    instructions = Counter(row.system for row in exchanges)
    varying = len(instructions) > 0.5 * len(exchanges)
    function_words = next(
        (known.function_words for known in LANGUAGES if _LANGUAGE_CODES.get(known.name) == language),
        frozenset(),
    )
    stated = [set(content_words(_values_text(row.reply))) - function_words for row in exchanges]
    used = Counter(word for words in stated for word in words)
    limit = COMMON_WORD * len(exchanges) if len(exchanges) >= MIN_COUNTED / COMMON_WORD else len(exchanges)
    counted = held = 0
    for row, words in zip(exchanges, stated, strict=True):
        words = {word for word in words if used[word] <= limit}
        if not words:
            continue
        counted += 1
        prompt = f"{row.system}\n{row.prompt}" if varying else row.prompt
        length = _length(prompt)
        if length < max(MIN_PROMPT_WORDS, TIMES_LONGER * _length(row.reply)):
            continue
        held += len(words & set(content_words(prompt))) >= MIN_HELD * len(words)
    return round(held / counted, 4) if counted >= MIN_COUNTED else None


def _labels(replies: Sequence[str], output_format: str | None) -> Counter[str]:
    """Return how often each label is given; empty where the replies are no labels, or a person says they are something else.

    Version numbers or dates look like labels; where a person called the output labels, each may be rarer than
    :func:`runners.data.labels.labels_of` asks.
    """
    counts = Counter(replies)
    if output_format == "labels":
        short = all(len(label.split()) <= LABEL_WORDS for label in counts)
        return counts if short and len(counts) >= 2 else Counter()
    return counts if output_format is None and labels_of(replies) else Counter()


def _language_of_exchanges(exchanges: Sequence[_Exchange], labels: bool) -> str:
    """Return the language of replies or prompts: where they differ, the one that is not English.

    A model that writes or reads both languages has to know the rarer one; every model knows English.
    """
    written = "" if labels else language_of([row.reply for row in exchanges])
    read = language_of([row.prompt for row in exchanges]) or language_of(
        [f"{row.prompt}\n{row.reply}" for row in exchanges]
    )
    return (read if written == "en" else written) or read or written


def _spread(rows: Sequence[Any]) -> list[Any]:
    """Return at most :data:`SAMPLED_ROWS` rows, spread evenly."""
    step = max(1, -(-len(rows) // SAMPLED_ROWS))
    return list(rows[::step])


def _example_exchange(row: Example) -> _Exchange:
    before = [turn["content"] for turn in row.messages[:-1] if turn["role"] != "system"]
    return _Exchange("\n".join(before)[-SAMPLED_CHARS:], row.reply[:SAMPLED_CHARS], row.system)


def _question_exchange(row: Question) -> _Exchange:
    before = "\n".join([*(turn["content"] for turn in row.history), row.question])
    reply = next(iter(row.short_answers), None) or row.reference or ""
    return _Exchange(before[-SAMPLED_CHARS:], reply[:SAMPLED_CHARS], row.system or "")


def _length(text: str) -> int:
    """Return the number of words; letters of scripts that leave no blanks count for half a word each."""
    return len(text.split()) + len(re.findall(r"[\u3040-\u30ff\u4e00-\u9fff\u0e00-\u0e7f]", text)) // 2


def _values_text(reply: str) -> str:
    """Return the values of a JSON reply, without its keys; another reply as it is."""
    try:
        loaded = parse_json(reply)
    except ValueError:
        return reply
    return " ".join(_leaves(loaded)) if isinstance(loaded, dict | list) else reply


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif value is not None:
        yield str(value)
