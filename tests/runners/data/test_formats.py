"""Roles of columns: guessed from usual names, refused when ambiguous, or declared by the user."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.errors import BadInput
from runners.data.formats import (
    ROLES,
    AmbiguousColumns,
    UnknownColumns,
    declared_columns,
    guess_columns,
    parse_columns,
)


@pytest.mark.parametrize(
    ("names", "format", "found"),
    [
        ("messages meta", "messages", {"turns": "messages"}),
        ("prompt prompt_id messages", "messages", {"turns": "messages"}),
        ("messages tools", "messages", {"turns": "messages", "tools": "tools"}),
        ("id conversations system", "sharegpt", {"turns": "conversations", "system": "system"}),
        (
            "instruction input output",
            "alpaca",
            {"prompt": "instruction", "input": "input", "reply": "output"},
        ),
        (
            "instruction context response category",
            "alpaca",
            {"prompt": "instruction", "input": "context", "reply": "response"},
        ),
        (
            "instruction input output history system",
            "alpaca",
            {
                "prompt": "instruction",
                "input": "input",
                "reply": "output",
                "history": "history",
                "system": "system",
            },
        ),
        (
            "instruction input output text",
            "alpaca",
            {"prompt": "instruction", "input": "input", "reply": "output"},
        ),
        ("prompt completion", "prompt-completion", {"prompt": "prompt", "reply": "completion"}),
        ("Question Answer Source", "prompt-completion", {"prompt": "Question", "reply": "Answer"}),
        (
            "id system_prompt question response",
            "prompt-completion",
            {"prompt": "question", "reply": "response", "system": "system_prompt"},
        ),
        ("input output", "prompt-completion", {"prompt": "input", "reply": "output"}),
        ("query label", "prompt-completion", {"prompt": "query", "reply": "label"}),
        ("question answer label", "prompt-completion", {"prompt": "question", "reply": "answer"}),
        ("question", "prompt-completion", {"prompt": "question"}),
        (
            "Ticket CustomerQuestion our_reply",
            "prompt-completion",
            {"prompt": "CustomerQuestion", "reply": "our_reply"},
        ),
        (
            "question_id question_text answer gold_answer",
            "prompt-completion",
            {"prompt": "question_text", "reply": "answer"},
        ),
        ("user_query has_answer label", "prompt-completion", {"prompt": "user_query", "reply": "label"}),
        ("id title text", "text", {"text": "text"}),
        ("text last_response", "text", {"text": "text"}),
    ],
)
def test_usual_column_names_are_recognised(names: str, format: str, found: dict[str, str]) -> None:
    columns = guess_columns(names.split())
    assert (columns.format, dict(columns.of)) == (format, found)


@pytest.mark.parametrize(
    ("names", "role", "candidates", "hint"),
    [
        ("prompt question answer", "prompt", "prompt, question", "--columns prompt=prompt,reply=..."),
        ("question answer response", "reply", "response, answer", "--columns prompt=question,reply=response"),
        (
            "question chosen_response rejected_response",
            "reply",
            "chosen_response, rejected_response",
            "--columns prompt=question,reply=chosen_response",
        ),
        ("messages conversations", "list of turns", "messages, conversations", "--columns turns=messages"),
        ("Text label", "text to learn", "Text, label", "as pairs: --columns prompt=Text,reply=label"),
        ("prompt text", "text to learn", "text, prompt", "as pairs: --columns prompt=prompt,reply=text"),
        ("instruction input context output", "input", "input, context", "--columns input=input,..."),
    ],
)
def test_ambiguous_columns_are_refused_with_a_hint(names: str, role: str, candidates: str, hint: str) -> None:
    with pytest.raises(AmbiguousColumns) as caught:
        guess_columns(names.split())
    assert str(caught.value) == f"which column is the {role}? it could be each of: {candidates}"
    assert hint in caught.value.hint


@pytest.mark.parametrize("names", ["words", "answer", "id title", ""])
def test_columns_without_a_role_are_refused(names: str) -> None:
    with pytest.raises(UnknownColumns, match="no known format has the keys"):
        guess_columns(names.split())


@settings(max_examples=150)
@given(st.lists(st.text(max_size=8), max_size=6, unique=True))
def test_guess_uses_each_existing_column_once(names: list[str]) -> None:
    try:
        found = guess_columns([*names, "question"]).of
    except AmbiguousColumns:
        return
    assert set(found) <= set(ROLES)
    assert set(found.values()) <= {*names, "question"}
    assert len(set(found.values())) == len(found)


def test_declared_columns_decide_format() -> None:
    assert parse_columns(" prompt=a , reply=The answer ") == {"prompt": "a", "reply": "The answer"}
    assert declared_columns({"prompt": "a", "reply": "b"}).format == "prompt-completion"
    assert declared_columns({"prompt": "a", "input": "x", "reply": "b"}).format == "alpaca"
    assert declared_columns({"turns": "a"}).format == "messages"
    assert declared_columns({"text": "a"}).format == "text"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prompt", "'prompt' is not role=column"),
        ("promt=a,reply=b", "'promt' is not a role .did you mean prompt"),
        ("prompt=a", "prompt=a is not enough, or too much"),
        ("prompt=a,reply=b,text=c", "is not enough, or too much"),
        ("system=a", "is not enough, or too much"),
    ],
)
def test_invalid_declared_columns_are_refused(given: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        declared_columns(parse_columns(given))
