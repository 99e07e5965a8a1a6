"""Tables of docs/how-it-decides.md: what methods serve, and the numbers that a reader may want to look up."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from itertools import pairwise

from scripts.pages import table

NUMBERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("advisor.recommendation.ranking", ("HALF_WEIGHT",)),
    ("advisor.recommendation.alternatives", ("MINUTES_PER_EXAMPLE",)),
    ("advisor.recommendation.break_even", ("DEFAULT_MONTHS",)),
    ("advisor.costs.training_time", ("HOURS_COVERAGE", "USUAL_CORES", "USUAL_CARD_GIB")),
    ("advisor.costs.call_prices", ("CALL_COVERAGE", "DEFAULT_CALLS", "MIN_CACHED_PREFIX_TOKENS")),
    ("advisor.costs.hosting", ("PREFIX_CACHE_SECONDS",)),
    ("runners.resources.memory_terms", ("EIGHT_BIT_FROM",)),
    ("advisor.verdict.comparison", ("SIGNIFICANCE_LEVEL", "LEANING_BELOW", "STATISTICAL_POWER")),
    ("advisor.verdict.arm_choice", ("MIN_VALID_SHARE", "MIN_UNANSWERABLE", "REFUSING_SHARE")),
    ("advisor.verdict.usable", ("USABLE_FROM", "USABLE_FROM_COSTLY")),
    ("advisor.costs.arm_costs", ("SAME_COST",)),
    ("rag.evaluation.clusters", ("MIN_CLUSTERS", "FEW_CLUSTERS", "ENOUGH_ABOVE")),
)
"""Constants that a recommendation or a verdict rests on, by their module."""


def needs_table() -> list[str]:
    """Return the table of needs with the methods that meet each, best first."""
    from advisor.methods.registry import METHODS
    from advisor.rules import base

    texts = _documented(ast.parse(inspect.getsource(base.Need)).body[0])
    rows = []
    for need in base.Need:
        served = [(method.serves.get(need, 0.0), method.name) for method in METHODS]
        best = sorted((pair for pair in served if pair[0] > 0), key=lambda pair: -pair[0])
        rows.append((str(need), texts[need.name], ", ".join(f"{name} {degree:g}" for degree, name in best)))
    return table(("need", "what it is", "met by"), rows)


def numbers_table() -> list[str]:
    """Return the table of constants with value, meaning and file; KeyError when one has no docstring."""
    return table(("number", "value", "what it is", "in"), _number_rows())


def _number_rows() -> Iterable[tuple[str, ...]]:
    for name, constants in NUMBERS:
        module = importlib.import_module(name)
        texts = _documented(ast.parse(inspect.getsource(module)))
        for constant in constants:
            value = getattr(module, constant)
            shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
            yield f"`{constant}`", shown, texts[constant], f"`{name.replace('.', '/')}.py`"


def _documented(body: ast.AST) -> dict[str, str]:
    """Return the text below each name that a body assigns and documents."""
    names = {}
    statements = list(getattr(body, "body", ()))
    for statement, following in pairwise(statements):
        target = (
            statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        )
        text = (
            following.value.value
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            else None
        )
        if isinstance(target, ast.Name) and isinstance(text, str):
            names[target.id] = inspect.cleandoc(text)
    return names
