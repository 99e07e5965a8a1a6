"""GGUF families, vocabularies and Ollama templates: exact conversion, or refusal by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BadInput
from runners.export import gguf as export_gguf
from runners.export import ollama
from runners.export.gguf import GgufFamily, family_of, reorder_rows, rope_factors
from runners.export.ollama import TemplatePieces, template_pieces
from runners.models.fingerprint import read_json
from runners.tokenization.chat_template import ChatTokenizer

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("kind", ["gemma3", "phi3", "mistral", "gpt2", "mamba", None])
def test_unsupported_family_is_refused_by_name(kind: str | None) -> None:
    with pytest.raises(BadInput, match=repr(str(kind))) as refused:
        family_of({"model_type": kind})
    assert "llama, qwen2, qwen3" in refused.value.message
    assert "--to merged" in refused.value.hint


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "rope_type"),
    ],
)
def test_unsupported_setting_is_refused_by_name(setting: dict[str, Any], key: str) -> None:
    with pytest.raises(BadInput, match=key):
        family_of({**LLAMA, **setting})
    assert family_of(LLAMA).arch == "llama"
    with pytest.raises(BadInput, match="use_sliding_window"):
        family_of({"model_type": "qwen2", "use_sliding_window": True})


def test_reorder_rows_is_inverse_of_the_transformers_reader() -> None:
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    values = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    stored = reorder_rows(
        GgufFamily("llama", "llama", paired=True), LLAMA, "model.layers.0.self_attn.q_proj.weight", values
    )
    assert not np.array_equal(stored, values)
    reader = LlamaTensorProcessor({"num_attention_heads": 4, "num_key_value_heads": 2})
    assert np.array_equal(reader.process(stored, "blk.0.attn_q.weight").weights, values)
    keys = values[:32]
    stored = reorder_rows(
        GgufFamily("llama", "llama", paired=True), LLAMA, "model.layers.0.self_attn.k_proj.weight", keys
    )
    assert np.array_equal(reader.process(stored, "blk.0.attn_k.weight").weights, keys)
    for family, name in (
        (GgufFamily("qwen2", "qwen2"), "q_proj"),
        (GgufFamily("llama", "llama", paired=True), "v_proj"),
    ):
        assert reorder_rows(family, LLAMA, f"model.layers.0.self_attn.{name}.weight", values) is values


def test_rope_factors_equal_transformers_llama3_rope() -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    config = LlamaConfig(
        **{k: v for k, v in LLAMA.items() if k != "model_type"},
        max_position_embeddings=2048,
        rope_parameters=rope,
    )
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    factors = rope_factors(config.to_dict())
    assert factors is not None
    plain = np.array([500000.0 ** -(n / 16) for n in range(0, 16, 2)])
    assert np.allclose(plain / factors, expected.numpy(), rtol=1e-5)
    assert len(set(np.round(factors, 3))) > 2, "some are scaled, some are not, some are interpolated"
    assert rope_factors(LLAMA) is None


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_gguf_tokenizer_equals_the_original_tokenizer(
    tiny_model: Callable[..., Path], tmp_path: Path, pre: str
) -> None:
    import gguf

    from runners.export.gguf import _write_tokenizer
    from runners.models.gguf_import import gguf_tokenizer

    folder = tiny_model(tmp_path / "model", "llama", pre)
    size = int(read_json(folder / "config.json")["vocab_size"])
    vocabulary = export_gguf.read_vocabulary(folder, size)
    assert len(vocabulary.tokens) == len(vocabulary.kinds) == size
    assert vocabulary.kinds[-1] == export_gguf.UNUSED
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    _write_tokenizer(writer, vocabulary, folder)
    writer.add_tensor("token_embd.weight", np.zeros((1, 1), dtype=np.float32))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    chat, tokenizer = ChatTokenizer(folder), gguf_tokenizer(tmp_path / "t.gguf")
    for text in (
        "The Amber Pier has 20 berths for visitors.",
        "  two  spaces\n\nlines\tand tabs",
        "naïve café, 東京 🚢",
        "<|im_start|>user\nHi<|im_end|>\n",
        "don't, I'LL ring 5550123 at 20:25",
        "a <think> b",
    ):
        assert tokenizer.encode(text, add_special_tokens=False) == chat.encode(text), text


TEXTS = (
    "The Amber Pier has 20 berths for visitors.",
    "  two  spaces\n\nlines\tand tabs ",
    "naïve café, 東京 🚢, Привет",
    "<|im_start|>user\nHow many berths?<|im_end|>\n<|im_start|>assistant\n",
    "a <think> b<think>",
    "",
    " ",
)


@pytest.mark.parametrize("pre", ["gemma", "llama-2"])
def test_sentencepiece_file_gives_the_original_tokens(
    tiny_model: Callable[..., Path], tmp_path: Path, pre: str
) -> None:
    """Read back as llama.cpp reads it: pieces joined by their scores, Llama 2's with a space after special tokens."""
    import gguf

    from runners.export.gguf import _write_tokenizer, stored_pieces
    from runners.tokenization.sentencepiece import BYTE, UNKNOWN, lookup_of, piece_ids

    folder = tiny_model(tmp_path / "model", "llama", pre)
    size = int(read_json(folder / "config.json")["vocab_size"])
    vocabulary = export_gguf.read_vocabulary(folder, size)
    assert vocabulary.pieces is not None
    assert vocabulary.kinds[-1] == export_gguf.UNUSED
    assert (vocabulary.kinds.count(BYTE), vocabulary.kinds.count(UNKNOWN)) == (256, 1)
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    _write_tokenizer(writer, vocabulary, folder)
    writer.add_tensor("token_embd.weight", np.zeros((1, 1), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    pieces = stored_pieces(tmp_path / "t.gguf")
    assert pieces == vocabulary.pieces
    assert pieces.space_prefix is (pre == "llama-2")
    chat, lookup = ChatTokenizer(folder), lookup_of(pieces)
    for text in TEXTS:
        assert piece_ids(lookup, text) == chat.encode(text), text
    assert len(chat.encode(TEXTS[0])) < len(TEXTS[0]) / 2, "pieces are joined"


def test_sentencepiece_that_llama_cpp_reads_otherwise_is_refused(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_model(tmp_path / "model", "llama", "gemma")
    original = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    model = original["model"]

    def refusal(**change: Any) -> str:
        (folder / "tokenizer.json").write_text(json.dumps({**original, **change}), "utf-8")
        with pytest.raises(BadInput) as error:
            export_gguf.read_vocabulary(folder, 1000)
        assert "hand it on with --to merged" in error.value.hint
        return error.value.message

    first = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    assert "the first word of a text only" in refusal(normalizer=None, pre_tokenizer=first)
    words = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    assert "cuts text into words" in refusal(normalizer=None, pre_tokenizer=words)
    assert "no setting for" in refusal(normalizer={"type": "NFKC"})
    assert "no setting for" in refusal(pre_tokenizer={"type": "Whitespace"})
    added = [{**original["added_tokens"][0], "normalized": True}, *original["added_tokens"][1:]]
    assert "matches the added token '<|endoftext|>' by rules" in refusal(added_tokens=added)
    assert "merges by rules" in refusal(model={**model, "ignore_merges": True})
    merges = model["merges"]
    joined = ["".join(merge) for merge in merges]
    three = next(token for token in joined if len(token) == 3 and joined.count(token) == 1)
    # The other way to cut these three characters in two becomes possible, and no merge takes it.
    pair = three[1:] if three[:2] in model["vocab"] else three[:2]
    more = {**model["vocab"], pair: max(model["vocab"].values()) + 5}
    another = {**model, "vocab": more, "merges": [*merges, list(pair)]}
    once = next(n for n, token in enumerate(joined) if joined.count(token) == 1)

    def without(index: int) -> dict[str, Any]:
        return {**model, "merges": [*merges[:index], *merges[index + 1 :]]}

    assert "merges have 1 of the 2 splits of the token" in refusal(model=another)
    assert f"never make the token {joined[once]!r}" in refusal(model=without(once))
    assert "at several places" in refusal(model={**model, "merges": [*merges, merges[0]]})
    (folder / "tokenizer.json").write_text(json.dumps(original), "utf-8")
    with pytest.raises(BadInput, match="only 10 rows"):
        export_gguf.read_vocabulary(folder, 10)


GEMMA3 = {
    "model_type": "gemma3_text",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "layer_types": [*["sliding_attention"] * 5, "full_attention"],
}


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ({"query_pre_attn_scalar": 21}, "query_pre_attn_scalar"),
        ({"layer_types": ["full_attention"] * 6}, "layer_types"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"hidden_activation": "silu"}, "hidden_activation"),
        ({"rope_local_base_freq": 20_000.0}, "rope_parameters"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_theta": 5000.0, "rope_type": "default"}}},
            "rope_parameters",
        ),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}
                }
            },
            "rope_type",
        ),
    ],
)
def test_gemma3_that_llama_cpp_computes_otherwise_is_refused(setting: dict[str, Any], key: str) -> None:
    assert family_of(GEMMA3).arch == "gemma3"
    with pytest.raises(BadInput, match=key):
        family_of({**GEMMA3, **setting})


def test_tokenizer_unknown_to_llama_cpp_is_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model")
    original = json.loads((folder / "tokenizer.json").read_text("utf-8"))

    def refusal(**change: Any) -> str:
        (folder / "tokenizer.json").write_text(json.dumps({**original, **change}), "utf-8")
        with pytest.raises(BadInput) as error:
            export_gguf.read_vocabulary(folder, 500)
        return error.value.message

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": r"\d+|\D+"}, "behavior": "Isolated", "invert": False}
    assert "no name for" in refusal(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level]})
    assert "Whitespace" in refusal(pre_tokenizer={"type": "Whitespace"})
    assert "by nothing" in refusal(pre_tokenizer=None)
    assert "normalises text (Lowercase)" in refusal(normalizer={"type": "Lowercase"})
    assert "whole words before merges" in refusal(model={**original["model"], "ignore_merges": True})
    assert "no token for the byte 0x00" in refusal(model={**original["model"], "byte_fallback": True})
    assert "'WordPiece'" in refusal(model={"type": "WordPiece", "vocab": {}})
    (folder / "tokenizer.json").write_text(json.dumps(original), "utf-8")
    with pytest.raises(BadInput, match="only 10 rows"):
        export_gguf.read_vocabulary(folder, 10)


LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '<|hd|>\n\n' + m['content'] | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|hd|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set head = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set head = '' %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (head if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' }}{% endif %}{% endfor %}"
)
COUNTS = "{% for m in messages %}{{ loop.index }}: {{ m['content'] }}\n{% endfor %}"
BRACES = (
    "{% for m in messages %}{{ '{{' + m['role'] + '}} ' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{{assistant}} ' }}{% endif %}"
)


def render_go(template: str, messages: list[dict[str, str]]) -> str:
    """Execute the few Go template actions that the export writes, as Go's text/template does."""
    import re

    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    tokens = re.split(r"(\{\{ .*? \}\})", template)

    def run(at: int, item: dict[str, str] | None, live: bool) -> tuple[str, int, str]:
        """Render from a token to the end of its block; return the text, the next index, and the action that ended it."""
        text = ""
        while at < len(tokens):
            token, at = tokens[at], at + 1
            action = token[3:-3] if token.startswith("{{ ") else None
            if action is None:
                text += token if live else ""
            elif action.startswith('"'):
                text += json.loads(action) if live else ""
            elif action == ".Content":
                text += item["content"] if live and item else ""
            elif action == "end" or action.startswith("else"):
                return text, at, action
            elif action == "range .Messages":
                for message in messages:
                    part, after, _ = run(at, message, live)
                    text += part
                at = after
            else:
                done = False
                condition = action
                while True:
                    role = re.fullmatch(r'(?:else )?if eq \.Role "(\w+)"', condition)
                    holds = item is not None and item["role"] == role[1] if role else not system
                    part, at, condition = run(at, item, live and holds and not done)
                    text += part
                    done = done or holds
                    if condition == "end":
                        break
        return text, at, "end"

    return run(0, None, True)[0]


@pytest.mark.parametrize(
    "template", [None, LLAMA3, LLAMA2, BRACES], ids=["chatml with a default", "llama 3", "llama 2", "braces"]
)
def test_ollama_template_renders_chats_as_the_original(
    tiny_model: Callable[..., Path], tmp_path: Path, template: str | None
) -> None:
    chat = ChatTokenizer(tiny_model(tmp_path / "model", **({"template": template} if template else {})))
    pieces = template_pieces(chat)
    for shape in ollama.CHAT_SHAPES:
        messages = [
            {"role": {"s": "system", "u": "user", "a": "assistant"}[c], "content": f"say {{{{ {n} }}}}"}
            for n, c in enumerate(shape)
        ]
        expected = chat.render(messages, prompt=True)
        assert pieces.render(messages) == expected
        assert render_go(pieces.go_template(), messages) == expected


@pytest.mark.parametrize("template", [COUNTS, "{{ messages[-1]['content'] }}"], ids=["counts", "last only"])
def test_template_without_plain_turns_is_refused(
    tiny_model: Callable[..., Path], tmp_path: Path, template: str
) -> None:
    chat = ChatTokenizer(tiny_model(tmp_path / "model", template=template))
    with pytest.raises(BadInput, match="cannot be written exactly") as refused:
        template_pieces(chat)
    assert "--to gguf" in refused.value.hint


def test_hyperparameters_have_gguf_keys(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    config = read_json(tiny_model(tmp_path / "model") / "config.json")
    values = export_gguf.gguf_hyperparameters(export_gguf.GGUF_FAMILIES[0], config)
    assert values["attention.key_length"] == 16
    assert math.isclose(values["rope.freq_base"], 10_000.0)
    assert (
        TemplatePieces("", "", ("", ""), ("", ""), ("", ""), "").go_template().endswith("{{ end }}{{ end }}")
    )
