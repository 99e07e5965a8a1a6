"""A tokenizer.json as the fields of a GGUF file: tokens with their kinds, merges, and how text is cut. Light.

llama.cpp knows the ways to cut text by name only. The name is found from the tokenizer's own pattern, never guessed from
the model's: another way to cut gives other tokens, and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.fingerprint import read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens, as ggml counts them."""
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
LLAMA3 += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}
"""Patterns and llama.cpp's names of them."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF file says of a byte-level tokenizer."""

    pre: str
    """llama.cpp's name for how text is cut."""
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a folder as ``size`` tokens, filling up with unused ones.

    Raises BadInput, naming what it is, for a tokenizer that llama.cpp would cut otherwise, or that cannot be checked:
    sentencepiece's puts blanks after special tokens in llama.cpp, and does not in transformers' GGUF loader.
    """
    body = read_json(folder / "tokenizer.json")
    model = body.get("model") or {}
    if model.get("type") != "BPE":
        raise refused(f"its tokenizer is of the type {model.get('type')!r}")
    if model.get("byte_fallback"):
        raise refused("its tokenizer is a sentencepiece vocabulary")
    by_id = {index: token for token, index in model["vocab"].items()}
    added = {entry["id"]: entry for entry in body.get("added_tokens", ())}
    by_id |= {index: entry["content"] for index, entry in added.items()}
    if max(by_id) >= size:
        raise refused(f"its tokenizer has the token {max(by_id)}, the model only {size} rows")
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    kinds = tuple(_kind(index, by_id, added) for index in range(size))
    return Vocabulary(_cut(body), tokens, kinds, merges)


def refused(why: str) -> BadInput:
    """Return the refusal of a tokenizer."""
    return BadInput(
        f"this model is not written as GGUF here: {why}", "hand it on with --to merged, peft or vllm"
    )


def _kind(index: int, by_id: Mapping[int, str], added: Mapping[int, Any]) -> int:
    if index in added:
        return CONTROL if added[index].get("special") else USER_DEFINED
    return NORMAL if index in by_id else UNUSED


def _cut(body: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for how a byte-level tokenizer cuts text."""
    normalizer = (body.get("normalizer") or {}).get("type")
    parts = body.get("pre_tokenizer") or {}
    steps = parts.get("pretokenizers", [parts]) if parts else []
    kinds = [step.get("type") for step in steps]
    level = steps[-1] if steps else {}
    found = ""
    if not steps or kinds[-1] != "ByteLevel" or level.get("add_prefix_space"):
        raise refused(f"its tokenizer cuts text by {' and '.join(map(str, kinds)) or 'nothing'}")
    own = level.get("use_regex", True)
    if kinds == ["ByteLevel"] and own:
        found = "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and own and steps[0].get("individual_digits"):
        found = "smollm"
    elif kinds == ["Split", "ByteLevel"] and not own and steps[0].get("behavior", "").lower() == "isolated":
        found = SPLITS.get((steps[0].get("pattern") or {}).get("Regex", ""), "")
    if not found:
        raise refused("its tokenizer cuts text by a pattern that llama.cpp has no name for")
    # llama.cpp normalises nothing; NFC is Qwen's, whose files are made without it everywhere.
    if normalizer not in (None, "NFC") or (normalizer and found != "qwen2"):
        raise refused(f"its tokenizer normalises text ({normalizer})")
    if bool((body["model"]).get("ignore_merges")) != (found == "llama-bpe"):
        raise refused(
            "its tokenizer takes whole words before merges, and llama.cpp would not, or the other way round"
        )
    return found
