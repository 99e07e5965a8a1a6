"""Write the reference pages of docs/ from the code, the generated parts of other pages, and the records of benchmarks/.

python scripts/docs.py          rewrite the pages
python scripts/docs.py --check  exit 1 and name the pages that are not current
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]  # document the source tree that this script is in

from advisor.commands.train import setting_help  # noqa: E402
from scripts.accuracy import accuracy_page, trials_page  # noqa: E402
from scripts.decides import needs_table, numbers_table  # noqa: E402
from scripts.how_sure import how_sure_section  # noqa: E402
from scripts.pages import Part, table, with_parts  # noqa: E402
from scripts.scale import figures_page, training_parts  # noqa: E402
from scripts.scale_retrieval import retrieval_parts  # noqa: E402
from scripts.scores import scores_parts  # noqa: E402
from scripts.simulated import simulated_section  # noqa: E402


def yaml_value(value: Any) -> str:
    """Return a default as it is written in YAML."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def cli_page() -> list[str]:
    """Return the page of the command line, read from the signatures that ``--help`` is made from."""
    import importlib

    from advisor import cli

    lines = [
        "# The command line",
        "",
        "What `tunewise VERB --help` says, on one page. Every verb ends with one of these codes:",
        "",
        *table(("exit code", "when"), EXIT_CODES.items()),
    ]
    lines += verb_section("tunewise", cli.entry, "##")
    lines += [
        "",
        "These may stand anywhere on the line. `tunewise --install-completion` sets up the shell's Tab key.",
    ]
    for name in cli.VERBS:
        module = importlib.import_module(f"advisor.commands.{name.replace('-', '_')}")
        lines += verb_section(f"tunewise {name}", module.command, "##")
    for name in cli.GROUPS:
        group = importlib.import_module(f"advisor.commands.{name.replace('-', '_')}").group
        lines += ["", f"## tunewise {name}", "", group.info.help]
        for part in group.registered_commands:
            lines += verb_section(f"tunewise {name} {part.name}", part.callback, "###")
    return lines


EXIT_CODES = {
    "0": 'done; also an honest "that is not in the documents", an undecided verdict, warnings of `doctor`',
    "1": "a bug in tunewise (the traceback is shown only here, or with `--debug`)",
    "2": "wrong usage: flags, verbs, a run folder that exists, nothing given to advise on",
    "3": "bad input: answers, plan, data, index or adapter that is broken, damaged, mismatched or leaking",
    "4": "cannot run here: memory, disk, GPU, a missing extra, a model that cannot be obtained",
    "5": "the recommended arm did not beat what the plan says it must beat, or no arm meets what was asked for; `recheck` "
    "found a sure regression (the results are kept)",
    "130 / 143": "interrupted; progress is kept and the line to resume is printed",
}
"""Exit codes of every verb and what they mean; a test compares them with the error classes."""


def verb_section(name: str, command: Callable[..., Any], level: str) -> list[str]:
    """Return the section of a verb_section: usage, description, and a table of arguments and options."""
    arguments, options = [], []
    hints = get_type_hints(command, include_extras=True)
    for key, parameter in inspect.signature(command).parameters.items():
        declarations = [*getattr(hints[key], "__metadata__", ()), parameter.default]
        info = next((item for item in declarations if isinstance(item, ParameterInfo)), None)
        if info is None or info.hidden:
            continue
        default = info.default if info is parameter.default else parameter.default
        default = None if default in (..., inspect.Parameter.empty) else default
        plain = get_args(hints[key])[0] if hasattr(hints[key], "__metadata__") else hints[key]
        required = default is None and NoneType not in get_args(plain)
        kind = accepted_values(hints[key], default) + (
            ", required" if required and isinstance(info, OptionInfo) else ""
        )
        if isinstance(info, ArgumentInfo):
            argument = info.metavar or key.upper()
            optional = not required and not argument.startswith("[")
            arguments.append((f"`{f'[{argument}]' if optional else argument}`", kind, info.help or ""))
        else:
            declared = (*(() if info is parameter.default else (info.default,)), *(info.param_decls or ()))
            names = (
                ", ".join(f"`{item}`" for item in declared if isinstance(item, str))
                or f"`--{key.replace('_', '-')}`"
            )
            options.append((names, kind, setting_help(key) if info.help is None else info.help))
    usage = " ".join(
        [name, *(argument.strip("`") for argument, _, _ in arguments), *(["[OPTIONS]"] if options else [])]
    )
    lines = ["", f"{level} {name}", "", "```text", usage, "```", "", inspect.cleandoc(command.__doc__ or "")]
    rows = [*arguments, *options]
    return lines + (["", *table(("", "takes", "what it is"), rows)] if rows else [])


def accepted_values(hint: Any, default: Any) -> str:
    """Return what values a parameter takes, in words, and its default."""
    inner = [part for part in get_args(hint) if part is not NoneType and not isinstance(part, ParameterInfo)]
    origin = get_origin(hint)
    if origin is Literal:
        text = ", ".join(map(str, inner))
    elif origin in (list, tuple):
        text = f"{accepted_values(inner[0], None)}, repeatable"
    elif inner:
        text = accepted_values(inner[0], None)
    else:
        text = {bool: "a switch", int: "a whole number", float: "a number", Path: "a path", str: "text"}[hint]
    return f"{text}, default {default}" if default and not isinstance(default, bool | list | tuple) else text


def rules_page() -> list[str]:
    """Return the page of the rules with need, weight and evidence, the blockers, and the needs that methods serve."""
    from advisor.methods import blockers
    from advisor.methods.named import NAMED
    from advisor.methods.registry import METHODS
    from advisor.rules.registry import RULES

    lines = [
        "# The rules",
        "",
        "A rule looks at your answers. Where it applies, it adds its weight to a *need*, such as facts or style; each",
        "method says how far it meets each need, and the sums decide the order. `tunewise explain CODE` prints the same.",
        "Codes are never used again for another rule.",
    ]
    for family in dict.fromkeys(rule.family for rule in RULES):
        members = [rule for rule in RULES if rule.family == family]
        module = sys.modules[members[0].__module__]
        lines += ["", f"## {family.capitalize()}", "", inspect.cleandoc(module.__doc__ or "")]
        for rule in members:
            lines += ["", f"### {rule.code()}", "", rule.text(), ""]
            lines += [
                f"- need: {rule.need} (weight {rule.weight:g})" if rule.need else "- a note, without a weight"
            ]
            if rule.at:
                thresholds = (
                    f"{key} {', '.join(f'{n:,.6g}' for n in numbers)}" for key, numbers in rule.at.items()
                )
                lines += [f"- compares: {'; '.join(thresholds)}"]
            lines += [f"- evidence: {item}" for item in rule.all_evidence()]
    lines += ["", "## Blockers", "", "What rules a method out, always with the numbers that show it."]
    for check in blockers.BLOCKER_CHECKS:
        lines += ["", f"### {blockers.blocker_code(check)}", "", blockers.blocker_text(check)]
    lines += ["", "## Methods", "", "How far each meets a need, from 0 to 1; what is not listed is 0."]
    for method in METHODS:
        served = ", ".join(f"{need} {share:g}" for need, share in method.serves.items())
        lines += ["", f"### {method.name}", "", method.text(), "", f"- meets: {served}"]
    lines += ["", "## Named, not built", "", "Published ways that cannot be run here; no rule advises them."]
    for name, named in NAMED.items():
        lines += ["", f"### {name}", "", f"{named.title[0].upper()}{named.title[1:]}.", "", named.text, ""]
        lines += [f"- source: {source}" for source in named.sources]
    return lines


def questions_page() -> list[str]:
    """Return the page of the questionnaire, section by section."""
    from advisor.questionnaire.questions import QUESTION_SECTIONS, QUESTIONS

    lines = [
        "# The questionnaire",
        "",
        "Each id is a question of the wizard, a `--set key=value` and a key of an answers file. None is required:",
        "unknown is an answer and makes the recommendation less certain; it never replaces what was counted, detected or",
        "measured. Questions marked * are counted, detected or seldom decisive; the wizard asks them only at its review, or",
        "when you want the remaining questions too. In the wizard, ? explains a question and its words.",
    ]
    for section, title in QUESTION_SECTIONS:
        rows = []
        for question in (question for question in QUESTIONS if question.section == section):
            text = f"{question.text} {question.why}"
            text += "".join(f" *{choice.value}*: {choice.help}." for choice in question.choices)
            text += f" For example: {question.example}" if question.example else ""
            allowed = question.allowed + (f" ({question.unit})" if question.unit else "")
            rows.append((f"`{question.id}`{' *' if question.detail else ''}", allowed, text))
        lines += ["", f"## {title}", "", *table(("id", "answer", "question"), rows)]
    return lines


def glossary_page() -> list[str]:
    """Return the page of the glossary, a section for each word, in alphabetical order."""
    from advisor.glossary import TERMS

    lines = [
        "# Glossary",
        "",
        "Every word that tunewise uses, in one plain sentence with an example. `tunewise explain WORD` prints the same, in",
        'any usual spelling: `tunewise explain RAG`, `tunewise explain "few shot"`.',
    ]
    for term in sorted(TERMS, key=lambda term: term.name.casefold()):
        lines += ["", f"## {term.name}", "", term.sentence, "", f"*Example:* {term.example}", ""]
        also = f"Also: {', '.join(term.aliases)}. " if term.aliases else ""
        lines += [f"{also}Read more: [{term.page.removesuffix('.md')}]({term.page})."]
    return lines


def plan_keys() -> list[str]:
    """Return a section for each part of the plan, from the JSON Schema that ``tunewise plan --schema`` prints."""
    from runners.plan.schema import Plan

    schema = Plan.model_json_schema(by_alias=True)
    lines: list[str] = []
    for name, part in [("Plan", schema), *schema["$defs"].items()]:
        required = part.get("required", ())
        rows = []
        for key, field in part["properties"].items():
            default = (
                "required" if key in required else yaml_value(field["default"]) if "default" in field else ""
            )
            rows.append((f"`{key}`", schema_type(field), default, field.get("description", "")))
        text = inspect.cleandoc(part.get("description", ""))
        lines += [f"## {name}", "", text, "", *table(("key", "type", "default", "what it is"), rows), ""]
    return lines[:-1]


def schema_type(field: dict[str, Any]) -> str:
    """Return the type of a schema's field in words, with its bounds."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in field:
        return yaml_value(field["const"])
    if "enum" in field:
        return ", ".join(str(value) for value in field["enum"])
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(schema_type(option) for option in field[union])
    kind = str(field.get("type", "anything"))
    if kind == "array":
        kind = f"list of {schema_type(field['items'])}" if "items" in field else "list"
    if kind == "object" and "additionalProperties" in field:
        inner = field["additionalProperties"]
        kind = f"mapping to {schema_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field]
    return " ".join([kind, *bounds])


def setting_keys() -> list[str]:
    """Return the table of the settings file's keys, from the one that reads it."""
    from advisor.settings import SETTING_KEYS

    rows = [(f"`{key.name}`", f"`{key.env}`", key.kind, key.text) for key in SETTING_KEYS]
    return table(("key", "environment", "takes", "is"), rows)


PAGES: dict[str, Callable[[], list[str]]] = {
    "docs/cli.md": cli_page,
    "docs/rules.md": rules_page,
    "docs/questions.md": questions_page,
    "docs/glossary.md": glossary_page,
    "docs/accuracy.md": accuracy_page,
    "benchmarks/TRIALS.md": trials_page,
    "benchmarks/FIGURES.md": figures_page,
}
"""Pages of which every line is generated."""
PARTS: dict[str, dict[str, Part]] = {
    "docs/how-it-decides.md": {"needs": needs_table, "how-sure": how_sure_section, "numbers": numbers_table},
    "docs/how-it-measures.md": {**scores_parts(), "simulated-verdicts": simulated_section},
    "docs/plan.md": {"keys": plan_keys},
    "docs/settings.md": {"keys": setting_keys},
    "docs/scale.md": {**training_parts(), **retrieval_parts()},
}
"""The generated parts of pages that are written by hand; that of docs/models.md is measured by scripts/families.py."""
NOTE = "<!-- Written by scripts/docs.py from the code; edit the code. -->"


def generated_files() -> dict[str, str]:
    """Return the texts of all pages with a generated part, by their places in the repository."""
    pages = {name: "\n".join([NOTE, "", *page()]) + "\n" for name, page in PAGES.items()}
    for name, parts in PARTS.items():
        pages[name] = with_parts((ROOT / name).read_text("utf-8"), parts)
    return pages


def stale_files(folder: Path, files: dict[str, str]) -> list[str]:
    """Return the names of the files that are missing in a folder or differ there."""
    return [
        name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text
    ]


def main() -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only look")
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder that docs/ and benchmarks/ are in")
    arguments = parser.parse_args()
    files = generated_files()
    stale = stale_files(arguments.out, files) if arguments.check else []
    if not arguments.check:
        for name, text in files.items():
            (arguments.out / name).parent.mkdir(parents=True, exist_ok=True)
            (arguments.out / name).write_text(text, "utf-8")
    if stale:
        print(f"not current: {', '.join(stale)}; run: python scripts/docs.py", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
