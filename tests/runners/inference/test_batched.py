"""Batched requests: the same answers as alone, own sampling and limits, cancellation."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference.batched import CANCELLED, BatchRow, generate_batch
from runners.inference.local import LocalGenerator
from runners.inference.types import Sampling
from runners.models.resolve import Model


@pytest.fixture(scope="module")
def generator(tiny: Model, adapter: Path) -> LocalGenerator:
    """The tiny model with an adapter that makes it answer in words."""
    return LocalGenerator(tiny, adapter, "float32")


@pytest.fixture
def prompts(generator: LocalGenerator, examples: tuple[Example, ...]) -> list[list[int]]:
    """Prompts of several lengths: chats and a text."""
    chats = [list(e.messages[:-1]) for e in examples[:4]]
    return [*(generator.prompt(chat, 16) for chat in chats), generator.prompt("Yes, the lounge", 16)]


def test_batched_answers_equal_single_answers(generator: LocalGenerator, prompts: list[list[int]]) -> None:
    pieces_of: list[list[str]] = [[] for _ in prompts]
    rows = [
        BatchRow(prompt=prompt, limit=4 + 3 * n, on_text=pieces_of[n].append, trim=n < 4)
        for n, prompt in enumerate(prompts)
    ]
    sizes: list[int] = []
    completions = generate_batch(generator, rows, sizes.append)
    assert sizes == [5]
    for row, completion, pieces in zip(rows, completions, pieces_of, strict=True):
        (alone,) = generate_batch(generator, [row])
        assert (completion.text, completion.completion_tokens, completion.finish) == (
            alone.text,
            alone.completion_tokens,
            alone.finish,
        )
        assert completion.completion_tokens <= row.limit
        assert "".join(pieces[: len(pieces) // 2]) in completion.text
    assert {c.finish for c in completions} == {"stop", "length"}


def test_each_row_has_its_own_sampling_and_stop(generator: LocalGenerator, prompts: list[list[int]]) -> None:
    samplings = [Sampling(), Sampling(1.2, 0.9, seed=3), Sampling(1.2, 0.9, seed=4), Sampling(stop=("oses",))]
    rows = [BatchRow(prompt=prompts[0], limit=14, sampling=sampling) for sampling in samplings]
    completions = generate_batch(generator, rows)
    assert [c.text for c in completions] == [generate_batch(generator, [row])[0].text for row in rows]
    assert completions[1].text != completions[2].text
    assert "oses" in completions[0].text
    assert completions[3].text == completions[0].text[: completions[0].text.index("oses")].strip()


@pytest.mark.parametrize("others", [0, 1, 2])
def test_cancelled_row_is_not_computed(
    generator: LocalGenerator, prompts: list[list[int]], others: int
) -> None:
    sizes: list[int] = []
    rows = [
        BatchRow(prompt=prompts[0], limit=4, is_cancelled=lambda: True),
        *(BatchRow(prompt=prompts[1], limit=4) for _ in range(others)),
    ]
    completions = generate_batch(generator, rows, sizes.append)
    assert completions[0] is CANCELLED
    assert all(completion.text for completion in completions[1:])
    assert sizes == ([others] if others else [])


def test_row_cancelled_while_decoding_leaves_others_unchanged(
    generator: LocalGenerator, prompts: list[list[int]]
) -> None:
    pieces: list[str] = []
    cancelled = BatchRow(
        prompt=prompts[0], limit=16, on_text=pieces.append, is_cancelled=lambda: len(pieces) >= 2
    )
    other = BatchRow(prompt=prompts[1], limit=16)
    partial, complete = generate_batch(generator, [cancelled, other])
    assert partial.completion_tokens < 6
    assert complete.text == generate_batch(generator, [other])[0].text
    pieces.clear()
    (alone,) = generate_batch(generator, [cancelled])
    assert alone.completion_tokens < 6
    assert alone.text == partial.text == "".join(pieces)


def test_continued_text_keeps_leading_space_without_trim(generator: LocalGenerator) -> None:
    prompt = generator.prompt("Yes, the lounge", 6)
    whole, trimmed = generate_batch(
        generator, [BatchRow(prompt=prompt, limit=6, trim=False), BatchRow(prompt=prompt, limit=6)]
    )
    assert whole.text.strip() == trimmed.text
    assert whole.text.startswith(" ")


def test_prompt_over_context_or_zero_limit_is_refused(generator: LocalGenerator) -> None:
    with pytest.raises(BadInput, match="tokens: with"):
        generator.prompt("ferry " * 600, 8)
    with pytest.raises(BadInput, match="0 tokens"):
        generator.prompt("ferry", 0)
