"""What may be asked of a local model at the edges: nothing, too much, one token, and hundreds of questions."""

from __future__ import annotations

import gc

import pytest
import torch

from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference.local import LocalGenerator
from runners.models.resolve import Model


@pytest.fixture(scope="module")
def generator(tiny: Model) -> LocalGenerator:
    return LocalGenerator(tiny, dtype="float32")


def chats(examples: tuple[Example, ...], count: int) -> list[list[dict[str, str]]]:
    return [list(e.messages[:-1]) for e in examples[:count]]


@pytest.mark.parametrize("most", [0, -3])
def test_an_answer_of_no_tokens_is_not_asked_for(generator: LocalGenerator, most: int) -> None:
    chat = [{"role": "user", "content": "pier"}]
    for ask in (lambda: generator.generate([chat], most), lambda: generator.stream(chat, most)):
        with pytest.raises(BadInput, match="at least 1"):
            ask()


def test_an_answer_of_one_token_is_the_first_of_a_longer_one(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 3)
    longer = generator.generate(asked, 8)
    found = generator.generate(asked, 1)
    assert all(whole.text.startswith(first.text) for whole, first in zip(longer, found, strict=True))
    assert [(c.completion_tokens, c.finish) for c in found] == [(1, "length")] * 3
    assert [generator.stream(chat, 1).finish().text for chat in asked] == [c.text for c in found]


def test_a_prompt_that_leaves_no_room_for_its_answer_is_refused_before_anything_is_answered(
    generator: LocalGenerator,
) -> None:
    room = generator.model.config.max_position_embeddings
    frame = len(generator._tokens([{"role": "user", "content": ""}]))
    pier = len(generator._tokens([{"role": "user", "content": "pier"}])) - frame
    fits = [{"role": "user", "content": "pier" * ((room - 4 - frame) // pier)}]
    over = [{"role": "user", "content": "pier" * (room // pier)}]
    size = len(generator._tokens(fits))
    assert generator.generate([fits], room - size)[0].prompt_tokens == size
    heard: list[int] = []
    with pytest.raises(BadInput, match=f"prompt 2 of 3 has .* more than the {room} that") as caught:
        generator.generate([fits, over, over], 4, lambda at, _: heard.extend(at))
    assert heard == []
    assert "shorten it" in caught.value.hint
    with pytest.raises(BadInput, match="the prompt has"):
        generator.stream(fits, room - size + 1)


def test_an_empty_question_is_answered_and_an_empty_prompt_refused(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    empty = [{"role": "user", "content": ""}]
    alone = generator.stream(empty, 6).finish()
    assert alone.completion_tokens > 0
    assert generator.generate([*chats(examples, 2), empty], 6)[2].text == alone.text
    generator.tokenizer.chat_template, kept = "", generator.tokenizer.chat_template
    try:
        with pytest.raises(BadInput, match="prompt 1 of 2 is empty"):
            generator.generate([empty, empty], 6)
    finally:
        generator.tokenizer.chat_template = kept


def test_memory_does_not_grow_with_the_questions(tiny: Model, examples: tuple[Example, ...]) -> None:
    generator = LocalGenerator(tiny, dtype="float32")
    generator.prefixes.max_bytes = 300_000

    def ask(first: int, count: int) -> int:
        for n in range(first, first + count):
            question = [{"role": "user", "content": f"When does pier {n} open? {'Say. ' * (n % 7)}"}]
            generator.stream(question, 6).finish()
            if n % 10 == 0:
                generator.generate([*chats(examples, 3), question], 6)
        gc.collect()
        assert 0 < generator.prefixes.nbytes <= generator.prefixes.max_bytes
        held = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]
        return sum(t.nbytes for t in held) - generator.prefixes.nbytes

    assert ask(40, 160) <= ask(0, 40)
