"""What the terminal shows of advice on several models: the models, the arms to test, and what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.text import Text

from advisor.advice import ModelsRecommendation
from advisor.costs.trial_price import is_hosted, price_of_tokens
from advisor.display.console import FIT_COLOURS, bulleted, render_difference, table, training_hours_text
from advisor.drafting.measured_arms import selection_line
from advisor.recommendation.recommend import BaseRecommendation
from advisor.verdict.trial_forecast import right_text
from runners.plan.steps import PlanModel
from runners.report.trial_report import Share

MOST_ARMS = 6
"""Arms that are named with one reason; of more their number is given."""


def render_models(rec: ModelsRecommendation) -> Group:
    """Return a table of the models: what is advised for each, whether it fits, hours and price, or why it is left out."""
    rows = []
    for alias, advice in rec.models.items():
        name = escape(str(advice.profile.model))
        if alias in rec.unusable:
            rows.append(
                (alias, name, "[red]left out[/]", f"[dim]it {escape(rec.unusable[alias])}[/]", "–", "–")
            )
            continue
        estimate = advice.estimates[advice.choice].to_json()
        memory, hours, usd = estimate["memory_gib"], estimate["hours"], _call_text(advice, estimate)
        fits = f" [{FIT_COLOURS[memory['fits']]}]{memory['fits']}[/]" if memory and memory["fits"] else ""
        rows.append(
            (
                f"[bold]{alias}[/]" if alias == rec.best else alias,
                name,
                f"{advice.choice} {advice.ranking.methods[0].score:.2f}",
                f"{memory['likely']:.1f} GiB{fits}" if memory else "–",
                "–" if hours is None else training_hours_text(hours["likely"]),
                usd,
            )
        )
    columns = ("alias", "model", "advised", "memory", "training", "USD/1,000 calls")
    best = rec.choice
    lines = [
        Text.from_markup(
            f"Expected to be best: [bold]{escape(best)}[/] [dim]({escape(rec.confidence.because)})[/]"
        ),
        Text("why a method is advised for a model: tunewise explain PLAN", style="dim"),
    ]
    notes = [bulleted([escape(note) for note in rec.notes_on_models])] if rec.notes_on_models else []
    return Group(table(columns, rows, right=(5,)), Text(), *notes, *lines)


def render_trial(rec: ModelsRecommendation, expected: Mapping[str, Mapping[str, Any] | None]) -> Group:
    """Return the arms to test with what is expected of them, and below it what is left out, by reason.

    Args:
        rec: the advice, with what was selected.
        expected: the expected share of right answers by arm.
    """
    selection = rec.selection
    assert selection is not None
    rows = []
    for arm in selection.measured:
        right = expected.get(arm.arm)
        rows.append(
            (
                f"[bold]{arm.arm}[/]" if arm.arm == rec.choice else arm.arm,
                right_text(Share(**right) if right else None),
                "–" if arm.minutes is None else f"{arm.minutes:.1f}",
                "unknown" if arm.usd is None else f"{arm.usd:.2g}",
                f"[dim]{escape(arm.reason)}[/]",
            )
        )
    parts: list[Any] = [
        Text(),
        table(("arm to test", "right answers", "minutes", "USD up to", ""), rows, right=(2, 3)),
    ]
    without = (
        ""
        if rec.profile.question_count
        else "; there are no test questions yet, which is what takes time and money"
    )
    parts += [Text(selection_line(selection, rec.limits) + without)]
    if left := _left_out_lines(rec):
        parts += [Text(), Text("Left out", style="bold"), bulleted(left)]
    return Group(*parts)


def render_models_difference(before: ModelsRecommendation, after: ModelsRecommendation, change: str) -> Group:
    """Return the effect of a change on the advice for each model, and on the arms that are measured."""
    parts: list[Any] = []
    for alias, advice in after.models.items():
        parts.append(Text(alias, style="bold"))
        if alias in after.unusable:
            parts.append(Text(f"  left out: it {after.unusable[alias]}"))
        elif alias in before.models:
            parts.append(render_difference(before.models[alias], advice, change))
    arms = [
        {arm.arm for arm in each.selection.measured} if each.selection else set() for each in (before, after)
    ]
    lines = [f"[green]+[/] {arm}" for arm in sorted(arms[1] - arms[0])]
    lines += [f"[red]-[/] {arm}" for arm in sorted(arms[0] - arms[1])]
    parts += [Text("Arms to test", style="bold"), bulleted(lines or ["the same"])]
    return Group(*parts)


def _call_text(advice: BaseRecommendation, estimate: Mapping[str, Any]) -> str:
    """Return USD of 1,000 calls of a model; of a server of one's own none, and of a hosted model without a price unknown.

    A model on this machine has the price that a provider takes for one of its size, and says so.
    """
    model = PlanModel(name=str(advice.profile.model))
    usd = estimate["per_call_usd"]
    if usd is None or (advice.profile.remote and not is_hosted(model)):
        return "–"
    if price_of_tokens(model) is None:
        return "unknown"
    return f"{usd * 1000:.2g}" + ("" if advice.profile.remote else " if hosted")


def _left_out_lines(rec: ModelsRecommendation) -> list[str]:
    """Return a line for each reason, with the arms that are left out for it."""
    reasons: dict[str, list[str]] = {}
    for arm in rec.left_out:
        name = arm.arm.removeprefix("*@") if arm.kind == "model" else arm.arm
        reasons.setdefault(f"it {arm.reason}" if arm.kind == "model" else arm.reason, []).append(name)
    lines = []
    for reason, names in reasons.items():
        more = len(names) - MOST_ARMS
        shown = ", ".join(names[:MOST_ARMS]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"{escape(shown)}: [dim]{escape(reason)}[/]")
    return lines
