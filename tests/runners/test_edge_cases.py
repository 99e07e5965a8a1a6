"""Edge cases of local generation: no tokens, one token, a full context, empty prompts, hundreds of questions."""

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
def test_zero_max_new_tokens_is_refused(generator: LocalGenerator, most: int) -> None:
    chat = [{"role": "user", "content": "pier"}]
    for ask in (lambda: generator.generate([chat], most), lambda: generator.stream(chat, most)):
        with pytest.raises(BadInput, match="at least 1"):
            ask()


def test_one_token_answer_is_prefix_of_longer_answer(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 3)
    longer = generator.generate(asked, 8)
    one_token = generator.generate(asked, 1)
    assert all(whole.text.startswith(first.text) for whole, first in zip(longer, one_token, strict=True))
    assert [(c.completion_tokens, c.finish) for c in one_token] == [(1, "length")] * 3
    assert [generator.stream(chat, 1).finish().text for chat in asked] == [c.text for c in one_token]


def test_prompt_over_context_is_refused_before_any_answer(
    generator: LocalGenerator,
) -> None:
    context = generator.model.config.max_position_embeddings
    overhead = len(generator._tokens([{"role": "user", "content": ""}]))
    pier = len(generator._tokens([{"role": "user", "content": "pier"}])) - overhead
    fits = [{"role": "user", "content": "pier" * ((context - 4 - overhead) // pier)}]
    over = [{"role": "user", "content": "pier" * (context // pier)}]
    size = len(generator._tokens(fits))
    assert generator.generate([fits], context - size)[0].prompt_tokens == size
    reported: list[int] = []
    with pytest.raises(BadInput, match=f"prompt 2 of 3 has .* more than the {context} that") as caught:
        generator.generate([fits, over, over], 4, lambda batch, _: reported.extend(batch))
    assert reported == []
    assert "shorten it" in caught.value.hint
    with pytest.raises(BadInput, match="the prompt has"):
        generator.stream(fits, context - size + 1)


def test_empty_question_is_answered_and_empty_prompt_refused(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    empty = [{"role": "user", "content": ""}]
    alone = generator.stream(empty, 6).finish()
    assert alone.completion_tokens > 0
    assert generator.generate([*chats(examples, 2), empty], 6)[2].text == alone.text
    nothing = [{"role": "user", "content": ""}]
    with pytest.raises(BadInput, match="the prompt is empty"):
        generator.prompt("", 6)
    assert generator.generate([nothing, nothing], 6)[0].text == alone.text


def test_memory_does_not_grow_with_number_of_questions(tiny: Model, examples: tuple[Example, ...]) -> None:
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
        tensors = [o for o in gc.get_objects() if isinstance(o, torch.Tensor)]
        return sum(t.nbytes for t in tensors) - generator.prefixes.nbytes

    assert ask(40, 160) <= ask(0, 40)
