"""The work behind ``tunewise explain``: words of the glossary, rules, blockers, methods, arms, questions and plans."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from advisor.advice import ModelsRecommendation, recommend
from advisor.display import console
from advisor.evidence.claims import claim_text
from advisor.evidence.trials import own_trials
from advisor.glossary import TERMS, Term, find_term
from advisor.history import read_history
from advisor.methods import blockers
from advisor.methods import registry as method_table
from advisor.methods.arm_titles import ARMS, METHOD_TITLES
from advisor.methods.named import NAMED
from advisor.methods.registry import all_methods, methods_by_name
from advisor.output import emit_result
from advisor.questionnaire.answers import Answers, names_a_path
from advisor.questionnaire.gather import with_answers_of
from advisor.questionnaire.question_types import Question
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.rules import registry as rule_table
from advisor.rules.base import Rule
from advisor.rules.registry import all_rules
from advisor.workflows import models_view
from rag.errors import BadInput
from rag.plugins import PluginGroup, declared_plugins
from runners.plan.arm_names import method_of

_BLOCKERS = {blockers.blocker_code(check): check for check in blockers.BLOCKER_CHECKS}


def explain_topic(topic: str | None, as_json: bool) -> None:
    """Print what a word, a rule, a blocker, a method, a question or a plan file is; without a topic, the list of all.

    Raises:
        BadInput: with the closest name, when the topic is none of these.
    """
    if topic is None:
        page: dict[str, Any] | None = _all_topics()
    else:
        page = _page_of(topic)
        if page is None and "@" in topic and not names_a_path(topic):
            page = _page_of(method_of(topic))  # an arm of a run with several models
        if page is None and names_a_path(topic):
            _explain_plan(Path(topic), as_json)
            return
    if page is None:
        assert topic is not None
        raise BadInput(
            f"{topic!r} is no word of the glossary, rule, method, arm, question or plan", _closest(topic)
        )
    if as_json:
        emit_result({"schema": 1, **page})
    else:
        _print(page)


def _page_of(topic: str) -> dict[str, Any] | None:
    """Return the page of a rule, a blocker, a method, an arm, a word or a question; None for anything else."""
    topic = method_of(topic)  # an arm of several models, METHOD@ALIAS, is explained as its method
    codes = {rule.code(): rule for rule in all_rules()}
    if topic.upper() in codes:
        return rule_page(codes[topic.upper()])
    if topic.upper() in _BLOCKERS:
        text = blockers.blocker_text(_BLOCKERS[topic.upper()])
        return {"rule": topic.upper(), "family": "blocker", "text": text, "evidence": []}
    term = find_term(topic)
    for name in methods_by_name():
        if name == topic.casefold() or (term is not None and find_term(name) is term):
            return method_page(name)
    if (arm := topic.casefold().replace(" ", "-")) in ARMS:
        title, text = ARMS[arm]
        return {"arm": arm, "title": title, "text": text}
    if arm in NAMED:
        named = NAMED[arm]
        cited = list(named.sources)
        return {"named": arm, "title": named.title, "text": named.text, "evidence": cited, "built": False}
    if term is None and (question := QUESTION_BY_ID.get(topic.casefold().replace("-", "_"))):
        return question_page(question)
    return term.to_json() if term else None


def question_page(question: Question) -> dict[str, Any]:
    """Return a question of the questionnaire: its words, why it matters, the answers, an example and its flag."""
    answers = {choice.value: choice.help for choice in question.choices}
    return {
        "question": question.id,
        "text": question.text,
        "why": question.why,
        "answers": answers or question.allowed,
        "example": question.example,
        "read_more": "docs/questions.md",
    }


def _closest(topic: str) -> str:
    """Return a hint with the closest topic."""
    words = [word for term in TERMS for word in (term.name, *term.aliases)]
    names = {
        name.casefold(): name
        for name in [*_codes(), *methods_by_name(), *ARMS, *NAMED, *QUESTION_BY_ID, *reversed(words)]
    }
    matches = difflib.get_close_matches(topic.casefold(), names, n=1, cutoff=0.6)
    return f"did you mean {names[matches[0]]}?" if matches else "list them with: tunewise explain"


def _codes() -> list[str]:
    """Return the codes of all rules and blockers."""
    return [*(rule.code() for rule in all_rules()), *_BLOCKERS]


def rule_page(rule: type[Rule]) -> dict[str, Any]:
    """Return a rule's code, family, need, weight, text, thresholds, the methods it supports, and its evidence."""
    need = rule.need.value if rule.need else None
    served = [method.name for method in all_methods() if rule.need and method.serves.get(rule.need, 0) >= 0.5]
    compares = {key: [float(f"{number:.6g}") for number in thresholds] for key, thresholds in rule.at.items()}
    return {
        "rule": rule.code(),
        "family": rule.family,
        "need": need,
        "weight": rule.weight,
        "text": rule.text(),
        "compares": compares,
        "speaks_for": served,
        "evidence": list(rule.all_evidence()),
        **_own_evidence(rule),
        **_origin(rule_table.RULE_PLUGINS, rule.code()),
    }


def _own_evidence(rule: type[Rule]) -> dict[str, list[str]]:
    """Return what the user's own trials say of a rule's claim, as a key of its page; {} where they say nothing."""
    if rule.claim is None:
        return {}
    trials = own_trials(run.model_dump(mode="json") for run in read_history().runs)
    text = claim_text(rule.claim, rule.applies_to_trial, trials) if trials else ""
    return {"own_evidence": [text]} if text else {}


def method_page(name: str) -> dict[str, Any]:
    """Return a method's text, the needs it serves, and the rules that support it."""
    method = methods_by_name()[name]
    served = sorted(method.serves.items(), key=lambda pair: -pair[1])
    rules = [rule.code() for rule in all_rules() if rule.need and method.serves.get(rule.need, 0) >= 0.5]
    return {
        "method": name,
        "title": METHOD_TITLES.get(name, name),
        "text": method.text(),
        "serves": {need.value: degree for need, degree in served if degree > 0},
        "rules": rules,
        **_word(find_term(name)),
        **_origin(method_table.METHOD_PLUGINS, name),
    }


def _word(term: Term | None) -> dict[str, str]:
    """Return what the glossary says of a method, as keys of its page; {} for a method of a plug-in."""
    if term is None:
        return {}
    return {"plain": term.sentence, "example": term.example, "read_more": term.read_more}


def _origin(group: PluginGroup[Any], name: str) -> dict[str, str]:
    """Return the package of a plug-in's rule or method, as a key of its page; {} for a built-in one."""
    package = group.package(name)
    return {"plugin": package} if package else {}


def _all_topics() -> dict[str, Any]:
    """Return all methods, words, rules and blockers with the first line of their texts, and the plug-ins."""
    rules = [
        {"rule": rule.code(), "family": rule.family, "text": rule.text().split("\n")[0]}
        for rule in all_rules()
    ]
    blocker_rows = [
        {"rule": code, "family": "blocker", "text": blockers.blocker_text(check).split("\n")[0]}
        for code, check in _BLOCKERS.items()
    ]
    methods = [{"method": method.name, "text": method.text().split("\n")[0]} for method in all_methods()]
    plugins = [plugin.to_json() for plugin in declared_plugins()]
    arms = [{"arm": name, "text": title} for name, (title, _) in ARMS.items()]
    return {
        "methods": methods,
        "terms": [{"term": term.name, "text": term.sentence} for term in TERMS],
        "arms": arms,
        "named": [{"named": name, "text": named.title} for name, named in NAMED.items()],
        "rules": rules + blocker_rows,
        **({"plugins": plugins} if plugins else {}),
    }


def explanation(topic: str | None) -> dict[str, Any]:
    """Return what ``explain --json`` prints; BadInput for a topic that is nothing known."""
    page = _all_topics() if topic is None else _page_of(topic)
    if page is not None:
        return {"schema": 1, **page}
    assert topic is not None
    if names_a_path(topic):
        return recommend(Path(topic)).to_json()
    raise BadInput(
        f"{topic!r} is no word of the glossary, rule, method, arm, question or plan", _closest(topic)
    )


def _explain_plan(path: Path, as_json: bool) -> None:
    """Explain a plan: compute its recommendation again from its answers, with today's rules."""
    rec = recommend(with_answers_of(Answers(), path))
    if as_json:
        emit_result(rec.to_json())
        return
    screen = console.console()
    if isinstance(rec, ModelsRecommendation):
        screen.print(models_view.render_models(rec))
    rules: dict[str, type[Rule]] = {}
    for alias, advice in rec.by_alias.items():
        if alias:
            screen.print(f"\n{alias}: {advice.profile.model}", markup=False)
        screen.print(console.render_recommendation(advice))
        rules |= {finding.rule.code(): finding.rule for finding in advice.reasons(advice.ranking.methods[0])}
    screen.print()
    for code, rule in rules.items():
        screen.print(console.render_finding(code, rule.text(), rule.all_evidence(), rule.family))


def _print(page: dict[str, Any]) -> None:
    screen = console.console()
    if "rules" in page and "methods" in page:
        _print_topics(page)
    elif "method" in page:
        _print_method(page)
    elif "arm" in page:
        screen.print(console.render_finding(page["arm"], page["text"], [], page["title"]))
    elif "named" in page:
        title = f"{page['title']}; named, not built: no rule advises it"
        screen.print(console.render_finding(page["named"], page["text"], page["evidence"], title))
    elif "question" in page:
        _print_question(page)
    elif "term" in page:
        screen.print(console.render_finding(page["term"], page["text"], []))
        _print_example(page)
    else:
        cited = [*page["evidence"], *page.get("own_evidence", [])]
        kind = "what rules a method out" if page["family"] == "blocker" else f"a rule on {page['family']}"
        screen.print(console.render_finding(page["rule"], _paragraphs(page["text"]), cited, kind))
        if page.get("compares"):
            comparisons = (
                f"{key} with {', '.join(f'{number:,g}' for number in thresholds)}"
                for key, thresholds in page["compares"].items()
            )
            screen.print("\nit compares " + "; ".join(comparisons))
        if page.get("speaks_for"):
            screen.print(
                f"\nit counts for {', '.join(page['speaks_for'])}, with a weight of {page['weight']:g}"
            )
    if page.get("plugin"):
        screen.print(f"\nfrom the plug-in {page['plugin']}", markup=False)


def _print_question(page: dict[str, Any]) -> None:
    """Print a question of the questionnaire with its answers, and how one is given."""
    from rich.markup import escape

    screen = console.console()
    key, answers = page["question"], page["answers"]
    text = f"{page['text']} {page['why']}"
    screen.print(console.render_finding(key, text, [], "a question of the questionnaire"))
    if isinstance(answers, dict):
        screen.print(
            console.table(("answer", ""), [(value, escape(text)) for value, text in answers.items()])
        )
    else:
        screen.print(f"  Answer: {answers}", markup=False)
    _print_example(page)
    screen.print(f"\nanswer it with: --set {key}=VALUE", markup=False)


def _print_topics(page: dict[str, Any]) -> None:
    """Print the list of everything that can be explained."""
    from rich.markup import escape

    screen = console.console()
    methods = {term.name for row in page["methods"] if (term := find_term(row["method"]))}
    rows: dict[tuple[str, ...], list[tuple[str, ...]]] = {
        ("method", ""): [(row["method"], escape(row["text"])) for row in page["methods"]],
        ("word", ""): [
            (row["term"], escape(row["text"])) for row in page["terms"] if row["term"] not in methods
        ],
        ("other arms", ""): [(row["arm"], row["text"]) for row in page["arms"]],
        ("named, not built", ""): [(row["named"], row["text"]) for row in page["named"]],
        ("rule", "about", ""): [
            (row["rule"], escape(row["family"]), escape(row["text"])) for row in page["rules"]
        ],
    }
    screen.print("Print one of these with: tunewise explain NAME\n")
    for number, (columns, cells) in enumerate(rows.items()):
        if number:
            screen.print()
        screen.print(console.table(columns, cells))
    if plugins := page.get("plugins"):
        screen.print()
        screen.print(console.plugins(plugins))


def _print_method(page: dict[str, Any]) -> None:
    """Print a method: the plain sentence and its example first, then when it is chosen and by which rules."""
    screen = console.console()
    text = _paragraphs(page["text"])
    screen.print(console.render_finding(page["method"], page.get("plain") or text, [], page["title"]))
    if page.get("plain"):
        _print_example(page)
        screen.print(console.render_finding("\nWhen it is chosen", text, []))
    served = [f"{need.replace('_', ' ')} {degree:g}" for need, degree in page["serves"].items()]
    screen.print("\nhow far it meets each need, from 0 to 1: " + ", ".join(served))
    screen.print("\nrules in favour of it (tunewise explain CODE): " + ", ".join(page["rules"]))


def _print_example(page: dict[str, Any]) -> None:
    """Print the example of a word, and the page that says more."""
    from rich.padding import Padding
    from rich.text import Text

    screen = console.console()
    examples = [f"Example: {page['example']}"] if page["example"] else []
    for line in (*examples, f"Read more: {page['read_more']}"):
        screen.print(Padding(Text(line), (0, 0, 0, 2), expand=False))


def _paragraphs(text: str) -> str:
    """Return a docstring's text without its own line breaks, which are not those of the terminal."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
