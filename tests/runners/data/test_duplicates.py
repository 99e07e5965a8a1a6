"""Near duplicates: exact results on hand-written cases, and equality with the plain definition on random ones."""

from __future__ import annotations

import json
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
    near_duplicate_matches,
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
    """2.3 s of processor time when measured; comparing all with all takes some minutes."""
    rng = random.Random(1)
    words = [f"v{number}" for number in range(3000)]
    texts = [" ".join(rng.choices(words, k=60)) for _ in range(8000)]
    texts += [text + " indeed" for text in texts[:2000]]
    started = time.thread_time()
    assert count_distinct_texts(texts) == 8000
    assert time.thread_time() - started < 25


PASSAGES = (
    "The mill was put up in 1807 by a guild of masons. It stood beside the bridge until a flood carried both away. Its bell "
    "is now in the town hall, and rings at noon. People may see it from April to October, and the sexton has the key",
    "A lighthouse on the northern cape burned whale oil for sixty years. Keepers rowed out every second day with bread. "
    "When the mast was struck by lightning the lens survived, and today school classes come to look at it on Thursdays",
    "Rope for the navy was twisted in a hall of four hundred metres. Children turned the wheels and got tokens for it that "
    "only one shop accepted. A fire in the tar kettle ended the trade, though the long roof was saved by its slates",
    "Grain came down the canal on barges drawn by oxen. The weighing house took one sack in thirty as its fee, which led to "
    "riots in hungry years. Only the stone scales remain, and even they were moved to a car park",
)
ASKED = (
    ("Who built it?", "A guild of masons."),
    ("Where is the bell now?", "In the town hall."),
    ("When can visitors see the bell?", "From April to October."),
    ("What carried the bridge away?", "A flood."),
    ("Who has the key?", "The sexton."),
)
SHAPES = {
    "labels": "Context: {passage}.\n\nQuestion: {question}",
    "one line": "Context: {passage} Question: {question}",
    "passage first": "{passage}.\n\n{question}",
    "question first": "{question}\n\n{passage}.",
}


def asked(shape: str, passage: str, question: str) -> str:
    if shape == "json":
        return json.dumps({"context": f"{passage}.", "question": question})
    return SHAPES[shape].format(passage=passage, question=question)


@pytest.mark.parametrize("shape", [*SHAPES, "json"])
def test_questions_on_one_passage_are_no_repeats(shape: str) -> None:
    rows = [(asked(shape, passage, q), reply) for passage in PASSAGES for q, reply in ASKED]
    texts = [f"{prompt}\n{reply}" for prompt, reply in rows]
    assert count_distinct_texts(texts, replies=[reply for _, reply in rows]) == len(rows)
    prompts = [prompt for prompt, _ in rows]
    assert not any(near_duplicate_matches(prompts[::2], prompts[1::2]))


@pytest.mark.parametrize("shape", [*SHAPES, "json"])
def test_true_repeats_on_one_passage_are_still_counted(shape: str) -> None:
    """The same question in other case, with another punctuation, in other words, or on a passage with a changed word."""
    first = PASSAGES[0]
    rows = [(asked(shape, passage, q), reply) for passage in PASSAGES for q, reply in ASKED]
    repeats = [
        (asked(shape, first, "who built IT??"), "a guild of masons"),
        (asked(shape, first, "Where is the bell at present?"), "In the town hall."),
        (asked(shape, first.replace("flood", "storm"), "Who has the key?"), "The sexton."),
    ]
    both = [*rows, *repeats]
    texts = [f"{prompt}\n{reply}" for prompt, reply in both]
    groups = near_duplicate_groups(texts, replies=[reply for _, reply in both])
    assert [group for group in groups if len(group) > 1] == [[0, 20], [1, 21], [4, 22]]
    prompts = [prompt for prompt, _ in rows]
    matches = near_duplicate_matches([repeats[0][0], repeats[2][0]], prompts)
    assert matches == [[0], [4]]


def test_long_texts_with_few_changes_are_repeats_wherever_they_changed() -> None:
    """Without a question, every change within the text is a small change."""
    text = " ".join(PASSAGES)
    changed = text.replace("sexton", "parson", 1)
    assert count_distinct_texts([text, changed]) == 1
    assert count_distinct_texts([text, f"{text} Thanks in advance."]) == 1


def test_reply_that_differs_makes_another_row() -> None:
    rows = [
        (f"{passage}.", f"{verb} the {name}: {reason}.")
        for passage in PASSAGES[:2]
        for verb, name, reason in (
            ("Rename", "model", "it is unclear"),
            ("Delete", "key", "nobody uses it any more"),
        )
    ]
    texts = [f"{prompt}\n{reply}" for prompt, reply in rows]
    assert count_distinct_texts(texts, replies=[reply for _, reply in rows]) == 4
