"""Style checks derived from examples."""

from __future__ import annotations

import json

import pytest

from advisor.drafting.form_checks import derive_checks, fixed_sentences, styled_refusals
from runners.scoring.scores import final_answer
from runners.scoring.style_checks import in_style


def ferry_reply(n: int) -> str:
    """Return a reply in the style of one statement and one closing question."""
    return f"The ferry to Port {n} leaves at {n % 12 + 1} p.m. from Quay {n}. May I book a seat?"


def test_checks_of_statement_then_question() -> None:
    """The derived checks accept the examples and reject other forms."""
    replies = [ferry_reply(n) for n in range(40)]
    checks, note = derive_checks(replies)
    assert "one statement, then one closing question" in note
    assert all(in_style(reply, checks) == 1.0 for reply in replies)
    for wrong in (
        "It leaves at 3.",
        "Shall I? Or not?",
        "It leaves. It comes. May I book?",
        "It leaves.\n- May I book?",
        "May I book a seat?",
        ferry_reply(1) + " " + ferry_reply(2),
    ):
        assert in_style(wrong, checks) == 0.0, wrong


def test_shipped_examples_meet_their_checks(example: object) -> None:
    """At least 95 % of harbor-desk's examples meet the checks derived from them."""
    from pathlib import Path

    from runners.data.examples import load_examples

    replies = [row.reply for row in load_examples(Path(str(example)) / "examples.jsonl").rows]
    checks, note = derive_checks(replies)
    assert "one statement, then one closing question" in note
    met = sum(in_style(reply, checks) or 0 for reply in replies) / len(replies)
    assert met >= 0.95


def test_checks_need_95_percent_of_replies() -> None:
    """Seven exceptions in a hundred give a looser check; without any there is a note."""
    replies = [ferry_reply(n) for n in range(93)] + [f"No. Never {n}. Shall we talk?" for n in range(7)]
    checks, _ = derive_checks(replies)
    assert checks[0].text.startswith("statements, then exactly one closing question (100 % of 100")
    mixed = [ferry_reply(n) for n in range(20)] + [f"{chr(97 + n)}{n} line\nand more" for n in range(20)]
    assert derive_checks(mixed) == ((), "no checks of style: the examples share no shape that code can judge")


def test_checks_of_labels_and_json() -> None:
    """Labels give a list, JSON gives a schema."""
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


def test_check_of_fixed_opening() -> None:
    checks, note = derive_checks([f"Thank you for asking about item {n}, it is here." for n in range(30)])
    assert 'opens with "Thank you for"' in note
    assert in_style("It is here.", checks) == 0.0


def test_check_of_last_line_with_answer() -> None:
    """ "#### 12": the form is checked, the number is the final answer."""
    checks, note = derive_checks([f"Two and {n} make {n + 2}.\n#### {n + 2:,}" for n in range(0, 3000, 60)])
    assert 'the last line has the form "#### …"' in note
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
def test_no_checks_from_too_few_examples(count: int) -> None:
    checks, note = derive_checks([ferry_reply(n) for n in range(count)])
    assert checks == ()
    assert "and it takes 20 or more" in note


def test_styled_refusals_follow_openings_and_closings() -> None:
    replies = [f"The pier opens at {n}. Can I help you with anything else?" for n in range(20)]
    replies += [f"The kiosk closes at {n}. Would you like a map?" for n in range(5)]
    refusals = styled_refusals(replies)
    assert refusals[0] == "I could not find that in our documents. Can I help you with anything else?"
    assert len(refusals) == 2
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
