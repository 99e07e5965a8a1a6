"""Whether an answer names who or what a fact names: also by the last name, and no one else in its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from runners.scoring.statements import LEADING_ARTICLES, content_tokens, shared_tokens

MAX_NAME_WORDS = 4
_TITLES = "Mr Mrs Ms Miss Dr Doctor Prof Professor Sir Madam Judge Herr Frau Señor Señora Monsieur Madame"
TITLES = frozenset(_TITLES.split())


def is_name(text: str) -> bool:
    """Return whether a text is a name of a few words: "Maria Lindqvist", "Mill Lane"."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)
    return 0 < len(words) <= MAX_NAME_WORDS and all(word[0].isupper() for word in words)


def is_label(text: str) -> bool:
    """Return whether a text is a name with a number: "Kellmann 118", "Line 4"."""
    words = re.findall(r"[^\W_]+", text)
    named = [word for word in words if not word.isdigit() and word.lower() not in LEADING_ARTICLES]
    return any(word.isdigit() for word in words) and is_name(" ".join(named))


def has_last_name(text: str, name: str) -> bool:
    """Return whether a text has the last word of a name, capitalised as there."""
    last = name.split()[-1].strip(".")
    return last[0].isupper() and re.search(rf"\b{re.escape(last)}\b", text) is not None


def replaces_name(text: str, hits: Collection[str], known: Collection[str], language: str) -> bool:
    """Return whether a foreign name stands beside a word of the fact: "San Francisco Airport" for "San Diego Airport".

    Args:
        text: the text.
        hits: the content words of the fact that it has.
        known: the content words of fact, references and question.
        language: of the words.
    """
    words = [
        word
        for word in re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text)
        if word.lower() not in LEADING_ARTICLES and word not in TITLES
    ]
    token_of = [next(iter(content_tokens(word, language)), "") for word in words]
    for at in range(len(words) - 1):
        pair = (token_of[at], token_of[at + 1])
        if not all(pair) or not (words[at][0].isupper() and words[at + 1][0].isupper()):
            continue
        hit, other = pair if pair[0] in hits else pair[::-1]
        if hit in hits and other not in hits and not shared_tokens([other], known):
            return True
    return False


def names_another(
    wanted: Collection[str],
    known: Collection[str],
    asked: Collection[str],
    sentences: Sequence[str],
    language: str,
) -> bool:
    """Return whether the sentence nearest to the question has another name: "For claims, ask Mr Brandt. Mr Okafor ...".

    Args:
        wanted: the content words of the name.
        known: those of fact, references and question.
        asked: those of the question.
        sentences: those of the answer.
        language: of the words.
    """
    near: dict[bool, int] = {}
    for sentence in sentences:
        tokens = content_tokens(sentence, language)
        stated = bool(shared_tokens(wanted, tokens))
        names = re.findall(r"(?<=\w[ ,])\s*([A-Z][^\W\d_]+)", sentence)
        foreign = [name for name in names if not shared_tokens(content_tokens(name, language), known)]
        if stated or any(name not in TITLES for name in foreign):
            near[stated] = max(near.get(stated, 0), len(shared_tokens(asked, tokens)))
    # With none of the asked words beside the name, one beside another name is enough.
    return True in near and near.get(False, 0) > near[True] + bool(near[True])
