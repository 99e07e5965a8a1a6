"""Base models known by name, with the shape from each model's published config.

:func:`known_models` returns the table with the user's corrections, :func:`find_model` looks a model up.

The table is ``models.json``: each row names where its config.json was read, and when. Rows of dense decoders with gated MLPs
hold seven numbers of it, the others (experts, layers without attention, windows, per-layer embeddings) the keys that
:func:`runners.resources.model_shape.read_shape` reads. A model whose config was not read has no shape: it is estimated from
its folder, or with its config from the hub. Biases (query, key and value of Qwen2.5: under 0.1 %) are not counted. Of models
that see or hear the language part counts. Memory is by the plan's dtype, not by that of the files (gpt-oss: mxfp4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
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
from runners.resources.model_shape import ModelShape, read_shape


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One base model; ``shape`` comes from the config.json of ``hub``, read in the month ``date``; None where it was not."""

    name: str
    hub: str
    shape: ModelShape | None
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
    published_b: float = 0.0
    """Parameters in billions as published, else 0."""
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
        """Parameters in billions: of the shape, else as published."""
        return self.shape.params / 1e9 if self.shape else self.published_b


_SHAPE_KEYS = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocab")


def _read_table() -> Iterator[ModelFacts]:
    """Yield the models of ``models.json``; the seven numbers of a row are those of :data:`_SHAPE_KEYS`."""
    for family in json.loads(Path(__file__).with_name("models.json").read_text("utf-8")):
        for row in family["models"]:
            name, published_b = row["hub"].rpartition("/")[2].lower(), row.get("published_b", 0.0)
            shape = read_shape(row["config"]) if "config" in row else None
            if "shape" in row:
                numbers = dict(zip(_SHAPE_KEYS, row["shape"], strict=True))
                shape = ModelShape(round(published_b * 1e9), **numbers, tied=row["tied"])
            yield ModelFacts(
                name,
                row["hub"],
                shape,
                row["context"],
                row["licence"],
                date=family["date"],
                family=family["family"],
                source=row.get("source") or family["source"],
                published_b=published_b,
                **abilities_of(name, family["family"]),
            )


MODELS: tuple[ModelFacts, ...] = tuple(_read_table())
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
        "gemma-4-e4b-it",
        "gemma-4-12b-it",
        "gemma-4-31b-it",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "granite-4.0-h-tiny",
        "llama-3.1-8b-instruct",
        "llama-3.3-70b-instruct",
        "mistral-small-24b-instruct-2501",
        "qwen3-30b-a3b-instruct-2507",
        "qwen3.5-4b",
        "qwen3.5-9b",
        "qwen3.5-27b",
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
        if model is None or not model.shape or (on_cpu and model.params_b > MAX_SUGGESTED_CPU_B):
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
    shape = values.pop("shape")
    return {**values, "params_b": model.params_b, **(asdict(shape) if shape else {})}


def _build(values: dict[str, Any]) -> ModelFacts:
    """Return the model that a row describes; without a name it is named after its hub id."""
    rest = dict(values)
    shape = {field.name: rest.pop(field.name) for field in fields(ModelShape) if field.name in rest}
    shape["params"] = round(rest.pop("params_b") * 1e9)
    whole = set(_SHAPE_KEYS) <= set(shape)
    built = ModelFacts(shape=ModelShape(**shape) if whole else None, **rest)
    return built if built.name else replace(built, name=built.hub.rpartition("/")[2].lower())


_TABLE = user_catalog.CatalogTable(
    section="models",
    key="hub",
    fields={
        **dict.fromkeys(("hub", "name", "licence", "family"), user_catalog.read_text_value),
        "params_b": user_catalog.read_number,
        **dict.fromkeys(
            (*_SHAPE_KEYS, "context"),
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
