"""What people see of a recommendation: panels, tables and lines, drawn with rich."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from advisor.questionnaire.answers import format_answer
from advisor.recommendation.ranking import ScoredMethod
from advisor.recommendation.recommend import BaseRecommendation
from advisor.report import cost_plot
from advisor.rules.base import Finding

MIN_SCORE_SHOWN = 0.3
WIDE_COLUMNS = 96
"""Columns from which the table of methods has room for its long bars."""
CONFIDENCE_COLOURS = {
    "high": "green",
    "medium": "yellow",
    "low": "red",
    "yes": "green",
    "tight": "yellow",
    "no": "red",
}


def console(stderr: bool = False) -> Console:
    """Return a console that honours NO_COLOR and never wraps what a program may read."""
    return Console(stderr=stderr, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Table:
    """Return a borderless table; ``right`` names the right-aligned columns by number. Cells are markup."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(columns):
        drawn.add_column(title, justify="right" if number in right else "left")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def plugins(rows: Iterable[Mapping[str, str]]) -> Table:
    """Return what plug-ins add: kind, name, and the package that it comes from."""
    cells = [
        (row["group"].removeprefix("tunewise."), escape(row["name"]), escape(row["package"])) for row in rows
    ]
    return table(("plug-in", "name", "package"), cells)


def render_recommendation(rec: BaseRecommendation) -> Group:
    """Return the whole recommendation: choice and why, all methods, what would flip it, when to ask again."""
    parts: list[Any] = [_choice(rec), render_ranking(rec)]
    if rec.flips:
        lines = [
            f"[bold]{escape(flip['text'])}[/]" if n == 0 else escape(flip["text"])
            for n, flip in enumerate(rec.flips[:4])
        ]
        parts += [Text(), Text("It would be", style="bold"), _lines(lines)]
    if rec.worth_finding:
        lines = [escape(worth.text) for worth in rec.worth_finding]
        parts += [Text(), Text("Most worth finding out", style="bold"), _lines(lines)]
    needed = [rung for rung in rec.ladder if rung["then"] == rec.choice]
    opening = [rung for rung in rec.ladder if rung["then"] != rec.choice]
    for title, rungs in (
        (f"What {rec.choice} needs here", needed),
        ("What would open the better way", opening),
    ):
        if rungs:
            lines = [f"{escape(x['relax'])} [dim]({escape(x['cost'])})[/]" for x in rungs[:4]]
            ends = [""] * len(lines) if rungs is needed else [f" → {x['then']}" for x in rungs]
            parts += [
                Text(),
                Text(title, style="bold"),
                _lines([line + end for line, end in zip(lines, ends, strict=False)]),
            ]
    if rec.break_even:
        parts += [Text(), Text.from_markup(f"[bold]Break-even[/]  {escape(rec.break_even['text'])}")]
        if cost_plot.crossing_point(rec.break_even):
            width = shutil.get_terminal_size().columns
            parts += [Text(), Text(cost_plot.plot_lines(rec.break_even, width), style="dim", no_wrap=True)]
    if notes := rec.notes():
        parts += [Text(), Text("Mind", style="bold"), _lines([_because(finding) for finding in notes])]
    parts += [Text(), Text.from_markup("[bold]Ask again when[/]  " + escape("; ".join(rec.ask_again_when)))]
    return Group(*parts)


def render_ranking(rec: BaseRecommendation) -> Table:
    """Return all methods, best first, with what each would take, and what blocks it."""
    rows = []
    for scored in rec.ranking.methods:
        estimate = rec.estimates[scored.method.name].to_json()
        memory, hours = estimate["memory_gib"], estimate["hours"]
        fits = (
            f" [{CONFIDENCE_COLOURS[memory['fits']]}]{memory['fits']}[/]" if memory and memory["fits"] else ""
        )
        usd = estimate["per_call_usd"]
        rows.append(
            (
                f"[bold]{scored.method.name}[/]" if scored.method.name == rec.choice else scored.method.name,
                f"[red]blocked[/] [dim]{escape(scored.blockers[0].text)}[/]"
                if scored.blockers
                else _bar(scored),
                f"{memory['likely']:.1f} GiB{fits}" if memory else "–",
                "–" if hours is None else _hours(hours["likely"]),
                "–" if usd is None else f"{usd * 1000:.2g}",
            )
        )
    return table(("method", "fit for this", "memory", "training", "USD/1,000 calls"), rows, right=(4,))


def render_finding(code: str, text: str, evidence: Sequence[str], family: str = "") -> Group:
    """Return a rule's page: its code, the user's text and the evidence."""
    title = Text.from_markup(f"[bold]{code}[/] [dim]{escape(family)}[/]")
    return Group(title, Padding(Text(text), (0, 0, 0, 2)), _lines([f"[dim]{escape(e)}[/]" for e in evidence]))


def render_answers(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Return answers: id, value, source and how it was found."""
    room = max(20, shutil.get_terminal_size().columns - 64)
    shown = (
        (key, escape(format_answer(value, 30)), source, f"[dim]{escape(format_answer(note, room))}[/]")
        for key, value, source, note in rows
    )
    return table(("answer", "value", "from", "how"), shown)


def render_difference(before: BaseRecommendation, after: BaseRecommendation, change: str) -> Group:
    """Return what a change does: the choice, and every method's score before and after."""
    same = before.choice == after.choice
    head = (
        f"{change}: still [bold]{after.choice}[/]"
        if same
        else (f"{change}: [red]- {before.choice}[/]  [green]+ {after.choice}[/]")
    )
    was = {scored.method.name: scored for scored in before.ranking.methods}
    rows = [(s.method.name, _state(was[s.method.name]), _state(s)) for s in after.ranking.methods]
    old = {f.rule.code() for f in before.ranking.findings}
    new = {f.rule.code(): f for f in after.ranking.findings}
    lines = [f"[green]+ {code}[/] {escape(f.text)}" for code, f in new.items() if code not in old]
    lines += [
        f"[red]- {f.rule.code()}[/] {escape(f.text)}"
        for f in before.ranking.findings
        if f.rule.code() not in new
    ]
    return Group(Text.from_markup(head), table(("method", "before", "after"), rows), _lines(lines))


def render_case_scores(found: dict[str, Any]) -> Group:
    """Return the score on published cases: counts, who was taken for whom, each miss with its reasons."""
    names = list(
        dict.fromkeys([*found["confusion"], *(c for row in found["confusion"].values() for c in row)])
    )
    rows = [
        (
            winner,
            *(
                f"[green]{n}[/]" if (n := row.get(name, 0)) and name == winner else str(n or "·")
                for name in names
            ),
        )
        for winner, row in found["confusion"].items()
    ]
    n = found["n"]
    parts: list[Any] = [
        Text.from_markup(f"[bold]{found['accepted']}[/] of {n} accepted, [bold]{found['exact']}[/] exact\n"),
        table(("won \\ advised", *names), rows, right=range(1, len(names) + 1)),
    ]
    for miss in found["misses"]:
        why = [f"{escape(r['text'])} [dim]{r['rule']}[/]" for r in miss["reasons"]]
        why += [f"[red]blocked[/] {escape(b['text'])}" for b in miss["winner_blockers"]]
        head = f"\n[bold]{escape(miss['id'])}[/]  {miss['winner']} won, {miss['choice']} was advised"
        parts += [Text.from_markup(f"{head} [dim]{escape(miss['source'])}[/]"), _lines(why)]
    return Group(*parts)


def _choice(rec: BaseRecommendation) -> Panel:
    first = rec.ranking.methods[0]
    body: list[Any] = [Text(first.method.text().split("\n")[0], style="italic"), Text()]
    # One line a need (its last finding says most), without what only breaks ties between ways of tuning.
    by_need = {f.need: f for f in rec.reasons(first) if f.weight >= MIN_SCORE_SHOWN}
    body.append(_lines([_because(f) for f in by_need.values()][:5]))
    if against := rec.against(first):
        body.append(
            Text.from_markup(f"[yellow]Against it[/]  {escape(against.text)} [dim]{against.rule.code()}[/]")
        )
    if second := rec.runner_up:
        body.append(
            Text.from_markup(
                f"[yellow]Runner-up[/]   {second.method.name} ({second.score:.2f} against {first.score:.2f})"
            )
        )
    colour = CONFIDENCE_COLOURS[rec.confidence.level]
    body.append(Text.from_markup(f"[{colour}]Confidence[/]  {escape(rec.confidence.because)}"))
    title = f"[bold]{rec.choice}[/]  [{colour}]confidence {rec.confidence.level}[/]"
    return Panel(Group(*body), title=title, title_align="left", border_style=colour, expand=False)


def _because(finding: Finding) -> str:
    return f"{escape(finding.text)} [dim]{finding.rule.code()}[/]"


def _bar(scored: ScoredMethod) -> str:
    """Return the score as a bar that leaves the table's other columns their room on a usual terminal."""
    width = 20 if shutil.get_terminal_size().columns >= WIDE_COLUMNS else 12
    filled = round(scored.score * width)
    return f"{'█' * filled}[dim]{'·' * (width - filled)}[/] {scored.score:.2f}"


def _state(scored: ScoredMethod) -> str:
    return (
        f"[red]blocked[/] [dim]{escape(scored.blockers[0].text)}[/]"
        if scored.blockers
        else f"{scored.score:.2f}"
    )


def _hours(hours: float) -> str:
    if hours == 0:
        return "none"
    if hours < 1:
        return f"about {max(1, round(hours * 60))} min"
    return f"about {hours:.1f} h" if hours < 48 else f"about {hours / 24:.0f} days"


def _lines(lines: Sequence[str]) -> Padding:
    return Padding(Group(*(Text.from_markup(f"• {line}") for line in lines)), (0, 0, 0, 2), expand=False)
