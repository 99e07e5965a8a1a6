"""What the verbs print for people: the table of arms, the verdict, the known models.

The trial's comparisons as printed: the recommended arm against each other, seeds apart, two runs side by side.

The arms' scores drawn with characters: a dot for the mean and a line for its interval, on a scale from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from advisor.output import format_interval, print_plain


def show_margins(data: dict[str, Any], console: Console) -> None:
    """Print how far the recommended arm is above each other one, and how far the training seeds lie apart."""
    if data["paired"]:
        console.print("", paired_table(data))
    for line in seed_lines(data):
        console.print(line, highlight=False, soft_wrap=True, markup=False, style="dim")


def paired_table(data: dict[str, Any]) -> Table:
    """One line per other arm: difference, 95 % interval, p and p corrected for their number."""
    table = _table(f"{data['verdict']['recommended']} above", "by", "95 %", "p", "p (Holm)")
    for pair in data["paired"]:
        corrected = pair.get("p_holm")
        table.add_row(escape(pair["b"]), *_difference(pair), _chance(pair["p"]), _chance(corrected))
    return table


def seed_lines(data: dict[str, Any]) -> list[str]:
    """Say what each training seed scored, where there are several; where a tuned arm has one, that nothing is known."""
    several = [arm for arm in data["arms"] if len(arm.get("seeds", ())) > 1]
    if several:
        return [_apart(arm) for arm in several]
    trained = [name for name, runs in (data["measured"].get("training") or {}).items() if runs]
    if not trained:
        return []
    return [f"one training seed ({', '.join(trained)}): --seeds 2 would show how much training itself varies"]


def show_comparison(found: dict[str, Any], console: Console | None = None) -> None:
    """Print two runs side by side, as :func:`advisor.report.compare_runs.compare_runs` compared them."""
    console = console or Console()
    a, b = found["a"], found["b"]
    names = (a["name"], b["name"]) if a["name"] != b["name"] else (a["run"], b["run"])
    table = _table("arm", *(escape(name) for name in names), "difference", "95 %", "p (Holm)")
    rows = [(row["arm"], row) for row in found["arms"]]
    final = found["winners"]
    if final["a"] != final["b"] and "mean_a" in final:
        rows.append((f"winners: {final['a']}, {final['b']}", final))
    for name, row in rows:
        means = (f"{row['mean_a']:.2f}", f"{row['mean_b']:.2f}")
        table.add_row(escape(name), *means, *_difference(row), _chance(row["p_holm"]))
    console.print(table)
    lines = [_told(found["questions"]), *found["notes"]]
    for key, name in (("only_in_a", names[0]), ("only_in_b", names[1])):
        if found[key]:
            lines.append(f"only in {name}: {', '.join(found[key])}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False, style="dim")


def _told(questions: Mapping[str, int]) -> str:
    """Return in words how many questions are compared, and how many are not."""
    left = [
        f"{questions[key]} only in {where}"
        for key, where in (("only_a", "the first"), ("only_b", "the second"))
        if questions[key]
    ]
    return f"{questions['common']} questions in both runs" + (f" ({', '.join(left)})" if left else "")


def _apart(arm: dict[str, Any]) -> str:
    means = [row["mean"] for row in arm["seeds"]]
    each = ", ".join(f"{row['mean']:.3f} (seed {row['seed']})" for row in arm["seeds"])
    return f"{arm['arm']}: {each}; training seeds are {max(means) - min(means):.3f} apart"


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left")
    return table


def _difference(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['difference']:+.3f}", format_interval(row, 3, signed=True)


def _chance(p: float | None) -> str:
    """A p-value as printed; a run of an earlier version has none that is corrected."""
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")


LEAST, MOST = 20, 60
"""Columns of the scale; a terminal with less room than the least gets no drawing."""
_TICKS = ("0", ".25", ".5", ".75", "1")


def score_chart(data: Mapping[str, Any], width: int) -> Text:
    """Return a line for each arm, best first, the arm to use in colour; empty where ``width`` is too narrow."""
    arms = data["arms"]
    name = max((len(arm["arm"]) for arm in arms), default=0)
    columns = min(MOST, width - name - 2)
    if columns < LEAST:
        return Text()
    lines = []
    for arm in arms:
        best = arm["arm"] == (data["verdict"] or {}).get("winner")
        line = Text(f"{arm['arm']:<{name}}  ", style="bold" if best else "")
        score = arm["score"]
        line.append(
            chart_row(score["mean"], score["low"], score["high"], columns, "bold cyan" if best else "default")
        )
        lines.append(line)
    lines.append(Text(" " * (name + 2) + chart_scale(columns), style="dim"))
    return Text("\n").join(lines)


def chart_row(mean: float, low: float, high: float, columns: int, style: str) -> Text:
    """Return one scale with its quarters dotted, the interval a line, the mean a dot."""
    quarters = {round(n * (columns - 1) / 4) for n in range(5)}
    left, dot, right = (round(max(0.0, min(1.0, v)) * (columns - 1)) for v in (low, mean, high))
    found = Text()
    for at in range(columns):
        if at == dot:
            found.append("●", style)
        elif left <= at <= right:
            found.append("━", style)
        else:
            found.append("┊" if at in quarters else " ", "dim")
    return found


def chart_scale(columns: int) -> str:
    """Return the numbers under the scale, each under its quarter."""
    cells = [" "] * columns
    for n, text in enumerate(_TICKS):
        start = min(columns - len(text), round(n * (columns - 1) / 4))
        cells[start : start + len(text)] = text
    return "".join(cells)


SCORE_COLUMNS = {
    "label": "label",
    "slot_f1": "slots",
    "final_answer": "final",
    "style": "style",
    "fact_recall": "facts",
    "agreement": "agree",
    "refusal": "refusal",
    "citation": "cited",
    "spurious": "spurious",
    "house_style": "house",
    "token_f1": "F1",
}
"""Scores that the table of arms shows when they weigh anything, so that it fits a terminal; the report has them all."""
COLUMN_GAP = 2
"""Columns of a terminal between those of a table."""
OUTCOME_COLOURS = {"confirmed": "green", "overturned": "red", "undecided": "yellow"}


def show_report(data: dict[str, Any], console: Console | None = None) -> None:
    """Print the table of arms, their scores as a drawing, the verdict line and the warnings."""
    console = console or Console()
    console.print(*arms_tables(data, console.width))
    console.print(score_chart(data, console.width))
    show_margins(data, console)
    for line in (weights_line(data), *judge_lines(data)):
        print_plain(console, line, "dim")
    verdict = data["verdict"]
    colour = OUTCOME_COLOURS[verdict["outcome"]]
    console.print(
        f"[{colour} bold]{verdict['outcome'].upper()}[/] ({verdict['strength']})  {escape(verdict['text'])}",
        highlight=False,
        soft_wrap=True,
    )
    if lesson := verdict.get("taught"):
        print_plain(console, f"  {lesson}")
    show_guards(data, console)


def show_guards(data: dict[str, Any], console: Console) -> None:
    """Print what the verdict's reader must know: each warning, and what an update of the documents changed."""
    for warning in data.get("warnings", ()):
        print_plain(console, f"  warning: {warning}", "yellow")
    stale = data["guards"].get("staleness") or {}
    if stale.get("line"):
        print_plain(console, f"  {stale['line']}")


def arms_tables(data: dict[str, Any], width: int) -> list[Table]:
    """Arms by combined score, with the scores behind it; columns for which ``width`` has no room follow in more tables."""
    best = (data["verdict"] or {}).get("winner")
    names = [f"[bold]{arm['arm']}[/]" if arm["arm"] == best else arm["arm"] for arm in data["arms"]]
    columns = _columns(data)
    # A score that is cut is worse than none: on the narrowest terminals the arm's name gives way.
    widest = max(_room(title, cells) for title, cells in columns.items())
    least = max(1, min(_room("arm", names), width - COLUMN_GAP - widest))
    tables: list[dict[str, list[str]]] = []
    left = 0
    for title, cells in columns.items():
        if not tables or left < COLUMN_GAP + _room(title, cells):
            tables.append({"arm": names})
            left = width - least
        tables[-1][title] = cells
        left -= COLUMN_GAP + _room(title, cells)
    return [_drawn(each, least) for each in tables]


def _columns(data: dict[str, Any]) -> dict[str, list[str]]:
    """The cells of each column by its title, without the arms' names; both are markup."""
    arms = data["arms"]
    measured = {name for arm in arms for name in arm["scores"]}
    weighed = {name for name, weight in data["weights"].items() if weight} & measured
    shown = {name: title for name, title in SCORE_COLUMNS.items() if name in (weighed or measured)}
    scores = [arm["score"] for arm in arms]
    return {
        "combined [dim]95 %[/]": [f"{s['mean']:.2f} [dim]{format_interval(s)}[/]" for s in scores],
        **{title: [_mean(arm, name) for arm in arms] for name, title in shown.items()},
        "s/answer": [f"{arm['seconds_per_answer']:.2f}" for arm in arms],
    }


def _drawn(columns: dict[str, list[str]], names: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        arm = title == "arm"
        table.add_column(
            title, justify="left" if arm else "right", no_wrap=True, max_width=names if arm else None
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _room(title: str, cells: Sequence[str]) -> int:
    return max(Text.from_markup(cell).cell_len for cell in (title, *cells))


def weights_line(data: dict[str, Any]) -> str:
    """What the combined score weighs, each with its reason where the plan gives one."""
    reasons = data.get("weight_reasons") or {}
    weighed = (
        f"{name} {weight:g}" + (f" ({reasons[name]})" if name in reasons else "")
        for name, weight in data["weights"].items()
        if weight
    )
    return f"combined: {'; '.join(weighed)}"


def judge_lines(data: dict[str, Any]) -> list[str]:
    """What the judge preferred, and how often it agrees with the combined score; nothing without a judge."""
    judge = data.get("judge")
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


def show_models(rows: Sequence[dict[str, Any]]) -> None:
    """Print the known models: what each is, whether it is here, how large, and below where it comes from."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "kind", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["name"], row["kind"], row["state"], f"{row['bytes'] / 1e6:,.0f} MB")
    console.print(table)
    for row in rows:
        told = f"{row['source']} of the package registry, or {row['hub']} of the model hub; {row['license']}"
        print_plain(console, f"{row['name']}: {told}", "dim")


def _mean(arm: dict[str, Any], name: str) -> str:
    return f"{arm['scores'][name]['mean']:.2f}" if name in arm["scores"] else "–"
