"""Near duplicates: exact results on hand-written cases, and equality with the plain definition on random ones."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.data.duplicates import (
    MIN_NGRAMS,
    MIN_SIMILARITY,
    count_distinct_texts,
    near_duplicate_groups,
)
from runners.data.examples import normalise_text

LONG = "the harbour office opens at seven in summer and at nine in winter and sells tickets for every ferry"


def plain(texts: list[str]) -> list[list[int]]:
    """The definition, word for word: every text against every text that stands for a group."""
    words = [normalise_text(text).split() for text in texts]
    sets = [{tuple(w[i : i + 3]) for i in range(max(1, len(w) - 2))} for w in words]
    different = {frozenset(s) for s in sets}
    frame = {
        shingle
        for shingle in set().union(*sets)
        if len(different) >= MIN_NGRAMS and sum(shingle in s for s in different) > len(different) / 2
    }
    sets = [s - frame for s in sets]
    found: dict[int, list[int]] = {}
    for place in sorted(range(len(sets)), key=lambda at: (len(sets[at]), at)):
        alike = (
            lead
            for lead in found
            if sets[lead] == sets[place]
            or 10 * len(sets[lead] & sets[place]) >= 10 * MIN_SIMILARITY * len(sets[lead] | sets[place])
        )
        found.setdefault(next(alike, place), []).append(place)
    return sorted(sorted(group) for group in found.values())


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ([], 0),
        ([""], 1),
        (["", "!"], 1),
        (["Yes.", "yes", "no"], 2),
        ([LONG, LONG.upper() + "!"], 1),
        ([LONG + " " + LONG, LONG + " " + LONG.replace("ferry", "boat")], 1),
        ([LONG, LONG.replace("seven", "eight")], 2),
        ([LONG, "a text about something else entirely, with nothing in common"], 2),
    ],
)
def test_count_distinct_texts(texts: list[str], count: int) -> None:
    """Case and punctuation never matter, one word does in a short text and does not in a long one."""
    assert count_distinct_texts(texts) == count


def test_groups_are_in_order_of_texts() -> None:
    """Members and groups come in file order, and repeats need not be neighbours."""
    texts = ["alpha beta gamma delta", LONG, "alpha beta gamma delta!", "one two three four", LONG + "."]
    assert near_duplicate_groups(texts) == [[0, 2], [1, 4], [3]]


def test_only_texts_of_one_kind_are_compared() -> None:
    """The same question with another label is another example."""
    assert (
        count_distinct_texts(
            ["where is my card", "where is my card", "where is my card"], ["lost", "late", "late"]
        )
        == 2
    )


def test_shared_template_makes_no_duplicates() -> None:
    """Long instructions in every row, and a short input that differs: all different, repeats of an input not."""
    frame = "Classify the message below. " + LONG + " " + LONG + " Message: "
    texts = [f"{frame} the parcel {word} has not come yet" for word in "abcdefghijklmnopqrst"]
    assert count_distinct_texts(texts) == 20
    assert count_distinct_texts([*texts, texts[3], texts[7] + "!"]) == 20


def test_repeated_file_counts_each_row_once() -> None:
    """5,000 rows of which 80 % are repeats count as 1,000."""
    rng = random.Random(5)
    rows = [" ".join(rng.choices(LONG.split(), k=12)) + f" number {n}" for n in range(1000)]
    many = rows * 5
    rng.shuffle(many)
    assert count_distinct_texts(many) == 1000


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=14).map(" ".join), max_size=24))
def test_groups_equal_definition(texts: list[str]) -> None:
    """Few words, so that sets are close to the threshold; exact, whatever the order of comparison."""
    assert near_duplicate_groups(texts) == plain(texts)


def test_groups_equal_definition_on_edited_texts() -> None:
    """Longer texts with up to three changed words, where a wrong prefix would lose pairs."""
    rng = random.Random(3)
    words = [f"w{number}" for number in range(25)]
    for _ in range(60):
        texts: list[str] = []
        for _ in range(30):
            base = (
                rng.choice(texts).split()
                if texts and rng.random() < 0.6
                else rng.choices(words, k=rng.randint(0, 45))
            )
            for _ in range(rng.randint(0, 3) if base else 0):
                base[rng.randrange(len(base))] = rng.choice(words)
            texts.append(" ".join(base))
        assert near_duplicate_groups(texts) == plain(texts)


def test_ten_thousand_rows_are_grouped_within_seconds() -> None:
    """2.5 s on two busy cores when measured; the bound catches comparing all with all."""
    rng = random.Random(1)
    words = [f"v{number}" for number in range(3000)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(8000)]
    texts += [text + " indeed" for text in texts[:2000]]
    started = time.perf_counter()
    assert count_distinct_texts(texts) == 8000
    assert time.perf_counter() - started < 10
