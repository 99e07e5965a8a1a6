"""What the shell offers after Tab: runs, plans, models, rules, questions, arms. Light, and silent on what is broken."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from advisor import tab
from rag.errors import Problem

Offered = list[tuple[str, str]]
"""Values with a word of help each."""
PLAN, PLACE = "plan.yaml", "runs"


def runs(incomplete: str) -> Offered:
    """Offer the runs of ./runs, run folders anywhere, and the folders on the way to them."""
    mine = [(str(path), "a run") for path in _folders(f"{PLACE}{os.sep}") if _is_run(path)]
    return _starting(incomplete, [*mine, *_on_the_way(incomplete)])


def plans(incomplete: str) -> Offered:
    """Offer plan files, run folders, and the folders on the way to them."""
    files = [path for path in _beginning(incomplete) if path.suffix in (".yaml", ".yml")]
    return [*((str(path), "a plan") for path in files), *runs(incomplete)]


def models(incomplete: str) -> Offered:
    """Offer the base models that advice knows, and folders."""
    found: Offered = []
    with suppress(Problem):  # the user's own facts may be broken: the command itself will say so
        from advisor.facts import models as facts

        found = [(model.name, f"{model.params_b:g} billion weights") for model in facts.models()]
    return _starting(incomplete, [*found, *_on_the_way(incomplete)])


def obtainable(incomplete: str) -> Offered:
    """Offer the models that can be obtained by name."""
    from runners.known import KNOWN

    return _starting(incomplete, [(known.name, known.kind) for known in KNOWN])


def explained(incomplete: str) -> Offered:
    """Offer rules, blockers, methods and plans."""
    from advisor.methods import blocks
    from advisor.methods.table import METHODS, methods
    from advisor.rules.table import RULES, rules

    every_method, every_rule = METHODS, RULES
    with suppress(Problem):  # a plug-in may be broken: the command itself will say so
        every_method, every_rule = methods(), rules()
    found = [(method.name, "method") for method in every_method]
    found += [(rule.code(), _first(rule.text())) for rule in every_rule]
    found += [(blocks.code(check), _first(blocks.text(check))) for check in blocks.CHECKS]
    return [*_starting(incomplete, found), *plans(incomplete)]


def answers(incomplete: str) -> Offered:
    """Offer ``key=`` for every question, then the values of those that have a list of them."""
    from advisor.questions import BY_ID, QUESTIONS

    key, equals, _ = incomplete.partition("=")
    if not equals:
        return _starting(incomplete, [(f"{question.id}=", question.text) for question in QUESTIONS])
    question = BY_ID.get(key)
    if question is None:
        return []
    values = [(choice.value, choice.help) for choice in question.choices]
    values += [("yes", ""), ("no", "")] if question.kind == "flag" else []
    return _starting(incomplete, [(f"{key}={value}", text) for value, text in values])


def profiles(incomplete: str) -> Offered:
    """Offer the kept profiles."""
    from advisor.saved import folder

    return _starting(incomplete, [(path.stem, "a profile") for path in sorted(folder().glob("*.yaml"))])


def arms(incomplete: str) -> Offered:
    """Offer the arms of the run that was named before."""
    # Typer's context is empty here: an option that still lacks its value ends the parsing of what stands before it.
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    run = next((Path(word) for word in tab.words(words) if _is_run(Path(word))), None)
    if run is None:
        return []
    import yaml

    try:
        steps = yaml.safe_load((run / PLAN).read_text("utf-8"))["steps"]
        found = [(str(step["arm"]), "an arm") for step in steps if step["kind"] == "evaluate"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    return _starting(incomplete, found)


def targets(incomplete: str) -> Offered:
    """Offer what a run can be exported as."""
    from runners.export.targets import RUN, TARGETS

    return _starting(incomplete, [*((t.name, t.makes) for t in TARGETS), (RUN, "a bundle, unpacked")])


def tunings(incomplete: str) -> Offered:
    """Offer the ways of tuning."""
    from runners.tuning import TUNING_METHODS

    return _starting(incomplete, [(name, "") for name in TUNING_METHODS])


def methods(incomplete: str) -> Offered:
    """Offer all methods, tuning or not."""
    from advisor.methods.table import METHODS

    return _starting(incomplete, [(method.name, _first(method.text())) for method in METHODS])


def formats(incomplete: str) -> Offered:
    """Offer the ways in which results are printed."""
    from advisor.output import FORMATS

    return _starting(incomplete, [(name, "") for name in FORMATS])


def _starting(incomplete: str, found: Iterable[tuple[str, str]]) -> Offered:
    return [pair for pair in dict(found).items() if pair[0].startswith(incomplete)]


def _on_the_way(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the folders that begin like what was typed: a run as it is, any other with a slash."""
    for path in _folders(incomplete):
        yield (str(path), "a run") if _is_run(path) else (f"{path}{os.sep}", "a folder")


def _folders(begun: str) -> list[Path]:
    return [path for path in _beginning(begun) if path.is_dir()]


def _beginning(begun: str) -> list[Path]:
    """Return what there is whose path begins so; hidden names only when a dot was typed."""
    folder, name = os.path.split(begun)
    try:
        found = sorted(path.name for path in Path(folder or ".").iterdir())
    except OSError:
        return []
    shown = (each for each in found if each.startswith(name) and each.startswith(".") == name.startswith("."))
    return [Path(folder, each) for each in shown]


def _is_run(path: Path) -> bool:
    return (path / PLAN).is_file()


def _first(text: str) -> str:
    return text.split("\n")[0]
