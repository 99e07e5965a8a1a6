"""The parts of decoding that need no model: text streams, prompt lookup, prefix cache, static KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runners.inference.decoding import MAX_GUESSES, PromptLookup, in_loop
from runners.inference.kv_cache import MIN_SHARED, PrefixCache, StaticKVCache, common_prefix, shared_length
from runners.inference.streaming import TextStream


def as_bytes(tokens: list[int]) -> str:
    """Decode tokens that are single bytes, as byte-level BPE has for rare characters."""
    return bytes(tokens).decode("utf-8", errors="replace")


texts = st.text(st.sampled_from("ab\n é€😀."), max_size=30)


@given(texts, st.lists(st.text(st.sampled_from("ab\né."), min_size=1, max_size=3), max_size=2))
def test_text_stream_equals_trimmed_text_before_first_stop(text: str, stops: list[str]) -> None:
    pieces = TextStream(as_bytes, stops)
    streamed = ""
    for token in text.encode():
        streamed += pieces.add(token)
        assert "\ufffd" not in streamed
        if pieces.stopped:
            break
    streamed += pieces.rest()
    # A stop that ends with a later character than another may be met first: the first to be complete counts.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    seen = text[: min(ends, default=len(text))]
    cut = min([seen.find(stop) for stop in stops if stop in seen], default=len(seen))
    assert streamed == pieces.text == seen[:cut].strip()
    assert pieces.stopped == bool(ends)


def test_an_answer_ends_that_repeats_itself_three_times() -> None:
    start = list(range(100, 120))
    for period in (1, 5, 12, 30, 40):
        cycle = list(range(period))
        whole = [*start, *cycle * (-(-36 // period) if period < 12 else 3)]
        assert not any(in_loop(whole[:n]) for n in range(len(start), len(start) + 35))
        assert in_loop([*start, *cycle * 40][: len(start) + max(36, 3 * period)])
        assert not in_loop([*whole, 999])
    assert not in_loop([*start, *range(41), *range(41), *range(41)]), "longer texts may be repeated"
    assert not in_loop([])


def test_incomplete_character_at_end_becomes_replacement_character() -> None:
    pieces = TextStream(as_bytes)
    assert [pieces.add(token) for token in "é€".encode()[:4]] == ["", "é", "", ""]
    assert pieces.rest() == "\ufffd"


def test_prompt_lookup_returns_tokens_after_last_occurrence() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert lookup.guess() == []
    lookup.extend([2, 3])
    assert lookup.guess() == [4, 5, 6, 7, 8, 9][:MAX_GUESSES]
    assert lookup.guess(2) == [4, 5]
    assert lookup.guess(0) == []
    lookup.extend([9])
    assert lookup.guess() == []
    assert PromptLookup([7]).guess() == []
    assert PromptLookup([3, 3, 3]).guess(1) == [3]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=4))
def test_common_prefix_excludes_last_token_of_each_row(rows: list[list[int]]) -> None:
    shared = common_prefix(rows)
    assert all(row[:shared] == rows[0][:shared] and shared < len(row) for row in rows)
    if all(len(row) > shared + 1 for row in rows):
        assert len({row[shared] for row in rows}) > 1 or len(rows) == 1
    assert common_prefix([]) == 0
    assert shared_length([1, 2], [1, 2, 3]) == 2


@dataclass(frozen=True)
class Block:
    """An entry of a size in bytes."""

    nbytes: int


def test_prefix_cache_matches_owner_and_evicts_least_recently_used() -> None:
    cache: PrefixCache[Block] = PrefixCache(max_bytes=100)
    ids = list(range(MIN_SHARED + 10))
    cache.put("base", ids, Block(40))
    assert cache.get("base", ids) == Block(40)
    assert cache.get("tuned", ids) is None
    assert cache.longest_match("tuned", ids) is None
    assert cache.longest_match("base", [*ids[:MIN_SHARED], 99, 98]) == (MIN_SHARED, Block(40))
    assert cache.longest_match("base", [*ids[: MIN_SHARED - 1], 99, 98]) is None
    assert cache.longest_match("base", ids) == (len(ids) - 1, Block(40))
    cache.put("base", [1], Block(50))
    cache.get("base", ids)
    cache.put("base", [2], Block(30))
    assert [cache.get("base", [1]), cache.nbytes, len(cache)] == [None, 70, 2]
    cache.put("base", [3], Block(101))
    assert len(cache) == 2


@torch.inference_mode()
def test_static_kv_cache_copies_loads_truncates_and_drops_rows() -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)
    one = StaticKVCache(1, 1, 8)
    one.update(keys, values, 0)
    prefix = one.copy_prefix(4)
    one.kv_layers[0].keys.zero_()
    cache = StaticKVCache(1, 3, 8)
    cache.load_prefix(prefix, 3)
    assert cache.length == 3
    assert all(torch.equal(cache.kv_layers[0].keys[row, :, :3], keys[0, :, :3]) for row in range(3))
    new = torch.randn(3, 2, 2, 4)
    cache.update(new, new, 0)
    cache.truncate(4)
    assert cache.length == 4
    cache.drop_rows([(2, 0)], 2)
    after, _ = cache.update(new[:2, :, :1], new[:2, :, :1], 0)
    assert after.shape == (2, 2, 5, 4)
    assert torch.equal(after[:, :, 3], new[[2, 1], :, 0])
    assert prefix.nbytes == 2 * keys[:, :, :4].nelement() * 4


def test_special_token_within_an_answer_keeps_the_space_after_it() -> None:
    """Tokenizers leave out the space before the first word of what they decode."""
    pieces = TextStream(lambda tokens: " ".join(f"w{token}" for token in tokens if token))
    assert [pieces.add(token) for token in (3, 0, 0, 4, 5, 0)] == ["w3", "", "", " w4", " w5", ""]
    assert (pieces.rest(), pieces.text) == ("", "w3 w4 w5")


@pytest.mark.parametrize("size", [0, 3])
def test_empty_or_blank_answer_has_no_pieces(size: int) -> None:
    pieces = TextStream(as_bytes, ("x",))
    assert [pieces.add(32) for _ in range(size)] == [""] * size
    assert (pieces.rest(), pieces.text) == ("", "")
