"""Forms learnt from replies: what they accept that was not learnt from, and what they reject."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from advisor.drafting.form_checks import derive_checks
from advisor.drafting.reply_forms import learned_forms
from runners.data.examples import load_examples
from runners.scoring.style_checks import in_style, rule_text

RNG = random.Random(7)
WORDS = ["parser", "index", "cache", "loader", "token", "window", "ferry", "ticket", "border", "lock"]
WORDS += ["render", "merge", "draft", "quota"]
TYPES = ("feat", "fix", "docs", "refactor", "test", "chore")
COMMITS = [
    f"{RNG.choice(TYPES)}({RNG.choice(WORDS)}){'!' * (n % 40 == 0)}: {RNG.choice(('add', 'drop', 'speed up', 'rename'))} "
    f"the {RNG.choice(WORDS)} of the {RNG.choice(WORDS)} {n}"
    for n in range(934)
]
CARDS = [
    f"Name: {RNG.choice(WORDS)} {n}\nPrice: {n}.50\nSince: {2000 + n % 20}-0{n % 9 + 1}-11\n"
    f"Note: {' '.join(RNG.sample(WORDS, 4))}"
    for n in range(120)
]
OPTIONAL = [
    f"Tool: {RNG.choice(WORDS)}\n"
    + f"Flag: -{chr(97 + n % 26)}\n" * (n % 2)
    + f"Use: {' '.join(RNG.sample(WORDS, 3))}"
    for n in range(120)
]
BULLETS = [
    "\n".join(f"- {RNG.choice(WORDS)} and {RNG.choice(WORDS)}" for _ in range(n % 4 + 2)) for n in range(120)
]


@pytest.mark.parametrize(
    ("replies", "said", "accepted", "rejected"),
    [
        (
            COMMITS,
            'the form "type(scope): text"; the type is one of',
            ("fix(unseen): keep a new word", "feat(cli)!: break it"),
            (
                "fix: no scope",
                "Fix(cli): capital",
                "wip(cli): other type",
                "fix(cli) no colon",
                "fix(cli): End.",
                "a sentence",
            ),
        ),
        (
            CARDS,
            'exactly 4 lines "Name:", "Price:", "Since:", "Note:", in this order',
            ("Name: new thing\nPrice: 9.99\nSince: 1999-12-31\nNote: other words here",),
            (
                "Name: x\nPrice: 9.99\nNote: y\nSince: 1999-12-31",
                "Name: x\nPrice: 9.99\nSince: 1999-12-31",
                "Name: x\nPrice: cheap\nSince: 1999-12-31\nNote: y",
                "It is called x, costs 9.99 and came in 1999.",
            ),
        ),
        (
            OPTIONAL,
            'lines "Tool:", "Flag:" (may be missing), "Use:", in this order',
            ("Tool: awk\nUse: print it", "Tool: awk\nFlag: -F\nUse: print it"),
            ("Use: print it\nTool: awk", "Tool: awk", "Tool: awk\nUse: print it\nMore: no"),
        ),
        (
            BULLETS,
            'a list whose lines begin with "- "',
            ("- one\n- two",),
            ("one\ntwo", "- one", "- one\ntwo"),
        ),
        (
            [f"{'ABCDEF'[n % 6]}{n}: STOP THE {RNG.choice(WORDS).upper()}" for n in range(60)],
            "begins with one name or path, a colon and a space",
            ("Z9: GO ON",),
            ("GO ON", "two words: GO"),
        ),
        (
            [
                f"{('Yes', 'No', 'It depends')[n % 3]}, the {RNG.choice(WORDS)} can go by the {RNG.choice(WORDS)}."
                for n in range(90)
            ],
            'opens with one of "',
            ("No, the goat cannot go.",),
            ("Perhaps the goat can go.", "yes, the goat can go."),
        ),
        (
            [
                f"Take the {RNG.choice(WORDS)} {n}. {('Happy trails!', 'Safe journey!', 'See you soon!')[n % 3]}"
                for n in range(90)
            ],
            "the last sentence is one of",
            ("Leave the goat. Safe journey!",),
            ("Leave the goat.", "Leave the goat. Safe trip!"),
        ),
        (
            [f"{RNG.choice(WORDS)} {RNG.choice(WORDS)} {RNG.choice(WORDS)} {n}" for n in range(60)],
            "no capital letters",
            ("new words only",),
            ("New words only", "new WORDS only", "new words only."),
        ),
        (
            [f"The {RNG.choice(WORDS).title()} Of {RNG.choice(WORDS).title()} {n}" for n in range(60)],
            "title case",
            ("A Goat and Boat",),
            ("A goat and boat",),
        ),
        (
            [f"20{n % 30:02d}-1{n % 3}-0{n % 9 + 1}" for n in range(90)],
            "only a date",
            ("1950-07-07",),
            ("7 July 1950",),
        ),
        (
            [(f"{n % 9}.{n}.{n % 7}", "not stated")[n % 5 == 0] for n in range(90)],
            'only a version or decimal number or "not stated"',
            ("99.0.1", "not stated"),
            ("version 99.0.1", "unknown"),
        ),
    ],
)
def test_form_is_learnt_and_generalises(
    replies: list[str], said: str, accepted: tuple[str, ...], rejected: tuple[str, ...]
) -> None:
    checks, note = derive_checks(replies)
    assert said in note
    assert re.search(rf"\(\d+ % of {len(replies)} examples\)", checks[0].text)
    assert sum(in_style(reply, checks) or 0 for reply in replies) >= 0.95 * len(replies)
    assert [text for text in accepted if not in_style(text, checks)] == []
    assert [text for text in rejected if in_style(text, checks)] == []


def test_share_is_said_and_left_out_of_rules() -> None:
    replies = [*COMMITS, *(f"Merge branch {word}" for word in WORDS), *(f"Revert {n}" for n in range(12))]
    checks, _ = derive_checks(replies)
    assert checks[0].text.endswith("(97 % of 960 examples)")
    assert "%" not in rule_text(checks[0])
    assert rule_text(checks[0]).startswith('the form "type(scope): text"')


def test_nothing_is_learnt_by_heart() -> None:
    """Replies without a common form: no closed set, no prefix; at most the case, the end and the length."""
    replies = [
        f"{RNG.choice(('The', 'My', 'Every'))} {' '.join(RNG.choices(WORDS, k=RNG.randint(3, 30)))} {n}{RNG.choice('.!…')}"
        for n in range(200)
    ]
    assert not [form for form in learned_forms(replies) if "one of" in form.text and "opens" not in form.text]
    few = [f"Case {n}: {' '.join(RNG.choices(WORDS, k=6))}" for n in range(30)]
    checks, note = derive_checks(few)
    assert in_style(f"Case 31: {' '.join(WORDS[:6])}", checks), note


def test_forms_hold_on_other_rows_of_public_sets(shared: Path) -> None:
    """Checks derived from one half of a set hold on 95 % of the other."""
    for name in (
        "gotools_commits",
        "tldr_commands",
        "tldr_de",
        "networkx_docstrings",
        "endoflife_dates",
        "hybrid_concierge",
    ):
        replies = [row.reply for row in load_examples(shared / "data" / name / "train.jsonl").rows]
        random.Random(1).shuffle(replies)
        half = len(replies) // 2
        checks, note = derive_checks(replies[:half])
        met = sum(in_style(reply, checks) or 0 for reply in replies[half:]) / len(replies[half:])
        assert met >= 0.95, (name, met, note)


def test_forms_of_public_sets(shared: Path) -> None:
    def note_of(name: str) -> str:
        return derive_checks(
            [row.reply for row in load_examples(shared / "data" / name / "train.jsonl").rows]
        )[1]

    assert "a colon and a space" in note_of("gotools_commits")
    assert '"Command:", "Tool:", "More:"' in note_of("tldr_commands")
    colours = [
        json.loads(line)["reference"] for line in (shared / "data/brand_colours/questions.jsonl").open()
    ]
    assert "only a colour as #RRGGBB" in derive_checks(colours)[1]


@pytest.mark.parametrize("replies", [COMMITS, CARDS, OPTIONAL, BULLETS])
def test_patterns_do_not_backtrack(replies: list[str]) -> None:
    hostile = [
        "a" * 20_000,
        "- a\n" * 5_000 + "x",
        "Name: " * 4_000,
        "fix(" * 5_000,
        "A: b\n" * 4_000,
        "Aa " * 7_000,
        "," * 20_000,
    ]
    checks, _ = derive_checks(replies)
    began = time.thread_time()
    for text in hostile:
        in_style(text, checks)
        in_style(replies[0] + text, checks)
    assert time.thread_time() - began < 5
