"""Which decoding a model gets: this project's own loops and cache, or transformers' ``generate``.

:func:`choose_path` accepts the own loops only for architectures known to be causal softmax attention over every token
before (:data:`KNOWN`), and only where a probe finds the logits of the model's own forward pass without cache: a batch of
unequal lengths with a shared beginning and rows that leave it, and a single row with several tokens in one step, each with
and without a cached prefix, all prompts read in several chunks. Where either fails, transformers decodes, and the reason is
recorded. A second probe says whether transformers' own batches bear padding on this model. What the probes found is kept in
the cache folder under everything that it depends on. Imports torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from rag.files import canonical_json, sha256_text
from rag.version import __version__
from runners.inference.decoding import Decoder, TokenSampler
from runners.inference.kv_cache import MIN_SHARED, CachedPrefix, StaticKVCache, cacheable_layers, layer_caches
from runners.inference.llama_step import StepModel, equals_whole_model
from runners.inference.transformers_decoder import UNLIMITED, UNPADDED, TransformersDecoder
from runners.models.digests import keep_entry
from runners.models.fingerprint import read_json
from runners.paths import cache_folder
from runners.resources.device import torch_device
from runners.resources.gpu import MachineProbe

KNOWN = frozenset(
    {
        "apertus",
        "arcee",
        "cohere",
        "deepseek_v2",
        "deepseek_v3",
        "diffllama",
        "ernie4_5",
        "ernie4_5_moe",
        "falcon",
        "gemma",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "gptj",
        "granite",
        "granitemoe",
        "helium",
        "hunyuan_v1_dense",
        "llama",
        "minicpm3",
        "ministral3",
        "mistral",
        "mixtral",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmoe",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "stablelm",
    }
)
"""transformers' names of architectures whose layers attend to all tokens before, at positions that they are given."""
UNFIT = {
    "bloom": "ALiBi counts positions from the mask",
    "mpt": "ALiBi counts positions without regard to padding",
    "gpt_neo": "its sliding window counts padding",
}
"""Architectures whose cache looks like that of the known ones, and why the own loops would be wrong for them."""
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Kinds of rotary positions of which every position changes when the text outgrows the trained length."""
PLAIN_REQUESTED = "kernels plain: asked for"

PROBE_LENGTHS = (18, 34, 27)
"""Tokens of the probe's prompts: more and fewer than a multiple of the prefill, the shortest longer than the prefix."""
PROBE_TOKENS = 3
"""Tokens that each prompt is continued with; the first row leaves its batch after one of them."""
PROBE_CHUNK, PROBE_BLOCK = 16, 8
"""Tokens of a chunk and queries of a block of the fused prefill in the probe: each of its prompts goes through several."""
MAX_ERROR = 1e-3
"""Largest relative error of the logits after a token in fp32, as the length of the difference over that of the spread.

Over the families of the contract tests rounding gives up to 1e-4, a wrong mask or position 0.1 to 0.6."""
MAX_ROUNDED_ERROR = 0.02
"""The same in 16 bits, of the median over a row's tokens (rounding may send single tokens to other experts), or
ROUNDING_MARGIN times what rounding gives transformers' own padded batch if that is more.

Measured in bf16 with prompts of drawn tokens: transformers' padded batch 0.04 on SmolLM2-135M and 0.16 on gemma-3-270m, the
own batch with a shared prefix 0.09 on the former."""
ROUNDING_MARGIN = 4
MAX_PADDED_ERROR = 0.35
"""The same for transformers' own padded batches in 16 bits, whose rounding cannot be measured apart."""
PATHS_FOLDER = "decoding"
"""The folder of kept paths in the cache folder."""
MAX_KEPT_PATHS = 64
"""Number of kept paths; the oldest are removed."""
_FAILS = "fails on this model"
"""In the reason of a probe that ended in an error: it may have another cause the next time, and is not kept."""
_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError, AssertionError)
"""What a model raises whose layers cannot be called as the own loops call them."""


@dataclass(frozen=True, slots=True)
class DecodingPath:
    """How a model is decoded, and why."""

    own: bool
    """Whether this project's loops and cache are used."""
    reason: str = ""
    """Why transformers decodes; "" for the own loops."""
    fused: bool = True
    """Whether the fused step may be used where the layers are Llama's."""
    padded: int = UNLIMITED
    """Most tokens, answers included, up to which transformers' batches of unequal rows may be padded; 0: not at all."""
    padding_reason: str = ""
    """Why they may not, or only so far."""
    step_only: bool = False
    """Whether a :class:`runners.inference.llama_step.StepModel` is the same model, bit for bit."""

    @property
    def name(self) -> str:
        """fast or plain, as the paths of training are called."""
        return "fast" if self.own else "plain"

    def decoder(self, model: Any) -> Decoder | None:
        """Return the own decoder of a model of this architecture; None where transformers decodes."""
        return Decoder(model, self.fused) if self.own else None

    def reasons(self) -> str:
        """Return why the path is plain and its batches are not padded, "" for the fast path."""
        return "; ".join(reason for reason in (self.reason, self.padding_reason) if reason)


def choose_path(
    model: Any,
    kernels: str,
    ordinary: Callable[[], Sequence[int]],
    file: Path | None = None,
    step_model: Callable[[], StepModel | None] = lambda: None,
) -> DecodingPath:
    """Return how a loaded model is decoded: as a start before found it, else by the probes.

    Args:
        model: A causal language model of transformers.
        kernels: auto, or plain for transformers' ``generate``.
        ordinary: Returns the tokens of text that the probe's prompts are drawn from, none of them special.
        file: Where the path is kept between starts (:func:`path_file`); None for nowhere.
        step_model: Loads the same model without transformers' layers, to see whether that will do the next time.
    """
    if file and (known := read_path(file)):
        return known
    path = _probed_path(model, kernels, ordinary())
    if file and _FAILS not in path.reasons():
        if path.own and path.fused and model.device.type == "cpu":
            other = step_model()
            path = replace(path, step_only=other is not None and equals_whole_model(other, model))
        keep_entry(file, asdict(path), MAX_KEPT_PATHS)
    return path


def path_file(folder: Path, weights: str, dtype: str, kernels: str) -> Path:
    """Return where the path of a model is kept, under everything that the probes' outcome depends on.

    Args:
        folder: The model's folder, with its config.
        weights: Hash of the weights; adapters change nothing in what an architecture computes.
        dtype: What the model computes in, and how its weights are held.
        kernels: auto or plain.
    """
    processor = (MachineProbe().read("proc/cpuinfo") or "").splitlines()
    named = ("model name", "flags", "CPU implementer", "CPU part", "Features")
    sources = sorted(Path(__file__).parent.glob("*.py"))
    device = torch_device()
    facts = {
        "weights": weights,
        "config": read_json(folder / "config.json"),
        "dtype": dtype,
        "kernels": kernels,
        "versions": [torch.__version__, transformers.__version__, __version__],
        "sources": [sha256_text(path.read_text("utf-8")) for path in sources],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "processor": sorted({line for line in processor if line.startswith(named)}),
        "capability": [torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA")],
    }
    return cache_folder() / PATHS_FOLDER / f"{sha256_text(canonical_json(facts))}.json"


def read_path(file: Path) -> DecodingPath | None:
    """Return the path kept in a file; None where there is none, or one that is damaged."""
    try:
        path = DecodingPath(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return path if list(map(type, astuple(path))) == [bool, str, bool, int, str, bool] else None


def _probed_path(model: Any, kernels: str, ordinary: Sequence[int]) -> DecodingPath:
    reason = PLAIN_REQUESTED if kernels == "plain" else unknown_reason(model.config)
    if not reason:
        for fused in (True, False):
            decoder = Decoder(model, fused)
            if fused and decoder.fused_step is None:
                continue
            reason = own_error(decoder, ordinary)
            if not reason:
                return DecodingPath(True, fused=fused)
    padded, why_not = padding_limit(model, ordinary)
    return DecodingPath(False, reason, padded=padded, padding_reason=why_not)


def unknown_reason(config: Any) -> str:
    """Return why a model of this config is not decoded by the own loops, "" when its architecture is known to fit."""
    text = config.get_text_config(decoder=True)
    kind = str(text.model_type)
    if kind in UNFIT or getattr(text, "alibi", False):
        return f"own decoding is not used for {kind}: {UNFIT.get(kind, UNFIT['bloom'])}"
    if kind not in KNOWN or kind != config.model_type:
        return f"own decoding is not proven for {config.model_type}{_remembered(text)}"
    if not cacheable_layers(text):
        return f"own decoding does not fit this {kind}{_remembered(text)}"
    if rope := length_dependent_rope(text):
        return f"its rotary positions ({rope}) depend on the length of the text, so no prefix can be reused"
    return ""


def _remembered(text_config: Any) -> str:
    """Return what a model's layers remember besides keys and values of every token, as the end of a reason."""
    try:
        kinds = layer_caches(text_config)
    except _FAILURES:  # a config that transformers' own cache cannot read either
        return ""
    parts = [
        "a sliding window" if any("Sliding" in kind for kind in kinds) else "",
        "a recurrent or convolutional state" if any("Linear" in kind for kind in kinds) else "",
    ]
    named = " and ".join(part for part in parts if part)
    return f": it has layers with {named}" if named else ""


def length_dependent_rope(text_config: Any) -> str:
    """Return the kind of rotary positions that depend on the length of the text, "" for all others."""
    rope = getattr(text_config, "rope_parameters", None) or {}
    # One dict, or one for each kind of layer.
    each = [value for value in rope.values() if isinstance(value, dict)] or [rope]
    kinds = (str(one.get("rope_type", one.get("type", ""))) for one in each)
    return next((kind for kind in kinds if kind in LENGTH_DEPENDENT), "")


def own_error(decoder: Decoder, ordinary: Sequence[int]) -> str:
    """Return where the own loops leave the model's forward pass on the probe, "" when they agree with it."""
    model = decoder.model
    texts = _probe_texts(model, ordinary)
    try:
        expected = _reference(model, texts)
        before = min(MIN_SHARED, *(len(text) - PROBE_TOKENS - 1 for text in texts))
        with _short_chunks(decoder):
            shared = (before, decoder.cache_prefix(texts[0][:before]))
        half, limit = _half(model.dtype), MAX_ERROR
        if half:
            by_transformers = _in_batch(TransformersDecoder(model, (), None).decode_batch, texts)
            limit = max(
                MAX_ROUNDED_ERROR,
                min(ROUNDING_MARGIN * max(_errors(by_transformers, expected, half)), MAX_PADDED_ERROR),
            )
        checks: list[tuple[str, Callable[[], list[torch.Tensor]], list[torch.Tensor]]] = [
            ("a padded batch", lambda: _in_batch(decoder.decode_batch, texts), expected),
            (
                "a batch with a shared prefix",
                lambda: _in_batch(partial(decoder.decode_batch, shared=shared), texts),
                expected,
            ),
            ("a single row", lambda: [_alone(decoder, texts[1])], expected[1:2]),
            (
                "a single row with a cached prefix",
                lambda: [_alone(decoder, texts[2], shared)],
                expected[2:],
            ),
        ]
        for what, compute, goal in checks:
            with _short_chunks(decoder):
                computed = compute()
            if why := _difference(computed, goal, limit, half):
                return f"the own decoding of {what} differs from the model's forward pass: {why}"
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        return f"the own decoding {_FAILS}: {type(error).__name__}: {error}"
    return ""


@contextmanager
def _short_chunks(decoder: Decoder) -> Iterator[None]:
    """Let the fused prefill of a decoder, if it has one, read a prompt of the probe in several chunks and blocks."""
    prefill = decoder.fused_prefill
    if prefill is None:
        yield
        return
    sizes = prefill.chunk_tokens, prefill.query_block
    prefill.chunk_tokens, prefill.query_block = PROBE_CHUNK, PROBE_BLOCK
    try:
        yield
    finally:
        prefill.chunk_tokens, prefill.query_block = sizes


def padding_limit(model: Any, ordinary: Sequence[int]) -> tuple[int, str]:
    """Return up to how many tokens transformers' batches of unequal rows may be padded on this model, and why no further."""
    text = model.config.get_text_config(decoder=True)
    together = "rows of equal length are decoded together"
    if text.model_type in UNPADDED:
        return 0, f"{text.model_type} reads padding as tokens: {together}"
    texts = _probe_texts(model, ordinary)
    half = _half(model.dtype)
    expected = _reference(model, texts)
    try:
        computed = _in_batch(TransformersDecoder(model, (), None).decode_batch, texts)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        return 0, f"a padded batch {_FAILS} ({type(error).__name__}: {error}): {together}"
    why = _difference(computed, expected, MAX_PADDED_ERROR if half else MAX_ERROR, half)
    if why:
        return 0, f"a padded row's logits differ from those of the row alone {why}: {together}"
    if rope := length_dependent_rope(text):
        trained = int(
            text.rope_parameters.get("original_max_position_embeddings") or text.max_position_embeddings
        )
        return (
            trained,
            f"above {trained:,} tokens one row changes the positions of its whole batch ({rope}): {together}",
        )
    return UNLIMITED, ""


def _half(dtype: torch.dtype) -> bool:
    """Whether a model computes in 16 bits."""
    return torch.finfo(dtype).bits < 32


def _probe_texts(model: Any, ordinary: Sequence[int]) -> list[list[int]]:
    """Return prompts with their continuations, drawn from ordinary tokens; all begin with the same MIN_SHARED."""
    draw = torch.Generator().manual_seed(0)
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    most = (context or 1 << 30) - PROBE_TOKENS
    lengths = [max(1, min(length, most)) + PROBE_TOKENS for length in PROBE_LENGTHS]
    drawn = torch.randint(len(ordinary), (len(lengths), max(lengths)), generator=draw).tolist()
    first = drawn[0][:MIN_SHARED]
    return [
        [ordinary[n] for n in (first + row[MIN_SHARED:])[:length]]
        for row, length in zip(drawn, lengths, strict=True)
    ]


@torch.inference_mode()
def _reference(model: Any, texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return the logits [PROBE_TOKENS, vocabulary] that predict each text's continuation: row by row, without cache."""
    logits = []
    for text in texts:
        ids = torch.tensor([text], device=model.device)
        logits.append(model(input_ids=ids, use_cache=False).logits[0, -PROBE_TOKENS - 1 : -1].float())
    return logits


class _ForcedSampler(TokenSampler):
    """Takes the tokens of given texts, whatever the logits say, and records the logits."""

    def __init__(self, texts: Sequence[list[int]]) -> None:
        """Take the texts; their last PROBE_TOKENS tokens are the answers."""
        super().__init__()
        self._answers = [text[-PROBE_TOKENS:] for text in texts]
        self.logits: list[list[torch.Tensor]] = [[] for _ in texts]

    def sample(self, logits: torch.Tensor, rows: Sequence[int]) -> list[int]:
        """Return the next token of each row's text."""
        tokens = []
        for one, row in zip(logits, rows, strict=True):
            tokens.append(self._answers[row][len(self.logits[row])])
            self.logits[row].append(one.float().clone())
        return tokens


def _in_batch(decode_batch: Callable[..., None], texts: Sequence[list[int]]) -> list[torch.Tensor]:
    """Return each row's logits [tokens, vocabulary] of a batch; the first row leaves it after one token."""
    sampler = _ForcedSampler(texts)

    def on_token(row: int, token: int) -> bool:
        return row == 0 and len(sampler.logits[0]) >= 1

    prompts = [text[:-PROBE_TOKENS] for text in texts]
    decode_batch(prompts, PROBE_TOKENS, on_token, sampler, range(len(texts)))
    return [torch.stack(each) for each in sampler.logits]


def _alone(decoder: Decoder, text: list[int], shared: tuple[int, CachedPrefix] | None = None) -> torch.Tensor:
    """Return a single row's logits [PROBE_TOKENS, vocabulary]: one token in a step, then several as guesses are."""
    cache = StaticKVCache(decoder.layers, 1, len(text))
    if shared:
        cache.load_prefix(shared[1], shared[0])
    first = decoder.prefill_one(text[cache.length : -PROBE_TOKENS], cache)
    second = decoder.logits_after(text[-PROBE_TOKENS : 1 - PROBE_TOKENS], cache)
    rest = decoder.logits_after(text[1 - PROBE_TOKENS : -1], cache)
    return torch.cat((first, second, rest)).float()


def _errors(computed: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], half: bool) -> list[float]:
    """Return the relative error of each row's logits; rows may be shorter than expected: those that left a batch."""
    errors = []
    for row, goal in zip(computed, expected, strict=True):
        spread = (goal - goal.mean(-1, keepdim=True)).norm(dim=-1)[: len(row)]
        each = (row - goal[: len(row)]).norm(dim=-1) / spread.clamp(min=1e-30)
        errors.append(float(each.median() if half else each.max()))
    return errors


def _difference(
    computed: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], limit: float, half: bool
) -> str:
    """Return which row's logits are further than ``limit`` from the expected ones, "" when none is."""
    for number, error in enumerate(_errors(computed, expected, half), 1):
        if not error <= limit:  # so that NaN is a difference too
            return f"by {error:.2g} of the logits' spread for row {number}, where {limit:.2g} is rounding"
    return ""
