"""What published sources say a model can do: its kind, one public score, and the languages it was trained on.

:func:`abilities_of` gives them for the models of :mod:`runners.catalog.models`; :func:`estimated_strength` a score from the
size where none was published. The user's own file may correct each of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ModelKind = Literal["base", "instruct", "thinking"]
MODEL_KINDS: tuple[ModelKind, ...] = ("base", "instruct", "thinking")
"""Not tuned to follow instructions; tuned to; tuned to reason before it answers."""
ALL_LANGUAGES = "*"
"""Stands for more than a hundred languages, none of which the source lists."""
OTHER_LANGUAGES = "+"
"""Stands for further languages that the source does not name."""
MMLU_CHANCE = 25.0
"""Score in percent of guessing one of MMLU's four answers."""
MMLU_BEST = 90.0
"""Score in percent above which no open model of the table is."""
MMLU_AT_1B = 53.7
"""Score in percent of a model of a billion parameters: a straight line through the published scores below."""
MMLU_PER_DECADE = 17.7
"""Points that ten times the parameters add: the same line."""
REASONING_MODELS: dict[str, str] = {
    **{
        f"qwen3-{size}": "switch"
        for size in ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b")
    },
    **{f"qwen3.5-{size}": "switch" for size in ("4b", "9b", "27b", "35b-a3b", "122b-a10b", "397b-a17b")},
    **{f"gpt-oss-{size}": "always" for size in ("20b", "120b")},
    "smollm3-3b": "switch",
    **{
        f"deepseek-r1-distill-{name}": "always"
        for name in ("qwen-1.5b", "qwen-7b", "llama-8b", "qwen-14b", "qwen-32b", "llama-70b")
    },
}
"""The models of the table that reason by default, from their model cards and chat templates: "switch" where the template
has ``enable_thinking``, which plans set to false unless they enable it; "always" where it has none."""
TOOL_FAMILIES = frozenset(
    (
        "qwen2.5",
        "qwen3",
        "qwen3-moe",
        "qwen3-next",
        "qwen3.5",
        "gpt-oss",
        "llama-3",
        "mistral",
        "granite-3",
        *("granite-4", "gemma-4"),
    )
)
"""Families whose chat template takes ``tools``, as their model cards say; a run looks at the template itself."""
TOOL_MODELS = frozenset({"phi-4-mini-instruct"})
"""Models of other families whose template does: of gemma-3 (discussions 11 of its 12 B and 8 of its 27 B) it does not."""
UNKNOWN_TOOLS = frozenset({"smollm3-3b"})
"""Models whose template takes tools in a form of its own."""
_HOSTED_TOOLS = re.compile(
    r"(gpt-[4-9]|o[134](-|$)|claude-|gemini-|deepseek-(chat|v\d)|mistral-(small|medium|large)|magistral|grok-)",
    re.IGNORECASE,
)
"""Hosted models that take ``tools``, by what their makers' guides to function calling say of the family."""
_NO_GAIN = re.compile(r"gpt-4o-mini|gpt-4\.1-nano", re.IGNORECASE)
"""Hosted models of which a published comparison saw no gain over one search (RAGBench-12x; arXiv 2601.07711)."""
BASE_MODELS = frozenset({"gemma-3-270m"})
"""The models of the table that were not tuned to follow instructions."""


@dataclass(frozen=True, slots=True)
class ModelStrength:
    """One score of a model, in percent.

    Attributes:
        metric: what was measured, and how.
        value: the score, 0 to 100.
        source: where it was published; how it was estimated.
        month: of the publication, as YYYY-MM; "" for an estimate.
        estimated: whether it follows from the size only.
    """

    metric: str
    value: float
    source: str
    month: str = ""
    estimated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {
            "metric": self.metric,
            "value": self.value,
            "source": self.source,
            "month": self.month,
            "estimated": self.estimated,
        }


def estimated_strength(params_b: float) -> ModelStrength:
    """Return the score that models of this size have on average; it never falls with the size.

    A straight line over the logarithm of the size, held between guessing and the best: least squares over the published
    5-shot scores of this module (27 models, 2024 and 2025), which differ from it by 7.4 points (root mean square).

    Args:
        params_b: parameters in billions, above 0.
    """
    line = MMLU_AT_1B + MMLU_PER_DECADE * math.log10(params_b)
    value = round(min(MMLU_BEST, max(MMLU_CHANCE, line)), 1)
    return ModelStrength("MMLU, 5-shot", value, "estimated from the size", estimated=True)


def abilities_of(name: str, family: str) -> dict[str, Any]:
    """Return ``kind``, ``strength`` and ``tools`` (None where unknown) and ``languages`` of a model of the table."""
    kind: ModelKind = (
        "base" if name in BASE_MODELS else "thinking" if name in REASONING_MODELS else "instruct"
    )
    languages = MODEL_LANGUAGES.get(name, FAMILY_LANGUAGES.get(family, ()))
    tools = None if name in UNKNOWN_TOOLS else family in TOOL_FAMILIES or name in TOOL_MODELS
    return {"kind": kind, "strength": STRENGTHS.get(name), "languages": languages, "tools": tools}


def hosted_takes_tools(name: str) -> bool | None:
    """Return whether a hosted model of this name takes tools; None where nothing is known of it."""
    return True if _HOSTED_TOOLS.match(name.rpartition("/")[2]) else None


def gained_nothing(name: str) -> bool:
    """Return whether published comparisons of a hosted model saw no gain where it searches by itself."""
    return bool(_NO_GAIN.match(name.rpartition("/")[2]))


def speaks_language(languages: tuple[str, ...], language: str) -> bool | None:
    """Return whether a model with these languages was trained on one of them; None where the source does not say.

    Args:
        languages: ISO 639-1 codes, with :data:`ALL_LANGUAGES` or :data:`OTHER_LANGUAGES`; empty where nothing is known.
        language: an ISO 639-1 code.
    """
    if language in languages or ALL_LANGUAGES in languages:
        return True
    return None if not languages or OTHER_LANGUAGES in languages else False


def read_strength(value: Any) -> ModelStrength | None:
    """Accept a score of MMLU from 0 to 100, or a mapping of metric, value, source and month; null where none is known."""
    row = {"value": value} if isinstance(value, int | float) and not isinstance(value, bool) else value
    if row is None or isinstance(row, ModelStrength):
        return row
    wanted = "a score from 0 to 100, or a mapping of value, metric, source and month"
    if not isinstance(row, dict) or not set(row) <= {"value", "metric", "source", "month"}:
        raise ValueError(wanted)
    score = row.get("value")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 100:
        raise ValueError(wanted)
    metric, source = (
        str(row.get(key) or default) for key, default in (("metric", "MMLU"), ("source", "yours"))
    )
    return ModelStrength(metric, float(score), source, str(row.get("month") or ""))


def read_languages(value: Any) -> tuple[str, ...]:
    """Accept a list of ISO 639-1 codes, with "*" for all or "+" for others that are not named."""
    codes = value if isinstance(value, list | tuple) else None
    if codes is None or not all(
        isinstance(code, str)
        and (code in (ALL_LANGUAGES, OTHER_LANGUAGES) or (code.isalpha() and len(code) == 2))
        for code in codes
    ):
        raise ValueError("a list of two-letter codes such as [en, de], * for all, + for others not named")
    return tuple(code.lower() for code in codes)


_QWEN3_REPORT = "Qwen3 Technical Report, arXiv 2505.09388, tables 3 to 8: the base model"


def _scores(metric: str, source: str, month: str, values: Mapping[str, float]) -> dict[str, ModelStrength]:
    return {name: ModelStrength(metric, value, source, month) for name, value in values.items()}


STRENGTHS: dict[str, ModelStrength] = {
    **_scores(
        "MMLU, 5-shot",
        _QWEN3_REPORT,
        "2025-05",
        {
            "qwen2.5-0.5b-instruct": 47.5,
            "qwen2.5-1.5b-instruct": 60.9,
            "qwen2.5-3b-instruct": 65.6,
            "qwen2.5-7b-instruct": 74.2,
            "qwen2.5-14b-instruct": 79.7,
            "qwen2.5-32b-instruct": 83.3,
            "qwen2.5-72b-instruct": 86.1,
            "qwen3-0.6b": 52.8,
            "qwen3-1.7b": 62.6,
            "qwen3-4b": 73.0,
            "qwen3-4b-instruct-2507": 73.0,
            "qwen3-8b": 76.9,
            "qwen3-14b": 81.1,
            "qwen3-32b": 83.6,
            "qwen3-30b-a3b": 81.4,
            "qwen3-235b-a22b": 87.8,
            "gemma-3-1b-it": 26.3,
            "gemma-3-4b-it": 59.5,
            "gemma-3-12b-it": 73.9,
            "gemma-3-27b-it": 78.7,
        },
    ),
    **_scores(
        "MMLU, 5-shot",
        "model card of Gemma 2: the base model",
        "2024-07",
        {"gemma-2-2b-it": 51.3, "gemma-2-9b-it": 71.3, "gemma-2-27b-it": 75.2},
    ),
    **_scores(
        "MMLU, 5-shot",
        "model card of Llama 3.2",
        "2024-09",
        {"llama-3.2-1b-instruct": 49.3, "llama-3.2-3b-instruct": 63.4},
    ),
    **_scores(
        "MMLU, 5-shot",
        "model card of Llama 3.1",
        "2024-07",
        {
            "llama-3.1-8b-instruct": 69.4,
            "llama-3.1-70b-instruct": 83.6,
            "llama-3.1-405b-instruct": 87.3,
        },
    ),
    **_scores(
        "MMLU, 0-shot with reasoning",
        "model card of Llama 3.3",
        "2024-12",
        {"llama-3.3-70b-instruct": 86.0},
    ),
    **_scores("MMLU, 5-shot", "model card of Phi-4-mini", "2025-02", {"phi-4-mini-instruct": 67.3}),
    **_scores("MMLU", "model card of Ministral 8B", "2024-10", {"ministral-8b-instruct-2410": 65.0}),
    **_scores(
        "MMLU",
        "Mistral, announcement of Large 2, the release before this one",
        "2024-07",
        {"mistral-large-instruct-2411": 84.0},
    ),
    **_scores(
        "MMLU, cloze, 0-shot",
        "model card of SmolLM2",
        "2024-11",
        {"smollm2-135m-instruct": 29.3, "smollm2-360m-instruct": 32.8},
    ),
}
"""Published scores by name of the model. A model without one gets :func:`estimated_strength`."""


_QWEN25 = ("zh", "en", "fr", "es", "pt", "de", "it", "ru", "ja", "ko", "vi", "th", "ar", OTHER_LANGUAGES)
_PHI_MINI = (
    *(
        "ar",
        "zh",
        "cs",
        "da",
        "nl",
        "en",
        "fi",
        "fr",
        "de",
        "he",
        "hu",
        "it",
        "ja",
        "ko",
        "no",
        "pl",
        "pt",
        "ru",
    ),
    *("es", "sv", "th", "tr", "uk"),
)
_LLAMA = ("en", "de", "fr", "it", "pt", "hi", "es", "th", OTHER_LANGUAGES)
FAMILY_LANGUAGES: dict[str, tuple[str, ...]] = {
    "smollm": ("en",),
    "qwen2.5": _QWEN25,
    **dict.fromkeys(("qwen3", "qwen3-moe", "qwen3-next", "qwen3.5", "gemma-3n", "gemma-4"), (ALL_LANGUAGES,)),
    "gpt-oss": ("en", OTHER_LANGUAGES),
    "granite-4": ("en", "de", "es", "fr", "ja", "pt", "ar", "cs", "it", "ko", "nl", "zh", OTHER_LANGUAGES),
    "llama-3": _LLAMA,
    "gemma-2": ("en",),
    "gemma-3": (ALL_LANGUAGES,),
    "gemma-3-pretrained": (ALL_LANGUAGES,),
    "olmo-2": ("en",),
    "granite-3": ("en", "de", "es", "fr", "ja", "pt", "ar", "cs", "it", "ko", "nl", "zh", OTHER_LANGUAGES),
    "mistral": ("en", "fr", "de", "es", "it", "pt", "zh", "ja", "ru", "ko", OTHER_LANGUAGES),
}
"""Languages of a family, from its model cards."""
MODEL_LANGUAGES: dict[str, tuple[str, ...]] = {
    "smollm3-3b": ("en", "fr", "es", "de", "it", "pt", "zh", "ar", "ru"),
    "mistral-7b-instruct-v0.3": (),
    "phi-4": ("en",),
    "phi-4-mini-instruct": _PHI_MINI,
    **{f"deepseek-r1-distill-qwen-{size}": _QWEN25 for size in ("1.5b", "7b", "14b", "32b")},
    **{f"deepseek-r1-distill-llama-{size}": _LLAMA for size in ("8b", "70b")},
}
"""Languages of a model where they differ from its family's, from its card; of the R1 distillates those of their base."""
