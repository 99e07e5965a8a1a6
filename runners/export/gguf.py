"""The `gguf` export: one file for llama.cpp, read back by transformers' own loader. torch is imported inside.

The families of models that are written as GGUF: their names there, their figures, and how rows are ordered. Light.

Facts of the format: ggml's docs/gguf.md; the order of rows and the factors of long rope are llama.cpp's conventions.

A tokenizer.json as the fields of a GGUF file: tokens with their kinds, merges, and how text is cut. Light.

llama.cpp knows the ways to cut text by name only. The name is found from the tokenizer's own pattern, never guessed from
the model's: another way to cut gives other tokens, and no error.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BadInput
from runners.export import merged
from runners.export.card import short_model_name
from runners.export.job import ExportedFiles, ExportJob, require_disk_space
from runners.export.merged import QLORA_NOTE, MergedModel, is_qlora, load_merged, write_in_smallest_dtype
from runners.export.peft import prompting_notes
from runners.export.source import ExportSource
from runners.models.fingerprint import read_json
from runners.tokenization.chat_template import PLAIN_TEMPLATE, ChatTokenizer


@dataclass(frozen=True, slots=True)
class GgufFamily:
    """One family, as transformers and as GGUF call it."""

    name: str
    """transformers' ``model_type``."""
    arch: str
    """GGUF's ``general.architecture``."""
    paired: bool = False
    """Whether the rows of queries and keys are stored in rotating pairs, not in halves."""
    biased: bool = False
    """Whether queries, keys and values have biases that belong to the family."""
    headless: bool = False
    """Whether transformers' GGUF loader does not read how wide a head is, and must be given the model's settings."""


GGUF_FAMILIES: tuple[GgufFamily, ...] = (
    GgufFamily("llama", "llama", paired=True),
    GgufFamily("qwen2", "qwen2", biased=True),
    GgufFamily("qwen3", "qwen3", headless=True),
)
"""What transformers' own GGUF loader reads back, so that every file can be checked."""
_ROPES = ("default", "llama3")


def family_of(config: Mapping[str, Any]) -> GgufFamily:
    """Return the family of a ``config.json``; BadInput names the family, or the setting that GGUF has no word for."""
    kind = str(config.get("model_type"))
    found = next((family for family in GGUF_FAMILIES if family.name == kind), None)
    instead = "hand it on with --to merged, peft or vllm"
    if found is None:
        known = ", ".join(family.name for family in GGUF_FAMILIES)
        raise BadInput(f"models of the family {kind!r} are not written as GGUF here, only {known}", instead)
    odd = {
        "attention_bias": bool(config.get("attention_bias")) and not found.biased,
        "mlp_bias": bool(config.get("mlp_bias")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "rope_type": rope_settings(config).get("rope_type", "default") not in _ROPES,
        "partial_rotary_factor": rope_settings(config).get("partial_rotary_factor", 1) != 1,
    }
    if named := [key for key, is_odd in odd.items() if is_odd]:
        raise BadInput(f"this {kind} model sets {named[0]}, which is not written as GGUF here", instead)
    return found


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of rotary positions, wherever a version of transformers keeps them."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10_000.0), **found}


def gguf_hyperparameters(family: GgufFamily, config: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the figures of a model under GGUF's keys, without the architecture before them."""
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    size = int(config.get("head_dim") or width // heads)
    return {
        "vocab_size": int(config["vocab_size"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": width,
        "block_count": int(config["num_hidden_layers"]),
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": size,
        "rope.freq_base": float(rope_settings(config)["rope_theta"]),
    }


def reorder_rows(family: GgufFamily, config: Mapping[str, Any], name: str, values: np.ndarray) -> np.ndarray:
    """Return a tensor [rows, ...] as GGUF stores it: in some families each head's rows of queries and keys in pairs."""
    part = name.rsplit(".", 2)[-2]
    if not family.paired or part not in ("q_proj", "k_proj"):
        return values
    heads = int(config["num_attention_heads"])
    heads = heads if part == "q_proj" else int(config.get("num_key_value_heads") or heads)
    halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def rope_factors(config: Mapping[str, Any]) -> np.ndarray | None:
    """Return what each frequency is divided by, float32 [head_dim / 2], for Llama 3's long rope; None for plain rope.

    Short waves stay, long ones are stretched by ``factor``, those between are mixed (Llama 3.1's own rule).
    """
    how = rope_settings(config)
    if how.get("rope_type", "default") != "llama3":
        return None
    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    factor, old = float(how["factor"]), float(how["original_max_position_embeddings"])
    low, high = float(how["low_freq_factor"]), float(how["high_freq_factor"])
    found = []
    for place in range(0, size, 2):
        wave = 2 * math.pi * float(how["rope_theta"]) ** (place / size)
        mixed = min(1.0, max(0.0, (old / wave - low) / (high - low)))
        found.append(1 / ((1 - mixed) / factor + mixed))
    return np.array(found, dtype=np.float32)


NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens, as ggml counts them."""
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
LLAMA3 += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {LLAMA3: "llama-bpe", QWEN2: "qwen2"}
"""Patterns and llama.cpp's names of them."""


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """What a GGUF file says of a byte-level tokenizer."""

    pre: str
    """llama.cpp's name for how text is cut."""
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]


def read_vocabulary(folder: Path, size: int) -> GgufVocabulary:
    """Read the tokenizer of a folder as ``size`` tokens, filling up with unused ones.

    Raises BadInput, naming what it is, for a tokenizer that llama.cpp would cut otherwise, or that cannot be checked:
    sentencepiece's puts blanks after special tokens in llama.cpp, and does not in transformers' GGUF loader.
    """
    body = read_json(folder / "tokenizer.json")
    model = body.get("model") or {}
    if model.get("type") != "BPE":
        raise tokenizer_refusal(f"its tokenizer is of the type {model.get('type')!r}")
    if model.get("byte_fallback"):
        raise tokenizer_refusal("its tokenizer is a sentencepiece vocabulary")
    by_id = {index: token for token, index in model["vocab"].items()}
    added = {entry["id"]: entry for entry in body.get("added_tokens", ())}
    by_id |= {index: entry["content"] for index, entry in added.items()}
    if max(by_id) >= size:
        raise tokenizer_refusal(f"its tokenizer has the token {max(by_id)}, the model only {size} rows")
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    tokens = tuple(by_id.get(index, f"[PAD{index}]") for index in range(size))
    kinds = tuple(_kind(index, by_id, added) for index in range(size))
    return GgufVocabulary(_cut(body), tokens, kinds, merges)


def tokenizer_refusal(why: str) -> BadInput:
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
        raise tokenizer_refusal(f"its tokenizer cuts text by {' and '.join(map(str, kinds)) or 'nothing'}")
    own = level.get("use_regex", True)
    if kinds == ["ByteLevel"] and own:
        found = "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and own and steps[0].get("individual_digits"):
        found = "smollm"
    elif kinds == ["Split", "ByteLevel"] and not own and steps[0].get("behavior", "").lower() == "isolated":
        found = PRE_TOKENIZERS.get((steps[0].get("pattern") or {}).get("Regex", ""), "")
    if not found:
        raise tokenizer_refusal("its tokenizer cuts text by a pattern that llama.cpp has no name for")
    # llama.cpp normalises nothing; NFC is Qwen's, whose files are made without it everywhere.
    if normalizer not in (None, "NFC") or (normalizer and found != "qwen2"):
        raise tokenizer_refusal(f"its tokenizer normalises text ({normalizer})")
    if bool((body["model"]).get("ignore_merges")) != (found == "llama-bpe"):
        raise tokenizer_refusal(
            "its tokenizer takes whole words before merges, and llama.cpp would not, or the other way round"
        )
    return found


GGUF_FILE = "model.gguf"
QUANTISED_TYPE = "q8_0"
GGUF_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", QUANTISED_TYPE: "Q8_0"}
GGUF_BITS = {"float32": 32, "bfloat16": 16, "float16": 16, QUANTISED_TYPE: 8.5}
_HOW = """```bash
llama-server --model model.gguf  # or llama-cli; the chat template is in the file
```
"""


def make_gguf(job: ExportJob) -> ExportedFiles:
    """Write the file and replay five prompts with it; BadInput for families and tokenizers that it cannot hold."""
    checked, notes = write_gguf(job)
    return ExportedFiles(_HOW + prompting_notes(job.source), checked, notes=tuple(notes))


def write_gguf(job: ExportJob) -> tuple[dict[str, Any], list[str]]:
    """Write an arm's model as one file into the job's folder; return what was checked, and what is worth knowing."""
    source = job.source
    config = read_json(source.base.folder / "config.json")
    family = family_of(config)
    vocabulary = read_vocabulary(source.made, int(config["vocab_size"]))
    whole = load_merged(source)
    file, said = job.made / GGUF_FILE, [QLORA_NOTE] if is_qlora(source) else []
    if needs_config_settings(config):
        said.append(
            "transformers' loader does not read all figures of this family: it was given the model's own settings."
        )
    size = sum(p.numel() for p in whole.net.parameters())

    def written(dtype: str) -> merged.ReplayComparison:
        require_disk_space(job.out, int(size * GGUF_BITS[dtype] / 8))
        _write(file, family, config, vocabulary, whole, dtype, source)
        return _replayed(file, whole, config, source)

    # llama.cpp computes in its own types whatever the file's, so the smaller exact one comes first.
    dtype, found, notes = write_in_smallest_dtype(job.dtype, whole.dtype, ["float16", "float32"], written)
    told = {"read back by": "transformers' GGUF loader", **found.told("base and weights apart")}
    return {**told, "number type": dtype, "cut of text": vocabulary.pre}, [*said, *notes]


def needs_config_settings(config: dict[str, Any]) -> bool:
    """Say whether transformers' loader must be given a model's settings, because it does not read them all."""
    return rope_factors(config) is not None or family_of(config).headless


def _write(
    file: Path,
    family: GgufFamily,
    config: dict[str, Any],
    vocabulary: GgufVocabulary,
    whole: MergedModel,
    dtype: str,
    source: ExportSource,
) -> None:
    """Write metadata, tokenizer and tensors through the gguf package's writer."""
    import gguf

    writer = gguf.GGUFWriter(file, family.arch)
    writer.add_name(f"{source.plan.name}-{source.arm.arm if source.arm else ''}")
    writer.add_license(str(source.facts["base"]["license"]))
    writer.add_string("general.base_model.0.name", short_model_name(source.facts["base"]["name"]))
    writer.add_file_type(
        gguf.LlamaFileType[{"F32": "ALL_F32"}.get(GGUF_TYPES[dtype], f"MOSTLY_{GGUF_TYPES[dtype]}")]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in gguf_hyperparameters(family, config).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{family.arch}.{key}", value)  # type: ignore[arg-type]
    _write_tokenizer(writer, vocabulary, source.made)
    for name, values, kind in _tensors(family, config, whole, dtype):
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _tensors(
    family: GgufFamily, config: dict[str, Any], whole: MergedModel, dtype: str
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Yield each tensor's GGUF name, its float32 values in the order of rows there, and the type it is written in."""
    import gguf

    wanted = gguf.GGMLQuantizationType[GGUF_TYPES[dtype]]
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings"))
    for own, tensor in whole.net.state_dict().items():
        if tied and own == "lm_head.weight":
            continue
        name = names.get_name(own, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise tokenizer_refusal(f"its tensor {own} has no name in GGUF")
        values = reorder_rows(family, config, own, tensor.float().cpu().numpy())
        # Norms and biases are small and stay exact, as everywhere; so do rows that no block of 32 divides.
        packs = values.ndim > 1 and (dtype != QUANTISED_TYPE or values.shape[-1] % 32 == 0)
        yield name, np.ascontiguousarray(values), wanted if packs else gguf.GGMLQuantizationType.F32
    if (factors := rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors, gguf.GGMLQuantizationType.F32


def _write_tokenizer(writer: Any, vocabulary: GgufVocabulary, folder: Path) -> None:
    chat = ChatTokenizer(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
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
    # The chat template writes whatever must stand before a chat, as it did in training.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat.own_template or PLAIN_TEMPLATE)


def _replayed(
    file: Path, whole: MergedModel, config: dict[str, Any], source: ExportSource
) -> merged.ReplayComparison:
    """Load the file as transformers does and replay the prompts; BadInput where its tokenizer gives other tokens."""
    from runners.models.gguf_import import gguf_tokenizer, load_gguf

    back = load_gguf(file, "float32", source.base.folder if needs_config_settings(config) else None)
    chat, read = ChatTokenizer(source.made), gguf_tokenizer(file)
    texts = [chat.render(messages, prompt=True) for messages in merged.replay_prompts(source)]
    differ = [text for text in texts if read.encode(text, add_special_tokens=False) != chat.encode(text)]
    if differ:
        raise tokenizer_refusal(
            f"the file's tokenizer gives other tokens for {len(differ)} of {len(texts)} prompts"
        )
    found = whole.compare(back)
    del back
    gc.collect()
    return found
