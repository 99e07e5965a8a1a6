"""Sentencepiece vocabularies in GGUF files: scores from a tokenizer's merges, and llama.cpp's way to tokenize with them.

:func:`read_pieces` turns a ``tokenizer.json`` of the kind that Llama 2 and Gemma have (BPE with byte fallback) into tokens,
scores and types, or names what llama.cpp would do otherwise. :func:`piece_ids` tokenizes a text from the fields of a GGUF
file with the algorithm of llama.cpp's ``llm_tokenizer_spm`` (llama-vocab.cpp), independently of transformers, so that a
written file can be compared with the tokenizer it was made from.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import BadInput

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Token types, numbered as in ggml."""
SPACE = "\u2581"
"""Sentencepiece's sign for a space."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_NO_SCORE = -1e6
"""Score of tokens that no merge makes: never compared with another."""
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


@dataclass(frozen=True, slots=True)
class Pieces:
    """The fields of a GGUF file for a sentencepiece vocabulary."""

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    """Of two neighbouring pairs, the one whose joined token has the higher score is joined first."""
    kinds: tuple[int, ...]
    """The ggml token type of each token."""
    space_prefix: bool
    """Whether a space is put before the text and after every special token."""


def read_pieces(body: Mapping[str, Any], size: int) -> Pieces:
    """Read a ``tokenizer.json`` with byte fallback.

    Args:
        body: the content of the file.
        size: the model's vocabulary size; missing tokens are filled up with unused ones.

    Raises:
        BadInput: llama.cpp would tokenize otherwise; the message is the reason alone.
    """
    model = body["model"]
    vocab: dict[str, int] = model["vocab"]
    added = {int(entry["id"]): entry for entry in body.get("added_tokens", ())}
    by_id = {index: token for token, index in vocab.items()}
    by_id |= {index: str(entry["content"]) for index, entry in added.items()}
    odd = [
        t
        for t in added.values()
        if any(t.get(key) for key in ("normalized", "lstrip", "rstrip", "single_word"))
    ]
    if odd:
        raise BadInput(
            f"its tokenizer matches the added token {odd[0]['content']!r} by rules that llama.cpp lacks"
        )
    if model.get("ignore_merges") or model.get("dropout") or model.get("continuing_subword_prefix"):
        raise BadInput("its tokenizer merges by rules that llama.cpp lacks")
    if max(by_id) >= size:
        raise BadInput(f"its tokenizer has the token {max(by_id)}, the model only {size} rows")
    if missing := [byte for byte in range(256) if f"<0x{byte:02X}>" not in vocab]:
        raise BadInput(f"its vocabulary has no token for the byte {missing[0]:#04x}")
    scores = _scores(model, vocab, {str(entry["content"]) for entry in added.values()})
    unknown = vocab.get(str(model.get("unk_token")))
    kinds = []
    for index in range(size):
        if index == unknown:
            kinds.append(UNKNOWN)
        elif index in added:
            kinds.append(CONTROL if added[index].get("special") else USER_DEFINED)
        elif index not in by_id:
            kinds.append(UNUSED)
        else:
            kinds.append(BYTE if _BYTE_TOKEN.fullmatch(by_id[index]) else NORMAL)
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    return Pieces(
        tokens, tuple(scores.get(token, _NO_SCORE) for token in tokens), tuple(kinds), _space_prefix(body)
    )


def _scores(model: Mapping[str, Any], vocab: Mapping[str, int], added: Collection[str]) -> dict[str, float]:
    """Return the score of every token that a merge makes: minus its place in the order of merges.

    llama.cpp joins any two neighbours whose text is a token, by the score of that token. This is what the merges do only
    if they hold every split of a token, and all merges of one token stand together.
    """
    scores: dict[str, float] = {}
    splits: dict[str, int] = {}
    last = ""
    for merge in model["merges"]:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        token = left + right
        if token != last and token in scores:
            raise BadInput(f"its merges make the token {token!r} at several places of their order")
        scores.setdefault(token, -float(len(scores)))
        splits[token] = splits.get(token, 0) + 1
        last = token
    for token in vocab:
        pairs = sum(token[:cut] in vocab and token[cut:] in vocab for cut in range(1, len(token)))
        if token in splits and pairs != splits[token]:
            raise BadInput(f"its merges have {splits[token]} of the {pairs} splits of the token {token!r}")
        # A token that could be joined from two others but never is: llama.cpp would join it. Added tokens are matched
        # before anything is joined.
        if pairs and token not in splits and token not in added and not _BYTE_TOKEN.fullmatch(token):
            raise BadInput(f"its merges never make the token {token!r}")
    return scores


def _space_prefix(body: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer puts a space before every stretch of text; BadInput for what llama.cpp does not do."""
    normalizer, cut = body.get("normalizer") or {}, body.get("pre_tokenizer") or {}
    prepend = {"type": "Prepend", "prepend": SPACE}
    prefixed = [prepend, _REPLACE]
    # After spaces were replaced, a split at spaces does nothing.
    does_nothing = not cut or (cut.get("type") == "Split" and cut.get("pattern") == {"String": " "})
    if does_nothing and normalizer == _REPLACE:
        return False
    if does_nothing and normalizer.get("type") == "Sequence" and normalizer.get("normalizers") == prefixed:
        return True
    if not normalizer and cut.get("type") == "Metaspace" and cut.get("replacement") == SPACE:
        scheme = cut.get("prepend_scheme", "always")
        if scheme == "first":
            raise BadInput(
                "its tokenizer puts a space before the first word of a text only, and llama.cpp also after special tokens"
            )
        if not cut.get("split", True):
            return bool(scheme == "always")
        raise BadInput("its tokenizer cuts text into words before merging, and llama.cpp does not")
    raise BadInput("its tokenizer prepares text in a way that llama.cpp has no setting for")


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A vocabulary prepared for :func:`piece_ids`."""

    ids: Mapping[str, int]
    scores: Sequence[float]
    matched: re.Pattern[str] | None
    """Control and user-defined tokens, which are matched before anything is joined; the longest first."""
    space_prefix: bool


def lookup_of(pieces: Pieces) -> _Lookup:
    """Prepare a vocabulary for :func:`piece_ids`."""
    pairs = zip(pieces.tokens, pieces.kinds, strict=True)
    special = sorted(
        {token for token, kind in pairs if kind in (CONTROL, USER_DEFINED)}, key=len, reverse=True
    )
    matched = re.compile("|".join(map(re.escape, special))) if special else None
    ids = {token: index for index, token in enumerate(pieces.tokens)}
    return _Lookup(ids, pieces.scores, matched, pieces.space_prefix)


def piece_ids(lookup: _Lookup, text: str) -> list[int]:
    """Return the tokens of a text as llama.cpp gives them, special tokens in the text included, without a start token."""
    ids: list[int] = []
    start = 0
    matches = lookup.matched.finditer(text) if lookup.matched else ()
    for match in matches:
        if match.start() > start:
            ids += _join(lookup, text[start : match.start()])
        ids.append(lookup.ids[match[0]])
        start = match.end()
    if start < len(text):
        ids += _join(lookup, text[start:])
    return ids


def _join(lookup: _Lookup, text: str) -> list[int]:
    """Return the tokens of text without special tokens: the best-scored neighbours are joined first, then the leftmost."""
    prefix = SPACE if lookup.space_prefix else ""
    symbols: list[str] = list(prefix + text.replace(" ", SPACE))
    before = [n - 1 for n in range(len(symbols))]
    after = [*range(1, len(symbols)), -1]
    queue: list[tuple[float, int, int, int]] = []

    def offer(left: int, right: int) -> None:
        if left < 0 or right < 0:
            return
        joined = symbols[left] + symbols[right]
        if (index := lookup.ids.get(joined)) is not None:
            heapq.heappush(queue, (-lookup.scores[index], left, right, len(joined)))

    for right in range(1, len(symbols)):
        offer(right - 1, right)
    while queue:
        _, left, right, length = heapq.heappop(queue)
        if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
            continue  # one of the two was joined with another meanwhile
        symbols[left] += symbols[right]
        symbols[right] = ""
        after[left] = after[right]
        if after[left] >= 0:
            before[after[left]] = left
        offer(before[left], left)
        offer(left, after[left])
    ids: list[int] = []
    for symbol in filter(None, symbols):
        index = lookup.ids.get(symbol)
        # Only single characters can be unknown here: they are written as their bytes.
        ids += [index] if index is not None else [lookup.ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return ids
