"""The report as Markdown, short enough for the description of a pull request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from advisor.output import format_interval
from advisor.report.dev_budget import dev_budget_line, lead_text
from advisor.report.statements import (
    NOT_JUDGED,
    P_VALUE_NOTE,
    STRENGTHS,
    arms_line,
    batch_text,
    combined_score_rule,
    conclusion,
    corrected_p,
    made_cells,
    median_alone,
    milliseconds,
    p_text,
    questions_asked,
    refusal_line,
    right_count,
    right_interval,
    task_line,
    timing_notes,
    used_arm,
    wording_table,
    words_used,
)
from advisor.verdict.trial_forecast import FORECAST_COLUMNS, forecast_rows, forecast_sentence
from rag.text.sanitize import single_line

_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


def report_markdown(data: Mapping[str, Any]) -> str:
    """Return verdict, warnings, arms with intervals, paired differences and how it was measured."""
    verdict, sentences = data["verdict"], conclusion(data)
    paragraphs = [
        f"## tunewise: {_escape(data['name'])}",
        _escape(task_line(data)),
        *([f"**{_escape(sentences[0])}**", _escape(" ".join(sentences[1:]))] if sentences else ()),
        f"**{verdict['outcome'].upper()}** ({STRENGTHS[verdict['strength']]}). {_escape(verdict['text'])}",
        _escape(verdict.get("taught") or ""),
        # A list of its own in the quote keeps warnings apart; the blank line after it ends the quote: without one, GitHub
        # reads the table that follows as the quote's last paragraph.
        "\n".join(f"> - {_escape(warning)}" for warning in data.get("warnings") or []),
        _escape(" ".join(f"{note}." for note in (data.get("retriever") or {}).get("notes", ()))),
        "\n".join(_arms(data)),
        "\n".join(_wordings(data)),
        _escape(f"What each arm is: {arms}." if (arms := arms_line(data)) else ""),
        _escape(" ".join([combined_score_rule(data), *(f"{note}." for note in timing_notes(data))])),
        "\n".join(_pairs(data)),
        _escape(f"{P_VALUE_NOTE}.") if data["paired"] else "",
        "\n".join(_dev_budget(data)),
        "\n".join(_forecast(data)),
        _escape(refusal_line(data)),
        _staleness(data),
        _words(data),
        "\n".join(_conditions(data)),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def is_unplanned(arm: Mapping[str, Any]) -> bool:
    """Return whether an arm of the report lost most of its training rows, so that the verdict does not count it."""
    return not (arm.get("training_rows") or {"planned": True})["planned"]


def _arms(data: Mapping[str, Any]) -> list[str]:
    weights = data["weights"]
    names = [name for name in weights if weights[name] and any(name in arm["scores"] for arm in data["arms"])]
    names = [name for name in names if name != "right"]
    with_made = any(arm.get("made") for arm in data["arms"])
    with_alone = any(median_alone(arm) is not None for arm in data["arms"])
    columns = [
        "arm",
        "right (95 %)",
        "combined (95 %)",
        *(["right, made", "combined, made"] if with_made else []),
        *(name.replace("_", " ") for name in names),
        *(["ms alone"] if with_alone else []),
        "ms in a batch",
    ]
    rows = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    used = used_arm(data)
    for arm in data["arms"]:
        label = f"**{_escape(arm['arm'])}**" if used and arm["arm"] == used["arm"] else _escape(arm["arm"])
        label += " (not trained as planned)" * is_unplanned(arm)
        scores = [f"{arm['scores'][name]['mean']:.2f}" if name in arm["scores"] else "–" for name in names]
        share = right_interval(arm.get("right"))
        right = right_count(arm.get("right")) + (f" ({share})" if share else "")
        combined = f"{arm['score']['mean']:.2f} ({format_interval(arm['score'])})"
        alone = median_alone(arm)
        times = [NOT_JUDGED if alone is None else milliseconds(alone)] if with_alone else []
        times.append(f"{milliseconds(arm['seconds_per_answer'])} ({batch_text(data, arm)})")
        cells = [label, right, combined, *(made_cells(arm) if with_made else ()), *scores, *times]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _wordings(data: Mapping[str, Any]) -> list[str]:
    """Return the table of questions as their rows have them beside their other wordings; [] without any."""
    table = wording_table(data)
    head = [
        f"**{table.title}**",
        "",
        f"| {' | '.join(table.columns)} |",
        f"|---|---|{'---:|' * (len(table.columns) - 2)}",
    ]
    return [*head, *(f"| {' | '.join(map(_escape, row))} |" for row in table.rows)] if table.rows else []


def _pairs(data: Mapping[str, Any]) -> list[str]:
    right = {arm["arm"]: right_count(arm.get("right")) for arm in data["arms"]}
    recommended = data["verdict"]["recommended"]
    rows = [
        f"| {_escape(recommended)} ({right.get(recommended, NOT_JUDGED)} right) compared with "
        "| right | difference (95 %) | p |",
        "|---|---:|---:|---:|",
    ]
    for pair in data["paired"]:
        difference = f"{pair['difference']:+.2f} ({format_interval(pair, signed=True)})"
        cells = [
            _escape(pair["b"]),
            right.get(pair["b"], NOT_JUDGED),
            difference,
            _escape(p_text(corrected_p(pair))),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows if data["paired"] else []


def _dev_budget(data: Mapping[str, Any]) -> list[str]:
    """Return the folded table of the answers on dev questions that each arm was given; [] where none was to choose."""
    rows, line = data.get("dev_budget") or [], dev_budget_line(data)
    if not line:
        return []
    table = [
        "| arm | answers allowed | used | tried | chosen | lead of the best other |",
        "|---|---:|---:|---|---|---:|",
    ]
    for row in rows:
        tried = "; ".join(f"{one['prompt']} {one['score']:.2f}" for one in row["tried"]) or "–"
        used = "–" if row["used"] is None else str(row["used"])
        chosen = row["chosen"] or row["how"]
        cells = [
            _escape(row["arm"]),
            str(row["allowed"]),
            used,
            _escape(tried),
            _escape(chosen),
            lead_text(row),
        ]
        table.append(f"| {' | '.join(cells)} |")
    summary = "<details><summary>How the prompts were chosen (dev questions)</summary>"
    return [summary, "", _escape(f"{line}."), "", *table, "", "</details>"]


def _forecast(data: Mapping[str, Any]) -> list[str]:
    """Return the folded table of what was forecast beside what was measured; [] for a plan without probabilities."""
    forecast = data.get("forecast")
    if not forecast:
        return []
    rows = [f"| {' | '.join(FORECAST_COLUMNS)} |", f"|---|{'---:|' * (len(FORECAST_COLUMNS) - 1)}"]
    rows += [f"| {' | '.join(map(_escape, row))} |" for row in forecast_rows(forecast)]
    summary = "<details><summary>Forecast against measured</summary>"
    return [summary, "", _escape(forecast_sentence(forecast)), "", *rows, "", "</details>"]


def _staleness(data: Mapping[str, Any]) -> str:
    stale = data["guards"].get("staleness")
    if not stale:
        return ""
    changes = [
        f"{_escape(row['arm'])} new fact {row['new_before']} → {row['new_after']}, "
        f"old {row['old_before']} → {row['old_after']} of {row['n']}"
        for row in stale["arms"]
    ]
    return f"After the documents changed: {'; '.join(changes)}."


def _words(data: Mapping[str, Any]) -> str:
    """Return the terms that the report uses, each with its sentence, as one paragraph."""
    terms = [f"**{_escape(term.name)}**: {_escape(term.sentence)}" for term in words_used(data)]
    return f"Words used here. {' '.join(terms)}"


def _conditions(data: Mapping[str, Any]) -> list[str]:
    data_used, machine = data.get("data") or {}, data.get("environment") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items())
    digests = ", ".join(
        f"{key} `{data_used[key][:12]}`" for key in ("plan", "split", "base") if data_used.get(key)
    )
    text = f"{questions_asked(data)}, {_escape(data['verdict']['model'])}, seed {data_used.get('seed', 0)}; {digests}."
    return [
        "<details><summary>How it was measured</summary>",
        "",
        text,
        "",
        f"{_escape(str(machine.get('processor', '')))}, {machine.get('cores')} cores, {machine.get('ram_gib')} GiB RAM, "
        f"GPU {_escape(str(machine.get('gpu', 'none')))}, {machine.get('system')}, Python {machine.get('python')}; "
        f"{packages}.",
        "",
        "</details>",
    ]


def _escape(text: str) -> str:
    """Return a text from data on one line with Markdown's special characters escaped."""
    return _MARKUP.sub(r"\\\1", single_line(text))
