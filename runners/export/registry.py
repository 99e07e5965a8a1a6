"""The table of export targets: what a run can be exported as."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from rag.errors import UsageProblem

EXPORT_DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Number types for a target's weights; "auto" is the smallest that keeps the answers."""


@dataclass(frozen=True, slots=True)
class Target:
    """One format that a run can be exported to."""

    name: str
    makes: str
    """The result, in a few words."""
    needs: Literal["weights", "rows", "classifier", "run"]
    """What it is made from: one arm's weights, the rows that an arm is trained on, a classifier, or the whole run."""
    maker: str
    """"module:function", imported on use; the function takes an `ExportJob` and returns `ExportedFiles`."""
    dtypes: tuple[str, ...] = ()
    """Number types that its weights can be written in; empty where there is no choice."""


TARGETS: tuple[Target, ...] = (
    Target("peft", "the adapter's folder, for PEFT", "weights", "runners.export.peft:make_peft"),
    Target(
        "merged",
        "a whole model in safetensors, for transformers",
        "weights",
        "runners.export.merged:make_merged",
        EXPORT_DTYPES,
    ),
    Target(
        "gguf", "one file for llama.cpp", "weights", "runners.export.gguf:make_gguf", (*EXPORT_DTYPES, "q8_0")
    ),
    Target(
        "ollama",
        "the GGUF file with its Modelfile",
        "weights",
        "runners.export.ollama:make_ollama",
        (*EXPORT_DTYPES, "q8_0"),
    ),
    Target(
        "vllm",
        "the adapter, its base and the line that serves them",
        "weights",
        "runners.export.vllm:make_vllm",
    ),
    Target(
        "classifier",
        "a classifier's weights, labels, n-grams and tuned embedder, for numpy and scikit-learn",
        "classifier",
        "runners.export.classifier:make_classifier",
    ),
    Target("index", "passages and vectors as Parquet", "run", "runners.export.parquet:make_index_export"),
    Target("bundle", "the whole run in one archive", "run", "runners.export.bundle:make_bundle"),
    Target(
        "provider-jsonl",
        "training rows for a hosted provider",
        "rows",
        "runners.export.provider_jsonl:make_provider_jsonl",
    ),
)
RUN_TARGET = "run"
"""The target of an import: a bundle becomes a run folder again."""
TARGET_NAMES: tuple[str, ...] = tuple(target.name for target in TARGETS)


def target_named(name: str) -> Target:
    """Return the target of a name; `UsageProblem` lists the known names."""
    for target in TARGETS:
        if target.name == name:
            return target
    close = difflib.get_close_matches(name, TARGET_NAMES, n=1)
    suggestion = f"did you mean {close[0]}? " if close else ""
    raise UsageProblem(f"--to {name!r} is unknown", f"{suggestion}There are: {', '.join(TARGET_NAMES)}")
