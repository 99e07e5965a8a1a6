"""The decision record: one printable page of Markdown with the recommendation, its reasons, what it rests on, who decides,
and when to review it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from advisor.catalog import prices
from advisor.methods.blockers import FOR_OTHERS
from advisor.questionnaire.answers import Answers, format_answer
from advisor.recommendation.questions_left import known_by_source, unknown_answers
from advisor.report.cost_plot import crossing_point
from runners.plan.arm_names import method_of

RECORD_WIDTH = 110
MOST_REASONS, MOST_CHANGES, MOST_RELAXATIONS, MOST_CONDITIONS = 4, 3, 2, 5
SIGNATURE_LINE = "_" * 24
_ROLES = (
    ("decision owner", "adopts, changes or rejects the advice"),
    ("data owner", "which data may be used, and where it may go"),
    ("reviewer", "whether reasons, evidence and figures hold"),
)


def decision_record(advice: Mapping[str, Any], answers: Answers, today: date) -> str:
    """Return the page for a recommendation.

    It depends on nothing else, so equal arguments give an equal page; a typical one has at most 60 lines.

    Args:
        advice: the object of ``plan --json``.
        answers: the answers it rests on.
        today: date of the page.
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
                f"{today.isoformat()}. Recommended: **{advice['choice']}** ({advice['confidence_because']})."
            ),
        ],
        ["## Who decides what", *_roles()],
        *([["## Which models", *_models(advice)]] if advice.get("models") else []),
        ["## Why", *_why(advice)],
        ["## What it rests on", *_basis(advice, answers)],
        ["## What would change it", *_changes(advice)],
        ["## What it takes", *_costs(advice)],
        ["## Ask again when", *_review_triggers(advice, today)],
        [f"Decided on {SIGNATURE_LINE}  by {SIGNATURE_LINE}  reviewed by {SIGNATURE_LINE}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _roles() -> list[str]:
    rows = [
        ("tunewise, by rules", "the advice on this page", "not a person"),
        (
            "the trial",
            "whether it holds on our own questions (`tunewise run`, `tunewise report`)",
            "not a person",
        ),
        *((role, decision, SIGNATURE_LINE) for role, decision in _ROLES),
    ]
    return _table(("who", "decides", "name"), rows)


def _models(advice: Mapping[str, Any]) -> list[str]:
    """Return the models that are compared, and which of their arms are measured."""
    rows = []
    for alias, row in advice["models"].items():
        price, hours = row["usd_per_million"], row["hours"]
        rows.append(
            (
                alias,
                f"`{row['name']}`",
                f"left out: it {row['left_out_because']}" if row["left_out_because"] else row["choice"],
                row["fits"] or "–",
                f"{hours['likely']:.2g}" if hours else "–",
                f"{price['input']:g} and {price['output']:g}" if price else "–",
            )
        )
    columns = (
        "alias",
        "model",
        "advised",
        "fits",
        "training, hours",
        "USD per million tokens, read and written",
    )
    lines = _table(columns, rows)
    if measured := advice["measured"]:
        cost = "" if advice["trial_usd"] is None else f" and up to {advice['trial_usd']:.2g} USD"
        arms = ", ".join(arm["arm"] for arm in measured)
        lines += ["", *_item(f"**Measured**, in about {advice['trial_minutes']:.0f} minutes{cost}: {arms}.")]
    return lines


def _why(advice: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for reason in advice["ranked"][0]["reasons"][:MOST_REASONS]:
        evidence = f" {reason['evidence'][0]}" if reason["evidence"] else ""
        lines += _item(f"{reason['text']} (rule {reason['rule']}).{evidence}")
    if against := advice["strongest_against"]:
        lines += _item(f"**A reason against it:** {against['text']} (rule {against['rule']}).")
    scores = {row["method"]: row["score"] for row in advice["ranked"]}
    second = advice["runner_up"]
    if second:
        ours = scores[advice["choice"]]
        lines += _item(f"**Second best:** {second} (score {scores[second]:.2f} against {ours:.2f}).")
    blocked: dict[str, list[str]] = {}
    for row in advice["ranked"]:
        if row["blockers"] and not FOR_OTHERS & {blocker["rule"] for blocker in row["blockers"]}:
            blocked.setdefault(row["blockers"][0]["text"], []).append(row["method"])
    reasons = "; ".join(f"{', '.join(names)} ({text})" for text, names in blocked.items())
    return lines + (_item(f"**Not possible here:** {reasons}.") if reasons else [])


def _basis(advice: Mapping[str, Any], answers: Answers) -> list[str]:
    lines: list[str] = []
    for title, items in known_by_source(answers):
        shown = [item for item in items if not item.startswith(("goal ", "disk_gib ", "cpu_cores "))]
        if shown:
            lines += _item(f"**{title}:** {', '.join(shown)}.")
    if open_answers := unknown_answers(answers):
        lines += _item(f"**unknown:** {', '.join(open_answers)}.")
    changing = {flip["key"] for flip in _shown_changes(advice)}
    for fact in advice["worth_finding"]:
        # What the next section says of an answer is not said twice.
        lines += [] if fact["key"] in changing else _item(f"**worth finding out:** {fact['text']}.")
    return lines


def _shown_changes(advice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [flip for flip in advice["flips"] if flip["plausible"]][:MOST_CHANGES]


def _changes(advice: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for flip in _shown_changes(advice):
        lines += _item(flip["text"])
    for relaxation in advice["ladder"][:MOST_RELAXATIONS]:
        effect = "is needed for" if relaxation["then"] == method_of(advice["choice"]) else "would open"
        lines += _item(f"{relaxation['relax']} {effect} {relaxation['then']}; it costs {relaxation['cost']}.")
    return lines or ["No single answer that is open or may be off would."]


def _costs(advice: Mapping[str, Any]) -> list[str]:
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
                else "no language model"
                if call == 0
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
    crossing = even and even.get("text") and crossing_point(even)
    return [*lines, "", *_wrapped(f"Break-even: {even['text']}.")] if crossing else lines


def _review_triggers(advice: Mapping[str, Any], today: date) -> list[str]:
    """Return the conditions under which to ask again, and the day from which the prices are too old."""
    lines: list[str] = []
    for condition in [trigger for trigger in advice["ask_again_when"] if "prices" not in trigger][
        :MOST_CONDITIONS
    ]:
        lines += _item(condition)
    price_day = prices.reference_price().day
    stale_day = price_day + timedelta(days=prices.STALE_DAYS)
    warning = ", which is past: look them up before relying on the costs" if stale_day < today else ""
    return lines + _item(
        f"{stale_day.isoformat()}: the prices (of {price_day.isoformat()}) are then {prices.STALE_DAYS} days old{warning}."
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
    """Return a text on one line, with the characters escaped that Markdown reads as a table or HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
