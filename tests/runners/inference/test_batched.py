"""Requests decoded together get what each would get alone, and leave without disturbing the others."""

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
    """The tiny model with weights that make it say words."""
    return LocalGenerator(tiny, adapter, "float32")


@pytest.fixture
def prompts(generator: LocalGenerator, examples: tuple[Example, ...]) -> list[list[int]]:
    """Prompts of several lengths, chats and texts."""
    chats = [list(e.messages[:-1]) for e in examples[:4]]
    return [*(generator.prompt(chat, 16) for chat in chats), generator.prompt("Yes, the lounge", 16)]


def test_a_batch_says_what_each_says_alone(generator: LocalGenerator, prompts: list[list[int]]) -> None:
    heard: list[list[str]] = [[] for _ in prompts]
    rows = [
        BatchRow(prompt, 4 + 3 * n, on_text=heard[n].append, trim=n < 4) for n, prompt in enumerate(prompts)
    ]
    sizes: list[int] = []
    found = generate_batch(generator, rows, sizes.append)
    assert sizes == [5]
    for row, completion, pieces in zip(rows, found, heard, strict=True):
        (alone,) = generate_batch(generator, [row])
        assert (completion.text, completion.completion_tokens, completion.finish) == (
            alone.text,
            alone.completion_tokens,
            alone.finish,
        )
        assert completion.completion_tokens <= row.limit
        assert "".join(pieces[: len(pieces) // 2]) in completion.text
    assert {c.finish for c in found} == {"stop", "length"}


def test_every_row_draws_and_stops_in_its_own_way(
    generator: LocalGenerator, prompts: list[list[int]]
) -> None:
    hows = [Sampling(), Sampling(1.2, 0.9, seed=3), Sampling(1.2, 0.9, seed=4), Sampling(stop=("oses",))]
    rows = [BatchRow(prompts[0], 14, how) for how in hows]
    found = generate_batch(generator, rows)
    assert [c.text for c in found] == [generate_batch(generator, [row])[0].text for row in rows]
    assert found[1].text != found[2].text
    assert "oses" in found[0].text
    assert found[3].text == found[0].text[: found[0].text.index("oses")].strip()


@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_cancelled_row_is_not_computed(
    generator: LocalGenerator, prompts: list[list[int]], others: int
) -> None:
    sizes: list[int] = []
    rows = [
        BatchRow(prompts[0], 4, is_cancelled=lambda: True),
        *(BatchRow(prompts[1], 4) for _ in range(others)),
    ]
    found = generate_batch(generator, rows, sizes.append)
    assert found[0] is CANCELLED
    assert all(completion.text for completion in found[1:])
    assert sizes == ([others] if others else [])


def test_a_row_cancelled_while_decoding_leaves_and_the_others_stay(
    generator: LocalGenerator, prompts: list[list[int]]
) -> None:
    heard: list[str] = []
    gone = BatchRow(prompts[0], 16, on_text=heard.append, is_cancelled=lambda: len(heard) >= 2)
    kept = BatchRow(prompts[1], 16)
    left, stayed = generate_batch(generator, [gone, kept])
    assert left.completion_tokens < 6
    assert stayed.text == generate_batch(generator, [kept])[0].text
    heard.clear()
    (alone,) = generate_batch(generator, [gone])
    assert alone.completion_tokens < 6
    assert alone.text == left.text == "".join(heard)


def test_a_continued_text_keeps_its_space(generator: LocalGenerator) -> None:
    prompt = generator.prompt("Yes, the lounge", 6)
    whole, trimmed = generate_batch(generator, [BatchRow(prompt, 6, trim=False), BatchRow(prompt, 6)])
    assert whole.text.strip() == trimmed.text
    assert whole.text.startswith(" ")


def test_what_does_not_fit_is_refused(generator: LocalGenerator) -> None:
    with pytest.raises(BadInput, match="tokens: with"):
        generator.prompt("ferry " * 600, 8)
    with pytest.raises(BadInput, match="0 tokens"):
        generator.prompt("ferry", 0)
