"""Families, vocabularies and templates: what GGUF and Ollama are given exactly, and what is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BadInput
from runners.export import gguf, ollama
from runners.export import gguf as export_gguf
from runners.export.gguf import GgufFamily, family_of, reorder_rows, rope_factors
from runners.export.ollama import TemplatePieces, template_pieces
from runners.models.fingerprint import read_json
from runners.tokenization.chat_template import ChatTokenizer

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("kind", ["gemma3", "phi3", "mistral", "gpt2", "mamba", None])
def test_other_families_are_refused_by_name(kind: str | None) -> None:
    with pytest.raises(BadInput, match=repr(str(kind))) as refused:
        family_of({"model_type": kind})
    assert "llama, qwen2, qwen3" in refused.value.message
    assert "--to merged" in refused.value.hint


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rope_type"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "rope_type"),
    ],
)
def test_settings_without_a_word_in_gguf_are_refused_by_name(setting: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        family_of({**LLAMA, **setting})
    assert family_of(LLAMA).arch == "llama"
    with pytest.raises(BadInput, match="use_sliding_window"):
        family_of({"model_type": "qwen2", "use_sliding_window": True})


def test_rows_of_queries_go_from_halves_to_pairs_and_back() -> None:
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


def test_long_rope_divides_frequencies_as_llama_3_does() -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    how = {
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
        rope_parameters=how,
    )
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    found = rope_factors(config.to_dict())
    assert found is not None
    plain = np.array([500000.0 ** -(n / 16) for n in range(0, 16, 2)])
    assert np.allclose(plain / found, wanted.numpy(), rtol=1e-5)
    assert len(set(np.round(found, 3))) > 2, "some are stretched, some are not, some are mixed"
    assert rope_factors(LLAMA) is None


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_a_tokenizer_is_the_same_when_transformers_reads_it_from_the_file(
    tiny_model: Callable[..., Path], tmp_path: Path, cut: str
) -> None:
    import gguf

    from runners.export.gguf import _write_tokenizer
    from runners.models.gguf_import import gguf_tokenizer

    folder = tiny_model(tmp_path / "model", "llama", cut)
    size = int(read_json(folder / "config.json")["vocab_size"])
    found = export_gguf.read_vocabulary(folder, size)
    assert len(found.tokens) == len(found.kinds) == size
    assert found.kinds[-1] == export_gguf.UNUSED
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    _write_tokenizer(writer, found, folder)
    writer.add_tensor("token_embd.weight", np.zeros((1, 1), dtype=np.float32))
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    chat, read = ChatTokenizer(folder), gguf_tokenizer(tmp_path / "t.gguf")
    for text in (
        "The Amber Pier has 20 berths for visitors.",
        "  two  spaces\n\nlines\tand tabs",
        "naïve café, 東京 🚢",
        "<|im_start|>user\nHi<|im_end|>\n",
        "don't, I'LL ring 5550123 at 20:25",
        "a <think> b",
    ):
        assert read.encode(text, add_special_tokens=False) == chat.encode(text), text


def test_tokenizers_that_would_be_cut_otherwise_are_refused(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_model(tmp_path / "model")
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))

    def refused(**change: Any) -> str:
        (folder / "tokenizer.json").write_text(json.dumps({**whole, **change}), "utf-8")
        with pytest.raises(BadInput) as error:
            export_gguf.read_vocabulary(folder, 500)
        return error.value.message

    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    own = {"type": "Split", "pattern": {"Regex": r"\d+|\D+"}, "behavior": "Isolated", "invert": False}
    assert "no name for" in refused(pre_tokenizer={"type": "Sequence", "pretokenizers": [own, level]})
    assert "Whitespace" in refused(pre_tokenizer={"type": "Whitespace"})
    assert "by nothing" in refused(pre_tokenizer=None)
    assert "normalises text (Lowercase)" in refused(normalizer={"type": "Lowercase"})
    assert "whole words before merges" in refused(model={**whole["model"], "ignore_merges": True})
    assert "sentencepiece" in refused(model={**whole["model"], "byte_fallback": True})
    assert "'WordPiece'" in refused(model={"type": "WordPiece", "vocab": {}})
    (folder / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
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


def go(template: str, messages: list[dict[str, str]]) -> str:
    """Carry out the few Go template actions that are written here, as text/template does."""
    import re

    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    tokens = re.split(r"(\{\{ .*? \}\})", template)

    def run(at: int, item: dict[str, str] | None, live: bool) -> tuple[str, int, str]:
        """Write from a token to the end of its block; return text, the place behind it, and the action that ended it."""
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
                for one in messages:
                    part, after, _ = run(at, one, live)
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
def test_an_ollama_template_writes_what_the_original_does(
    tiny_model: Callable[..., Path], tmp_path: Path, template: str | None
) -> None:
    chat = ChatTokenizer(tiny_model(tmp_path / "model", **({"template": template} if template else {})))
    found = template_pieces(chat)
    for shape in ollama.CHAT_SHAPES:
        messages = [
            {"role": {"s": "system", "u": "user", "a": "assistant"}[c], "content": f"say {{{{ {n} }}}}"}
            for n, c in enumerate(shape)
        ]
        wanted = chat.render(messages, prompt=True)
        assert found.write(messages) == wanted
        assert go(found.go(), messages) == wanted


@pytest.mark.parametrize("template", [COUNTS, "{{ messages[-1]['content'] }}"], ids=["counts", "last only"])
def test_a_template_that_is_no_row_of_turns_is_refused(
    tiny_model: Callable[..., Path], tmp_path: Path, template: str
) -> None:
    chat = ChatTokenizer(tiny_model(tmp_path / "model", template=template))
    with pytest.raises(BadInput, match="cannot be written exactly") as refused:
        template_pieces(chat)
    assert "--to gguf" in refused.value.hint


def test_figures_are_gguf_s_and_whole(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    config = read_json(tiny_model(tmp_path / "model") / "config.json")
    found = gguf.gguf_hyperparameters(gguf.GGUF_FAMILIES[0], config)
    assert found["attention.key_length"] == 16
    assert math.isclose(found["rope.freq_base"], 10_000.0)
    assert TemplatePieces("", "", ("", ""), ("", ""), ("", ""), "").go().endswith("{{ end }}{{ end }}")
