"""Panels and tables of a recommendation, of rules, answers and profiles, drawn with rich."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.constrain import Constrain
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from advisor.costs.call_prices import profile_price
from advisor.glossary import words_footer
from advisor.methods.base import Method
from advisor.output import REDIRECTED_COLUMNS, open_console
from advisor.questionnaire.answers import format_answer
from advisor.questionnaire.data_facts import STATE_FACTS, DataFacts
from advisor.recommendation.ranking import ScoredMethod
from advisor.recommendation.recommend import BaseRecommendation
from advisor.rules.agentic import NOT_MEASURED
from advisor.rules.base import Finding
from runners.plan.train_config import TUNING_METHODS

MIN_SCORE_SHOWN = 0.3
WIDE_COLUMNS = 96
"""Terminal width from which the table of methods uses long bars."""
MAX_PROSE_COLUMNS = 160
"""Widest a box of sentences becomes; redirected output has no width of its own."""
FIT_COLOURS = {
    "yes": "green",
    "tight": "yellow",
    "no": "red",
}


def console(stderr: bool = False) -> Console:
    """Return a console that honours NO_COLOR and does not highlight numbers or paths."""
    return open_console(stderr=stderr, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Table:
    """Return a table without borders.

    Args:
        columns: titles.
        rows: cells, as rich markup.
        right: numbers of the right-aligned columns, from 0.
    """
    result = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(columns):
        result.add_column(title, justify="right" if number in right else "left")
    for row in rows:
        result.add_row(*row)
    return result


def plugins(rows: Iterable[Mapping[str, str]]) -> Table:
    """Return a table of the plug-ins: kind, name, and the package that provides it."""
    cells = [
        (row["group"].removeprefix("tunewise."), escape(row["name"]), escape(row["package"])) for row in rows
    ]
    return table(("plug-in", "name", "package"), cells)


def render_recommendation(rec: BaseRecommendation) -> Group:
    """Return the whole recommendation: choice and reasons, all methods, what would change it, when to ask again."""
    parts: list[Any] = [_choice(rec), render_ranking(rec)]
    if seconds := answer_seconds_line(rec):
        parts.append(Constrain(Text(seconds, style="dim"), MAX_PROSE_COLUMNS))
    if launch := rec.estimates[rec.choice].launch:
        parts += [Text(), Text("Several GPUs", style="bold"), bulleted([escape(launch.why)])]
    if flips := rec.plausible_flips:
        lines = [
            f"[bold]{escape(counterfactual['text'])}[/]" if number == 0 else escape(counterfactual["text"])
            for number, counterfactual in enumerate(flips[:4])
        ]
        parts += [Text(), Text("It would recommend", style="bold"), bulleted(lines)]
    if rec.worth_finding:
        lines = [escape(fact.text) for fact in rec.worth_finding]
        parts += [Text(), Text("Most worth finding out", style="bold"), bulleted(lines)]
    needed = [relaxation for relaxation in rec.ladder if relaxation["then"] == rec.choice]
    opening = [relaxation for relaxation in rec.ladder if relaxation["then"] != rec.choice]
    for title, relaxations in (
        (f"What {rec.choice} needs here", needed),
        ("What would make a better method possible", opening),
    ):
        if relaxations:
            lines = [
                f"{escape(relaxation['relax'])} [dim]({escape(relaxation['cost'])})[/]"
                for relaxation in relaxations[:4]
            ]
            ends = (
                [""] * len(lines)
                if relaxations is needed
                else [f" → {relaxation['then']}" for relaxation in relaxations]
            )
            parts += [
                Text(),
                Text(title, style="bold"),
                bulleted([line + end for line, end in zip(lines, ends, strict=False)]),
            ]
    if rec.break_even:
        parts += [Text(), Text.from_markup(f"[bold]Cost[/]  {escape(rec.break_even['text'])}")]
    notes = [*([escape(rec.token_doubt)] if rec.token_doubt else []), *map(_because, rec.notes())]
    if notes:
        parts += [Text(), Text("Note", style="bold"), bulleted(notes)]
    parts += [
        Text(),
        Text.from_markup("[bold]Run this advice again when[/]  " + escape("; ".join(rec.ask_again_when))),
    ]
    parts += [Text(), Text(_explain_line(rec), style="dim")]
    return Group(*parts)


def _explain_line(rec: BaseRecommendation) -> str:
    """Return the line that says how to have the words and rules of a recommendation explained."""
    names = " ".join(scored.method.name for scored in rec.ranking.shown)
    return words_footer(names, rec.ranking.findings[0].rule.code() if rec.ranking.findings else "")


def render_ranking(rec: BaseRecommendation) -> Table:
    """Return a table of all methods, best first, with memory, training time and cost, or what blocks them."""
    rows = []
    for scored in rec.ranking.shown:
        estimate = rec.estimates[scored.method.name].to_json()
        memory, hours = estimate["memory_gib"], estimate["hours"]
        fits = f" [{FIT_COLOURS[memory['fits']]}]{memory['fits']}[/]" if memory and memory["fits"] else ""
        usd = estimate["per_call_usd"]
        rows.append(
            (
                f"[bold]{scored.method.name}[/]" if scored.method.name == rec.choice else scored.method.name,
                f"[red]blocked[/] [dim]{escape(scored.blockers[0].text)}[/]"
                if scored.blockers
                else _bar(scored),
                f"{memory['likely']:.1f} GiB{fits}" if memory else "–",
                "–" if hours is None else training_hours_text(hours["likely"]),
                "–" if usd is None else f"{usd * 1000:.2g}",
            )
        )
    return table(("method", "fit for this", "memory", "training", "USD/1,000 calls"), rows, right=(4,))


def answer_seconds_line(rec: BaseRecommendation) -> str:
    """Return how long an answer takes by each way to facts, and what is not measured; "" where no model searches by itself.

    The figures are of hosted models in published runs; of a model on this machine none are known.
    """
    open_ones = [scored.method.name for scored in rec.ranking.methods if not scored.blockers]
    if "agentic-search" not in open_ones:
        return ""
    each = [
        f"{name} {seconds.likely:g} ({seconds.low:g}–{seconds.high:g})"
        for name in open_ones
        if (seconds := rec.estimates[name].seconds)
    ]
    took = f"Seconds of an answer in published runs: {', '.join(each)}. " if each else ""
    usd, assumed = rec.estimates["agentic-search"].per_call_range, profile_price(rec.profile).model
    of = "as is usual for models of its size" if assumed == "by size" else f"at the price of {assumed}"
    price = (
        f"An answer takes several calls: {usd.low:.2g} to {usd.high:.2g} USD, likely {usd.likely:.2g}, {of}; "
        if usd
        else ""
    )
    return f"{took}{price}{NOT_MEASURED}."


def render_finding(code: str, text: str, evidence: Sequence[str], family: str = "") -> Group:
    """Return a rule with its code, its text and its evidence."""
    title = Text.from_markup(f"[bold]{code}[/] [dim]{escape(family)}[/]")
    return Group(
        title,
        Padding(Text(text), (0, 0, 0, 2), expand=False),
        bulleted([f"[dim]{escape(source)}[/]" for source in evidence]),
    )


def render_answers(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Return a table of answers, given as (id, value, source, note)."""
    note_width = max(20, shutil.get_terminal_size((REDIRECTED_COLUMNS, 24)).columns - 64)
    shown = (
        (key, escape(format_answer(value, 30)), source, f"[dim]{escape(format_answer(note, note_width))}[/]")
        for key, value, source, note in rows
    )
    return table(("answer", "value", "from", "how"), shown)


def data_fact_rows(facts: DataFacts) -> list[tuple[str, str, str, str]]:
    """Return rows of :func:`render_answers` for what was counted in files beyond the answers."""
    rows = []
    if facts.label_count:
        each = f"about {facts.rows_per_label:,.0f} examples of each, {facts.largest_label_share:.0%} of the most frequent"
        rows.append(("labels", str(facts.label_count), each))
    if facts.language:
        rows.append(("language", facts.language, "recognised by its letters and common words"))
    if facts.passages_in_prompts:
        share = f"{facts.passages_in_prompts:.0%}"
        rows.append(("passages in prompts", share, "of the prompts contain what their reply says"))
    if facts.facts_in_replies:
        rows.append(("facts in replies", f"{facts.facts_in_replies:.0%}", f"of the replies {STATE_FACTS}"))
    return [(name, value, "counted", note) for name, value, note in rows]


def render_difference(before: BaseRecommendation, after: BaseRecommendation, change: str) -> Group:
    """Return the effect of a change: the choice, the score of each method shown before or after it, and the rules that
    came or went.
    """
    unchanged = before.choice == after.choice
    head = (
        f"{change}: still [bold]{after.choice}[/]"
        if unchanged
        else (f"{change}: [red]- {before.choice}[/]  [green]+ {after.choice}[/]")
    )
    scored_before = {scored.method.name: scored for scored in before.ranking.methods}
    rows = [
        (scored.method.name, _score_or_blocker(scored_before[scored.method.name]), _score_or_blocker(scored))
        for scored in after.ranking.methods
        if scored in after.ranking.shown or scored_before[scored.method.name] in before.ranking.shown
    ]
    codes_before = {finding.rule.code() for finding in before.ranking.findings}
    findings_after = {finding.rule.code(): finding for finding in after.ranking.findings}
    lines = [
        f"[green]+[/] {_because(finding)}"
        for code, finding in findings_after.items()
        if code not in codes_before
    ]
    lines += [
        f"[red]-[/] {_because(finding)}"
        for finding in before.ranking.findings
        if finding.rule.code() not in findings_after
    ]
    return Group(Text.from_markup(head), table(("method", "before", "after"), rows), bulleted(lines))


def _choice(rec: BaseRecommendation) -> Constrain:
    first = rec.ranking.methods[0]
    body: list[Any] = [Text(first.method.text().split("\n")[0], style="italic"), Text()]
    # One line for each need: its last finding has the most to say. Weights below the minimum only break ties between
    # tuning methods.
    by_need = {finding.need: finding for finding in rec.reasons(first) if finding.weight >= MIN_SCORE_SHOWN}
    body.append(bulleted([_because(finding) for finding in by_need.values()][:5]))
    if against := rec.against(first):
        body.append(
            Text.from_markup(
                f"[yellow]{_reason_against(rec.best_for(against), rec.choice)}[/]: {_because(against)}"
            )
        )
    if second := rec.runner_up:
        body.append(
            Text.from_markup(
                f"[yellow]Second best[/]: {second.method.name} (it fits {second.score:.2f}, {rec.choice} {first.score:.2f})"
            )
        )
    if rec.with_larger_model:
        body.append(Text.from_markup(f"[yellow]A larger model[/]: {rec.with_larger_model}"))
    body.append(Text.from_markup(f"[yellow]How sure[/]: {escape(rec.confidence.because)}"))
    title = f"[bold]{rec.choice}[/]"
    panel = Panel(Group(*body), title=title, title_align="left", border_style="green", expand=False)
    return Constrain(panel, MAX_PROSE_COLUMNS)


def _reason_against(best: Method, choice: str) -> str:
    """Return what a reason against the choice speaks for: fine-tuning, a search, or a method by name."""
    name, tuned = best.name, (*TUNING_METHODS, "hybrid")
    if name in tuned and choice not in tuned:
        return "A reason to fine-tune anyway"
    return "A reason to search in documents anyway" if name == "rag" else f"A reason for {name} anyway"


def _because(finding: Finding) -> str:
    return f"{escape(finding.text)} [dim](rule {finding.rule.code()})[/]"


def _bar(scored: ScoredMethod) -> str:
    """Return the score as a bar, shorter on narrow terminals so that the other columns fit."""
    width = 20 if shutil.get_terminal_size().columns >= WIDE_COLUMNS else 12
    filled = round(scored.score * width)
    return f"{'█' * filled}[dim]{'·' * (width - filled)}[/] {scored.score:.2f}"


def _score_or_blocker(scored: ScoredMethod) -> str:
    return (
        f"[red]blocked[/] [dim]{escape(scored.blockers[0].text)}[/]"
        if scored.blockers
        else f"{scored.score:.2f}"
    )


def training_hours_text(hours: float) -> str:
    """Return hours of training in words: none, minutes, hours or days."""
    if hours == 0:
        return "none"
    if hours < 1:
        return f"about {max(1, round(hours * 60))} min"
    return f"about {hours:.1f} h" if hours < 48 else f"about {hours / 24:.0f} days"


def bulleted(lines: Sequence[str]) -> Padding:
    """Return lines of markup with a bullet each, indented."""
    return Padding(Group(*(Text.from_markup(f"• {line}") for line in lines)), (0, 0, 0, 2), expand=False)
