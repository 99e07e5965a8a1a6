"""What the verbs print of a trial: the table of arms, their scores as a chart, the comparisons and the verdict.

Also two runs side by side (:func:`show_comparison`) and the table of known models (:func:`show_models`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from advisor.output import open_console, print_plain, print_wrapped
from advisor.report.dev_budget import dev_budget_line
from advisor.report.statements import (
    WORDING_COLUMNS,
    WORDING_TITLE,
    arms_line,
    batch_text,
    combined_score_rule,
    grading_weights,
    milliseconds,
    p_text,
    p_value_note,
    right_cost_note,
    right_cost_table,
    strength_texts,
    task_line,
    timing_notes,
    wording_rows,
    words_used,
)
from advisor.verdict.trial_forecast import FORECAST_COLUMNS, forecast_rows, forecast_sentence
from rag.text.sanitize import strip_invisible
from runners.report.graded import GRADED_COLUMNS, GRADED_TITLE, GradedAnswers
from runners.report.records import NOT_JUDGED, ArmReport, Outcome, Verdict
from runners.report.trial_report import ScoredReport, TrialForecast, TrialReport

MIN_CHART_COLUMNS, MAX_CHART_COLUMNS = 20, 60
"""Width of the scale; on a terminal with less space for it there is no chart."""
_TICKS = ("0", ".25", ".5", ".75", "1")


SCORE_COLUMNS = {
    "label": "label",
    "slot_f1": "slot\nf1",
    "final_answer": "final\nanswer",
    "style": "style",
    "fact_recall": "fact\nrecall",
    "agreement": "agreement",
    "refusal": "refusal",
    "citation": "citation",
    "spurious": "spurious",
    "token_f1": "token\nf1",
}
"""Titles of the scores in the table of arms, in their order and as the report names them; a score is shown where it was
measured."""
COLUMN_GAP = 2
"""Characters between the columns of a table."""
OUTCOME_COLOURS = {Outcome.CONFIRMED: "green", Outcome.OVERTURNED: "red", Outcome.UNDECIDED: "yellow"}


def show_margins(report: TrialReport, console: Console) -> None:
    """Print the paired differences of the recommended arm, and how much the training seeds differ."""
    if report.paired:
        console.print("", paired_table(report, report.verdict.recommended))
        print_plain(console, p_value_note(report.models), "dim")
    for line in seed_lines(report):
        print_plain(console, line, "dim")


def show_wordings(report: ScoredReport, console: Console) -> None:
    """Print how each arm did on the questions as their rows have them and on their other wordings; nothing without any."""
    if rows := wording_rows(report.arms):
        table = _table(*(title.replace(" ", "\n") for title in WORDING_COLUMNS))
        table.columns[1].justify = "left"
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(f"\n{WORDING_TITLE}", table)


def paired_table(report: ScoredReport, recommended: str) -> Table:
    """Return a table with a row for each other arm: its right answers, difference, 95 % interval, and corrected p."""
    table = _table(f"{recommended} compared with", "right", "difference", "95 %", "p")
    right = {arm.arm: arm.right_text for arm in report.arms}
    for pair in report.paired:
        difference = _difference(pair.difference, pair.low, pair.high)
        table.add_row(
            escape(pair.compared_with), right.get(pair.b, NOT_JUDGED), *difference, p_text(pair.p_holm)
        )
    return table


def seed_lines(report: TrialReport) -> list[str]:
    """Return the score of each training seed; where a tuned arm has one seed, a line that says so."""
    several = [arm for arm in report.arms if len(arm.seeds) > 1]
    if several:
        return [_seed_line(arm) for arm in several]
    trained = [name for name, runs in report.measured.training.items() if runs]
    if not trained:
        return []
    return [
        f"trained once ({', '.join(trained)}): --seeds 2 trains twice and shows how much results vary by chance"
    ]


def show_comparison(comparison: dict[str, Any], console: Console | None = None) -> None:
    """Print two runs side by side, as :func:`advisor.report.compare_runs.compare_runs` compared them."""
    console = console or open_console()
    a, b = comparison["a"], comparison["b"]
    names = (a["name"], b["name"]) if a["name"] != b["name"] else (a["run"], b["run"])
    table = _table("arm", *(escape(name) for name in names), "difference", "95 %", "p")
    rows = [(row["arm"], row) for row in comparison["arms"]]
    winners = comparison["winners"]
    if winners["a"] != winners["b"] and "mean_a" in winners:
        rows.append((f"to use: {winners['a']}, {winners['b']}", winners))
    for name, row in rows:
        means = (f"{row['mean_a']:.2f}", f"{row['mean_b']:.2f}")
        difference = _difference(row["difference"], row["low"], row["high"])
        table.add_row(escape(name), *means, *difference, p_text(row["p_holm"]))
    console.print(table)
    lines = [p_value_note()] if rows else []
    lines += [_question_counts(comparison["questions"]), *comparison["notes"]]
    for key, name in (("only_in_a", names[0]), ("only_in_b", names[1])):
        if comparison[key]:
            lines.append(f"only in {name}: {', '.join(comparison[key])}")
    for line in lines:
        print_plain(console, line, "dim")


def score_chart(arms: Sequence[ArmReport], used: str | None, width: int) -> Text:
    """Return a line of characters for each arm, the arm to use in colour; empty if ``width`` is too narrow."""
    name_width = max((len(arm.arm) for arm in arms), default=0)
    columns = min(MAX_CHART_COLUMNS, width - name_width - 2)
    if columns < MIN_CHART_COLUMNS:
        return Text()
    lines = []
    for arm in arms:
        best, score = arm.arm == used, arm.score
        line = Text(f"{arm.arm:<{name_width}}  ", style="bold" if best else "")
        line.append(chart_row(score.mean, score.low, score.high, columns, "bold cyan" if best else "default"))
        lines.append(line)
    lines.append(Text(" " * (name_width + 2) + chart_scale(columns), style="dim"))
    return Text("\n").join(lines)


def chart_row(mean: float, low: float, high: float, columns: int, style: str) -> Text:
    """Return one scale with its quarters dotted, the interval as a line and the mean as a dot."""
    quarters = {round(number * (columns - 1) / 4) for number in range(5)}
    left, dot, right = (round(max(0.0, min(1.0, value)) * (columns - 1)) for value in (low, mean, high))
    row = Text()
    for column in range(columns):
        if column == dot:
            row.append("●", style)
        elif left <= column <= right:
            row.append("━", style)
        else:
            row.append("┊" if column in quarters else " ", "dim")
    return row


def chart_scale(columns: int) -> str:
    """Return the labels of the scale, each below its quarter."""
    cells = [" "] * columns
    for number, text in enumerate(_TICKS):
        start = min(columns - len(text), round(number * (columns - 1) / 4))
        cells[start : start + len(text)] = text
    return "".join(cells)


def show_report(report: TrialReport, console: Console | None = None) -> None:
    """Print the task, the conclusion, the arms with their scores, the comparisons, the verdict and the warnings."""
    console = console or open_console()
    if task := task_line(report):
        print_plain(console, task, "dim")
    show_arms(report, console)
    show_margins(report, console)
    for line in (
        *(f"arms: {arms}" for arms in [arms_line(report)] if arms),
        *timing_notes(report),
        weights_line(report),
        *filter(None, [dev_budget_line(report.dev_budget)]),
        *judge_lines(report.judge),
        *(report.graded.lines if report.graded else ()),
    ):
        print_plain(console, line, "dim")
    show_graded(report.graded, console)
    show_verdict(report.verdict, console)
    if report.verdict.taught:
        print_plain(console, f"  {report.verdict.taught}")
    show_right_costs(report, console)
    if report.teacher:
        print_plain(console, report.teacher.line)
    show_guards(report, console)
    if report.forecast:
        show_forecast(report.forecast, console)
    words = words_used(report)
    explained = ", ".join(term.name for term in words)
    print_plain(console, f"words: {explained}; what one means: tunewise explain {words[0].name}", "dim")


def show_arms(report: ScoredReport, console: Console) -> None:
    """Print the conclusion, the first sentence in bold, then the arms: their table, their chart, their wordings."""
    verdict = report.verdict
    if verdict:
        first, *rest = verdict.conclusion
        print_plain(console, first, "bold")
        if rest:
            print_plain(console, " ".join(rest))
        console.print()
    console.print(*arms_tables(report, console.width))
    console.print(score_chart(report.arms, verdict.use if verdict else None, console.width))
    show_wordings(report, console)


def show_right_costs(report: TrialReport, console: Console) -> None:
    """Print the three answers on costs and the table of what a right answer costs; nothing where that is not known."""
    columns, rows = right_cost_table(report)
    if not rows:
        return
    console.print()
    for line in report.verdict.three_answers:
        print_plain(console, line)
    table = _table(*map(escape, columns))
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    print_plain(console, right_cost_note(report), "dim")


def show_graded(graded: GradedAnswers | None, console: Console) -> None:
    """Print the pairs of arms by people's labels and a judge's grades; nothing without any."""
    if not graded or not graded.pairs:
        return
    table = _table(*GRADED_COLUMNS)
    for pair in graded.pairs:
        table.add_row(*map(escape, pair.cells))
    console.print(f"\n{GRADED_TITLE}", table)


def show_forecast(forecast: TrialForecast, console: Console) -> None:
    """Print what was forecast of each arm beside what was measured."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, COLUMN_GAP, 0, 0))
    for title in FORECAST_COLUMNS:
        table.add_column(title)
    for row in forecast_rows(forecast):
        table.add_row(*map(escape, row))
    console.print("", table)
    print_plain(console, forecast_sentence(forecast), "dim")


def show_verdict(verdict: Verdict, console: Console) -> None:
    """Print the outcome in its colour, its strength and the verdict's text."""
    outcome = (verdict.outcome.upper(), f"{OUTCOME_COLOURS[verdict.outcome]} bold")
    head = Text.assemble(outcome, f" ({strength_texts(verdict)[0]})  ")
    print_wrapped(console, head.append(strip_invisible(verdict.text)))


def show_guards(report: TrialReport, console: Console) -> None:
    """Print the warnings of the report, what a tuned retriever gained, and what an update of the documents changed."""
    for warning in report.warnings:
        print_plain(console, f"  warning: {warning}", "yellow")
    for note in report.retriever_notes:
        if note not in report.warnings:
            print_plain(console, f"  {note}")
    if line := (report.guards.staleness or {}).get("line"):
        print_plain(console, f"  {line}")


def arms_tables(report: ScoredReport, width: int) -> list[Table]:
    """Return the arms by combined score, with their right answers and the scores that it is made of.

    Columns that do not fit into ``width`` follow in further tables, each of which names the arms again.
    """
    used = report.verdict.use if report.verdict else None
    names = [
        (f"[bold]{arm.arm}[/]" if arm.arm == used else arm.arm) + " (not as planned)" * (not arm.planned)
        for arm in report.arms
    ]
    columns = _columns(report)
    # Scores are never cut off: on the narrowest terminals the names of the arms are.
    widest = max(_width(title, cells) for title, cells in columns.items())
    name_width = max(1, min(_width("arm", names), width - COLUMN_GAP - widest))
    tables: list[dict[str, list[str]]] = []
    space_left = 0
    for title, cells in columns.items():
        if not tables or space_left < COLUMN_GAP + _width(title, cells):
            tables.append({"arm": names})
            space_left = width - name_width
        tables[-1][title] = cells
        space_left -= COLUMN_GAP + _width(title, cells)
    return [_arms_table(table_columns, name_width) for table_columns in tables]


def weights_line(report: ScoredReport) -> str:
    """Return how the combined score is computed and its weights, each with its reason where the plan gives one."""
    reasons = report.weight_reasons if isinstance(report, TrialReport) else {}
    weighed = [
        f"{name.replace('_', ' ')} {weight:g}" + (f" ({reasons[name]})" if name in reasons else "")
        for name, weight in grading_weights(report).items()
    ]
    rule = combined_score_rule(report)
    return f"{rule} Weights: {'; '.join(weighed)}" if weighed else rule


def judge_lines(judge: Mapping[str, Any] | None) -> list[str]:
    """Return what the model judge preferred, and how often it agrees with the combined score; [] without a judge."""
    if not judge:
        return []
    lines = []
    for pair in judge["against"]:
        missing = f", {pair['of'] - pair['n']} not judged" if pair["of"] > pair["n"] else ""
        lines.append(
            f"judge {judge['model']}: {pair['a']} better than {pair['b']} on {pair['better']} of {pair['n']} questions, "
            f"worse on {pair['worse']} ({pair['inconsistent']} of the ties changed with the order{missing})"
        )
    if judge["same_sign"] is not None:
        kappa = "" if judge["kappa"] is None else f" (kappa {judge['kappa']:.2f})"
        lines.append(f"judge and combined score favour the same arm on {judge['same_sign']:.0%}{kappa}")
    return lines


MODEL_STATES = {"cached": "here", "hub": "here", "packaged": "by package", "absent": "on the hub"}
"""How the states of ``models list --json`` are printed."""


def show_models(rows: Sequence[dict[str, Any]]) -> None:
    """Print the known models: kind, whether they are here, size, licence, and where each comes from."""
    from runners.models.availability import size_text

    console = open_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    cells = [
        (
            row["name"],
            row["kind"],
            MODEL_STATES[row["state"]],
            size_text(row["bytes"]),
            row.get("fits_here", ""),
            row["license"],
        )
        for row in rows
    ]
    for column, title in enumerate(("name", "kind", "state", "size", "fits here", "licence")):
        # Only the licence is shortened where the terminal is narrow.
        width = None if title == "licence" else max(len(title), *(len(cell[column]) for cell in cells))
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=True, min_width=width)
    for cell in cells:
        table.add_row(*cell)
    console.print(table)
    print_plain(
        console, "those on the hub: tunewise models pull NAME --allow-hub; their ids there: --json", "dim"
    )
    for row in rows:
        if not row["source"]:
            continue
        sources = (
            f"{row['source']} of the package registry, or {row['hub']} of the model hub; {row['license']}"
        )
        print_plain(console, f"{row['name']}: {sources}", "dim")


def _question_counts(questions: Mapping[str, int]) -> str:
    """Return how many questions are compared, and how many are in one run only."""
    only_in = [
        f"{questions[key]} only in {run}"
        for key, run in (("only_a", "the first"), ("only_b", "the second"))
        if questions[key]
    ]
    return f"{questions['common']} questions in both runs" + (f" ({', '.join(only_in)})" if only_in else "")


def _seed_line(arm: ArmReport) -> str:
    means = [seed.mean for seed in arm.seeds]
    each = ", ".join(f"{seed.mean:.3f} (seed {seed.seed})" for seed in arm.seeds)
    return f"{arm.arm}: {each}; the training seeds differ by {max(means) - min(means):.3f}"


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left")
    return table


def _difference(difference: float, low: float, high: float) -> tuple[str, str]:
    return f"{difference:+.3f}", f"{low:+.3f} to {high:+.3f}"


def _columns(report: ScoredReport) -> dict[str, list[str]]:
    """Return the cells of each column by its title, without the names of the arms; both are markup."""
    arms = report.arms
    measured = {name for arm in arms for name in arm.scores}
    weighed = {name for name, weight in report.weights.items() if weight} & measured
    shown = {name: title for name, title in SCORE_COLUMNS.items() if name in (weighed or measured)}
    columns = {
        "right": [arm.right_text for arm in arms],
        "combined,\n[dim]95 % range[/]": [
            f"{arm.score.mean:.2f} [dim]{arm.score.interval}[/]" for arm in arms
        ],
    }
    if any(arm.made for arm in arms):
        right, combined = zip(*(arm.made_cells for arm in arms), strict=True)
        columns |= {"right,\n[dim]made[/]": list(right), "combined,\n[dim]made[/]": list(combined)}
    for name, title in shown.items():
        columns[title] = [
            f"{arm.scores[name].mean:.2f}" if name in arm.scores else NOT_JUDGED for arm in arms
        ]
    if any(arm.alone for arm in arms):
        columns["ms\nalone"] = [milliseconds(arm.alone.seconds) if arm.alone else NOT_JUDGED for arm in arms]
    together = {batch_text(report, arm) for arm in arms}
    title = f"ms\n{together.pop() if len(together) == 1 else 'in batches'}"
    return columns | {title: [milliseconds(arm.seconds_per_answer) for arm in arms]}


def _arms_table(columns: dict[str, list[str]], name_width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        is_name = title == "arm"
        table.add_column(
            title,
            justify="left" if is_name else "right",
            vertical="bottom",
            no_wrap=True,
            max_width=name_width if is_name else None,
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _width(title: str, cells: Sequence[str]) -> int:
    lines = (line for cell in (title, *cells) for line in Text.from_markup(cell).split("\n"))
    return max(line.cell_len for line in lines)
