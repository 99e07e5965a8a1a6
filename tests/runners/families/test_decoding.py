"""Decoding over families: single, batched and streamed answers are transformers' own, token for token, in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from rag.errors import BadInput
from runners.inference.batched import BatchRow, generate_batch
from runners.inference.decoding import Decoder, TokenSampler
from runners.inference.decoding_path import choose_path, own_error, path_file
from runners.inference.generation_rules import read_rules
from runners.inference.kv_cache import StaticKVCache
from runners.inference.llama_step import (
    FusedPrefill,
    StepModel,
    equals_whole_model,
    load_step_model,
)
from runners.inference.local import LocalGenerator
from runners.inference.types import Sampling
from runners.models.resolve import resolve_model
from tests.families import FAMILIES, VOCABULARY, Family, build, family_parameters
from tests.runners.families.decoding import (
    DEEP_LENGTHS,
    LENGTHS,
    LIMIT,
    answers_in_one_batch,
    decode_contract,
    make_prompts,
    open_generator,
    save_family,
    stream_pieces,
    transformers_tokens,
    until_end,
    word,
    words,
)

ORDINARY = range(3, VOCABULARY)
PLAIN = {
    *("mistral", "qwen3-next", "qwen3.5", "qwen3.5-moe", "gemma2", "gemma3", "olmo3", "olmo-hybrid"),
    *("granite-moe-hybrid", "falcon-h1", "falcon-mamba", "bamba", "jamba", "nemotron-h", "mamba2"),
    *(
        "recurrent-gemma",
        "lfm2",
        "lfm2-moe",
        "gpt-neo",
        "bloom",
        "mpt",
        "falcon-alibi",
        "starcoder2",
        "cohere2",
    ),
    *("gpt-oss", "exaone4", "minimax"),
}
"""Families that transformers decodes: windows, recurrent or convolutional states, ALiBi. All others take the fast path."""
UNPADDED = {"recurrent-gemma", "minimax"}
"""Families whose padded batches differ from single rows in transformers itself."""


@pytest.mark.parametrize("family", family_parameters())
def test_answers_equal_transformers_generate(family: Family) -> None:
    name = family.name
    record = decode_contract(name)
    assert record.right, record
    assert record.path == ("plain" if name in PLAIN else "fast"), record.reason
    assert bool(record.reason) == (record.path == "plain")
    assert record.batch_of_transformers or name in UNPADDED


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_answers_equal_transformers_generate_for_many_lengths(name: str, seed: int) -> None:
    record = decode_contract(name, DEEP_LENGTHS, limit=24, deep=True, seed=seed)
    assert record.right, record


@pytest.mark.parametrize("name", ["mpt", "gpt-neo", "bloom", "falcon-alibi"])
def test_probe_alone_rejects_architectures_that_own_decoding_is_wrong_for(name: str) -> None:
    """Knowledge leaves them out as well; without it the probe would."""
    assert own_error(Decoder(build(name)), ORDINARY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probe_detects_wrong_fused_step(dtype: torch.dtype) -> None:
    decoder = Decoder(build("llama", dtype=dtype))
    assert own_error(decoder, ORDINARY) == ""
    assert decoder.fused_step is not None
    decoder.fused_step.scaling *= 1.5
    assert "single row" in own_error(decoder, ORDINARY) or "batch" in own_error(decoder, ORDINARY)


class ShortSightedPrefill(FusedPrefill):
    """One whose blocks of queries see too few keys, in the second and later blocks only."""

    def causal_mask(self, keys: int, like: torch.Tensor) -> torch.Tensor:
        mask = super().causal_mask(keys, like)
        mask[..., : -2 * self.query_block] = torch.finfo(like.dtype).min
        return mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probe_detects_wrong_fused_prefill(dtype: torch.dtype) -> None:
    decoder = Decoder(build("llama", dtype=dtype))
    assert decoder.fused_step is not None
    decoder.fused_prefill = prefill = ShortSightedPrefill(decoder.fused_step)
    assert own_error(decoder, ORDINARY)
    assert prefill.chunk_tokens > 100, "the probe restores the sizes"


@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "mistral-full"])
@pytest.mark.parametrize("before", [0, 20])
def test_fused_prefill_of_rows_with_shared_beginnings_equals_forward_of_each(name: str, before: int) -> None:
    """Nested beginnings, equal rows, one token, several chunks and blocks; then a step over the padded cache."""
    model = build(name)
    prompts = make_prompts((50, 50, 33, 61))
    first, rest = prompts[0][:before], [prompt[before:] for prompt in prompts]
    rows = [rest[0], rest[0], rest[1][:25] + rest[2], rest[1], rest[3], rest[0][:1]]
    ends = [7, 3, 5, 9, 11, 4]
    with torch.inference_mode():
        alone = [
            model(input_ids=torch.tensor([first + row + [end]]), use_cache=False).logits[0, -2:]
            for row, end in zip(rows, ends, strict=True)
        ]
    decoder = Decoder(model)
    assert decoder.fused_prefill is not None
    decoder.fused_prefill.chunk_tokens, decoder.fused_prefill.query_block = 32, 8
    ids, mask, positions = decoder.left_padded(rows, before)
    cache = StaticKVCache(decoder.layers, len(rows), before + ids.shape[1] + 1)
    if before:
        cache.load_prefix(decoder.cache_prefix(first), before)
    logits = decoder.prefill(ids, mask, positions, cache)
    torch.testing.assert_close(logits, torch.stack([each[0] for each in alone]), rtol=1e-4, atol=1e-4)
    bias = decoder._padding_bias(mask, 1)
    after = decoder.step(torch.tensor(ends)[:, None], positions[:, -1:] + 1, cache, bias)[:, -1]
    torch.testing.assert_close(after, torch.stack([each[1] for each in alone]), rtol=1e-4, atol=1e-4)


def test_unmerged_adapter_is_decoded_by_own_loops() -> None:
    """As a 4-bit base is, whose adapter is not merged; its layers are not fused."""
    torch.manual_seed(3)
    net = get_peft_model(build("llama"), LoraConfig(r=4, target_modules="all-linear")).eval()
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    path = choose_path(net, "auto", lambda: ORDINARY)
    decoder = path.decoder(net)
    assert decoder is not None, path.reason
    assert decoder.fused_step is None
    prompt = make_prompts(LENGTHS)[0]
    expected = transformers_tokens(net, [prompt], LIMIT)[0]
    assert expected != transformers_tokens(build("llama"), [prompt], LIMIT)[0]
    cache = StaticKVCache(decoder.layers, 1, len(prompt) + LIMIT)
    assert until_end(list(decoder.decode_one(prompt, LIMIT, TokenSampler(), cache))) == expected


def test_path_is_kept_between_starts_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the hash of the weights, the config, the dtype and the kernels; a damaged file is probed again and replaced."""
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    model, probes = build("llama"), 0

    def ordinary() -> range:
        nonlocal probes
        probes += 1
        return ORDINARY

    file = path_file(tmp_path, "a", "float32", "auto")
    first = choose_path(model, "auto", ordinary, file)
    assert first.own
    for text in (file.read_text("utf-8"), "", "{", "[]", '{"own": true, "other": 1}', '{"own": "yes"}'):
        file.write_text(text, "utf-8")
        assert choose_path(model, "auto", ordinary, file) == first
    assert probes == 6, "the first start, and five damaged files"
    file.write_text('{"own": false, "reason": "of a start before"}', "utf-8")
    assert choose_path(model, "auto", ordinary, file).reason == "of a start before"
    assert choose_path(model, "auto", ordinary) == first, "kept nowhere"
    others = [("b", "float32", "auto"), ("a", "bfloat16", "auto"), ("a", "float32", "plain")]
    files = {file, *(path_file(tmp_path, *facts) for facts in others)}
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', "utf-8")
    files.add(path_file(tmp_path, "a", "float32", "auto"))
    assert len(files) == 5
    assert path_file(tmp_path, "a", "float32", "auto") in files


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "llama-tied", "qwen2", "mistral-full"])
def test_second_start_decodes_without_the_layers_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    """The same answers; the whole model is there when something asks for it, and then again the same answers."""
    monkeypatch.setenv("TUNEWISE_CACHE", str(tmp_path / "cache"))
    save_family(name, tmp_path / name)
    base = resolve_model(str(tmp_path / name))
    chats = [[{"role": "user", "content": words(prompt)}] for prompt in make_prompts((20, 33))]
    first, second = (LocalGenerator(base, None, dtype) for _ in range(2))
    assert (first.path.step_only, second.path.step_only) == (True, True)
    answers = [[c.text for c in each.generate(chats, 12)] for each in (first, second)]
    assert isinstance(second.decoder and second.decoder.model, StepModel)
    assert answers[0] == answers[1]
    assert torch.equal(second.model.lm_head.weight, first.model.lm_head.weight)
    assert not isinstance(second.decoder and second.decoder.model, StepModel)
    assert [c.text for c in second.generate(chats, 12)] == answers[0]


def test_model_that_differs_is_not_decoded_alone(tmp_path: Path) -> None:
    model = save_family("llama", tmp_path / "llama")
    alone = load_step_model(tmp_path / "llama", torch.float32)
    assert alone is not None
    assert equals_whole_model(alone, model)
    alone.model.rotary_emb.frequencies = alone.model.rotary_emb.frequencies * 1.001
    assert not equals_whole_model(alone, model)
    save_family("gpt2", tmp_path / "gpt2")
    assert load_step_model(tmp_path / "gpt2", torch.float32) is None


def test_rotary_positions_that_depend_on_length_are_left_to_transformers(tmp_path: Path) -> None:
    """Keys of a short cached prefix would be wrong in a text that outgrows the trained length."""
    model = build("llama")
    config = model.config
    config.max_position_embeddings = 32
    config.rope_parameters = {**config.rope_parameters, "rope_type": "dynamic", "factor": 2.0}
    model = type(model)(config).eval()
    path = choose_path(model, "auto", lambda: ORDINARY)
    assert (path.own, path.padded) == (False, 32)
    assert "dynamic" in path.reason
    assert "32 tokens" in path.padding_reason


RULES: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 1.6},
    "ends": {"eos_token_id": [2, *range(5, 250, 9)]},
    "least": {"eos_token_id": [2, *range(5, 250, 3)], "min_new_tokens": 4},
    "length": {"eos_token_id": [2, *range(5, 250, 3)], "min_length": 25},
    "ngrams": {"no_repeat_ngram_size": 1, "suppress_tokens": list(range(3, 60))},
    "begin": {"begin_suppress_tokens": list(range(3, 130)), "forced_eos_token_id": 2},
    "words": {"bad_words_ids": [[token] for token in range(60, 130)]},
    "all": {
        "repetition_penalty": 1.3,
        "eos_token_id": [2, *range(5, 250, 9)],
        "min_new_tokens": 3,
        "do_sample": True,
        "temperature": 0.4,
        "top_k": 7,
        "top_p": 0.5,
    },
}


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_generation_config_is_applied_alike_on_both_paths(
    name: str, rules: str, kernels: str, tmp_path: Path
) -> None:
    model = save_family(name, tmp_path / "model", **RULES[rules])
    prompts = make_prompts(LENGTHS)
    expected = [words(transformers_tokens(model, [prompt], LIMIT)[0]) for prompt in prompts]
    bare = [words(transformers_tokens(build(name), [prompt], LIMIT)[0]) for prompt in prompts]
    assert expected != bare, "the settings change nothing here"
    generator = open_generator(tmp_path / "model", kernels)
    assert generator.path.name == ("fast" if (name, kernels) == ("llama", "auto") else "plain")
    assert [stream_pieces(generator, prompt, LIMIT)[1] for prompt in prompts] == expected
    assert answers_in_one_batch(generator, prompts, LIMIT)[0] == expected
    chats = [[{"role": "user", "content": " ".join(map(word, prompt))}] for prompt in prompts]
    assert [answer.text for answer in generator.generate(chats, LIMIT)] == expected


def test_settings_of_sampling_and_beams_are_ignored_by_name(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "do_sample": True,
        "temperature": 0.2,
        "top_k": 3,
        "num_beams": 2,
        "repetition_penalty": 1.1,
    }
    save_family("llama", tmp_path / "model", **settings)
    for kernels in ("auto", "plain"):
        generator = open_generator(tmp_path / "model", kernels)
        assert dict(generator.rules.applied) == {"repetition_penalty": 1.1}
        assert set(generator.rules.ignored) == {"do_sample", "temperature", "top_k", "num_beams"}


def test_stop_strings_of_generation_config_end_answers(tmp_path: Path) -> None:
    model = save_family("llama", tmp_path / "model")
    prompt = make_prompts(LENGTHS)[0]
    tokens = transformers_tokens(model, [prompt], LIMIT)[0]
    save_family("llama", tmp_path / "stopping", stop_strings=[word(tokens[3])])
    for kernels in ("auto", "plain"):
        generator = open_generator(tmp_path / "stopping", kernels)
        (alone,), _ = answers_in_one_batch(generator, [prompt], LIMIT)
        assert alone == words(tokens[:3])
        assert answers_in_one_batch(generator, [prompt, prompt], LIMIT)[0] == [alone, alone]


def test_refused_setting_of_generation_config_is_named() -> None:
    rules = read_rules(GenerationConfig(no_repeat_ngram_size=-3), [2])
    with pytest.raises(BadInput, match="no_repeat_ngram_size of the model's generation_config is -3"):
        rules.for_prompts([[5, 6]], 3, "cpu")


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> LocalGenerator:
    """A model with sliding windows, decoded by transformers."""
    folder = tmp_path_factory.mktemp("windowed") / "model"
    save_family("olmo3", folder)
    return open_generator(folder)


def test_closed_stream_of_plain_path_stops_generating(windowed: LocalGenerator) -> None:
    prompt = make_prompts(LENGTHS)[1]
    whole = stream_pieces(windowed, prompt, 40)[1]
    running = windowed.follow(prompt, 40)
    first = [next(running), next(running)]
    running.close()
    assert whole.startswith("".join(first))
    taken: list[str] = []
    for piece in windowed.follow(prompt, 40, is_cancelled=lambda: len(taken) >= 2):
        taken.append(piece)
    assert len(taken) == 2, "cancelling is asked after each token"
    assert stream_pieces(windowed, prompt, 40)[1] == whole, "the model answers as before"


def test_plain_path_draws_as_the_fast_path(tmp_path: Path) -> None:
    """Each row of a batch has its own random stream on both paths, and its own limit, stop text and cancelling."""
    save_family("llama", tmp_path / "model")
    prompts = make_prompts(LENGTHS)
    samplings = [Sampling(1.5, 0.9, seed=3), Sampling(), Sampling(1.5, 0.9, seed=4)]
    answers = []
    for kernels in ("auto", "plain"):
        generator = open_generator(tmp_path / "model", kernels)
        rows = [
            BatchRow(prompt=p, limit=4 + n, sampling=s)
            for n, (p, s) in enumerate(zip(prompts, samplings, strict=True))
        ]
        together = [answer.text for answer in generate_batch(generator, rows)]
        assert together == [generate_batch(generator, [row])[0].text for row in rows]
        answers.append(together)
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1]


class CountingPrefill(FusedPrefill):
    """Counts the tokens that are read."""

    read = 0

    def embedded(self, rows: Any, parts: Any, before: int) -> Any:
        self.read += parts[-1].place.stop
        return super().embedded(rows, parts, before)


def test_requests_read_the_examples_they_share_once(tmp_path: Path) -> None:
    """Batches whose questions begin with the same words or not, then single requests."""
    save_family("llama", tmp_path)
    generator = open_generator(tmp_path)
    assert generator.decoder is not None
    assert generator.decoder.fused_step is not None
    generator.decoder.fused_prefill = prefill = CountingPrefill(generator.decoder.fused_step)
    examples, own = make_prompts((300,))[0], 0
    for same in (3, 20, 0):
        first = make_prompts((same + 1,), seed=same)[0][:same]
        prompts = [examples + first + [*range(40 + n, 52 + n)] for n in range(3)]
        own += sum(len(prompt) - len(examples) for prompt in prompts)
        answers_in_one_batch(generator, prompts, 2)
    stream_pieces(generator, [*examples, 9, 8, 7], 2)
    assert len(examples) < prefill.read <= len(examples) + own + 3
