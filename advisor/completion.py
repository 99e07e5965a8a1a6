"""Shell completion: the ``complete_*`` functions suggest runs, plans, models, rules, questions and arms.

Nothing heavy is imported, and broken files suggest nothing instead of raising. Typer completes; only for bash its script
(Typer 0.29) splits words at "=", adds a blank after "folder/" and "key=", and does not quote names with blanks: 7 of the 12
lines of tests/advisor/test_completion.py come out wrong. :func:`whole_line_completion` puts a script in its place that
passes the whole line, and quotes the answers, by the variables that Typer reads and the text that it prints.
"""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from rag.errors import Problem

COMPLETE_VARIABLE = "_TUNEWISE_COMPLETE"
"""The variable by which Typer is asked to complete (complete_SHELL) or to print a script (source_SHELL)."""
SCRIPT_OPTIONS = ("--show-completion", "--install-completion")

BASH_SCRIPT = """
_tunewise_completion() {
    mapfile -t COMPREPLY < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD=-1 TUNEWISE_WORD="$2" \\
                             _TUNEWISE_COMPLETE=complete_bash "$1")
    [[ -n ${COMPREPLY[0]} ]] || COMPREPLY=()
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/=] ]] && compopt -o nospace
    return 0
}

complete -o default -F _tunewise_completion tunewise
""".strip()
WORD_VARIABLE = "TUNEWISE_WORD"
"""The variable with the part of the last word that bash replaces: what follows a "=" or ":"."""
_SPECIAL = re.compile(r"([^\w@%+:,./=~-])")


Suggestions = list[tuple[str, str]]
"""Values, each with a short help text."""
PLAN = "plan.yaml"
RUNS_FOLDER = "runs"


@contextmanager
def whole_line_completion(arguments: Sequence[str]) -> Iterator[None]:
    """While the command line runs, let Typer complete whole lines of bash, and print or install our script for bash.

    Scripts of Typer itself, which earlier versions may have installed, pass words: they are answered by Typer alone.

    Args:
        arguments: those of the command line.
    """
    asked = os.environ.get(COMPLETE_VARIABLE, "")
    completes = asked == "complete_bash" and os.environ.get("COMP_CWORD") == "-1"
    if not completes and not asked.startswith("source_") and not {*arguments[:1]} & {*SCRIPT_OPTIONS}:
        yield
        return
    line = os.environ.get("COMP_WORDS", "")
    typed = last_word(line)
    if completes:
        words = split_line(line)
        os.environ |= {"COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - bool(typed))}
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        text = printed.getvalue()
        if completes:
            replaced = os.environ.get(WORD_VARIABLE, "")
            text = "\n".join(replacement_for_word(value, typed, replaced) for value in text.splitlines())
        else:
            text = _with_our_script(text)
        print(text)


def _with_our_script(printed: str) -> str:
    """Return what Typer printed, with our script in place of its own for bash, also where it has installed it."""
    if "=complete_bash " in printed:
        return BASH_SCRIPT
    if installed := re.match(r"bash completion installed in (.+)", printed):
        from rag.files import write_text

        write_text(installed[1].strip(), f"{BASH_SCRIPT}\n")
    return printed.rstrip("\n")


def split_line(line: str) -> list[str]:
    """Return the words of a line without quotes; the last word may be incomplete."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        for word in lexer:
            words.append(word)
    except ValueError:
        words.append(lexer.token)
    return words


def last_word(line: str) -> str:
    """Return the last word of a line as it was typed, with quotes; "" after a blank."""
    start, quote, position = 0, "", 0
    while position < len(line):
        letter = line[position]
        if letter == "\\" and quote != "'":
            position += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter.isspace():
            start = position + 1
        position += 1
    return line[start:]


def replacement_for_word(value: str, typed: str, word: str) -> str:
    """Return the text to insert for a suggestion.

    Args:
        value: the suggestion.
        typed: the last word as it was typed.
        word: the end of it that bash replaces.
    """
    if typed.startswith("-") and "=" in typed:
        typed = typed.partition("=")[2]
    quote = typed[:1] if typed[:1] in ('"', "'") else ""
    if quote:
        typed = typed[1:]
        value = re.sub(r'(["\\$`])', r"\\\1", value) if quote == '"' else value
    else:
        value = _SPECIAL.sub(r"\\\1", value)
    return value.removeprefix(typed[: len(typed) - len(word)])


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
    from advisor.methods.registry import METHODS, all_methods
    from advisor.rules.registry import RULES, all_rules

    every_method, every_rule = METHODS, RULES
    with suppress(Problem):  # a plug-in may be broken: the command itself will say so
        every_method, every_rule = all_methods(), all_rules()
    topics = [(method.name, "method") for method in every_method]
    topics += [(term.name, term.sentence) for term in TERMS]
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
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    run = next((Path(word) for word in split_line(words) if _is_run(Path(word))), None)
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
