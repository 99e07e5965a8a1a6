"""Shell completion: the ``complete_*`` functions suggest runs, plans, models, rules, questions and arms to Typer.

Nothing heavy is imported, and broken files suggest nothing instead of raising.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rag.errors import Problem

Suggestions = list[tuple[str, str]]
"""Values, each with a short help text."""
PLAN = "plan.yaml"
RUNS_FOLDER = "runs"


def complete_runs(incomplete: str) -> Suggestions:
    """Suggest the runs of ./runs, run folders anywhere, and folders on the path to them."""
    runs = [(str(path), "a run") for path in _folders(f"{RUNS_FOLDER}{os.sep}") if _is_run(path)]
    return _matching(incomplete, [*runs, *_folders_or_runs(incomplete)])


def complete_plans(incomplete: str) -> Suggestions:
    """Suggest plan files, run folders, and folders on the path to them."""
    files = [path for path in _paths_starting_with(incomplete) if path.suffix in (".yaml", ".yml")]
    return [*((str(path), "a plan") for path in files), *complete_runs(incomplete)]


def complete_models(incomplete: str) -> Suggestions:
    """Suggest the base models that the advice knows, and folders."""
    known: Suggestions = []
    with suppress(Problem):  # the user's own facts may be broken: the command itself will say so
        from runners.catalog import models as facts

        known = [(model.name, f"{model.params_b:g} billion weights") for model in facts.known_models()]
    return _matching(incomplete, [*known, *_folders_or_runs(incomplete)])


def complete_obtainable_models(incomplete: str) -> Suggestions:
    """Suggest the models that can be downloaded by name."""
    from runners.models.registry import KNOWN_MODELS

    by_package = [(known.name, known.kind) for known in KNOWN_MODELS]
    on_hub: Suggestions = []
    with suppress(Problem):  # the user's own facts may be broken: the command itself will say so
        from runners.catalog import models as facts

        names = {name for name, _ in by_package}
        on_hub = [
            (model.name, "base, on the hub") for model in facts.known_models() if model.name not in names
        ]
    return _matching(incomplete, [*by_package, *on_hub])


def complete_licenses(incomplete: str) -> Suggestions:
    """Suggest the licences that must be accepted before a model is downloaded."""
    from runners.models.licenses import LICENSE_TERMS

    return _matching(incomplete, [(terms.name, terms.title) for terms in LICENSE_TERMS])


def complete_trackers(incomplete: str) -> Suggestions:
    """Suggest the trackers of ``--track``."""
    from runners.tracking.clients import TRACKERS

    return _matching(incomplete, [(name, kind.title) for name, kind in TRACKERS.items()])


def complete_explained(incomplete: str) -> Suggestions:
    """Suggest methods, words of the glossary, rules, blockers and plans."""
    from advisor.glossary import TERMS
    from advisor.methods import blockers
    from advisor.methods.named import NAMED
    from advisor.methods.registry import METHODS, all_methods
    from advisor.rules.registry import RULES, all_rules

    every_method, every_rule = METHODS, RULES
    with suppress(Problem):  # a plug-in may be broken: the command itself will say so
        every_method, every_rule = all_methods(), all_rules()
    topics = [(method.name, "method") for method in every_method]
    topics += [(term.name, term.sentence) for term in TERMS]
    topics += [(name, named.title) for name, named in NAMED.items()]
    topics += [(rule.code(), _first_line(rule.text())) for rule in every_rule]
    topics += [
        (blockers.blocker_code(check), _first_line(blockers.blocker_text(check)))
        for check in blockers.BLOCKER_CHECKS
    ]
    return [*_matching(incomplete, topics), *complete_plans(incomplete)]


def complete_answers(incomplete: str) -> Suggestions:
    """Suggest ``key=`` for every question; after it, the values of questions with a list of choices."""
    from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS

    key, equals, _ = incomplete.partition("=")
    if not equals:
        return _matching(incomplete, [(f"{question.id}=", question.text) for question in QUESTIONS])
    question = QUESTION_BY_ID.get(key)
    if question is None:
        return []
    values = [(choice.value, choice.help) for choice in question.choices]
    values += [("yes", ""), ("no", "")] if question.kind == "flag" else []
    return _matching(incomplete, [(f"{key}={value}", text) for value, text in values])


def complete_profiles(incomplete: str) -> Suggestions:
    """Suggest the saved profiles."""
    from advisor.questionnaire.answers_files import profiles_folder

    return _matching(
        incomplete, [(path.stem, "a profile") for path in sorted(profiles_folder().glob("*.yaml"))]
    )


def complete_arms(incomplete: str) -> Suggestions:
    """Suggest the arms of the run that is named earlier on the line."""
    # Typer's context is empty here: an option without a value ends the parsing, so the line is read again.
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is still open
        words = line.split()
    run = next((Path(word) for word in words if _is_run(Path(word))), None)
    if run is None:
        return []
    import yaml

    from rag.text.bounded_yaml import load_yaml

    try:
        steps = load_yaml((run / PLAN).read_text("utf-8"))["steps"]
        arms = [(str(step["arm"]), "an arm") for step in steps if step["kind"] == "evaluate"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    return _matching(incomplete, arms)


def complete_targets(incomplete: str) -> Suggestions:
    """Suggest the export formats of a run."""
    from runners.export.registry import RUN_TARGET, TARGETS

    return _matching(
        incomplete, [*((target.name, target.makes) for target in TARGETS), (RUN_TARGET, "a bundle, unpacked")]
    )


def complete_tuning_methods(incomplete: str) -> Suggestions:
    """Suggest the tuning methods."""
    from runners.plan.train_config import TUNING_METHODS

    return _matching(incomplete, [(name, "") for name in TUNING_METHODS])


def complete_launchers(incomplete: str) -> Suggestions:
    """Suggest the launchers of several processes."""
    from runners.launch.group import LAUNCHERS

    return _matching(incomplete, [(name, "") for name in LAUNCHERS])


def complete_methods(incomplete: str) -> Suggestions:
    """Suggest all methods, tuning or not."""
    from advisor.methods.registry import METHODS

    return _matching(incomplete, [(method.name, _first_line(method.text())) for method in METHODS])


def complete_formats(incomplete: str) -> Suggestions:
    """Suggest the output formats."""
    from advisor.output import FORMATS

    return _matching(incomplete, [(name, "") for name in FORMATS])


def _matching(incomplete: str, suggestions: Iterable[tuple[str, str]]) -> Suggestions:
    """Return the suggestions that start with what was typed, without duplicates."""
    return [pair for pair in dict(suggestions).items() if pair[0].startswith(incomplete)]


def _folders_or_runs(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the folders that start with what was typed: a run as it is, any other with a slash."""
    for path in _folders(incomplete):
        yield (str(path), "a run") if _is_run(path) else (f"{path}{os.sep}", "a folder")


def _folders(incomplete: str) -> list[Path]:
    return [path for path in _paths_starting_with(incomplete) if path.is_dir()]


def _paths_starting_with(incomplete: str) -> list[Path]:
    """Return the paths that start with what was typed; hidden ones only after a dot."""
    folder, name = os.path.split(incomplete)
    try:
        names = sorted(path.name for path in Path(folder or ".").iterdir())
    except OSError:
        return []
    matching = (
        entry for entry in names if entry.startswith(name) and entry.startswith(".") == name.startswith(".")
    )
    return [Path(folder, entry) for entry in matching]


def _is_run(path: Path) -> bool:
    return (path / PLAN).is_file()


def _first_line(text: str) -> str:
    return text.split("\n")[0]
