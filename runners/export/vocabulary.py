"""A tokenizer.json as the fields of a GGUF file: tokens with their kinds, merges or scores, and how text is cut. Light.

llama.cpp knows the ways to cut text by name only. The name is found from the tokenizer's own pattern, never guessed from
the model's: another way to cut gives other tokens, and no error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners.fingerprint import read_json

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as ggml counts them."""
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
LLAMA3 += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}
"""Patterns and llama.cpp's names of them."""
_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF file says of its tokenizer."""

    model: str
    """"gpt2" for byte-level merges, "llama" for sentencepiece's."""
    pre: str
    """llama.cpp's name for how text is cut."""
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    prefix_space: bool


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a folder as ``size`` tokens, filling up with unused ones.

    Raises BadInput, naming what it is, for a tokenizer that llama.cpp would cut otherwise.
    """
    body = read_json(folder / "tokenizer.json")
    model = body.get("model") or {}
    if model.get("type") != "BPE":
        raise refused(f"its tokenizer is of the type {model.get('type')!r}")
    by_id = {index: token for token, index in model["vocab"].items()}
    added = {entry["id"]: entry for entry in body.get("added_tokens", ())}
    by_id |= {index: entry["content"] for index, entry in added.items()}
    if max(by_id) >= size:
        raise refused(f"its tokenizer has the token {max(by_id)}, the model only {size} rows")
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    sentencepiece = bool(model.get("byte_fallback"))
    unknown = str(model.get("unk_token") or "")
    kinds = tuple(_kind(index, by_id, added, sentencepiece, unknown) for index in range(size))
    if sentencepiece:
        space = _prefix_space(body)
        return Vocabulary("llama", "default", tokens, kinds, (), _scores(tokens, kinds, merges), space)
    return Vocabulary("gpt2", _cut(body), tokens, kinds, tuple(merges), (), False)


def refused(why: str) -> BadInput:
    """Return the refusal of a tokenizer."""
    return BadInput(
        f"this model is not written as GGUF here: {why}", "hand it on with --to merged, peft or vllm"
    )


def _kind(index: int, by_id: Mapping[int, str], added: Mapping[int, Any], pieces: bool, unknown: str) -> int:
    if index not in by_id:
        return UNUSED
    token = by_id[index]
    if pieces and token == unknown:
        return UNKNOWN
    if pieces and len(token) == 6 and token.startswith("<0x"):
        return BYTE
    if index in added:
        return CONTROL if added[index].get("special") else USER_DEFINED
    return NORMAL


def _scores(tokens: Sequence[str], kinds: Sequence[int], merges: Sequence[str]) -> tuple[float, ...]:
    """Return sentencepiece's scores: a token ranks by the first merge that makes it, so the same merges come first.

    sentencepiece joins any two pieces that make a third, the best third first. A list of merges says the same only when
    it has every such pair, those of one token together; BadInput where it does not.
    """
    pairs = [tuple(merge.split(" ")) for merge in merges]
    made = ["".join(pair) for pair in pairs]
    ranks: dict[str, int] = {}
    for rank, token in enumerate(made):
        ranks.setdefault(token, rank)
    plain = {token for token, kind in zip(tokens, kinds, strict=True) if kind == NORMAL}
    every = {(t[:n], t[n:]) for t in plain for n in range(1, len(t)) if t[:n] in plain and t[n:] in plain}
    changes = sum(a != b for a, b in pairwise(made)) + bool(made)
    if not every <= set(pairs) or changes != len(ranks):
        raise refused("its merges are not those of a sentencepiece vocabulary")
    return tuple(-float(ranks.get(token, len(merges))) for token in tokens)


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


def _prefix_space(body: Mapping[str, Any]) -> bool:
    """Return whether a sentencepiece tokenizer puts a space before a text; BadInput for one that does more."""
    normalizer, cut = body.get("normalizer") or {}, body.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    kinds = [step.get("type") for step in steps]
    if cut and cut.get("type") != "Metaspace":
        raise refused(f"its tokenizer cuts text by {cut.get('type')}")
    if not set(kinds) <= {"Prepend", "Replace"} or any(
        step.get("content", _SPACE) != _SPACE for step in steps
    ):
        raise refused(f"its tokenizer normalises text ({', '.join(map(str, kinds))})")
    return "Prepend" in kinds or cut.get("prepend_scheme") in ("always", "first")
