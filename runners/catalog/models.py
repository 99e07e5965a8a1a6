"""Base models known by name, with the shape from each model's published config.

:func:`known_models` returns the table with the user's corrections, :func:`find_model` looks a model up.

Dense decoders with gated MLPs only. Mixtures of experts, state-space hybrids and nested models (gpt-oss,
Qwen3 A3B, Qwen3.5, Gemma 3n and 4, Granite 4) are left out: their memory and speed do not follow from these
numbers. Biases (query, key and value of Qwen2.5: under 0.1 %) are not counted. Gemma 3 from 4 B on is the
language part, without the 0.42 B of the image encoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

from runners.catalog import abilities, user_catalog
from runners.catalog.abilities import (
    REASONING_MODELS,
    ModelKind,
    ModelStrength,
    abilities_of,
    estimated_strength,
)
from runners.resources.memory_estimate import estimate_memory
from runners.resources.memory_terms import MemorySetup
from runners.resources.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One base model; ``shape`` comes from the config.json of ``hub``, checked in the month ``date``."""

    name: str
    hub: str
    shape: ModelShape
    context: int
    """Context length in tokens that the config allows without rescaling the positions."""
    licence: str
    date: str = "2026-11"
    family: str = ""
    """Models that can replace each other: same maker, tokenizer kind and training generation."""
    source: str = "config.json"
    kind: ModelKind = "instruct"
    strength: ModelStrength | None = None
    """A published score; None where none is known: see :attr:`rated_strength`."""
    tools: bool | None = None
    """Whether its chat template takes tools, so that it can look things up itself; None where that is not known."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes it was trained on; "*" for more than a hundred, "+" for others that are not named; () unknown."""

    @property
    def rated_strength(self) -> ModelStrength:
        """The published score, else one estimated from the size."""
        return self.strength or estimated_strength(self.params_b)

    @property
    def reasons(self) -> str:
        """Whether it reasons before it answers: "switch" where its chat template can switch that off, "always", or ""."""
        return REASONING_MODELS.get(self.name, "")

    @property
    def params_b(self) -> float:
        """Parameters in billions."""
        return self.shape.params / 1e9


Row = tuple[str, float, tuple[int, int, int, int, int, int, int], bool, int, str]
"""Hub id, billions of parameters, shape numbers, tied embeddings, context, licence."""


def _family(family: str, source: str, rows: Iterable[Row]) -> tuple[ModelFacts, ...]:
    """Build the entries of one family from table rows.

    The seven shape numbers are: layers, hidden, heads, kv heads, head dim, intermediate, vocabulary.
    """
    built = []
    for hub, params_b, numbers, tied, context, licence in rows:
        shape = ModelShape(round(params_b * 1e9), *numbers, tied=tied)
        name = hub.rpartition("/")[2].lower()
        known = abilities_of(name, family)
        built.append(ModelFacts(name, hub, shape, context, licence, family=family, source=source, **known))
    return tuple(built)


_LITGPT = "config.json; the same numbers in litgpt/config.py"
_PARTLY = "config.json; the same numbers in litgpt/config.py or quoted in several public repositories"
APACHE, MIT, QWEN, GEMMA = "Apache-2.0", "MIT", "Qwen", "Gemma"
MRL = "Mistral Research (no commercial use)"
LLAMA_31, LLAMA_32, LLAMA_33 = "Llama 3.1", "Llama 3.2", "Llama 3.3"
TIED, UNTIED = True, False

MODELS: tuple[ModelFacts, ...] = (
    *_family(
        "smollm",
        _LITGPT,
        (
            (
                "HuggingFaceTB/SmolLM2-135M-Instruct",
                0.1345,
                (30, 576, 9, 3, 64, 1536, 49152),
                TIED,
                8192,
                APACHE,
            ),
            (
                "HuggingFaceTB/SmolLM2-360M-Instruct",
                0.3618,
                (32, 960, 15, 5, 64, 2560, 49152),
                TIED,
                8192,
                APACHE,
            ),
            (
                "HuggingFaceTB/SmolLM2-1.7B-Instruct",
                1.711,
                (24, 2048, 32, 32, 64, 8192, 49152),
                TIED,
                8192,
                APACHE,
            ),
        ),
    ),
    *_family(
        "smollm",
        "config.json; transformers' SmolLM3Config",
        (("HuggingFaceTB/SmolLM3-3B", 3.075, (36, 2048, 16, 4, 128, 11008, 128256), TIED, 65536, APACHE),),
    ),
    *_family(
        "qwen2.5",
        _LITGPT,
        (
            ("Qwen/Qwen2.5-0.5B-Instruct", 0.494, (24, 896, 14, 2, 64, 4864, 151936), TIED, 32768, APACHE),
            ("Qwen/Qwen2.5-1.5B-Instruct", 1.544, (28, 1536, 12, 2, 128, 8960, 151936), TIED, 32768, APACHE),
            (
                "Qwen/Qwen2.5-3B-Instruct",
                3.086,
                (36, 2048, 16, 2, 128, 11008, 151936),
                TIED,
                32768,
                "Qwen Research",
            ),
            ("Qwen/Qwen2.5-7B-Instruct", 7.616, (28, 3584, 28, 4, 128, 18944, 152064), UNTIED, 32768, APACHE),
            (
                "Qwen/Qwen2.5-14B-Instruct",
                14.77,
                (48, 5120, 40, 8, 128, 13824, 152064),
                UNTIED,
                32768,
                APACHE,
            ),
            (
                "Qwen/Qwen2.5-32B-Instruct",
                32.764,
                (64, 5120, 40, 8, 128, 27648, 152064),
                UNTIED,
                32768,
                APACHE,
            ),
            ("Qwen/Qwen2.5-72B-Instruct", 72.706, (80, 8192, 64, 8, 128, 29568, 152064), UNTIED, 32768, QWEN),
        ),
    ),
    *_family(
        "qwen3",
        _LITGPT,
        (
            ("Qwen/Qwen3-0.6B", 0.596, (28, 1024, 16, 8, 128, 3072, 151936), TIED, 40960, APACHE),
            ("Qwen/Qwen3-1.7B", 1.721, (28, 2048, 16, 8, 128, 6144, 151936), TIED, 40960, APACHE),
            ("Qwen/Qwen3-4B", 4.022, (36, 2560, 32, 8, 128, 9728, 151936), TIED, 40960, APACHE),
            (
                "Qwen/Qwen3-4B-Instruct-2507",
                4.022,
                (36, 2560, 32, 8, 128, 9728, 151936),
                TIED,
                262144,
                APACHE,
            ),
            ("Qwen/Qwen3-8B", 8.191, (36, 4096, 32, 8, 128, 12288, 151936), UNTIED, 40960, APACHE),
            ("Qwen/Qwen3-14B", 14.768, (40, 5120, 40, 8, 128, 17408, 151936), UNTIED, 40960, APACHE),
            ("Qwen/Qwen3-32B", 32.762, (64, 5120, 64, 8, 128, 25600, 151936), UNTIED, 40960, APACHE),
        ),
    ),
    *_family(
        "llama-3",
        _LITGPT,
        (
            (
                "meta-llama/Llama-3.2-1B-Instruct",
                1.236,
                (16, 2048, 32, 8, 64, 8192, 128256),
                TIED,
                131072,
                LLAMA_32,
            ),
            (
                "meta-llama/Llama-3.2-3B-Instruct",
                3.213,
                (28, 3072, 24, 8, 128, 8192, 128256),
                TIED,
                131072,
                LLAMA_32,
            ),
            (
                "meta-llama/Llama-3.1-8B-Instruct",
                8.03,
                (32, 4096, 32, 8, 128, 14336, 128256),
                UNTIED,
                131072,
                LLAMA_31,
            ),
            (
                "meta-llama/Llama-3.1-70B-Instruct",
                70.554,
                (80, 8192, 64, 8, 128, 28672, 128256),
                UNTIED,
                131072,
                LLAMA_31,
            ),
            (
                "meta-llama/Llama-3.3-70B-Instruct",
                70.554,
                (80, 8192, 64, 8, 128, 28672, 128256),
                UNTIED,
                131072,
                LLAMA_33,
            ),
            (
                "meta-llama/Llama-3.1-405B-Instruct",
                405.853,
                (126, 16384, 128, 8, 128, 53248, 128256),
                UNTIED,
                131072,
                LLAMA_31,
            ),
        ),
    ),
    *_family(
        "mistral",
        _PARTLY,
        (
            (
                "mistralai/Mistral-7B-Instruct-v0.3",
                7.248,
                (32, 4096, 32, 8, 128, 14336, 32768),
                UNTIED,
                32768,
                APACHE,
            ),
            (
                "mistralai/Ministral-8B-Instruct-2410",
                8.02,
                (36, 4096, 32, 8, 128, 12288, 131072),
                UNTIED,
                32768,
                MRL,
            ),
            (
                "mistralai/Mistral-Nemo-Instruct-2407",
                12.248,
                (40, 5120, 32, 8, 128, 14336, 131072),
                UNTIED,
                128000,
                APACHE,
            ),
            (
                "mistralai/Mistral-Small-24B-Instruct-2501",
                23.572,
                (40, 5120, 32, 8, 128, 32768, 131072),
                UNTIED,
                32768,
                APACHE,
            ),
            (
                "mistralai/Mistral-Large-Instruct-2411",
                122.61,
                (88, 12288, 96, 8, 128, 28672, 32768),
                UNTIED,
                131072,
                MRL,
            ),
        ),
    ),
    *_family(
        "gemma-2",
        _LITGPT,
        (
            ("google/gemma-2-2b-it", 2.614, (26, 2304, 8, 4, 256, 9216, 256000), TIED, 8192, GEMMA),
            ("google/gemma-2-9b-it", 9.242, (42, 3584, 16, 8, 256, 14336, 256000), TIED, 8192, GEMMA),
            ("google/gemma-2-27b-it", 27.227, (46, 4608, 32, 16, 128, 36864, 256000), TIED, 8192, GEMMA),
        ),
    ),
    *_family(
        "gemma-3",
        _PARTLY,
        (
            ("google/gemma-3-270m-it", 0.268, (18, 640, 4, 1, 256, 2048, 262144), TIED, 32768, GEMMA),
            ("google/gemma-3-1b-it", 1.0, (26, 1152, 4, 1, 256, 6912, 262144), TIED, 32768, GEMMA),
            ("google/gemma-3-4b-it", 3.88, (34, 2560, 8, 4, 256, 10240, 262208), TIED, 131072, GEMMA),
            ("google/gemma-3-12b-it", 11.766, (48, 3840, 16, 8, 256, 15360, 262208), TIED, 131072, GEMMA),
            ("google/gemma-3-27b-it", 27.009, (62, 5376, 32, 16, 128, 21504, 262208), TIED, 131072, GEMMA),
        ),
    ),
    *_family(
        "gemma-3-pretrained",
        "the metadata of its GGUF file: sliding windows of 512 tokens in 15 of its 18 layers",
        (("google/gemma-3-270m", 0.268, (18, 640, 4, 1, 256, 2048, 262144), TIED, 32768, GEMMA),),
    ),
    *_family(
        "phi-4",
        _LITGPT,
        (
            ("microsoft/Phi-4-mini-instruct", 3.836, (32, 3072, 24, 8, 128, 8192, 200064), TIED, 131072, MIT),
            ("microsoft/phi-4", 14.66, (40, 5120, 40, 10, 128, 17920, 100352), UNTIED, 16384, MIT),
        ),
    ),
    *_family(
        "olmo-2",
        _PARTLY,
        (
            (
                "allenai/OLMo-2-0425-1B-Instruct",
                1.485,
                (16, 2048, 16, 16, 128, 8192, 100352),
                UNTIED,
                4096,
                APACHE,
            ),
            (
                "allenai/OLMo-2-1124-7B-Instruct",
                7.299,
                (32, 4096, 32, 32, 128, 11008, 100352),
                UNTIED,
                4096,
                APACHE,
            ),
            (
                "allenai/OLMo-2-1124-13B-Instruct",
                13.716,
                (40, 5120, 40, 40, 128, 13824, 100352),
                UNTIED,
                4096,
                APACHE,
            ),
            (
                "allenai/OLMo-2-0325-32B-Instruct",
                32.234,
                (64, 5120, 40, 8, 128, 27648, 100352),
                UNTIED,
                4096,
                APACHE,
            ),
        ),
    ),
    *_family(
        "granite-3",
        _PARTLY,
        (
            (
                "ibm-granite/granite-3.3-2b-instruct",
                2.534,
                (40, 2048, 32, 8, 64, 8192, 49159),
                TIED,
                131072,
                APACHE,
            ),
            (
                "ibm-granite/granite-3.3-8b-instruct",
                8.171,
                (40, 4096, 32, 8, 128, 12800, 49159),
                TIED,
                131072,
                APACHE,
            ),
        ),
    ),
    *_family(
        "r1-distill",
        _LITGPT,
        (
            (
                "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
                1.777,
                (28, 1536, 12, 2, 128, 8960, 151936),
                UNTIED,
                131072,
                MIT,
            ),
            (
                "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
                7.616,
                (28, 3584, 28, 4, 128, 18944, 152064),
                UNTIED,
                131072,
                MIT,
            ),
            (
                "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
                8.03,
                (32, 4096, 32, 8, 128, 14336, 128256),
                UNTIED,
                131072,
                MIT,
            ),
            (
                "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
                14.77,
                (48, 5120, 40, 8, 128, 13824, 152064),
                UNTIED,
                131072,
                MIT,
            ),
            (
                "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
                32.764,
                (64, 5120, 40, 8, 128, 27648, 152064),
                UNTIED,
                131072,
                MIT,
            ),
            (
                "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
                70.554,
                (80, 8192, 64, 8, 128, 28672, 128256),
                UNTIED,
                131072,
                MIT,
            ),
        ),
    ),
)

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The built-in model: small enough to fine-tune and test anywhere. It stands in for the model that an advice is about."""
SUGGESTED_MODELS = (
    "qwen3-32b",
    "qwen3-14b",
    "qwen3-8b",
    "qwen3-4b-instruct-2507",
    "qwen3-1.7b",
    "qwen3-0.6b",
)
"""The models that advice is about where none is named, largest first: one family in many sizes, Apache-2.0, more than a
hundred languages, with tools; the largest that suits the device is taken."""
OFFERED_MODELS = frozenset(
    {
        *SUGGESTED_MODELS,
        DEFAULT_MODEL,
        "gemma-3-270m",
        "gemma-3-4b-it",
        "gemma-3-12b-it",
        "gemma-3-27b-it",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "granite-4.0-h-tiny",
        "llama-3.1-8b-instruct",
        "llama-3.3-70b-instruct",
        "mistral-small-24b-instruct-2501",
        "phi-4-mini-instruct",
        "qwen3-30b-a3b-instruct-2507",
    }
)
"""The models that the wizard lists, those of them that suit the place; any other can be typed."""
MAX_SUGGESTED_CPU_B = 4.5
"""Billions of parameters up to which a model is suggested without a GPU: a larger one writes about a token a second."""
SUGGESTED_GPU_GIB = 24.0
"""GiB of the GPU that is assumed where nothing is known of the device: the usual card for this work."""


def known_models() -> tuple[ModelFacts, ...]:
    """Return the known models, corrected and extended by the user's own file."""
    file = user_catalog.catalog_file()
    return MODELS if file is None else _merged(file)


def find_model(name: str) -> ModelFacts | None:
    """Return the model of this name or hub id in any case; None when it is not in the table."""
    return _by_name(user_catalog.catalog_file()).get(name.lower())


def suggested_model(device_gib: float | None, on_cpu: bool = False) -> ModelFacts:
    """Return the largest of :data:`SUGGESTED_MODELS` that answers in 16 bits; the built-in one where none does.

    Args:
        device_gib: memory of one device in GiB; None is unknown.
        on_cpu: whether the device is a CPU, where large models fit but are too slow.
    """
    counter: Literal["process", "device"] = "process" if on_cpu else "device"
    for name in SUGGESTED_MODELS:
        model = find_model(name)
        if model is None or (on_cpu and model.params_b > MAX_SUGGESTED_CPU_B):
            continue
        need = estimate_memory(model.shape, "inference", MemorySetup(counter=counter))
        if need.fits(device_gib or SUGGESTED_GPU_GIB) == "yes":
            return model
    return find_model(DEFAULT_MODEL) or MODELS[0]


def smaller_siblings(model: ModelFacts) -> tuple[ModelFacts, ...]:
    """Return the smaller models of the same family, largest first; a model without a family has none."""
    smaller = [
        m for m in known_models() if m.family and m.family == model.family and m.params_b < model.params_b
    ]
    return tuple(sorted(smaller, key=lambda m: (-m.params_b, m.name)))


def _flat(model: ModelFacts) -> dict[str, Any]:
    """Return the row of a model as the user's file writes it: shape numbers beside the other fields."""
    values = {field.name: getattr(model, field.name) for field in fields(model)}
    shape = asdict(values.pop("shape"))
    return {**values, "params_b": shape.pop("params") / 1e9, **shape}


def _build(values: dict[str, Any]) -> ModelFacts:
    """Return the model that a row describes; without a name it is named after its hub id."""
    rest = dict(values)
    shape = {field.name: rest.pop(field.name) for field in fields(ModelShape) if field.name in rest}
    params = round(rest.pop("params_b") * 1e9)
    built = ModelFacts(shape=ModelShape(params=params, **shape), **rest)
    return built if built.name else replace(built, name=built.hub.rpartition("/")[2].lower())


_TABLE = user_catalog.CatalogTable(
    section="models",
    key="hub",
    fields={
        **dict.fromkeys(("hub", "name", "licence", "family"), user_catalog.read_text_value),
        "params_b": user_catalog.read_number,
        **dict.fromkeys(
            ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab", "context"),
            user_catalog.read_count,
        ),
        **dict.fromkeys(("gated", "tied", "tools"), user_catalog.read_flag),
        "kind": user_catalog.one_of_words(*abilities.MODEL_KINDS),
        "strength": abilities.read_strength,
        "languages": abilities.read_languages,
    },
    defaults={"name": "", "licence": "yours", "family": "", "date": "", "gated": True}
    | {"kind": "instruct", "strength": None, "tools": None, "languages": ()},
    flat=_flat,
    build=_build,
)


@lru_cache(maxsize=2)
def _merged(file: user_catalog.CatalogFile) -> tuple[ModelFacts, ...]:
    return user_catalog.merge_catalog(_TABLE, MODELS, file)


@lru_cache(maxsize=2)
def _by_name(file: user_catalog.CatalogFile | None) -> dict[str, ModelFacts]:
    """Return the models by lower-case name and hub id; of two with the same name the first counts."""
    entries = MODELS if file is None else _merged(file)
    return {key.lower(): model for model in reversed(entries) for key in (model.hub, model.name)}
