"""The refusals of a plan, taken from examples that surely refuse: :func:`refusals_of_examples`.

A plan's refusals are learnt: a hybrid is trained to give them where it is shown no passage that answers. A reply is never
taken for one by its words alone, since one mistaken row would teach an ordinary reply ("We are open from 9 to 5") as the
answer to every question without one. It needs a mark in the row (``refusal: true``, ``answerable: false``), or the same
wording in several rows that name no gold. Anything else is the user's to write under ``prompts.refusals``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advisor.drafting.form_checks import fixed_sentences, styled_refusals
from rag.text.words import content_words, sentences
from runners.data.examples import Example, normalise_text
from runners.data.refusals import is_refusal

PLAIN_REFUSALS = {
    "de": "Das konnte ich in unseren Unterlagen nicht finden.",
    "es": "No lo he encontrado en nuestros documentos.",
    "fr": "Je n'ai pas trouvé cela dans nos documents.",
    "it": "Non l'ho trovato nei nostri documenti.",
    "nl": "Dat kon ik niet vinden in onze documenten.",
    "pt": "Não encontrei isso nos nossos documentos.",
}
"""The refusal of a plan whose examples hold none, by the ISO 639-1 code of their language; English for others."""
MAX_REFUSALS = 8
"""Number of refusing replies that are taken over into the prompts."""
MIN_ALIKE = 3
"""Unmarked rows, each with another question, that must refuse in nearly the same words."""
MIN_SIMILARITY = 0.8
"""Jaccard similarity of content words from which two refusals are nearly the same."""
ROWS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ExampleRefusals:
    """The refusals that a plan is given, and where they come from."""

    texts: tuple[str, ...]
    rows: tuple[Example, ...]
    """The rows that they were taken from, and others that refuse in the same words; () for the default."""
    note: str
    """How many replies were seen to refuse, and which were taken; "" when there were none."""


def refusals_of_examples(rows: Sequence[Example], language: str | None = None) -> ExampleRefusals:
    """Return the refusals of a plan: those of its examples (no raw texts), else the default in their style and language.

    Args:
        rows: the examples.
        language: ISO 639-1 code of their language, None where it is not known.
    """
    replies = [row.reply for row in rows]
    formulas = fixed_sentences(replies)
    marked = [row for row in rows if row.marked_refusal]
    unmarked = [
        row
        for row in rows
        if row.marked_refusal is None and not row.names_gold and is_refusal(row.reply, (), formulas)
    ]
    groups = [group for group in _groups_of_alike(unmarked, formulas) if _are_enough(group)]
    alike = [row for group in groups for row in group]
    left = [row for row in unmarked if row not in alike]
    taken = tuple(dict.fromkeys(row.reply.strip() for row in (*marked, *alike)))[:MAX_REFUSALS]
    note = _note(len(rows), len(marked), alike, left, taken)
    plain = PLAIN_REFUSALS.get(language or "", "")
    return ExampleRefusals(taken or styled_refusals(replies, plain), (*marked, *alike), note)


def _groups_of_alike(rows: Sequence[Example], formulas: Sequence[str]) -> list[list[Example]]:
    """Group rows whose replies have nearly the same content words, without formulas and questions."""
    groups: list[tuple[set[str], list[Example]]] = []
    for row in rows:
        words = _statement_words(row.reply, formulas)
        for first, group in groups:
            if len(first & words) >= MIN_SIMILARITY * len(first | words):
                group.append(row)
                break
        else:
            groups.append((words, [row]))
    return [group for _, group in groups]


def _statement_words(reply: str, formulas: Sequence[str]) -> set[str]:
    """Return the content words of a reply's statements; its words where it has no content words ("I don't know")."""
    stated = " ".join(text for text in sentences(reply) if text not in formulas and not text.endswith("?"))
    return set(content_words(stated)) or set(normalise_text(stated).split())


def _are_enough(group: Sequence[Example]) -> bool:
    """Whether a group has enough different questions."""
    return len({normalise_text(row.question) for row in group}) >= MIN_ALIKE


def _note(
    total: int, marked: int, alike: Sequence[Example], left: Sequence[Example], taken: Sequence[str]
) -> str:
    """Return how many replies refuse and what was taken, in a sentence or two; "" when none does."""
    if not (marked or alike or left):
        return ""
    parts = []
    if marked:
        parts.append(f"{marked:,} of {total:,} replies are marked as refusals")
    if alike:
        parts.append(f"{len(alike):,} unmarked ones refuse in the same words as {MIN_ALIKE} or more others")
    text = "refusals: " + "; ".join(parts)
    if taken:
        text += f"; {len(taken):,} wording{'s' * (len(taken) > 1)} taken into prompts.refusals"
    if left:
        places = ", ".join(row.place for row in left[:ROWS_SHOWN]) + ", ..." * (len(left) > ROWS_SHOWN)
        rest = (
            f"{len(left):,} of {total:,} replies read like refusals but are not taken as yours ({places}): "
            "mark them with refusal: true, or write your wording under prompts.refusals"
        )
        text = f"{text}; {rest}" if parts else f"refusals: {rest}"
    return text
