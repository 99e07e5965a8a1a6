"""What answers are constrained to: labels, schemas, and patterns that accept just what the checks accept."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from advisor.drafting.form_checks import derive_checks
from runners.arms.answer_constraint import (
    answer_constraint,
    constraint_input,
    constraint_keyword,
    constraint_report,
)
from runners.arms.whole_patterns import MAX_DIGITS, NotWhole, whole_pattern
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep
from runners.scoring.style_checks import failed_checks

FORMS: dict[str, Callable[[int], str]] = {
    "last line": lambda n: f"Two and {n} make\n{n + 2}.\n#### {n + 2:,}" if n % 2 else f"It is\n#### {n}",
    "last line without a number": lambda n: f"{n} and\n{n}" + "\n" * (n % 3) + "\nThat (is) all.",
    "date": lambda n: f"2024-01-{n % 28 + 1:02d}",
    "time": lambda n: f"{n % 24}:{n:02d}",
    "whole number": lambda n: str(n * 37 - 9),
    "number": lambda n: f"{n * 37:,}.5",
    "number or a constant": lambda n: "not stated" if n % 3 else str(n * 7),
    "version": lambda n: f"1.{n}.3" + "rc1" * (n % 2),
    "colour": lambda n: f"#{n * 1000:06X}",
    "amount": lambda n: f"${n * 3}.50",
    "address": lambda n: f"https://x.org/{n}",
    "mail": lambda n: f"a{n}@b.org",
    "code": lambda n: f"`x = {n}`",
    "card": lambda n: f"Name: Ann {n}\nAge: {n}\nNote: some {'abcdef'[n % 6]} thing",
    "card with optional lines": lambda n: "Name: A\n" + f"Age: {n}\n" * (n % 2) + f"Note: {'abcdef'[n % 6]}",
    "bullets": lambda n: "\n".join(f"- item {n} {'abcdef'[k]}{n}b" for k in range(n % 4 + 2)),
    "numbered list": lambda n: "\n".join(f"{k + 1}. it {n} {'abcdef'[k]}{n}b" for k in range(n % 4 + 2)),
    "number of lines": lambda n: f"the {n} sea\nis {n}\n{'abcdef'[n % 6]} and wide {'xyzuvw'[n % 6]}",
}
OWN = [
    r"^(?:yes|no)$",
    r"\A[A-Z]{2}-\d+\Z",
    r"^a$|^b$",
    r"^(?:[^\n]*)$",
    r"^x*?y{0,2}$",
    r"^\w+ \W\S\s\D$",
    "^[^\\W\\d]{3}$",
]


def _patterns(form: str) -> list[str]:
    """Return the patterns of the checks of a form that can be followed."""
    checks, _ = derive_checks([FORMS[form](n) for n in range(60)])
    return [check.value for check in checks if check.kind == "regex" and _followed(check.value)]


def _followed(pattern: str) -> bool:
    try:
        whole_pattern(pattern)
    except NotWhole:
        return False
    return True


@lru_cache(maxsize=1)
def _tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


@lru_cache(maxsize=64)
def _matcher(pattern: str) -> LLMatcher:
    grammar = LLMatcher.grammar_from_regex(whole_pattern(pattern).pattern)
    assert LLMatcher.validate_grammar_with_warnings(grammar, _tokenizer()) == (False, [])
    return LLMatcher(_tokenizer(), grammar)


def _accepts(pattern: str, text: str) -> bool:
    matcher = _matcher(pattern)
    matcher.reset()
    tokens = _tokenizer().tokenize_str(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def _passes(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.DOTALL) is not None


def _is_comparable(text: str) -> bool:
    """Whether a text is an answer of characters that Python knows, with no more digits in a row than are allowed."""
    runs = re.findall(rf"[\d,.]{{{MAX_DIGITS},}}", text)
    known = all(unicodedata.category(character) not in ("Cs", "Cn") for character in text)
    return bool(text) and text == text.strip() and not runs and known


def _check_both(pattern: str, text: str) -> None:
    if _is_comparable(text):
        assert _accepts(pattern, text) == _passes(pattern, text), (pattern, text)


@pytest.mark.parametrize("pattern", OWN)
def test_a_followed_pattern_accepts_what_its_check_accepts(pattern: str) -> None:
    """Texts that pass the check, texts one character away from them, and texts that the decoder may write."""

    @settings(
        max_examples=25,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(text=st.from_regex(re.compile(pattern, re.DOTALL)), data=st.data())
    def compare(text: str, data: st.DataObject) -> None:
        text = text.strip()
        _check_both(pattern, text)
        place = data.draw(st.integers(0, len(text)))
        other = data.draw(st.sampled_from(["", "\n", " ", "x", "7", ".", ":", "é", "\u0301", "\x1c"]))
        _check_both(pattern, (text[:place] + other + text[place + data.draw(st.integers(0, 1)) :]).strip())

    compare()
    draw = random.Random(0)
    for _ in range(20):
        written = _write(_matcher(pattern), draw)
        assert written == written.strip()
        if _is_comparable(written):
            assert _passes(pattern, written), (pattern, written)


@pytest.mark.parametrize("form", FORMS)
def test_the_patterns_of_a_form_accept_what_its_checks_accept(form: str) -> None:
    patterns = _patterns(form)
    assert patterns
    for pattern in patterns:
        test_a_followed_pattern_accepts_what_its_check_accepts(pattern)


def _write(matcher: LLMatcher, draw: random.Random) -> str:
    """Return a text written byte by byte at random under a constraint; "" where it was not at its end in 120 bytes."""
    matcher.reset()
    tokenizer = _tokenizer()
    tokens: list[int] = []
    while len(tokens) < 120:
        allowed = [token for token, on in enumerate(matcher.compute_logit_bias()[:256]) if on]
        if matcher.is_accepting() and (not allowed or draw.random() < 0.2):
            return tokenizer.decode_bytes(tokens).decode("utf-8")
        ascii_only = [token for token in allowed if token < 128]
        tokens.append(draw.choice(ascii_only if ascii_only and draw.random() < 0.9 else allowed))
        assert matcher.consume_token(tokens[-1])
    return ""


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"^(?!no)[a-z]+$", "looks ahead"),
        (r"^(a|b)\1$", "refers back"),
        (r"(?i)^yes$", "flags"),
        (r"^(?i:yes)$", "flags"),
        (r"^a\b b$", "word boundary"),
        (r"^Dear reader", "a part of the answer"),
        (r"when you call\.$", "a part of the answer"),
        (r"^a|b$", "a part of the answer"),
        (r"^[^?]+\?$", "the shape of free text"),
        (r"^.*end$", "the shape of free text"),
        (r"^\s$", "no answer but white space"),
    ],
)
def test_a_pattern_that_cannot_be_followed_says_why(pattern: str, why: str) -> None:
    with pytest.raises(NotWhole, match=why):
        whole_pattern(pattern)
    plan = _plan([{"kind": "regex", "value": pattern, "text": "the rule"}])
    assert answer_constraint(plan) is None
    assert (
        constraint_report(plan).startswith('answers are not constrained to a form: the check "the rule": it ')
        or why[:2] == "no"
    )


def _plan(checks: list[dict[str, Any]], **more: Any) -> Plan:
    values = {
        "schema": 1,
        "name": "p",
        "choice": "prompting",
        "model": {"name": "m"},
        "data": {},
        "steps": [],
    }
    return parse_plan({**values, "weights": {"style": 1}, "checks": checks, **more})


def test_labels_before_json_before_patterns() -> None:
    labels = {"kind": "labels", "value": ["spam", "ham"]}
    schema = {"kind": "json_schema", "value": {"type": "object"}}
    regex = {"kind": "regex", "value": r"^\d+$"}
    constraint = answer_constraint(_plan([regex, schema, labels]))
    assert constraint is not None
    assert (constraint.kind, constraint.value, constraint.also) == ("labels", ("spam", "ham"), ())
    constraint = answer_constraint(_plan([regex, schema]))
    assert constraint is not None
    assert constraint.schema == {"type": "object"}
    assert answer_constraint(_plan([regex, schema], constrain="off")) is None
    assert "constrain: off" in constraint_report(_plan([regex], constrain="off"))
    assert constraint_report(_plan([labels])) == "answers are constrained to the 2 labels of the plan"


def test_of_patterns_the_one_that_says_most_is_followed() -> None:
    """A card before the form of its last line, a last line before a number of lines."""
    last = {"kind": "regex", "value": "(?:^|\n)Age: \\d+$", "text": "last"}
    card = {"kind": "regex", "value": "^Name: [^\n]+\nAge: \\d+$", "text": "card (98 % of 60 examples)"}
    lines = {"kind": "regex", "value": "^[^\n]*(?:\n[^\n]*){1}$", "text": "lines"}
    assert constraint_report(_plan([last, lines, card])) == "answers are constrained to a form: card"
    constraint = answer_constraint(_plan([lines, last]))
    assert constraint is not None
    assert constraint.tail == "\nAge: "


def test_refusals_are_allowed_where_documents_or_weights_ask_for_them() -> None:
    labels = {"kind": "labels", "value": ["a", "not stated"]}
    prompts = {"refusals": ["not stated", "I could not find that."]}
    plain = answer_constraint(_plan([labels], prompts=prompts))
    assert plain is not None
    assert plain.also == ()
    weighed = _plan([labels], prompts=prompts, weights={"style": 1, "refusal": 1})
    indexed = _plan([labels], prompts=prompts, steps=[{"kind": "index"}], data={"documents": "docs"})
    for plan in (weighed, indexed):
        constraint = answer_constraint(plan)
        assert constraint is not None
        assert constraint.also == ("I could not find that.",)
        assert constraint_report(plan).endswith("or a refusal of the plan")


def test_what_no_grammar_can_be_made_of_is_said() -> None:
    """Checks of other kinds hold nothing back while an answer is written; nor does a schema beyond the library."""
    odd = {"type": "string", "pattern": "(?=a)b"}
    plan = _plan([{"kind": "json_schema", "value": odd, "text": "odd"}, {"kind": "max_words", "value": 3}])
    assert answer_constraint(plan) is None
    report = constraint_report(plan)
    assert report.startswith('answers are not constrained to a form: the check "odd": ')
    assert report.endswith('the check "max_words: 3": it is judged when the answer is whole')
    assert constraint_report(_plan([])) == "answers are not constrained to a form: the plan has no checks"


def test_the_constraint_of_a_plan_is_kept() -> None:
    plan = _plan([{"kind": "labels", "value": ["a", "b"]}])
    assert answer_constraint(plan) is answer_constraint(plan.model_copy(update={"seed": 3}))


def test_only_answers_that_are_held_to_a_form_depend_on_it() -> None:
    """A step of a plan without a form, of a classifier or of scored labels has no key for it, as before."""
    plan = _plan([{"kind": "labels", "value": ["a", "b"]}])
    assert constraint_input(plan, EvaluateStep(arm="lora"))["constraint"]["value"] == ("a", "b")
    assert constraint_input(plan, EvaluateStep(arm="classifier", classifier=True)) == {}
    assert constraint_input(plan, EvaluateStep(arm="prompting-scored", labels="scored")) == {}
    assert constraint_input(_plan([]), EvaluateStep(arm="lora")) == {}
    assert constraint_keyword(_plan([])) == {}
    assert constraint_keyword(plan) == {"constraint": answer_constraint(plan)}


def test_a_drafted_check_and_its_constraint_agree() -> None:
    checks, _ = derive_checks([f"Two and {n} make {n + 2}.\n#### {n + 2:,}" for n in range(0, 3000, 60)])
    assert failed_checks("It makes\n#### 7", checks[:1]) == ()
    whole = whole_pattern(checks[0].value)
    assert whole.tail == "\n#### "
    assert _accepts(checks[0].value, "It makes\n#### 7")
    assert not _accepts(checks[0].value, "It makes 7.")
    assert not _accepts(checks[0].value, "#### " + "7" * 40)
