"""The work behind `tunewise explain`: rules, blockers, methods and plans in words."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from advisor.methods import blockers
from advisor.methods import registry as method_table
from advisor.methods.registry import all_methods, methods_by_name
from advisor.output import emit_result
from advisor.questionnaire.answers import names_a_path
from advisor.rules import registry as rule_table
from advisor.rules.base import Rule
from advisor.rules.registry import all_rules
from rag.errors import BadInput
from rag.plugins import PluginGroup, declared_plugins

_BLOCKS = {blockers.blocker_code(check): check for check in blockers.BLOCKER_CHECKS}


def explain_topic(what: str | None, as_json: bool) -> None:
    """Print the explanation of a code, a method or a plan file.

    Raises BadInput, with the closest name, when it is none of these.
    """
    codes = {rule.code(): rule for rule in all_rules()}
    if what is None:
        found: dict[str, Any] = _contents()
    elif what.upper() in codes:
        found = rule_page(codes[what.upper()])
    elif what.upper() in _BLOCKS:
        found = {
            "rule": what.upper(),
            "family": "blocker",
            "text": blockers.blocker_text(_BLOCKS[what.upper()]),
            "evidence": [],
        }
    elif what in methods_by_name():
        found = method_page(what)
    elif names_a_path(what):
        _plan(Path(what), as_json)
        return
    else:
        close = difflib.get_close_matches(what, [*codes, *_BLOCKS, *methods_by_name()], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "list them with: tunewise explain"
        raise BadInput(f"{what!r} is no rule, method or plan", hint)
    if as_json:
        emit_result({"schema": 1, **found})
    else:
        _print(found)


def rule_page(rule: type[Rule]) -> dict[str, Any]:
    """Return a rule's code, family, need, weight, text and evidence."""
    need = rule.need.value if rule.need else None
    served = [m.name for m in all_methods() if rule.need and m.serves.get(rule.need, 0) >= 0.5]
    compares = {key: [float(f"{number:.6g}") for number in at] for key, at in rule.at.items()}
    return {
        "rule": rule.code(),
        "family": rule.family,
        "need": need,
        "weight": rule.weight,
        "text": rule.text(),
        "compares": compares,
        "speaks_for": served,
        "evidence": list(rule.evidence),
        **_origin(rule_table.RULE_PLUGINS, rule.code()),
    }


def method_page(name: str) -> dict[str, Any]:
    """Return a method's text, what it serves, and the rules that speak for it."""
    method = methods_by_name()[name]
    served = sorted(method.serves.items(), key=lambda pair: -pair[1])
    for_it = [r.code() for r in all_rules() if r.need and method.serves.get(r.need, 0) >= 0.5]
    return {
        "method": name,
        "text": method.text(),
        "serves": {need.value: degree for need, degree in served if degree > 0},
        "rules": for_it,
        **_origin(method_table.METHOD_PLUGINS, name),
    }


def _origin(group: PluginGroup[Any], name: str) -> dict[str, str]:
    """Return the package of what a plug-in gives, as a key of its page; nothing for what is built in."""
    package = group.package(name)
    return {"plugin": package} if package else {}


def _contents() -> dict[str, Any]:
    stated = [{"rule": r.code(), "family": r.family, "text": r.text().split("\n")[0]} for r in all_rules()]
    stops = [
        {"rule": c, "family": "blocker", "text": blockers.blocker_text(k).split("\n")[0]}
        for c, k in _BLOCKS.items()
    ]
    ways = [{"method": m.name, "text": m.text().split("\n")[0]} for m in all_methods()]
    added = [plugin.to_json() for plugin in declared_plugins()]
    return {"methods": ways, "rules": stated + stops, **({"plugins": added} if added else {})}


def _plan(path: Path, as_json: bool) -> None:
    """Explain a plan anew from its answers: the same engine, today."""
    from advisor.advice import recommend
    from advisor.questionnaire.answers import Answers
    from advisor.questionnaire.gather import with_answers_of

    rec = recommend(with_answers_of(Answers(), path))
    if as_json:
        emit_result(rec.to_json())
        return
    from advisor.display import console

    screen = console.console()
    screen.print(console.render_recommendation(rec))
    screen.print()
    for finding in rec.reasons(rec.ranking.methods[0]):
        screen.print(
            console.render_finding(
                finding.rule.code(), finding.rule.text(), finding.rule.evidence, finding.rule.family
            )
        )


def _print(found: dict[str, Any]) -> None:
    from rich.markup import escape

    from advisor.display import console

    screen = console.console()
    if "rules" in found and "methods" in found:
        screen.print(
            console.table(("method", ""), [(m["method"], escape(m["text"])) for m in found["methods"]])
        )
        screen.print()
        rows = [(r["rule"], escape(r["family"]), escape(r["text"])) for r in found["rules"]]
        screen.print(console.table(("rule", "family", ""), rows))
        if plugins := found.get("plugins"):
            screen.print()
            screen.print(console.plugins(plugins))
    elif "method" in found:
        served = [f"{need} {degree:g}" for need, degree in found["serves"].items()]
        screen.print(console.render_finding(found["method"], found["text"], [], "method"))
        screen.print("\nserves: " + ", ".join(served))
        screen.print("rules that speak for it: " + ", ".join(found["rules"]))
    else:
        screen.print(console.render_finding(found["rule"], found["text"], found["evidence"], found["family"]))
        if found.get("compares"):
            said = (f"{key} {', '.join(f'{n:,g}' for n in at)}" for key, at in found["compares"].items())
            screen.print("\ncompares with: " + "; ".join(said))
        if found.get("speaks_for"):
            screen.print(f"\nweight {found['weight']:g} for {', '.join(found['speaks_for'])}")
    if found.get("plugin"):
        screen.print(f"\nfrom the plug-in {found['plugin']}", markup=False)
