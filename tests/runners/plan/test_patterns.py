"""Patterns of checks: searched as `re` does, and never for long; JSON Schemas of checks that would never end."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.plan.patterns import compile_pattern
from runners.plan.schema import StyleCheck
from runners.scoring.scores import missing_form
from runners.scoring.style_checks import failed_checks

SLOW = "(a|aa)+$"
LETTERS = "a" * 60 + "!"
DOUBLING: dict[str, Any] = {
    "$ref": "#/$defs/s0",
    "$defs": {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(40)} | {"s40": {}},
}

ATOMS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "é",
            "1",
            "_",
            "-",
            " ",
            r"\n",
            ".",
            "^",
            "$",
            r"\b",
            r"\B",
            r"\A",
            r"\Z",
            "{e}",
            "a{1,2}",
            r"\u0301",
        ),
        *(
            r"\w",
            r"\W",
            r"\d",
            r"\D",
            r"\s",
            r"\S",
            "[ab]",
            "[^a]",
            r"[\w-]",
            r"[\W_]",
            r"[^\S\n]",
            "[[:alpha:]]",
            "[a-z&&b]",
        ),
    ]
)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return patterns made of smaller ones."""
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+?", "{0,2}", "?"])).map(lambda two: f"(?:{two[0]}){two[1]}"),
        st.tuples(st.sampled_from(["(?=", "(?!", "(", "(?P<answer>", "(?i:", "(?-s:", "(?m:"]), inner).map(
            lambda two: f"{two[0]}{two[1]})"
        ),
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.recursive(ATOMS, grown, max_leaves=8), st.text("ab1_- \n\x1cé\u0301AÉ:lph[]", max_size=8))
@example(r"(?P<x>a+)-(?P=x)", "aa-a")
@example(r"(?<=a)(b)?(?(1)c|d)", "abc ad")
@example(r"\B", "")
@example(r"(?a)\w+\b", "é a\u0301")
@example(r"(?x) a  b # both", "ab")
@example(r"(?:^|\n)Total: (?P<answer>[^\n]+)$", "first\nTotal: 14 euros")
@example(r"^\w+$", "\u0939\u093f\u0928\u094d\u0926\u0940")
def test_search_is_that_of_re(pattern: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            expected = re.compile(pattern, re.DOTALL)
        except re.error:
            with pytest.raises(ValueError, match="not a regular expression"):
                compile_pattern(pattern)
            return
        found = compile_pattern(pattern).search(text)
    match = expected.search(text)
    assert (found and (found.span(), found.groups())) == (match and (match.span(), match.groups()))


def test_classes_are_those_of_re() -> None:
    """Of every character that Python knows."""
    known = "".join(filter(str.isprintable, map(chr, range(0x110000)))) + "\n\t\x1c\x85\u2028"
    for pattern in (r"\w", r"\s", r"\d", r"[\W]", r"[\S]", r"[\D]", r"(?a)[\W]", r"(?i)[k\u03c3]"):
        assert compile_pattern(pattern).compiled.findall(known) == re.findall(pattern, known), pattern


@pytest.mark.parametrize(
    ("kind", "value", "answer", "named"),
    [
        ("regex", SLOW, LETTERS, SLOW),
        ("json_schema", {"type": "string", "pattern": SLOW}, f'"{LETTERS}"', SLOW),
        ("json_schema", DOUBLING, "1", "JSON Schema of the check"),
    ],
)
def test_a_check_that_would_never_end_is_an_error_that_names_it(
    kind: Any, value: Any, answer: str, named: str
) -> None:
    with pytest.raises(BadInput) as error:
        failed_checks(answer, [StyleCheck(kind=kind, value=value, text="letters alone")])
    assert named in error.value.message
    assert "letters alone" in error.value.message


def test_a_value_is_looked_for_under_the_same_limit() -> None:
    with pytest.raises(BadInput, match="takes longer than"):
        missing_form([LETTERS], [StyleCheck(kind="regex", value="(?P<answer>(a|aa)+)$", text="")])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("(" * 3000 + "a" + ")" * 3000, "nested too deep"),
        ("a{99999999999}", "too large"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "nothing is fetched"),
        ({"not": {"$ref": "other.json"}, "$id": "http://127.0.0.1:9/"}, "nothing is fetched"),
        ({"unevaluatedProperties": False, "patternProperties": {SLOW: {}}}, "limited time"),
        (DOUBLING | {"unevaluatedProperties": False}, "limited time"),
    ],
)
def test_a_check_that_cannot_be_followed_is_refused_when_it_is_read(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        StyleCheck(kind="regex" if isinstance(value, str) else "json_schema", value=value, text="")
