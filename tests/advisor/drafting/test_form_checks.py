"""The checks of style that examples show, and that runners judge by."""

from __future__ import annotations

import json

import pytest

from advisor.drafting.form_checks import derive_checks, fixed_sentences, styled_refusals
from runners.scoring.scores import final_answer
from runners.scoring.style_checks import in_style


def desk_reply(n: int) -> str:
    """A reply in the style of one statement and one closing question."""
    return f"The ferry to Port {n} leaves at {n % 12 + 1} p.m. from Quay {n}. May I book a seat?"


def test_one_statement_then_one_question() -> None:
    """Found from examples, it refuses what is not in style."""
    replies = [desk_reply(n) for n in range(40)]
    checks, said = derive_checks(replies)
    assert "one statement, then one closing question" in said
    assert all(in_style(reply, checks) == 1.0 for reply in replies)
    for wrong in (
        "It leaves at 3.",
        "Shall I? Or not?",
        "It leaves. It comes. May I book?",
        "It leaves.\n- May I book?",
        "May I book a seat?",
        desk_reply(1) + " " + desk_reply(2),
    ):
        assert in_style(wrong, checks) == 0.0, wrong


def test_the_shipped_examples_are_in_one_style(example: object) -> None:
    """Harbor-desk's own examples meet the checks that were drawn from them."""
    from pathlib import Path

    from runners.data.examples import load_examples

    replies = [row.reply for row in load_examples(Path(str(example)) / "examples.jsonl").rows]
    checks, said = derive_checks(replies)
    assert "one statement, then one closing question" in said
    met = sum(in_style(reply, checks) or 0 for reply in replies) / len(replies)
    assert met >= 0.95


def test_only_what_95_percent_meet() -> None:
    """Seven of a hundred spoil a rule; a looser one is taken, else none, and that is said."""
    replies = [desk_reply(n) for n in range(93)] + [f"No. Never {n}. Shall we talk?" for n in range(7)]
    checks, _ = derive_checks(replies)
    assert checks[0].text == "statements, then exactly one closing question"
    mixed = [desk_reply(n) for n in range(20)] + [f"Line {n}\nand more" for n in range(20)]
    assert derive_checks(mixed) == ((), "no checks of style: the examples share no shape that code can judge")


def test_labels_and_json() -> None:
    """Closed answers give a list, JSON gives a schema."""
    checks, _ = derive_checks(["spam", "ham", "ham"] * 20)
    assert checks[0].kind == "labels"
    assert in_style("spam", checks) == 1.0
    assert in_style("spam, I think", checks) == 0.0
    rows = [json.dumps({"city": f"c{n}", "nights": n, **({"note": "x"} if n % 2 else {})}) for n in range(40)]
    checks, _ = derive_checks(rows)
    assert checks[0].kind == "json_schema"
    assert in_style('{"city": "x", "nights": 2}', checks) == 1.0
    for wrong in (
        '{"city": "x"}',
        '{"city": 3, "nights": 2}',
        '{"city": "x", "nights": 2, "y": 1}',
        "city: x",
    ):
        assert in_style(wrong, checks) == 0.0


def test_fixed_openings() -> None:
    """A greeting that is always there becomes a check."""
    checks, said = derive_checks([f"Thank you for asking about item {n}, it is here." for n in range(30)])
    assert 'opens with "Thank you for"' in said
    assert in_style("It is here.", checks) == 0.0


def test_a_last_line_of_fixed_form() -> None:
    """Reasoning, then "#### 12": the form is checked, the number is not."""
    checks, said = derive_checks([f"Two and {n} make {n + 2}.\n#### {n + 2:,}" for n in range(0, 3000, 60)])
    assert 'the last line has the form "#### …"' in said
    assert in_style("It makes 7.\n#### 7", checks) == 1.0
    assert in_style("It makes 7.", checks) == 0.0
    assert in_style("It makes 7.\n#### seven", checks) == 0.0
    gold = "1,000 and 199 make 1,199.\n#### 1,199"
    assert final_answer("Sums.\n#### 1199", gold, checks) == 1.0
    assert final_answer("Sums.\n#### 1,198", gold, checks) == 0.0
    assert final_answer("It is 1,199.", gold, checks) == 0.0
    assert final_answer("Sums.\n#### 1199", "1,199", checks) is None
    assert final_answer("7", "7", ()) is None


@pytest.mark.parametrize("count", [0, 1, 19])
def test_too_few_examples_show_no_style(count: int) -> None:
    """Said, not guessed."""
    checks, said = derive_checks([desk_reply(n) for n in range(count)])
    assert checks == ()
    assert "too few" in said


def test_a_house_that_closes_with_a_question_refuses_so_too() -> None:
    replies = [f"The pier opens at {n}. Can I help you with anything else?" for n in range(20)]
    replies += [f"The kiosk closes at {n}. Would you like a map?" for n in range(5)]
    found = styled_refusals(replies)
    assert found[0] == "I could not find that in our documents. Can I help you with anything else?"
    assert len(found) == 2
    assert styled_refusals([f"It opens at {n}." for n in range(40)]) == (
        "I could not find that in our documents.",
    )
    greeted = [f"Good day from Fern Hill! Plot {n} is free. Happy digging." for n in range(40)]
    assert styled_refusals(greeted) == (
        "Good day from Fern Hill! I could not find that in our documents. Happy digging.",
    )
    assert fixed_sentences(greeted) == ("Good day from Fern Hill!", "Happy digging.")
    assert fixed_sentences(replies) == (), "closing questions need no citation anyway"
    assert styled_refusals(replies[:10]) == ("I could not find that in our documents.",)
