"""What makes labelled rows hard to learn from or to judge by: counted, a sentence each."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rag.text.words import count_noun
from runners.classification.text_features import MAX_WEIGHTS
from runners.data.examples import normalise_text

FEW_ROWS = 5
"""Rows under which a label is named: a third of fewer is hardly one row to be judged by."""
MANY_LABELS = 200
"""Labels from which on it is said how many n-grams are read: the number of weights is bounded."""
NAMES_SHOWN = 3
_SEPARATORS = re.compile(r"\s*(?:[,;|/+&\n]|\band\b|\bund\b)\s*")


def label_notes(
    rows: Sequence[tuple[str, str]], groups: Sequence[int], asked: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return what is to be said of labelled rows.

    Args:
        rows: (text, label) of each training row.
        groups: the group of near repeats of each, by number.
        asked: the labels of the test questions, one for each question.
    """
    return tuple(
        note
        for note in (
            _unknown_labels({label for _, label in rows}, list(asked)),
            _spellings_of_a_label({label for _, label in rows}),
            _several_labels_of_a_text(rows),
            _near_repeats(groups),
            _lists_of_labels([label for _, label in rows]),
            _many_labels(rows),
            _rare_labels(rows),
        )
        if note
    )


def _unknown_labels(known: set[str], asked: Sequence[str]) -> str:
    unknown = [label for label in asked if label not in known]
    if not unknown:
        return ""
    return (
        f"{len(unknown):,} of {count_noun(len(asked), 'test question')} have a label that no example has "
        f"({_names(sorted(set(unknown)))}): a classifier cannot give it"
    )


def _spellings_of_a_label(labels: set[str]) -> str:
    """Return which labels differ in nothing but case, spaces, underscores and a full stop, as slips make them."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        spellings[re.sub(r"[\s_]+", "", label).rstrip(".").casefold()].append(label)
    several = [own for own in spellings.values() if len(own) > 1]
    if not several:
        return ""
    return (
        f"{count_noun(len(several), 'label')} in several spellings (for example {_names(several[0])}): each is learnt as "
        "a label of its own"
    )


def _several_labels_of_a_text(rows: Sequence[tuple[str, str]]) -> str:
    labels: dict[str, set[str]] = defaultdict(set)
    for text, label in rows:
        labels[normalise_text(text)].add(label)
    several = [own for own in labels.values() if len(own) > 1]
    if not several:
        return ""
    text = count_noun(len(several), "text")
    return (
        f"{text} with two labels or more (for example {_names(sorted(several[0]))}): one at most can be right"
    )


def _near_repeats(groups: Sequence[int]) -> str:
    repeats = len(groups) - len(set(groups))
    if not repeats:
        return ""
    return f"{count_noun(repeats, 'example')} nearly repeat another: kept in one fold with it"


def _lists_of_labels(labels: Sequence[str]) -> str:
    known = set(labels)
    lists = [label for label in labels if len(parts := _parts(label)) > 1 and parts <= known]
    if not lists:
        return ""
    return (
        f"{count_noun(len(lists), 'reply', 'replies')} with several labels (for example {lists[0]!r}): each combination "
        "is learnt as a label of its own"
    )


def _parts(label: str) -> set[str]:
    """Return the labels that one reply lists, as JSON or by separators."""
    try:
        listed = json.loads(label)
    except ValueError:
        listed = None
    parts = listed if isinstance(listed, list) else _SEPARATORS.split(label)
    return {str(part).strip() for part in parts if str(part).strip()}


def _many_labels(rows: Sequence[tuple[str, str]]) -> str:
    labels = len({label for _, label in rows})
    if labels < MANY_LABELS:
        return ""
    return (
        f"{count_noun(labels, 'label')} for {count_noun(len(rows), 'row')}: TF-IDF reads the "
        f"{MAX_WEIGHTS // (2 * labels):,} most frequent n-grams of words and as many of characters"
    )


def _rare_labels(rows: Sequence[tuple[str, str]]) -> str:
    counts = Counter(label for _, label in rows)
    rare = sorted(label for label, count in counts.items() if count < FEW_ROWS)
    if not rare:
        return ""
    return f"{count_noun(len(rare), 'label')} with fewer rows than {FEW_ROWS} ({_names(rare)})"


def _names(labels: Sequence[str]) -> str:
    """Return the first labels, in quotes and shortened."""

    def shown() -> Iterator[str]:
        for label in labels[:NAMES_SHOWN]:
            yield repr(label if len(label) <= 30 else label[:29] + "…")

    return ", ".join(shown()) + (", ..." if len(labels) > NAMES_SHOWN else "")
