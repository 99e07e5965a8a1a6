"""Local generation: greedy, in batches that do not change an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.completion import GREEDY, Completion
from runners.data import Example
from runners.generate import LocalGenerator, batches
from runners.models import Model
from runners.train import fit
from runners.tuning import TrainConfig


@pytest.mark.parametrize("lengths", [[], [7], [900, 3, 3, 850, 40, 41], [1] * 100, [13_000, 5, 13_000]])
def test_batches_take_every_prompt_once_within_their_bounds(lengths: list[int]) -> None:
    made = batches(lengths, rows=8, tokens=1000)
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    for batch in made:
        longest = max(lengths[i] for i in batch)
        assert len(batch) <= 8
        assert len(batch) == 1 or len(batch) * longest <= 1000


def test_batches_are_the_same_every_time_and_the_longest_come_first() -> None:
    lengths = [5, 90, 5, 60, 90]
    assert batches(lengths, 2) == batches(lengths, 2) == [[1, 4], [3, 0], [2]]


@pytest.fixture(scope="module")
def generator(tiny: Model) -> LocalGenerator:
    return LocalGenerator(tiny, dtype="float32")


def chats(examples: tuple[Example, ...], count: int) -> list[list[dict[str, str]]]:
    return [list(e.messages[:-1]) for e in examples[:count]]


def test_an_answer_does_not_depend_on_its_neighbours(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 5)
    together = generator.generate(asked, 8)
    alone = [generator.generate([chat], 8)[0] for chat in asked]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.prompt_tokens for c in together] == [c.prompt_tokens for c in alone]


def test_an_answer_says_how_long_it_is_and_why_it_ended(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    cut = generator.generate(chats(examples, 1), 3)[0]
    assert cut.finish == "length"
    assert cut.completion_tokens == 3
    assert cut.seconds > 0
    eos = generator.tokenizer.eos_token_id
    ended = generator._cut([1, 2], [70, 71, eos, 0, 0], 0.5, GREEDY)
    assert (ended.completion_tokens, ended.finish, ended.prompt_tokens) == (2, "stop", 2)


def test_every_batch_is_heard_before_the_next(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    heard: dict[int, Completion] = {}

    def listen(positions: list[int], answers: list[Completion]) -> None:
        heard.update(zip(positions, answers, strict=True))

    answers = generator.generate(chats(examples, 36), 2, listen)
    assert [heard[n] for n in range(36)] == answers
    assert generator.generate([], 2) == []


def test_tuned_weights_change_the_answer(tiny: Model, examples: tuple[Example, ...], tmp_path: Path) -> None:
    config = TrainConfig(epochs=4.0, rank=4, alpha=8.0, learning_rate=2e-2, batch_tokens=400)
    fit(examples, config, tiny, tmp_path / "out")
    asked = chats(examples, 2)
    tuned = LocalGenerator(tiny, tmp_path / "out", "float32").generate(asked, 8)
    base = LocalGenerator(tiny, None, "float32").generate(asked, 8)
    assert [c.text for c in tuned] != [c.text for c in base]


def test_tokens_are_counted_without_special_ones(generator: LocalGenerator) -> None:
    assert generator.count_tokens("") == 0
    assert generator.count_tokens("pier") < generator.count_tokens("pier pier pier")
