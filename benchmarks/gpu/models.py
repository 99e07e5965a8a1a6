"""Model folders of real shapes with random weights, for a machine without network and without downloaded weights.

Speed and memory depend on shapes, dtypes and lengths, not on the values of the weights. Two families: one with the
shape of SmolLM2-360M (Llama), one with that of Gemma 3 270M (sliding window, a vocabulary of 262,144). With `tiny`,
both are a few hundred thousand parameters, to check this script on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runners.models.resolve import Model, resolve_model

FAMILIES = ("llama", "gemma3")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
TOKENIZER_VOCABULARY = 2_000
"""Entries of the tokenizer; the rest of the model's vocabulary is never drawn, and costs its full memory and time."""
_MAX_TRAINING_TEXT = 400_000
"""Most characters of this repository's documentation that the tokenizer is trained on."""


def family_config(family: str, tiny: bool) -> Any:
    """Return the transformers configuration of a family."""
    from transformers import Gemma3TextConfig, LlamaConfig

    if family == "llama":
        real: dict[str, Any] = {
            "vocab_size": 49_152,
            "hidden_size": 960,
            "intermediate_size": 2_560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "max_position_embeddings": 8_192,
            "rope_theta": 100_000.0,
        }
        small = {"vocab_size": 2_048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        small |= {"num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaConfig(**{**real, **(small if tiny else {})}, tie_word_embeddings=True)
    real = {
        "vocab_size": 262_144,
        "hidden_size": 640,
        "intermediate_size": 2_048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "max_position_embeddings": 32_768,
    }
    small = {"vocab_size": 2_048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    small |= {"head_dim": 16, "sliding_window": 64}
    return Gemma3TextConfig(**{**real, **(small if tiny else {})}, tie_word_embeddings=True)


def model_of(family: str, folder: Path, tiny: bool) -> Model:
    """Return the model of a family in `folder`, made there where it is not yet.

    The files appear under their final names only when all are written, so an interrupted run makes them again.
    """
    if not (folder / "config.json").is_file():
        import torch
        from transformers import AutoModelForCausalLM

        config = family_config(family, tiny)
        torch.manual_seed(0)
        made = folder.with_name(f".{folder.name}.tmp")
        made.mkdir(parents=True, exist_ok=True)
        tokenizer = make_tokenizer()
        config.pad_token_id, config.bos_token_id = tokenizer.pad_token_id, tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(made)
        tokenizer.save_pretrained(made)
        made.rename(folder)
    return resolve_model(str(folder))


def make_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer with a chat template, trained on this repository's documentation."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    root = Path(__file__).resolve().parents[2]
    text = "\n".join(path.read_text("utf-8") for path in sorted((root / "docs").glob("*.md")))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([text[:_MAX_TRAINING_TEXT]], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=SPECIAL_TOKENS[0], eos_token=SPECIAL_TOKENS[2]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def embedder_folder(folder: Path, tiny: bool) -> Path:
    """Return the folder of a sentence-transformers model with MiniLM's shape and random weights."""
    if not (folder / "modules.json").is_file():
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules
        from transformers import BertConfig, BertModel

        layers, width = (2, 64) if tiny else (6, 384)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=30_522,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            intermediate_size=4 * width,
        )
        transformer = folder.with_name(f".{folder.name}.transformer")
        transformer.mkdir(parents=True, exist_ok=True)
        BertModel(config).save_pretrained(transformer)
        make_word_tokenizer().save_pretrained(transformer)
        parts = modules.Transformer(str(transformer), max_seq_length=256)
        made = folder.with_name(f".{folder.name}.tmp")
        SentenceTransformer(modules=[parts, modules.Pooling(width), modules.Normalize()], device="cpu").save(
            str(made)
        )
        made.rename(folder)
    return folder


def make_word_tokenizer() -> Any:
    """Return a BERT tokenizer whose WordPiece vocabulary is trained on this repository's documentation."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    root = Path(__file__).resolve().parents[2]
    text = "\n".join(path.read_text("utf-8") for path in sorted((root / "docs").glob("*.md")))
    core = BertWordPieceTokenizer()
    core.train_from_iterator([text[:_MAX_TRAINING_TEXT]], vocab_size=4_000, show_progress=False)
    return BertTokenizer(tokenizer_object=core._tokenizer)
