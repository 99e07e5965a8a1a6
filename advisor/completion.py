"""What the shell offers after Tab: runs, plans, models, rules, questions, arms. Light, and silent on what is broken.

The Tab key in bash: the line goes to the completers as it was typed, and what they offer comes back as bash needs it.

Typer's own script splits at "=" (bash's words end there), puts a blank after "folder/" and "key=", and leaves names with
blanks unquoted.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rag.errors import Problem

BASH_SCRIPT = """
%(complete_func)s() {
    mapfile -t COMPREPLY < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD=-1 TUNEWISE_WORD="$2" \\
                             %(autocomplete_var)s=complete_bash "$1")
    [[ -n ${COMPREPLY[0]} ]] || COMPREPLY=()
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/=] ]] && compopt -o nospace
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""
WORD_VARIABLE = "TUNEWISE_WORD"
"""What bash takes for the word at the cursor, and replaces: the end of what was typed, from a "=" or ":" on."""
_SPECIAL = re.compile(r"([^\w@%+:,./=~-])")


def install_bash_completion() -> None:
    """Let Typer's bash script, and what answers it, be these; a Typer that is made otherwise keeps its own."""
    with suppress(ImportError, AttributeError, KeyError):
        from typer import _completion_classes, _completion_shared

        kept = _completion_classes.BashComplete

        class Bash(kept):  # type: ignore[misc, valid-type]
            """Typer's completion, given whole lines; scripts of before, which give words, are answered as before."""

            source_template = BASH_SCRIPT

            def get_completion_args(self) -> tuple[list[str], str]:
                if os.environ.get("COMP_CWORD") != "-1":
                    return super().get_completion_args()  # type: ignore[no-any-return]
                line = os.environ["COMP_WORDS"]
                before = split_line(line)
                return (before[1:-1], before[-1]) if last_word(line) else (before[1:], "")

            def format_completion(self, item: Any) -> str:
                if os.environ.get("COMP_CWORD") != "-1":
                    return str(item.value)
                return replacement_for_word(
                    str(item.value), last_word(os.environ["COMP_WORDS"]), os.environ.get(WORD_VARIABLE, "")
                )

        _completion_shared._completion_scripts["bash"] = BASH_SCRIPT
        _completion_classes.BashComplete = Bash  # type: ignore[misc]


def split_line(line: str) -> list[str]:
    """Return a line's words without their quotes; the last may lack its end."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    found: list[str] = []
    try:
        for word in lexer:
            found.append(word)
    except ValueError:
        found.append(lexer.token)
    return found


def last_word(line: str) -> str:
    """Return the line's last word as it was typed, quotes and all; "" behind a blank."""
    start, quote, at = 0, "", 0
    while at < len(line):
        letter = line[at]
        if letter == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter.isspace():
            start = at + 1
        at += 1
    return line[start:]


def replacement_for_word(value: str, typed: str, word: str) -> str:
    """Return what bash puts in the place of ``word``, the end of what was ``typed``, so that the value stands there."""
    if typed.startswith("-") and "=" in typed:
        typed = typed.partition("=")[2]
    quote = typed[:1] if typed[:1] in ('"', "'") else ""
    if quote:
        typed = typed[1:]
        value = re.sub(r'(["\\$`])', r"\\\1", value) if quote == '"' else value
    else:
        value = _SPECIAL.sub(r"\\\1", value)
    return value.removeprefix(typed[: len(typed) - len(word)])


Suggestions = list[tuple[str, str]]
"""Values with a word of help each."""
PLAN, PLACE = "plan.yaml", "runs"


def complete_runs(incomplete: str) -> Suggestions:
    """Offer the runs of ./runs, run folders anywhere, and the folders on the way to them."""
    mine = [(str(path), "a run") for path in _folders(f"{PLACE}{os.sep}") if _is_run(path)]
    return _starting(incomplete, [*mine, *_on_the_way(incomplete)])


def complete_plans(incomplete: str) -> Suggestions:
    """Offer plan files, run folders, and the folders on the way to them."""
    files = [path for path in _beginning(incomplete) if path.suffix in (".yaml", ".yml")]
    return [*((str(path), "a plan") for path in files), *complete_runs(incomplete)]


def complete_models(incomplete: str) -> Suggestions:
    """Offer the base models that advice knows, and folders."""
    found: Suggestions = []
    with suppress(Problem):  # the user's own facts may be broken: the command itself will say so
        from advisor.catalog import models as facts

        found = [(model.name, f"{model.params_b:g} billion weights") for model in facts.known_models()]
    return _starting(incomplete, [*found, *_on_the_way(incomplete)])


def complete_obtainable_models(incomplete: str) -> Suggestions:
    """Offer the models that can be obtained by name."""
    from runners.models.registry import KNOWN_MODELS

    return _starting(incomplete, [(known.name, known.kind) for known in KNOWN_MODELS])


def complete_explained(incomplete: str) -> Suggestions:
    """Offer rules, blockers, methods and plans."""
    from advisor.methods import blockers
    from advisor.methods.registry import METHODS, all_methods
    from advisor.rules.registry import RULES, all_rules

    every_method, every_rule = METHODS, RULES
    with suppress(Problem):  # a plug-in may be broken: the command itself will say so
        every_method, every_rule = all_methods(), all_rules()
    found = [(method.name, "method") for method in every_method]
    found += [(rule.code(), _first(rule.text())) for rule in every_rule]
    found += [
        (blockers.blocker_code(check), _first(blockers.blocker_text(check)))
        for check in blockers.BLOCKER_CHECKS
    ]
    return [*_starting(incomplete, found), *complete_plans(incomplete)]


def complete_answers(incomplete: str) -> Suggestions:
    """Offer ``key=`` for every question, then the values of those that have a list of them."""
    from advisor.questionnaire.questions import QUESTION_BY_ID, QUESTIONS

    key, equals, _ = incomplete.partition("=")
    if not equals:
        return _starting(incomplete, [(f"{question.id}=", question.text) for question in QUESTIONS])
    question = QUESTION_BY_ID.get(key)
    if question is None:
        return []
    values = [(choice.value, choice.help) for choice in question.choices]
    values += [("yes", ""), ("no", "")] if question.kind == "flag" else []
    return _starting(incomplete, [(f"{key}={value}", text) for value, text in values])


def complete_profiles(incomplete: str) -> Suggestions:
    """Offer the kept profiles."""
    from advisor.questionnaire.answers_files import profiles_folder

    return _starting(
        incomplete, [(path.stem, "a profile") for path in sorted(profiles_folder().glob("*.yaml"))]
    )


def complete_arms(incomplete: str) -> Suggestions:
    """Offer the arms of the run that was named before."""
    # Typer's context is empty here: an option that still lacks its value ends the parsing of what stands before it.
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    run = next((Path(word) for word in split_line(words) if _is_run(Path(word))), None)
    if run is None:
        return []
    import yaml

    try:
        steps = yaml.safe_load((run / PLAN).read_text("utf-8"))["steps"]
        found = [(str(step["arm"]), "an arm") for step in steps if step["kind"] == "evaluate"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    return _starting(incomplete, found)


def complete_targets(incomplete: str) -> Suggestions:
    """Offer what a run can be exported as."""
    from runners.export.registry import RUN_TARGET, TARGETS

    return _starting(incomplete, [*((t.name, t.makes) for t in TARGETS), (RUN_TARGET, "a bundle, unpacked")])


def complete_tuning_methods(incomplete: str) -> Suggestions:
    """Offer the ways of tuning."""
    from runners.plan.train_config import TUNING_METHODS

    return _starting(incomplete, [(name, "") for name in TUNING_METHODS])


def complete_methods(incomplete: str) -> Suggestions:
    """Offer all methods, tuning or not."""
    from advisor.methods.registry import METHODS

    return _starting(incomplete, [(method.name, _first(method.text())) for method in METHODS])


def complete_formats(incomplete: str) -> Suggestions:
    """Offer the ways in which results are printed."""
    from advisor.output import FORMATS

    return _starting(incomplete, [(name, "") for name in FORMATS])


def _starting(incomplete: str, found: Iterable[tuple[str, str]]) -> Suggestions:
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
