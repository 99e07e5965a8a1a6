"""The `gguf` export: one file for llama.cpp, read back by transformers' own loader. torch is imported inside."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runners.chat import PLAIN_TEMPLATE, Chat
from runners.export import replay
from runners.export.adapter import prompting
from runners.export.card import short
from runners.export.families import Family, family_of, figures, reordered, rope_factors
from runners.export.job import Job, Made
from runners.export.merged import QLORA, Whole, is_qlora, load_whole
from runners.export.parcel import require_room
from runners.export.rounding import settle
from runners.export.source import Source
from runners.export.vocabulary import Vocabulary, read_vocabulary, refused
from runners.fingerprint import read_json

FILE = "model.gguf"
PACKED = "q8_0"
TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", PACKED: "Q8_0"}
BITS = {"float32": 32, "bfloat16": 16, "float16": 16, PACKED: 8.5}
_HOW = """```bash
llama-server --model model.gguf  # or llama-cli; the chat template is in the file
```
"""


def make(job: Job) -> Made:
    """Write the file and replay five prompts with it; BadInput for families and tokenizers that it cannot hold."""
    checked, notes = pack(job)
    return Made(_HOW + prompting(job.source), checked, notes=tuple(notes))


def pack(job: Job) -> tuple[dict[str, Any], list[str]]:
    """Write an arm's model as one file into the job's folder; return what was checked, and what is worth knowing."""
    source = job.source
    config = read_json(source.base.folder / "config.json")
    family = family_of(config)
    vocabulary = read_vocabulary(source.made, int(config["vocab_size"]))
    whole = load_whole(source)
    file, said = job.made / FILE, [QLORA] if is_qlora(source) else []
    if given_settings(config):
        said.append(
            "transformers' loader does not read all figures of this family: it was given the model's own settings."
        )
    size = sum(p.numel() for p in whole.net.parameters())

    def written(dtype: str) -> replay.Compared:
        require_room(job.out, int(size * BITS[dtype] / 8))
        _write(file, family, config, vocabulary, whole, dtype, source)
        return _replayed(file, whole, config, source)

    # llama.cpp computes in its own types whatever the file's, so the smaller exact one comes first.
    dtype, found, notes = settle(job.dtype, whole.dtype, ["float16", "float32"], written)
    told = {"read back by": "transformers' GGUF loader", **found.told("base and weights apart")}
    return {**told, "number type": dtype, "cut of text": vocabulary.pre}, [*said, *notes]


def given_settings(config: dict[str, Any]) -> bool:
    """Say whether transformers' loader must be given a model's settings, because it does not read them all."""
    return rope_factors(config) is not None or family_of(config).headless


def _write(
    file: Path,
    family: Family,
    config: dict[str, Any],
    vocabulary: Vocabulary,
    whole: Whole,
    dtype: str,
    source: Source,
) -> None:
    """Write metadata, tokenizer and tensors through the gguf package's writer."""
    import gguf

    writer = gguf.GGUFWriter(file, family.arch)
    writer.add_name(f"{source.plan.name}-{source.arm.arm if source.arm else ''}")
    writer.add_license(str(source.facts["base"]["license"]))
    writer.add_string("general.base_model.0.name", short(source.facts["base"]["name"]))
    writer.add_file_type(gguf.LlamaFileType[{"F32": "ALL_F32"}.get(TYPES[dtype], f"MOSTLY_{TYPES[dtype]}")])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in figures(family, config).items():
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
    family: Family, config: dict[str, Any], whole: Whole, dtype: str
) -> Iterator[tuple[str, np.ndarray, Any]]:
    """Yield each tensor's GGUF name, its float32 values in the order of rows there, and the type it is written in."""
    import gguf

    wanted = gguf.GGMLQuantizationType[TYPES[dtype]]
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings"))
    for own, tensor in whole.net.state_dict().items():
        if tied and own == "lm_head.weight":
            continue
        name = names.get_name(own, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise refused(f"its tensor {own} has no name in GGUF")
        values = reordered(family, config, own, tensor.float().cpu().numpy())
        # Norms and biases are small and stay exact, as everywhere; so do rows that no block of 32 divides.
        packs = values.ndim > 1 and (dtype != PACKED or values.shape[-1] % 32 == 0)
        yield name, np.ascontiguousarray(values), wanted if packs else gguf.GGMLQuantizationType.F32
    if (factors := rope_factors(config)) is not None:
        yield "rope_freqs.weight", factors, gguf.GGMLQuantizationType.F32


def _write_tokenizer(writer: Any, vocabulary: Vocabulary, folder: Path) -> None:
    chat = Chat(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    ids = {key: chat.tokenizer.token_to_id(token) for key, token in chat.special.items()}
    for key, add in (
        ("bos_token", writer.add_bos_token_id), ("eos_token", writer.add_eos_token_id),
        ("unk_token", writer.add_unk_token_id), ("pad_token", writer.add_pad_token_id),
    ):  # fmt: skip
        if ids.get(key) is not None:
            add(ids[key])
    if chat.turn_end is not None and chat.turn_end != ids.get("eos_token"):
        writer.add_eot_token_id(chat.turn_end)
    # The chat template writes whatever must stand before a chat, as it did in training.
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat.own_template or PLAIN_TEMPLATE)


def _replayed(file: Path, whole: Whole, config: dict[str, Any], source: Source) -> replay.Compared:
    """Load the file as transformers does and replay the prompts; BadInput where its tokenizer gives other tokens."""
    from runners.quantised import load_gguf, tokenizer_of

    back = load_gguf(file, "float32", source.base.folder if given_settings(config) else None)
    chat, read = Chat(source.made), tokenizer_of(file)
    texts = [chat.render(messages, prompt=True) for messages in replay.chats(source)]
    differ = [text for text in texts if read.encode(text, add_special_tokens=False) != chat.encode(text)]
    if differ:
        raise refused(f"the file's tokenizer gives other tokens for {len(differ)} of {len(texts)} prompts")
    found = whole.compare(back)
    del back
    gc.collect()
    return found
