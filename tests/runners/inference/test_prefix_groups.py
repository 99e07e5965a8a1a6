"""Prompts that share their beginnings: every row once, every segment shared, never more tokens than without."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runners.inference.kv_cache import common_prefix
from runners.inference.local import length_batches
from runners.inference.prefix_groups import MIN_GAIN, computed_tokens, prompt_batches, shared_segments

# Few kinds of tokens and copied beginnings, so that rows share prefixes of many lengths, nested and equal ones too.
rows = st.lists(
    st.lists(st.integers(0, 1), min_size=1, max_size=12).map(lambda row: [t for t in row for _ in range(4)]),
    min_size=1,
    max_size=9,
)


@given(rows, st.integers(1, 20))
def test_segments_of_each_row_are_its_tokens(prompts: list[list[int]], least: int) -> None:
    segments = shared_segments(prompts, least)
    for number, prompt in enumerate(prompts):
        own = [segment for segment in segments if number in segment.rows]
        assert [t for segment in own for t in prompt[segment.start : segment.end]] == prompt
        assert own[-1].rows == (number,)
        assert own[-1].tokens >= 1
        assert [s.start for s in own] == [0, *(s.end for s in own[:-1])]
    for segment in segments:
        first = prompts[segment.rows[0]]
        assert all(prompts[row][: segment.end] == first[: segment.end] for row in segment.rows)
        assert len(segment.rows) == 1 or segment.tokens >= least
    assert sum(s.tokens for s in segments) <= sum(map(len, prompts))


@given(rows, st.integers(1, 5), st.integers(40, 200))
def test_batches_have_every_prompt_once_within_limits(
    prompts: list[list[int]], most: int, tokens: int
) -> None:
    # Beginnings long enough to be worth another order.
    prompts = [[t for t in prompt for _ in range(MIN_GAIN // 8)] for prompt in prompts]
    lengths = [len(prompt) + 8 for prompt in prompts]
    common = common_prefix(prompts) if len(prompts) > 1 else 0
    batches = prompt_batches(prompts, lengths, most, tokens, common)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(prompts)))
    assert batches == prompt_batches(prompts, lengths, most, tokens, common)
    assert len(batches) <= 2 * len(length_batches(lengths, most, tokens))
    for batch in batches:
        assert len(batch.rows) == 1 or max(lengths[row] for row in batch.rows) * len(batch.rows) <= tokens
        assert len(batch.rows) <= most
        first = prompts[batch.rows[0]]
        assert all(prompts[row][: batch.prefix] == first[: batch.prefix] for row in batch.rows)
        assert common <= batch.prefix < min(len(prompts[row]) for row in batch.rows) or not common
    beginnings = {tuple(prompts[batch.rows[0]][: batch.prefix]) for batch in batches} - {()}
    # Prefixes longer than the common one begin with it, so that they are computed from there.
    computed = common + sum(len(prefix) - common for prefix in beginnings if len(prefix) > common)
    computed += sum(computed_tokens([prompts[n][b.prefix :] for n in b.rows]) for b in batches)
    assert computed <= common + sum(len(prompt) - common for prompt in prompts)


def test_prompts_of_one_document_are_together_and_its_passage_is_computed_once() -> None:
    draw = random.Random(0)
    system = [draw.randrange(1000) for _ in range(40)]
    passages = [[draw.randrange(1000) for _ in range(300)] for _ in range(10)]
    prompts = [system + passages[n % 10] + [draw.randrange(1000) for _ in range(20 + n)] for n in range(60)]
    lengths = [len(prompt) + 16 for prompt in prompts]
    batches = prompt_batches(prompts, lengths, 32, 20_000, 40)
    assert len(batches) == len(length_batches(lengths, 32, 20_000)) == 2
    computed = 40 + sum(computed_tokens([prompts[n][40:] for n in batch.rows]) for batch in batches)
    # One of the ten is divided between the two batches.
    assert computed == 40 + 11 * 300 + sum(20 + n for n in range(60))


def test_document_of_many_batches_has_its_own_prefix() -> None:
    draw = random.Random(0)
    documents = [[draw.randrange(1000) for _ in range(3000)] for _ in range(2)]
    prompts = [documents[n % 2] + [n, *range(20)] for n in range(18)]
    lengths = [len(prompt) + 16 for prompt in prompts]
    batches = prompt_batches(prompts, lengths, 32, 12_000, 0)
    assert [(len(batch.rows), batch.prefix) for batch in batches[:4]] == [(3, 3000)] * 4
    assert {row % 2 for batch in batches[:2] for row in batch.rows} == {0} or len(batches) > 4


def test_without_shared_beginnings_batches_are_those_of_length() -> None:
    draw = random.Random(1)
    prompts = [[draw.randrange(50) for _ in range(draw.randrange(1, 90))] for _ in range(80)]
    lengths = [len(prompt) + 10 for prompt in prompts]
    assert [list(b.rows) for b in prompt_batches(prompts, lengths, 8, 500, 0)] == length_batches(
        lengths, 8, 500
    )
