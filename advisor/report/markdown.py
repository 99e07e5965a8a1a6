"""The report as Markdown, short enough for the description of a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from advisor.report.dev_budget import dev_budget_line
from advisor.report.failure_causes import CAUSE_COLUMNS, cause_rows, causes_sentence
from advisor.report.plots.right_cost import not_in_plot, right_cost_file
from advisor.report.statements import (
    CHECK_COLUMNS,
    WORDING_COLUMNS,
    WORDING_TITLE,
    arms_line,
    batch_text,
    check_rows,
    combined_score_rule,
    milliseconds,
    models_asked,
    p_text,
    p_value_note,
    questions_asked,
    refusal_line,
    right_cost_note,
    right_cost_table,
    strength_texts,
    task_line,
    timing_notes,
    wording_rows,
    words_used,
)
from advisor.verdict.trial_forecast import FORECAST_COLUMNS, forecast_rows, forecast_sentence
from rag.text.sanitize import single_line
from runners.report.graded import GRADED_COLUMNS, GRADED_TITLE
from runners.report.records import NOT_JUDGED
from runners.report.trial_report import TrialReport

RIGHT_COST_SVG = "right-cost.svg"
"""The picture of right answers against cost, beside report.md."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


def report_markdown(report: TrialReport) -> str:
    """Return verdict, warnings, arms with intervals, paired differences and how it was measured."""
    verdict = report.verdict
    first, *rest = verdict.conclusion
    paragraphs = [
        f"## tunewise: {escape_markdown(report.name)}",
        escape_markdown(task_line(report)),
        f"**{escape_markdown(first)}**",
        escape_markdown(" ".join(rest)),
        f"**{verdict.outcome.upper()}** ({strength_texts(verdict)[0]}). {escape_markdown(verdict.text)}",
        escape_markdown(verdict.taught),
        # A list of its own in the quote keeps warnings apart; the blank line after it ends the quote: without one, GitHub
        # reads the table that follows as the quote's last paragraph.
        "\n".join(f"> - {escape_markdown(warning)}" for warning in report.warnings),
        escape_markdown(" ".join(f"{note}." for note in report.retriever_notes)),
        "\n".join(_arms(report)),
        "\n".join(_wordings(report)),
        "\n".join(_checks(report)),
        "\n".join(_right_costs(report)),
        escape_markdown(report.teacher.text) if report.teacher else "",
        escape_markdown(f"What each arm is: {arms}." if (arms := arms_line(report)) else ""),
        escape_markdown(
            " ".join([combined_score_rule(report), *(f"{note}." for note in timing_notes(report))])
        ),
        "\n".join(_pairs(report)),
        escape_markdown(f"{p_value_note(report.models)}.") if report.paired else "",
        "\n".join(_graded(report)),
        "\n".join(_dev_budget(report)),
        "\n\n".join(_failures(report)),
        "\n".join(_forecast(report)),
        escape_markdown(refusal_line(report)),
        _staleness(report),
        _words(report),
        "\n".join(_conditions(report)),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def markdown_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """Return a table, whose first ``texts`` columns hold text and the others numbers."""
    rule = "---|" * texts + "---:|" * (len(columns) - texts)
    return [f"| {' | '.join(columns)} |", f"|{rule}", *(f"| {' | '.join(row)} |" for row in rows)]


def folded_lines(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines below a title that opens them."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def _arms(report: TrialReport) -> list[str]:
    arms = report.arms
    names = [
        name
        for name, weight in report.weights.items()
        if weight and name != "right" and any(name in arm.scores for arm in arms)
    ]
    with_made = any(arm.made for arm in arms)
    with_alone = any(arm.alone for arm in arms)
    columns = [
        "arm",
        "right (95 %)",
        "combined (95 %)",
        *(["right, made", "combined, made"] if with_made else []),
        *(name.replace("_", " ") for name in names),
        *(["ms alone"] if with_alone else []),
        "ms in a batch",
    ]
    rows = []
    for arm in arms:
        label = (
            f"**{escape_markdown(arm.arm)}**" if arm.arm == report.verdict.use else escape_markdown(arm.arm)
        )
        label += " (not trained as planned)" * (not arm.planned)
        scores = [f"{arm.scores[name].mean:.2f}" if name in arm.scores else NOT_JUDGED for name in names]
        right = arm.right_text + (f" ({arm.right.interval})" if arm.right else "")
        combined = f"{arm.score.mean:.2f} ({arm.score.interval})"
        times = [milliseconds(arm.alone.seconds) if arm.alone else NOT_JUDGED] if with_alone else []
        times.append(f"{milliseconds(arm.seconds_per_answer)} ({batch_text(report, arm)})")
        rows.append([label, right, combined, *(arm.made_cells if with_made else ()), *scores, *times])
    return markdown_rows(columns, rows)


def _right_costs(report: TrialReport) -> list[str]:
    """Return the three answers on costs, the table and the picture; [] where no cost of a right answer is known."""
    columns, rows = right_cost_table(report)
    if not rows:
        return []
    lines = ["**What a right answer costs**", ""]
    if report.verdict.three_answers:
        lines += [*(f"- {escape_markdown(line)}" for line in report.verdict.three_answers), ""]
    lines += markdown_rows(columns, [[escape_markdown(cell) for cell in row] for row in rows])
    lines += ["", escape_markdown(right_cost_note(report))]
    if right_cost_file(report):
        lines += [
            "",
            escape_markdown(not_in_plot(report)),
            "",
            f"![right answers against cost]({RIGHT_COST_SVG})",
        ]
    return lines


def _checks(report: TrialReport) -> list[str]:
    """Return the table of the check of support; [] where no arm cites."""
    rows = [[escape_markdown(cell) for cell in row] for row in check_rows(report.arms)]
    return (
        folded_lines("Unsupported answers, marked and refused", markdown_rows(CHECK_COLUMNS, rows))
        if rows
        else []
    )


def _wordings(report: TrialReport) -> list[str]:
    """Return the table of questions as their rows have them beside their other wordings; [] without any."""
    rows = [[escape_markdown(cell) for cell in row] for row in wording_rows(report.arms)]
    return [f"**{WORDING_TITLE}**", "", *markdown_rows(WORDING_COLUMNS, rows, 2)] if rows else []


def _pairs(report: TrialReport) -> list[str]:
    right = {arm.arm: arm.right_text for arm in report.arms}
    recommended = report.verdict.recommended
    title = f"{escape_markdown(recommended)} ({right.get(recommended, NOT_JUDGED)} right) compared with"
    rows = [
        (
            escape_markdown(pair.compared_with),
            right.get(pair.b, NOT_JUDGED),
            f"{pair.difference:+.2f} ({pair.low:+.2f} to {pair.high:+.2f})",
            escape_markdown(p_text(pair.p_holm)),
        )
        for pair in report.paired
    ]
    return markdown_rows((title, "right", "difference (95 %)", "p"), rows) if rows else []


def _graded(report: TrialReport) -> list[str]:
    """Return the pairs by people's labels and a judge's grades, with what they rest on; [] without any."""
    if not report.graded:
        return []
    rows = [[escape_markdown(cell) for cell in pair.cells] for pair in report.graded.pairs]
    lines = [escape_markdown(" ".join(report.graded.lines)), ""]
    return [f"**{GRADED_TITLE}**", "", *lines, *markdown_rows(GRADED_COLUMNS, rows)]


def _dev_budget(report: TrialReport) -> list[str]:
    """Return the folded table of the answers on dev questions that each arm was given; [] where none was to choose."""
    line = dev_budget_line(report.dev_budget)
    if not line:
        return []
    table = [
        "| arm | answers allowed | used | tried | chosen | lead of the best other |",
        "|---|---:|---:|---|---|---:|",
    ]
    for row in report.dev_budget:
        tried = "; ".join(f"{one['prompt']} {one['score']:.2f}" for one in row.tried) or "–"
        used = "–" if row.used is None else str(row.used)
        cells = [
            escape_markdown(row.arm),
            str(row.allowed),
            used,
            escape_markdown(tried),
            escape_markdown(row.chosen or row.how),
        ]
        table.append(f"| {' | '.join([*cells, row.lead_text])} |")
    return folded_lines(
        "How the prompts were chosen (dev questions)", [escape_markdown(f"{line}."), "", *table]
    )


def _failures(report: TrialReport) -> list[str]:
    """Return a table of the causes of each arm's wrong answers; [] where they were not looked for."""
    parts = []
    for data in report.failures:
        rows = [[escape_markdown(cell) for cell in row.cells] for row in cause_rows(data)]
        table = "\n".join(markdown_rows(CAUSE_COLUMNS, rows)) if rows else ""
        parts += [
            f"**Why answers of {escape_markdown(data['arm'])} are wrong.** {escape_markdown(causes_sentence(data))}",
            table,
        ]
    return list(filter(None, parts))


def _forecast(report: TrialReport) -> list[str]:
    """Return the folded table of what was forecast beside what was measured; [] for a plan without probabilities."""
    if not report.forecast:
        return []
    rows = [[escape_markdown(cell) for cell in row] for row in forecast_rows(report.forecast)]
    lines = [escape_markdown(forecast_sentence(report.forecast)), "", *markdown_rows(FORECAST_COLUMNS, rows)]
    return folded_lines("Forecast against measured", lines)


def _staleness(report: TrialReport) -> str:
    changes = [
        f"{escape_markdown(row['arm'])} new fact {row['new_before']} → {row['new_after']}, "
        f"old {row['old_before']} → {row['old_after']} of {row['n']}"
        for row in (report.guards.staleness or {}).get("arms", ())
    ]
    return f"After the documents changed: {'; '.join(changes)}." if changes else ""


def _words(report: TrialReport) -> str:
    """Return the terms that the report uses, each with its sentence, as one paragraph."""
    terms = [
        f"**{escape_markdown(term.name)}**: {escape_markdown(term.sentence)}" for term in words_used(report)
    ]
    return f"Words used here. {' '.join(terms)}"


def _conditions(report: TrialReport) -> list[str]:
    data, machine = report.data, report.environment
    packages = ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items())
    known = (("plan", data.plan), ("split", data.split), ("base", data.base))
    # an endpoint's base is its name and host, no digest
    shown = {name: value if ":" in value else value[:12] for name, value in known if value}
    digests = ", ".join(f"{name} `{value}`" for name, value in shown.items())
    asked = f"{questions_asked(report.arms)}, {escape_markdown(models_asked(report))}, seed {data.seed}; {digests}."
    processor, gpu = (escape_markdown(str(machine.get(key, ""))) for key in ("processor", "gpu"))
    system = (
        f"{processor}, {machine.get('cores')} cores, {machine.get('ram_gib')} GiB RAM, GPU {gpu or 'none'}, "
        f"{machine.get('system')}, Python {machine.get('python')}; {packages}."
    )
    return folded_lines("How it was measured", [asked, "", system])


def escape_markdown(text: str) -> str:
    """Return a text from data on one line with Markdown's special characters escaped."""
    return _MARKUP.sub(r"\\\1", single_line(text))
