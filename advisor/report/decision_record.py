"""The decision record: one printable page of Markdown that says what was decided, on what, by whom, until when."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from advisor.catalog import prices
from advisor.questionnaire.answers import Answers, format_answer
from advisor.recommendation.questions_left import known_by_source, unknown_answers

RECORD_WIDTH = 110
MOST_REASONS, MOST_CHANGES, MOST_RUNGS, MOST_CONDITIONS = 4, 3, 2, 5
SIGNATURE_LINE = "_" * 24
_ROLES = (
    ("decision owner", "adopts, changes or rejects the advice"),
    ("data owner", "which data may be used, and where it may go"),
    ("reviewer", "whether reasons, evidence and figures hold"),
)


def decision_record(advice: Mapping[str, Any], answers: Answers, today: date) -> str:
    """Return the page for a recommendation (the object of ``plan --json``) and the answers it rests on.

    It is the same for the same advice, answers and date; a typical one has at most 60 lines.
    """
    goal = (
        format_answer(answers["goal"].value, 80)
        if "goal" in answers and answers["goal"].value
        else "no goal was named"
    )
    parts = [
        [
            f"# Decision: {_plain(goal)}",
            "",
            *_wrapped(
                f"{today.isoformat()}. Recommended: **{advice['choice']}**, confidence "
                f"{advice['confidence']} ({advice['confidence_because']})."
            ),
        ],
        ["## Who decides what", *_who()],
        ["## Why", *_why(advice)],
        ["## What it rests on", *_basis(advice, answers)],
        ["## What would change it", *_changes(advice)],
        ["## What it takes", *_takes(advice)],
        ["## Ask again when", *_expiry(advice, today)],
        [f"Decided on {SIGNATURE_LINE}  by {SIGNATURE_LINE}  reviewed by {SIGNATURE_LINE}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _who() -> list[str]:
    rows = [
        ("tunewise, by rules", "the advice on this page", "not a person"),
        (
            "the trial",
            "whether it holds on our own questions (`tunewise run`, `tunewise report`)",
            "not a person",
        ),
        *((role, what, SIGNATURE_LINE) for role, what in _ROLES),
    ]
    return _table(("who", "decides", "name"), rows)


def _why(advice: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for reason in advice["ranked"][0]["reasons"][:MOST_REASONS]:
        evidence = f" {reason['evidence'][0]}" if reason["evidence"] else ""
        lines += _item(f"{reason['text']} ({reason['rule']}).{evidence}")
    if against := advice["strongest_against"]:
        lines += _item(f"**Against it:** {against['text']} ({against['rule']}).")
    scores = {row["method"]: row["score"] for row in advice["ranked"]}
    second = advice["runner_up"]
    if second:
        ours = scores[advice["choice"]]
        lines += _item(f"**Runner-up:** {second} (score {scores[second]:.2f} against {ours:.2f}).")
    blocked = [
        f"{row['method']} ({row['blockers'][0]['text']})" for row in advice["ranked"] if row["blockers"]
    ]
    return lines + (_item(f"**Not possible here:** {'; '.join(blocked)}.") if blocked else [])


def _basis(advice: Mapping[str, Any], answers: Answers) -> list[str]:
    lines: list[str] = []
    for title, items in known_by_source(answers):
        said = [item for item in items if not item.startswith(("goal ", "disk_gib ", "cpu_cores "))]
        if said:
            lines += _item(f"**{title}:** {', '.join(said)}.")
    if open_answers := unknown_answers(answers):
        lines += _item(f"**unknown:** {', '.join(open_answers)}.")
    for worth in advice["worth_finding"]:
        lines += _item(f"**worth finding out:** {worth['text']}.")
    return lines


def _changes(advice: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for flip in advice["flips"][:MOST_CHANGES]:
        lines += _item(flip["text"])
    for rung in advice["ladder"][:MOST_RUNGS]:
        opens = "is needed for" if rung["then"] == advice["choice"] else "would open"
        lines += _item(f"{rung['relax']} {opens} {rung['then']}; it costs {rung['cost']}.")
    return lines or ["No single answer would."]


def _takes(advice: Mapping[str, Any]) -> list[str]:
    named = [name for name in (advice["choice"], advice["runner_up"], "prompting") if name]
    rows = []
    for row in advice["ranked"]:
        if row["method"] not in named:
            continue
        estimate = row["estimate"]
        memory, hours, usd = estimate["memory_gib"], estimate["hours"], estimate["usd"]
        call = estimate["per_call_usd"]
        rows.append(
            (
                row["method"],
                f"{memory['low']:.1f}-{memory['high']:.1f} ({memory['fits'] or 'not checked'})"
                if memory
                else "unknown",
                f"{hours['low']:.2g}-{hours['high']:.2g}"
                if hours and hours["high"]
                else "none"
                if hours
                else "unknown",
                f"{usd['low']:.2g}-{usd['high']:.2g}"
                if usd and usd["high"]
                else "none"
                if usd
                else "unknown",
                f"{call * 1000:.2g}" if call is not None else "unknown",
            )
        )
    lines = _table(
        ("method", "memory, GiB (fits)", "training, hours", "USD once", "USD per 1,000 calls"), rows
    )
    even = advice["break_even"]
    return [*lines, "", *_wrapped(f"Break-even: {even['text']}.")] if even and even.get("text") else lines


def _expiry(advice: Mapping[str, Any], today: date) -> list[str]:
    """The conditions of the advice, and the day from which its prices are too old."""
    lines: list[str] = []
    for condition in [said for said in advice["ask_again_when"] if "prices" not in said][:MOST_CONDITIONS]:
        lines += _item(condition)
    day = prices.reference_price().day
    until = day + timedelta(days=prices.STALE_DAYS)
    past = ", which is past: look them up before relying on the costs" if until < today else ""
    return lines + _item(
        f"{until.isoformat()}: the prices (of {day.isoformat()}) are then {prices.STALE_DAYS} days old{past}."
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]


def _item(text: str) -> list[str]:
    return textwrap.wrap(
        _plain(text),
        RECORD_WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_plain(text), RECORD_WIDTH, break_long_words=False, break_on_hyphens=False)


def _plain(text: str) -> str:
    """Return a text whose signs Markdown would take for a table or for HTML are escaped."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
