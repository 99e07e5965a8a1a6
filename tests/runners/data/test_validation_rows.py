"""Validation rows: whole groups drawn by the seed, independent of row order; and replay rows."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.data import duplicates, sampling
from runners.data.examples import Example
from runners.data.sampling import hold_out, related_row_groups

WORDS = (
    "amber",
    "birch",
    "copper",
    "dunlin",
    "elder",
    "falcon",
    "garnet",
    "heron",
    "indigo",
    "juniper",
    "kelp",
    "lantern",
)


def row(words: str, doc: str | None = None, reply: str = "Yes.", line: int = 0) -> Example:
    """A question and its answer."""
    turns = ({"role": "user", "content": words}, {"role": "assistant", "content": reply})
    return Example(turns, {} if doc is None else {"doc_id": doc}, line)


sentences = st.lists(st.sampled_from(WORDS), min_size=3, max_size=14).map(" ".join)
some_rows = st.lists(
    st.builds(row, sentences, st.sampled_from([None, "a", "b", "c", "d"]), st.sampled_from(["Yes.", "No."])),
    min_size=2,
    max_size=24,
)


@settings(max_examples=150)
@given(rows=some_rows, share=st.floats(0.05, 0.6), seed=st.integers(0, 9), data=st.data())
def test_related_rows_are_on_one_side(
    rows: list[Example], share: float, seed: int, data: st.DataObject
) -> None:
    if len(related_row_groups(rows)) == 1:
        with pytest.raises(BadInput, match="are linked to each other"):
            hold_out(rows, share, seed)
        return
    train, valid = hold_out(rows, share, seed)
    assert train
    assert valid
    assert sorted(map(id, (*train, *valid))) == sorted(map(id, rows))
    assert not {r.meta.get("doc_id") for r in train} & {r.meta.get("doc_id") for r in valid} - {None}
    texts, held = [f"{r.question}\n{r.reply}" for r in rows], {id(r) for r in valid}
    for place, others in enumerate(duplicates.near_duplicate_matches(texts, texts)):
        assert {id(rows[other]) in held for other in others} <= {id(rows[place]) in held}
    largest = max(map(len, related_row_groups(rows)))
    assert abs(len(valid) - share * len(rows)) <= largest
    shuffled = data.draw(st.permutations(rows))
    again = hold_out(shuffled, share, seed)
    assert sorted(map(repr, again[1])) == sorted(map(repr, valid))


@pytest.mark.parametrize(("groups", "share"), [((1, 4), 0.6), ((1, 1), 0.9), ((2, 1, 6), 0.75)])
def test_rows_to_train_on_are_always_left(groups: tuple[int, ...], share: float) -> None:
    """The last group was held out too where half of it was within the target: one row and four, .6, no row to train on."""
    rows = [
        row(" ".join(WORDS[n::3]), doc=str(n), line=i) for n, size in enumerate(groups) for i in range(size)
    ]
    for seed in range(6):
        train, valid = hold_out(rows, share, seed)
        assert train
        assert valid
        assert abs(len(valid) - share * len(rows)) <= max(groups)


def test_chain_of_near_repeats_is_one_group() -> None:
    long = " ".join(f"word{n}" for n in range(60))
    chain = [row(long.replace("word10 ", "x ")), row(long), row(long.replace("word40 ", "y "))]
    others = [row(f"{a} {b} {a} {b}") for a, b in product(WORDS[:5], WORDS[5:9])]
    assert [0, 1, 2] in related_row_groups([*chain, *others])


def test_same_question_is_on_one_side_unless_it_is_the_task() -> None:
    asked = [
        row("When do you open on Sundays?", reply=f"At {w} {v}.") for w, v in product(WORDS[:2], WORDS[:2])
    ]
    others = [row(" ".join(WORDS[n:]), reply=f"Reply {n}.") for n in range(9)]
    assert [0, 1, 2, 3] in related_row_groups([*asked, *others])
    task = [row("Summarise this.", reply=f"{w} {v} {w} {w} {v}.") for w, v in product(WORDS[:4], WORDS[:4])]
    assert len(related_row_groups(task)) == 16


def test_hold_out_depends_on_share_and_seed() -> None:
    rows = [row(f"{a} {b} {c}") for a, b, c in product(WORDS[:5], WORDS[5:9], WORDS[9:])]
    assert hold_out(rows, 0.0, 0) == (tuple(rows), ())
    assert hold_out([], 0.1, 0) == ((), ())
    assert [len(half) for half in hold_out(rows, 0.1, 0)] == [54, 6]
    assert hold_out(rows, 0.1, 0) != hold_out(rows, 0.1, 1)
    with pytest.raises(BadInput, match=r"below 1, found 1\.0"):
        hold_out(rows, 1.0, 0)
    with pytest.raises(BadInput, match="all are linked to each other"):
        hold_out([row(r.question, "one") for r in rows], 0.1, 0)


@settings(max_examples=100)
@given(n=st.integers(1, 40), share=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_replay_rows_make_up_their_share(n: int, share: float, seed: int) -> None:
    rows, general = (
        [row(f"own {i}", line=i) for i in range(n)],
        [row(f"general {i}", line=i) for i in range(60)],
    )
    mixed = sampling.mix_replay_rows(rows, general, share, seed)
    assert mixed[:n] == tuple(rows)
    assert sampling.count_replay_rows(mixed) == len(mixed) - n == round(n * share / (1 - share))
    assert mixed == sampling.mix_replay_rows(rows, general[::-1], share, seed)
    assert len({r.question for r in mixed}) == len(mixed)


def test_too_few_replay_rows_are_refused_with_possible_share() -> None:
    with pytest.raises(
        BadInput, match=r"100 replay rows are needed .* there are 25 .*lower the share to 0\.2"
    ):
        sampling.mix_replay_rows([row("own")] * 100, [row(f"g {i}") for i in range(25)], 0.5, 0)
    assert sampling.mix_replay_rows([row("own")] * 100, [row(f"g {i}") for i in range(25)], 0.2, 0)
