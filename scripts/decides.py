"""Content of docs/how-it-decides.md: how a recommendation is computed, from the docstrings of the modules that do it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable
from itertools import pairwise
from types import ModuleType

from calls import docstring_markdown
from how_sure import how_sure_section

PARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Weighing", "advisor.recommendation.ranking", ("rank_methods",)),
    (
        "What is counted in files",
        "advisor.questionnaire.file_facts",
        ("count_facts", "language_of", "held_share"),
    ),
    ("What is known of the model", "runners.catalog.abilities", ("estimated_strength", "speaks_language")),
    ("Arms to measure first", "advisor.recommendation.also_measure", ("arms_to_measure",)),
    ("What would change it", "advisor.recommendation.thresholds", ("choice_spans", "declared_thresholds")),
    (
        "What is worth finding out, and when to run the advice again",
        "advisor.recommendation.sensitivity",
        ("choice_by_value", "counterfactuals", "information_values", "review_triggers"),
    ),
    ("What would make a better method possible", "advisor.recommendation.alternatives", ("relaxations",)),
    ("Memory", "runners.resources.memory_estimate", ("estimate_memory", "smallest_memory")),
    (
        "",
        "runners.resources.memory_terms",
        (
            "weight_bytes",
            "adapter_bytes",
            "optimizer_bytes",
            "gradient_bytes",
            "linear_input_bytes",
            "block_bytes",
            "activation_bytes",
            "logits_bytes",
            "kv_cache_bytes",
            "buffer_bytes",
            "overhead_bytes",
        ),
    ),
    (
        "Time",
        "advisor.costs.training_time",
        ("flops_per_token", "training_seconds", "training_hours", "training_device"),
    ),
    ("", "advisor.costs.step_time", ("estimate_step_times",)),
    ("Money", "advisor.costs.call_prices", ("usd_per_call",)),
    ("", "advisor.costs.hosting", ("cheapest_serving",)),
    ("", "advisor.costs.rental", ("training_cost", "cheapest_rental")),
    ("", "advisor.recommendation.break_even", ("break_even",)),
    ("Checked against published cases", "advisor.workflows.eval_advice", ("score_cases",)),
    ("The verdict, after the trial", "advisor.verdict.verdict", ("judge_trial",)),
    ("", "advisor.verdict.comparison", ("compare_with_others", "cheapest_within_noise", "questions_needed")),
    ("", "advisor.verdict.arm_choice", ("choose_arm",)),
    ("", "advisor.costs.arm_costs", ("upkeep_costs",)),
    ("", "rag.evaluation.statistics", ("cluster_by_document",)),
)
"""Sections: title ("" continues the one before), module, and its functions to show."""


def decides_page() -> list[str]:
    """Return the page: the needs, and then each step from answers to advice, from the docstrings of the code."""
    lines = [
        "# How tunewise decides",
        "",
        "In short: you answer questions, rules with published evidence turn the answers into points, and of the methods",
        "that can be done here the one with most points is recommended. Nothing else decides, so every number of a",
        "recommendation can be followed to a rule and its source. Words are explained in the [glossary](glossary.md).",
        "",
        "In detail: each [rule](rules.md) that applies adds its weight to a *need*, such as citations or style. Each method",
        "says how far it meets each need, from 0 to 1. A method's sum is the weights times these degrees. What cannot be",
        "done here (too little memory, no documents, ...) rules a method out, with the numbers that show it.",
        "",
        "## Needs",
        "",
        *_table(("need", "what it is", "met by"), _needs()),
    ]
    for title, name, functions in PARTS:
        if title == "What would change it":
            lines += ["", *how_sure_section(_table)]
        module = importlib.import_module(name)
        lines += ["", f"## {title}"] if title else []
        lines += ["", docstring_markdown(inspect.getdoc(module) or "")]
        for constant, text in _constants(module):
            lines += (
                ["", f"- `{constant}`: {text}"]
                if not lines[-1].startswith("- ")
                else [f"- `{constant}`: {text}"]
            )
        for function in functions:
            lines += [
                "",
                f"**{name}.{function}**",
                "",
                docstring_markdown(inspect.getdoc(getattr(module, function)) or ""),
            ]
    return lines


def _needs() -> Iterable[tuple[str, ...]]:
    from advisor.methods.registry import METHODS
    from advisor.rules import base

    texts = dict(_documented(ast.parse(inspect.getsource(base.Need)).body[0]))
    for need in base.Need:
        served = [(method.serves.get(need, 0.0), method.name) for method in METHODS]
        best = sorted((pair for pair in served if pair[0] > 0), key=lambda pair: -pair[0])
        yield str(need), texts[need.name], ", ".join(f"{name} {degree:g}" for degree, name in best)


def _constants(module: ModuleType) -> list[tuple[str, str]]:
    """Return the public, documented numbers and strings of a module with their values."""
    constants = []
    for name, text in _documented(ast.parse(inspect.getsource(module))):
        value = getattr(module, name)
        if not name.startswith("_") and isinstance(value, int | float | str):
            formatted = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"
            constants.append((f"{name} = {formatted}", " ".join(text.split())))
    return constants


def _documented(body: ast.AST) -> list[tuple[str, str]]:
    """Return the names that a body assigns and documents with a string below."""
    names = []
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
            names.append((target.id, inspect.cleandoc(text)))
    return names


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (list(head), ["---"] * len(head), *body)]
