"""Local generation: batches that do not change an answer, prefix caching, guesses, streams and sampling."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rag.errors import BadInput
from runners.data.examples import Example
from runners.inference.decoding import PREFILL_MULTIPLE, TokenSampler
from runners.inference.kv_cache import StaticKVCache
from runners.inference.local import LocalGenerator, length_batches
from runners.inference.types import Completion, Sampling
from runners.models import resolve
from runners.models.resolve import Model


@pytest.mark.parametrize("lengths", [[], [7], [900, 3, 3, 850, 40, 41], [1] * 100, [13_000, 5, 13_000]])
def test_length_batches_have_every_prompt_once_within_limits(lengths: list[int]) -> None:
    batches = length_batches(lengths, rows=8, tokens=1000)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch)
        assert len(batch) <= 8
        assert len(batch) == 1 or len(batch) * longest <= 1000


def test_length_batches_are_deterministic_longest_first() -> None:
    lengths = [5, 90, 5, 60, 90]
    assert length_batches(lengths, 2) == length_batches(lengths, 2) == [[1, 4], [3, 0], [2]]


@pytest.fixture(scope="module")
def generator(tiny: Model) -> LocalGenerator:
    return LocalGenerator(tiny, dtype="float32")


def chats(examples: tuple[Example, ...], count: int) -> list[list[dict[str, str]]]:
    return [list(e.messages[:-1]) for e in examples[:count]]


def test_answers_do_not_depend_on_the_batch(generator: LocalGenerator, examples: tuple[Example, ...]) -> None:
    asked = chats(examples, 5)
    together = generator.generate(asked, 8)
    alone = [generator.generate([chat], 8)[0] for chat in asked]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.prompt_tokens for c in together] == [c.prompt_tokens for c in alone]


def test_completion_has_token_counts_and_finish_reason(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    cut = generator.generate(chats(examples, 1), 3)[0]
    assert cut.finish == "length"
    assert cut.completion_tokens == 3
    assert cut.seconds > 0
    prompt = generator._tokens(chats(examples, 1)[0])
    assert cut.prompt_tokens == len(prompt)


def test_end_token_is_no_part_of_the_answer(varied: LocalGenerator, examples: tuple[Example, ...]) -> None:
    for chat, tokens in zip(
        chats(examples, 4), transformers_answers(varied, chats(examples, 4), 8), strict=True
    ):
        later = [n for n, token in enumerate(tokens) if token not in tokens[:n] and n]
        usual = varied.ends
        varied.ends = usual | {tokens[n] for n in later[:1]}
        try:
            answers = (varied.generate([chat], 8)[0], *varied.generate([chat, chat], 8))
        finally:
            varied.ends = usual
        for answer in answers:
            expected = later[0] if later else len(tokens)
            assert answer.completion_tokens == expected
            assert answer.finish == ("stop" if expected < 8 else "length")


def test_on_batch_is_called_for_every_answer(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    reported: dict[int, Completion] = {}

    def record(positions: list[int], answers: list[Completion]) -> None:
        reported.update(zip(positions, answers, strict=True))

    answers = generator.generate(chats(examples, 36), 2, record)
    assert [reported[n] for n in range(36)] == answers
    assert generator.generate([], 2) == []


@pytest.fixture(scope="module")
def tuned(tiny: Model, adapter: Path) -> LocalGenerator:
    """The tiny model with the adapter."""
    return LocalGenerator(tiny, adapter, "float32")


@pytest.fixture(scope="module")
def varied(tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> LocalGenerator:
    """The tiny model with weights so large that every prompt has another answer; every 19th token ends an answer."""
    folder = tmp_path_factory.mktemp("varied") / "model"
    shutil.copytree(tiny.folder, folder)
    config = LlamaConfig.from_pretrained(tiny.folder)
    config.initializer_range = 0.4
    torch.manual_seed(5)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = sorted({*range(0, 400, 19), config.eos_token_id})
    model.save_pretrained(folder)
    return LocalGenerator(resolve.resolve_model(str(folder)), None, "float32")


def test_adapter_changes_the_answers(
    generator: LocalGenerator, tuned: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 2)
    assert [c.text for c in tuned.generate(asked, 8)] != [c.text for c in generator.generate(asked, 8)]


def test_count_tokens_excludes_special_tokens(generator: LocalGenerator) -> None:
    assert generator.count_tokens("") == 0
    assert generator.count_tokens("pier") < generator.count_tokens("pier pier pier")


def transformers_answers(
    generator: LocalGenerator, asked: list[list[dict[str, str]]], most: int
) -> list[list[int]]:
    """Return transformers' greedy tokens, one prompt at a time."""
    answers = []
    for chat in asked:
        ids = torch.tensor([generator._tokens(chat)])
        row = generator.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=sorted(generator.ends),
        )[0]
        tokens = row[ids.shape[1] :].tolist()
        answers.append([t for t in tokens if t not in generator.ends])
    return answers


@pytest.mark.parametrize("kind", ["generator", "tuned", "varied"])
def test_batch_and_stream_equal_transformers_generate(
    request: pytest.FixtureRequest, examples: tuple[Example, ...], kind: str
) -> None:
    chosen: LocalGenerator = request.getfixturevalue(kind)
    asked = chats(examples, 9)
    expected = [chosen.decode(row).strip() for row in transformers_answers(chosen, asked, 24)]
    assert [c.text for c in chosen.generate(asked, 24)] == expected
    assert [chosen.stream(chat, 24).finish().text for chat in asked] == expected
    assert kind != "varied" or len(set(expected)) > 5


@pytest.mark.parametrize("spare", [0, 5, 40])
def test_prefill_padding_does_not_change_logits_or_cache(
    generator: LocalGenerator, examples: tuple[Example, ...], spare: int
) -> None:
    decoder = generator.decoder
    assert decoder is not None
    ids = generator._tokens(chats(examples, 1)[0])
    assert len(ids) % PREFILL_MULTIPLE
    whole = generator.model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1]
    for first in (0, 3, PREFILL_MULTIPLE, len(ids) - 1):
        cache = StaticKVCache(decoder.layers, 1, len(ids) + spare)
        if first:
            decoder.prefill_one(ids[:first], cache)
        torch.testing.assert_close(decoder.prefill_one(ids[first:], cache), whole, rtol=1e-4, atol=1e-5)
        assert cache.length == len(ids)


@pytest.mark.parametrize("kind", ["tuned", "varied"])
@pytest.mark.parametrize("guesses", [0, 1, 6])
def test_guesses_do_not_change_greedy_tokens(
    request: pytest.FixtureRequest, examples: tuple[Example, ...], guesses: int, kind: str
) -> None:
    chosen: LocalGenerator = request.getfixturevalue(kind)
    decoder = chosen.decoder
    assert decoder is not None
    for chat, expected in zip(
        chats(examples, 4), transformers_answers(chosen, chats(examples, 4), 24), strict=True
    ):
        prompt = chosen._tokens(chat)
        tokens = decoder.decode_one(
            prompt, 24, TokenSampler(), StaticKVCache(decoder.layers, 1, len(prompt) + 24), guesses
        )
        assert list(takewhile(lambda token: token not in chosen.ends, tokens)) == expected


def test_stream_reuses_cached_prefix_of_earlier_chat(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    fresh = LocalGenerator(generator._weights.base, dtype="float32")
    chat = chats(examples, 1)[0]
    first = fresh.stream(chat, 8).finish()
    known = next(iter(fresh.prefixes._entries))[1]
    assert len(known) == first.prompt_tokens + 7
    longer = [*chat, {"role": "assistant", "content": first.text}, {"role": "user", "content": "And then?"}]
    match = fresh.prefixes.longest_match(fresh._weights.owner, fresh._tokens(longer))
    assert match is not None
    assert match[0] >= first.prompt_tokens
    assert (
        fresh.stream(longer, 8).finish().text
        == generator.decode(transformers_answers(generator, [longer], 8)[0]).strip()
    )


def test_stream_pieces_join_to_answer_and_stop_texts_end_it(
    tuned: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    chat = chats(examples, 1)[0]
    whole = tuned.stream(chat, 40).finish().text
    stream = tuned.stream(chat, 40)
    assert "".join(stream) == stream.completion.text == whole
    stop = whole[5:9]
    cut = whole[: whole.index(stop)].strip()
    sampling = Sampling(stop=(stop,))
    streamed = tuned.stream(chat, 40, sampling)
    assert "".join(streamed) == cut
    assert streamed.completion.finish == "stop"
    both = tuned.generate([chat, chats(examples, 2)[1]], 40, sampling=sampling)
    assert (both[0].text, both[0].finish) == (cut, "stop")


def test_sampling_depends_on_seed_and_index_only(
    generator: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 4)
    sampling = Sampling(temperature=1.0, top_p=0.95, seed=3)
    first = [c.text for c in generator.generate(asked, 12, sampling=sampling)]
    assert [c.text for c in generator.generate(asked, 12, sampling=sampling)] == first
    assert [c.text for c in generator.generate(asked[:2], 12, sampling=sampling)] == first[:2]
    assert generator.stream(asked[0], 12, sampling).finish().text == first[0]
    other = Sampling(temperature=1.0, top_p=0.95, seed=4)
    assert [c.text for c in generator.generate(asked, 12, sampling=other)] != first
    nearly = Sampling(temperature=1.0, top_p=1e-6)
    assert [c.text for c in generator.generate(asked, 12, sampling=nearly)] == [
        c.text for c in generator.generate(asked, 12)
    ]


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"seed": -1}, {"stop": ("",)}])
def test_invalid_sampling_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Sampling(**wrong)


@pytest.mark.parametrize("window", [None, 16])
def test_other_architectures_equal_transformers_generate(
    tiny: Model, examples: tuple[Example, ...], window: int | None, tmp_path: Path
) -> None:
    """GPT-NeoX has no fused step; a sliding window, which discards tokens, has no static cache either."""
    shared: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "initializer_range": 0.4,
    }
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder, folder)
    torch.manual_seed(3)
    model: Any = (
        MistralForCausalLM(MistralConfig(**shared, num_key_value_heads=2, sliding_window=window))
        if window
        else GPTNeoXForCausalLM(GPTNeoXConfig(**shared))
    )
    model.save_pretrained(folder)
    generator = LocalGenerator(resolve.resolve_model(str(folder)), None, "float32")
    assert (generator.decoder is None) == bool(window)
    assert window or (generator.decoder is not None and generator.decoder.reason)
    asked = chats(examples, 4)
    expected = [generator.decode(row).strip() for row in transformers_answers(generator, asked, 12)]
    assert [c.text for c in generator.generate(asked, 12)] == expected
    assert [generator.stream(chat, 12).finish().text for chat in asked] == expected
    assert len(set(expected)) > 1


def test_qwen2_with_biases_uses_fused_step(
    tiny: Model, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder, folder)
    torch.manual_seed(4)
    config = Qwen2Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        initializer_range=0.4,
    )
    model = Qwen2ForCausalLM(config)
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.bias)
    model.save_pretrained(folder)
    generator = LocalGenerator(resolve.resolve_model(str(folder)), None, "float32")
    assert generator.decoder is not None
    assert generator.decoder.fused_step is not None
    asked = chats(examples, 5)
    expected = [generator.decode(row).strip() for row in transformers_answers(generator, asked, 12)]
    assert [c.text for c in generator.generate(asked, 12)] == expected
    assert [generator.stream(chat, 12).finish().text for chat in asked] == expected
    assert len(set(expected)) > 1


def test_answers_do_not_depend_on_size_or_order_of_the_call(
    varied: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    """With and without a shared prefix, rows that end early or never, one row or more than fit into a batch."""
    asked = chats(examples, 12)
    asked += [[{"role": "user", "content": "pier " * count}] for count in (1, 3, 40, 100)]
    alone = [varied.generate([chat], 16)[0] for chat in asked]
    assert len({c.finish for c in alone}) == 2
    assert len({c.completion_tokens for c in alone}) > 2
    rng = random.Random(5)
    for size in (2, 3, 7, 16, 40):
        drawn = [rng.randrange(len(asked)) for _ in range(size)]
        together = varied.generate([asked[n] for n in drawn], 16)
        for n, answer in zip(drawn, together, strict=True):
            assert replace(answer, seconds=0) == replace(alone[n], seconds=0)


def test_known_chats_are_skipped_and_leave_other_answers_unchanged(
    varied: LocalGenerator, examples: tuple[Example, ...]
) -> None:
    asked = chats(examples, 36)
    whole = varied.generate(asked, 16)
    assert len({c.text for c in whole}) > 1
    for known in ({0, 5, 17}, set(range(1, 36)), set(range(36))):
        cached, reported = len(varied.prefixes), list[int]()
        rest = varied.generate(asked, 16, lambda batch, answers: reported.extend(batch), known=known)  # noqa: B023
        assert sorted(reported) == [n for n in range(36) if n not in known]
        assert [c.text for c in rest] == [whole[n].text for n in sorted(reported)]
        assert len(varied.prefixes) == cached, "the prefix is that of all chats, not of those answered"


@pytest.mark.real
def test_real_model_equals_transformers_generate_in_fp32(smollm: Model, example: Path) -> None:
    generator = LocalGenerator(smollm, dtype="float32")
    system = (example / "prompt.txt").read_text("utf-8").strip()
    rows = [json.loads(line) for line in (example / "questions.jsonl").read_text("utf-8").splitlines()[:3]]
    asked = [
        [{"role": "system", "content": system}, {"role": "user", "content": r["question"]}] for r in rows
    ]
    expected = transformers_answers(generator, asked, 16)
    assert [c.text for c in generator.generate(asked, 16)] == [generator.decode(e).strip() for e in expected]
    assert generator.stream(asked[0], 16).finish().text == generator.decode(expected[0]).strip()
