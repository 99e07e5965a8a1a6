"""Words that a user meets: none of the private ones, and no rule code without what it is.

Looked at are the texts that the code prints (every string of three words or more that is no docstring), and the texts that
are shown from data: rules, methods, blockers, questions, the help of the verbs, the glossary.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from advisor import cli, glossary
from advisor.display.console import render_difference, render_recommendation
from advisor.methods import blockers
from advisor.methods.registry import METHODS
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTIONS
from advisor.recommendation.recommend import recommend_for_profile
from advisor.rules.registry import RULES

PLAIN_WORDS = {
    r"manner": "style",
    r"shrug": "nobody is harmed",
    r"bears? out|borne out": "supports",
    r"stands? in (?!place)|stand-ins?": "is used in place of",
    r"(?:will|only|which) leans?": "gives no firm result",
    r"surely": "clearly",
    r"in the way": "(say what it prevents)",
    r"what it keeps|keeps no more|keeps less": "what it costs every month",
    r"is told|are told|cannot be told|told by": "is known, is recognised",
    r"crossover": "cheaper at any number of calls",
    r"repays?": "pays for",
    r"go stale|goes stale|live in weights": "keeps the old fact until you train again",
    r"pass(?:es)? the gate": "are enough",
    r"(?:go|goes|gone|going) on (?:with|from|after|where)|(?<!depend )(?:go|goes) on[.;]": "continue",
    r"stranger|clerk|shelf|rung|errand": "(a word of the field)",
    r"house(?! style)": "your style",
    r"idle half|half is idle|would be idle": "would have no use",
    r"closed-book (?:high|low)|open-book (?:high|low)": "from memory, with the right passage",
    r"passage in hand": "with the right passage in the prompt",
    r"invites? invention": "makes a model invent",
}
"""What is not written where a user reads it -> what is written in its place."""
_AVOIDED = re.compile("|".join(rf"\b(?:{words})(?!\w)" for words in PLAIN_WORDS), re.IGNORECASE)
_CODE = re.compile(r"\b(?:KN|AG|BE|DA|SC|RS|RK|BL)\d{3}\b")
# Texts of results are looked at by the tests of the report; the example's own files are data.
ELSEWHERE = ("advisor/report/", "advisor/verdict/", "advisor/display/", "advisor/harbor_desk/")


def _printed_texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every string of three words or more; a value in an f-string counts as one word."""
    docstrings, parts = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            docstrings.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings | parts
        ):
            text = node.value
        else:
            continue
        if len(text.split()) >= 3:
            yield node.lineno, text


def _texts_of_data() -> Iterator[tuple[str, str]]:
    """Yield the name and text of everything that is shown from data."""
    yield from ((rule.code(), rule.text()) for rule in RULES)
    yield from ((method.name, method.text()) for method in METHODS)
    yield from (
        (blockers.blocker_code(check), blockers.blocker_text(check)) for check in blockers.BLOCKER_CHECKS
    )
    for question in QUESTIONS:
        help_texts = [choice.help for choice in question.choices]
        yield question.id, " ".join([question.text, question.why, question.example, *help_texts])
    for term in glossary.TERMS:
        yield term.name, f"{term.sentence} {term.example}"
    for command in cli.app.registered_commands:
        yield str(command.name), str(command.help)


def test_avoided_words_are_seen() -> None:
    assert _AVOIDED.search("It is surely better")
    assert _AVOIDED.search("tuned for manner")
    assert not _AVOIDED.search("One of the house style, leaning, households")


def test_printed_texts_are_in_plain_words(root: Path) -> None:
    wrong = []
    for path in sorted((root / "advisor").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith(ELSEWHERE):
            continue
        wrong += [
            f"{name}:{line} {found.group()!r} in {text[:80]!r}"
            for line, text in _printed_texts(ast.parse(path.read_text("utf-8")))
            if (found := _AVOIDED.search(text))
        ]
    assert not wrong, "\n".join(wrong)


def test_texts_of_data_are_in_plain_words() -> None:
    wrong = [
        f"{name}: {found.group()!r}" for name, text in _texts_of_data() if (found := _AVOIDED.search(text))
    ]
    assert not wrong, "\n".join(wrong)


def test_every_question_has_an_example() -> None:
    assert not [question.id for question in QUESTIONS if not question.example]


@pytest.fixture(scope="module")
def advice(root: Path) -> str:
    """Every tenth golden profile as it is printed, and what a change would do."""
    cases = yaml.safe_load((root / "tests/advisor/recommendation/golden.yaml").read_text("utf-8"))[::10]
    printed = io.StringIO()
    screen = Console(file=printed, width=500)
    for case in cases:
        profile = Profile.of(case["answers"])
        before = recommend_for_profile(profile)
        screen.print(render_recommendation(before))
        after = recommend_for_profile(profile.change("behaviour_gap", "high"))
        screen.print(render_difference(before, after, "behaviour_gap=high"))
    return printed.getvalue()


def test_a_rule_code_is_printed_with_what_it_is(advice: str) -> None:
    """It follows the word rule, or it is an argument of the command that explains it."""
    bare = [
        line
        for line in advice.splitlines()
        if (code := _CODE.search(line)) and not re.search(r"(?:rule |explain )$", line[: code.start()])
    ]
    assert _CODE.search(advice)
    assert not bare, "\n".join(bare)
    inside = {name: text for name, text in _texts_of_data() if re.search(rf"(?<!rule ){_CODE.pattern}", text)}
    assert set(inside) <= {"rule"}, inside


def test_advice_says_how_its_words_are_explained(advice: str) -> None:
    assert "What one means: tunewise explain" in advice
    assert not _AVOIDED.search(advice)
