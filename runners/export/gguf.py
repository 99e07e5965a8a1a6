"""The `gguf` export: one file for llama.cpp, read back by transformers' GGUF loader and compared.

`make_gguf` is the target's maker; `write_gguf` is shared with the `ollama` export. `family_of` and `gguf_hyperparameters`
describe the model families, `read_vocabulary` the tokenizer. The format is specified in ggml's docs/gguf.md; the order
of rows and the factors of Llama 3's rope follow llama.cpp's conversion.

llama.cpp knows pre-tokenizers by name only. The name is determined from the tokenizer's own pattern, never guessed from
the model's name: another pre-tokenizer gives other tokens, and no error.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BadInput
from runners.export import merged
from runners.export.card import short_model_name
from runners.export.job import ExportedFiles, ExportJob, require_disk_space
from runners.export.merged import MergedModel, load_merged, merging_notes, write_in_smallest_dtype
from runners.export.peft import prompting_notes
from runners.export.source import ExportSource
from runners.models.fingerprint import read_json
from runners.plan.arm_names import plain_name
from runners.tokenization import sentencepiece
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.sentencepiece import CONTROL, NORMAL, UNUSED, USER_DEFINED, Pieces

_ROPE_TYPES = ("default", "llama3")
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
LLAMA3 += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}
"""llama.cpp's name of each pre-tokenizer pattern."""
GGUF_FILE = "model.gguf"
QUANTISED_TYPE = "q8_0"
GGUF_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", QUANTISED_TYPE: "Q8_0"}
GGUF_BITS = {"float32": 32, "bfloat16": 16, "float16": 16, QUANTISED_TYPE: 8.5}
"""Bits per weight; Q8_0 stores a 16-bit scale for each block of 32."""
_FALLBACKS = ("float16", "float32")
"""Number types to try with "auto" after the first."""
_NORMALIZATION_NOTE = (
    "llama.cpp does not normalise text, and this tokenizer does (NFC): text in decomposed Unicode, as in file names of "
    "macOS, gets other tokens there. Send composed text."
)
_USAGE = """```bash
llama-server --model model.gguf  # or llama-cli; the chat template is in the file
```
"""


@dataclass(frozen=True, slots=True)
class GgufFamily:
    """A model family, by its names in transformers and in GGUF."""

    name: str
    """transformers' ``model_type``."""
    arch: str
    """GGUF's ``general.architecture``."""
    paired: bool = False
    """Whether the rows of queries and keys are interleaved in rotary pairs, rather than stored in halves."""
    biased: bool = False
    """Whether the family has biases on queries, keys and values."""
    head_dim_unread: bool = False
    """Whether transformers' GGUF loader does not read the head dimension, and needs the model's config."""
    norms_plus_one: bool = False
    """Whether the norms multiply by 1 + weight; GGUF stores that sum (llama.cpp's conversion of Gemma)."""


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """The fields of a GGUF file for a tokenizer."""

    pre: str
    """llama.cpp's name of the pre-tokenizer."""
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    """The ggml token type of each token."""
    merges: tuple[str, ...]
    pieces: Pieces | None = None
    """The sentencepiece vocabulary; None for byte-level BPE."""
    normalized: bool = False
    """Whether the tokenizer composes text (NFC) first, which llama.cpp does not."""


GGUF_FAMILIES: tuple[GgufFamily, ...] = (
    GgufFamily("llama", "llama", paired=True),
    GgufFamily("qwen2", "qwen2", biased=True),
    GgufFamily("qwen3", "qwen3", head_dim_unread=True),
    GgufFamily("gemma3_text", "gemma3", head_dim_unread=True, norms_plus_one=True),
)
"""Families that transformers' GGUF loader reads, so that every file can be checked."""


def make_gguf(job: ExportJob) -> ExportedFiles:
    """Write the file and replay prompts with it; raise `BadInput` for an unsupported family or tokenizer."""
    checked, notes = write_gguf(job)
    return ExportedFiles(_USAGE + prompting_notes(job.source), checked, notes=tuple(notes))


def write_gguf(job: ExportJob) -> tuple[dict[str, Any], list[str]]:
    """Write an arm's model as one file into the job's folder.

    Returns:
        What was checked, and notes for the user.
    """
    source = job.source
    config = read_json(source.base.folder / "config.json")
    family = family_of(config)
    vocabulary = read_vocabulary(source.weights_folder, int(config["vocab_size"]))
    merged_model = load_merged(source)
    file = job.folder / GGUF_FILE
    notes = [*merging_notes(source)]
    if needs_config_settings(config):
        notes.append(
            "transformers' loader does not read all figures of this family: it was given the model's own settings."
        )
    size = sum(p.numel() for p in merged_model.model.parameters())

    if vocabulary.normalized:
        notes.append(_NORMALIZATION_NOTE)
    first = least_rounded_dtype(merged_model.model, merged_model.dtype)
    if job.dtype == merged.AUTO_DTYPE and first != merged_model.dtype:
        notes.append(
            f"The weights are in {first}, which rounds them less than {merged_model.dtype}, the base's own type."
        )
    types = merged.candidate_dtypes(job.dtype, first, _FALLBACKS)
    require_disk_space(job.out, max(int(size * GGUF_BITS[dtype] / 8) for dtype in types))

    def write(dtype: str) -> merged.ReplayComparison:
        _write_file(file, family, config, vocabulary, merged_model, dtype, source)
        return _replay(file, merged_model, config, source)

    # llama.cpp computes in its own types whatever the file's, so the smaller type that keeps the answers comes first.
    dtype, comparison, dtype_notes = write_in_smallest_dtype(job.dtype, first, _FALLBACKS, write)
    checked = {"read back by": "transformers' GGUF loader", **comparison.to_facts("base plus weights")}
    cut = "sentencepiece" if vocabulary.pieces else vocabulary.pre
    return {**checked, "number type": dtype, "cut of text": cut}, [*notes, *dtype_notes]


def least_rounded_dtype(model: Any, own: str) -> str:
    """Return the number type to try first for a model's weights: its own, unless float16 rounds them less than bfloat16.

    A bfloat16 base with an adapter merged into it is no longer on bfloat16's grid: rounding it again, to 8 bits of
    precision, moved the top-5 log-probabilities of SmolLM2-135M by up to .27, float16 with its 11 bits by .01
    (benchmarks/LOG.md, "Exports on llama-server"). Weights outside float16's range keep bfloat16.

    Args:
        model: the merged model, in float32.
        own: the number type of the base's own weights.
    """
    import torch

    if own != "bfloat16":
        return own
    errors = {torch.bfloat16: 0.0, torch.float16: 0.0}
    for weight in model.parameters():
        values = weight.detach().float()
        for dtype in errors:
            errors[dtype] += float((values.to(dtype).float() - values).square().sum(dtype=torch.float64))
    return "float16" if errors[torch.float16] < errors[torch.bfloat16] else own


def family_of(config: Mapping[str, Any]) -> GgufFamily:
    """Return the family of a `config.json`; `BadInput` names an unknown family, or a setting that GGUF cannot express."""
    kind = str(config.get("model_type"))
    family = next((known for known in GGUF_FAMILIES if known.name == kind), None)
    hint = "hand it on with --to merged, peft or vllm"
    if family is None:
        known = ", ".join(family.name for family in GGUF_FAMILIES)
        raise BadInput(f"models of the family {kind!r} are not written as GGUF here, only {known}", hint)
    unsupported = {
        "attention_bias": bool(config.get("attention_bias")) and not family.biased,
        "mlp_bias": bool(config.get("mlp_bias")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "rope_type": rope_settings(config).get("rope_type", "default") not in _ROPE_TYPES,
        "partial_rotary_factor": rope_settings(config).get("partial_rotary_factor", 1) != 1,
    }
    if family.arch == "gemma3":
        unsupported |= _unsupported_by_gemma3(config)
    if keys := [key for key, is_set in unsupported.items() if is_set]:
        raise BadInput(f"this {kind} model sets {keys[0]}, which is not written as GGUF here", hint)
    return family


def _unsupported_by_gemma3(config: Mapping[str, Any]) -> dict[str, bool]:
    """Return which settings differ from what llama.cpp takes for granted in every Gemma 3."""
    kinds = list(config.get("layer_types") or ())
    local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    local_base = local.get("rope_theta", config.get("rope_local_base_freq", 10_000.0))
    head_dim = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    pattern = ["full_attention" if n % 6 == 5 else "sliding_attention" for n in range(len(kinds))]
    return {
        "hidden_activation": config.get("hidden_activation", "gelu_pytorch_tanh") != "gelu_pytorch_tanh",
        "layer_types": kinds != pattern,
        "rope_parameters": float(local_base) != 10_000.0 or local.get("rope_type", "default") != "default",
        "query_pre_attn_scalar": config.get("query_pre_attn_scalar", head_dim) != head_dim,
        "attn_logit_softcapping": config.get("attn_logit_softcapping") is not None,
        "final_logit_softcapping": config.get("final_logit_softcapping") is not None,
        "use_bidirectional_attention": bool(config.get("use_bidirectional_attention")),
    }


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the rotary embedding, from whichever key this version of transformers uses."""
    settings = config.get("rope_parameters") or config.get("rope_scaling") or {}
    settings = settings.get("full_attention", settings)  # of the two kinds of layers that Gemma 3 has
    return {"rope_theta": config.get("rope_theta", 10_000.0), **settings}


def gguf_hyperparameters(family: GgufFamily, config: Mapping[str, Any]) -> dict[str, int | float]:
    """Return a model's hyperparameters by GGUF key, without the prefix of the architecture."""
    heads = int(config["num_attention_heads"])
    hidden_size = int(config["hidden_size"])
    head_dim = int(config.get("head_dim") or hidden_size // heads)
    window = {"attention.sliding_window": int(config["sliding_window"])} if family.arch == "gemma3" else {}
    return {
        **window,
        "vocab_size": int(config["vocab_size"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": hidden_size,
        "block_count": int(config["num_hidden_layers"]),
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": head_dim,
        "rope.freq_base": float(rope_settings(config)["rope_theta"]),
    }


def reorder_rows(family: GgufFamily, config: Mapping[str, Any], name: str, values: np.ndarray) -> np.ndarray:
    """Return a tensor in the order of rows that GGUF stores.

    transformers rotates row i of a head with row i + head_dim / 2; llama.cpp's Llama kernel rotates neighbouring rows,
    so in paired families the rows of queries and keys are interleaved: (0, d/2, 1, d/2 + 1, ...).

    Args:
        family: the model's family.
        config: the model's config.
        name: the tensor's name in transformers.
        values: [rows, ...].
    """
    part = name.rsplit(".", 2)[-2]
    if not family.paired or part not in ("q_proj", "k_proj"):
        return values
    heads = int(config["num_attention_heads"])
    heads = heads if part == "q_proj" else int(config.get("num_key_value_heads") or heads)
    # [heads, halves, pairs, ...] -> [heads, pairs, halves, ...]
    halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def rope_factors(config: Mapping[str, Any]) -> np.ndarray | None:
    """Return the divisors of the rotary frequencies for Llama 3's scaled rope.

    Frequencies of short wavelengths stay, those of long ones are divided by `factor`, those between are interpolated
    (the rule of Llama 3.1).

    Returns:
        float32 [head_dim / 2]; None for rope without scaling.
    """
    settings = rope_settings(config)
    if settings.get("rope_type", "default") != "llama3":
        return None
    head_dim = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    factor = float(settings["factor"])
    original_context = float(settings["original_max_position_embeddings"])
    low = float(settings["low_freq_factor"])
    high = float(settings["high_freq_factor"])
    divisors = []
    for dimension in range(0, head_dim, 2):
        wavelength = 2 * math.pi * float(settings["rope_theta"]) ** (dimension / head_dim)
        # 1 where the frequency stays, 0 where it is divided by the whole factor.
        smooth = min(1.0, max(0.0, (original_context / wavelength - low) / (high - low)))
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, dtype=np.float32)


def read_vocabulary(folder: Path, size: int) -> GgufVocabulary:
    """Read the tokenizer of a model's folder.

    Args:
        folder: the folder with `tokenizer.json`.
        size: the model's vocabulary size; missing tokens are filled up with unused ones.

    Raises:
        BadInput: llama.cpp would tokenize otherwise, or this cannot be checked.
    """
    body = read_json(folder / "tokenizer.json")
    model = body.get("model") or {}
    if model.get("type") != "BPE":
        raise gguf_refusal(f"its tokenizer is of the type {model.get('type')!r}")
    if model.get("byte_fallback"):
        try:
            pieces = sentencepiece.read_pieces(body, size)
        except BadInput as reason:
            raise gguf_refusal(reason.message) from None
        return GgufVocabulary("default", pieces.tokens, pieces.kinds, (), pieces)
    by_id = {index: token for token, index in model["vocab"].items()}
    added = {entry["id"]: entry for entry in body.get("added_tokens", ())}
    by_id |= {index: entry["content"] for index, entry in added.items()}
    if max(by_id) >= size:
        raise gguf_refusal(f"its tokenizer has the token {max(by_id)}, the model only {size} rows")
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    kinds = tuple(_token_type(index, by_id, added) for index in range(size))
    normalized = body.get("normalizer") is not None
    return GgufVocabulary(_pre_tokenizer_name(body), tokens, kinds, merges, normalized=normalized)


def gguf_refusal(reason: str) -> BadInput:
    """Return the error for a model or tokenizer that cannot be written as GGUF."""
    return BadInput(
        f"this model is not written as GGUF here: {reason}", "hand it on with --to merged, peft or vllm"
    )


def needs_config_settings(config: dict[str, Any]) -> bool:
    """Return whether transformers' GGUF loader needs the model's config, because it does not read all settings."""
    return rope_factors(config) is not None or family_of(config).head_dim_unread


def _token_type(index: int, by_id: Mapping[int, str], added: Mapping[int, Any]) -> int:
    if index in added:
        return CONTROL if added[index].get("special") else USER_DEFINED
    return NORMAL if index in by_id else UNUSED


def _pre_tokenizer_name(body: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of a byte-level tokenizer's pre-tokenizer; raise `BadInput` without one."""
    normalizer = (body.get("normalizer") or {}).get("type")
    pre_tokenizer = body.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if pre_tokenizer else []
    kinds = [step.get("type") for step in steps]
    byte_level = steps[-1] if steps else {}
    name = ""
    if not steps or kinds[-1] != "ByteLevel" or byte_level.get("add_prefix_space"):
        raise gguf_refusal(f"its tokenizer cuts text by {' and '.join(map(str, kinds)) or 'nothing'}")
    uses_regex = byte_level.get("use_regex", True)
    if kinds == ["ByteLevel"] and uses_regex:
        name = "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and uses_regex and steps[0].get("individual_digits"):
        name = "smollm"
    elif (
        kinds == ["Split", "ByteLevel"]
        and not uses_regex
        and steps[0].get("behavior", "").lower() == "isolated"
    ):
        name = PRE_TOKENIZERS.get((steps[0].get("pattern") or {}).get("Regex", ""), "")
    if not name:
        raise gguf_refusal("its tokenizer cuts text by a pattern that llama.cpp has no name for")
    # llama.cpp normalises nothing; NFC is Qwen's, whose files are made without it everywhere.
    if normalizer not in (None, "NFC") or (normalizer and name != "qwen2"):
        raise gguf_refusal(f"its tokenizer normalises text ({normalizer})")
    if bool((body["model"]).get("ignore_merges")) != (name == "llama-bpe"):
        raise gguf_refusal(
            "its tokenizer takes whole words before merges, and llama.cpp would not, or the other way round"
        )
    return name


def _write_file(
    file: Path,
    family: GgufFamily,
    config: dict[str, Any],
    vocabulary: GgufVocabulary,
    merged_model: MergedModel,
    dtype: str,
    source: ExportSource,
) -> None:
    """Write metadata, tokenizer and tensors through the gguf package's writer."""
    import gguf

    writer = gguf.GGUFWriter(file, family.arch)
    writer.add_name(f"{source.plan.name}-{plain_name(source.arm.arm) if source.arm else ''}")
    writer.add_license(str(source.weights_manifest["base"]["license"]))
    writer.add_string("general.base_model.0.name", short_model_name(source.weights_manifest["base"]["name"]))
    writer.add_file_type(
        gguf.LlamaFileType[{"F32": "ALL_F32"}.get(GGUF_TYPES[dtype], f"MOSTLY_{GGUF_TYPES[dtype]}")]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in gguf_hyperparameters(family, config).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{family.arch}.{key}", value)  # type: ignore[arg-type]
    _write_tokenizer(writer, vocabulary, source.weights_folder)
    for name, values, kind in _tensors(family, config, merged_model, dtype):
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _tensors(
    family: GgufFamily, config: dict[str, Any], merged_model: MergedModel, dtype: str
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Yield each tensor's GGUF name, its float32 values in GGUF's order of rows, and the type it is written in."""
    import gguf

    weights_type = gguf.GGMLQuantizationType[GGUF_TYPES[dtype]]
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings"))
    for torch_name, tensor in merged_model.model.state_dict().items():
        if tied and torch_name == "lm_head.weight":
            continue
        name = names.get_name(torch_name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise gguf_refusal(f"its tensor {torch_name} has no name in GGUF")
        values = reorder_rows(family, config, torch_name, tensor.float().cpu().numpy())
        if family.norms_plus_one and torch_name.endswith("norm.weight"):
            values = values + 1.0
        # Norms and biases are small and stay in float32, as in llama.cpp; so do rows that no block of 32 divides.
        packed = values.ndim > 1 and (dtype != QUANTISED_TYPE or values.shape[-1] % 32 == 0)
        yield name, np.ascontiguousarray(values), weights_type if packed else gguf.GGMLQuantizationType.F32
    if (factors := rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors, gguf.GGMLQuantizationType.F32


def _write_tokenizer(writer: Any, vocabulary: GgufVocabulary, folder: Path) -> None:
    """Write the vocabulary, the special tokens and the chat template of the tokenizer in a folder."""
    chat = ChatTokenizer(folder)
    writer.add_tokenizer_model("llama" if vocabulary.pieces else "gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.pieces:
        writer.add_token_scores(vocabulary.pieces.scores)
    else:
        writer.add_token_merges(vocabulary.merges)
    ids = {key: chat.tokenizer.token_to_id(token) for key, token in chat.special.items()}
    for key, add in (
        ("bos_token", writer.add_bos_token_id),
        ("eos_token", writer.add_eos_token_id),
        ("unk_token", writer.add_unk_token_id),
        ("pad_token", writer.add_pad_token_id),
    ):
        if ids.get(key) is not None:
            add(ids[key])
    if chat.turn_end is not None and chat.turn_end != ids.get("eos_token"):
        writer.add_eot_token_id(chat.turn_end)
    # The chat template writes the start token itself, as it did in training.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(bool(vocabulary.pieces and vocabulary.pieces.space_prefix))
    writer.add_chat_template(chat.template)


def stored_pieces(file: Path) -> Pieces | None:
    """Read the sentencepiece vocabulary of a GGUF file; None for a file with another one."""
    import gguf

    reader = gguf.GGUFReader(file)

    def value(key: str) -> Any:
        stored = reader.get_field(f"tokenizer.ggml.{key}")
        return stored.contents() if stored else None

    if value("model") != "llama":
        return None
    tokens, scores, types = (tuple(value(key)) for key in ("tokens", "scores", "token_type"))
    return Pieces(tokens, scores, types, space_prefix=bool(value("add_space_prefix")))


def _replay(
    file: Path, merged_model: MergedModel, config: dict[str, Any], source: ExportSource
) -> merged.ReplayComparison:
    """Load the file with transformers and replay the prompts; raise `BadInput` when its tokenizer gives other tokens."""
    from runners.models.gguf_import import gguf_tokenizer, load_gguf

    loaded = load_gguf(file, "float32", source.base.folder if needs_config_settings(config) else None)
    chat = ChatTokenizer(source.weights_folder, source.plan.thinking.enabled)
    if pieces := stored_pieces(file):
        # transformers' loader has no space after special tokens, so the file is read as llama.cpp reads it.
        lookup = sentencepiece.lookup_of(pieces)
        encode = partial(sentencepiece.piece_ids, lookup)
    else:
        encode = partial(gguf_tokenizer(file).encode, add_special_tokens=False)
    texts = [chat.render(messages, prompt=True) for messages in merged.replay_prompts(source)]
    differ = [text for text in texts if encode(text) != chat.encode(text)]
    if differ:
        raise gguf_refusal(
            f"the file's tokenizer gives other tokens for {len(differ)} of {len(texts)} prompts"
        )
    comparison = merged_model.compare(loaded)
    del loaded
    gc.collect()
    return comparison
