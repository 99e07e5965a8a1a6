"""The report as Markdown, short enough for the description of a pull request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from advisor.output import format_interval
from rag.text.sanitize import single_line

_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


def report_markdown(data: Mapping[str, Any]) -> str:
    """Return verdict, warnings, arms with intervals, paired differences and how it was measured."""
    verdict = data["verdict"]
    lines = [
        f"## tunewise: {_escape(data['name'])}",
        "",
        f"**{verdict['outcome'].upper()}** ({verdict['strength']}). {_escape(verdict['text'])}",
        "",
        *([f"{_escape(verdict['taught'])}", ""] if verdict.get("taught") else ()),
    ]
    lines += [f"> {_escape(warning)}" for warning in data.get("warnings") or []]
    lines += [*_arms(data), "", *_pairs(data), "", *_staleness(data), *_conditions(data)]
    return "\n".join(lines) + "\n"


def is_unplanned(arm: Mapping[str, Any]) -> bool:
    """Return whether an arm of the report lost most of its training rows, so that the verdict leaves it out."""
    return not (arm.get("training_rows") or {"planned": True})["planned"]


def _arms(data: Mapping[str, Any]) -> list[str]:
    weights = data["weights"]
    names = [name for name in weights if weights[name] and any(name in arm["scores"] for arm in data["arms"])]
    columns = ["arm", "combined (95 %)", *(name.replace("_", " ") for name in names), "s/answer"]
    rows = [f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
    for arm in data["arms"]:
        label = (
            f"**{_escape(arm['arm'])}**" if arm["arm"] == data["verdict"]["winner"] else _escape(arm["arm"])
        )
        label += " (not trained as planned)" * is_unplanned(arm)
        scores = [f"{arm['scores'][name]['mean']:.2f}" if name in arm["scores"] else "–" for name in names]
        combined = f"{arm['score']['mean']:.2f} ({format_interval(arm['score'])})"
        cells = [label, combined, *scores, f"{arm['seconds_per_answer']:.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _pairs(data: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {_escape(data['verdict']['recommended'])} against | difference (95 %) | p |",
        "|---|---:|---:|",
    ]
    for pair in data["paired"]:
        difference = f"{pair['difference']:+.2f} ({format_interval(pair, signed=True)})"
        rows.append(f"| {_escape(pair['b'])} | {difference} | {_p_value(pair):.4f} |")
    return rows if data["paired"] else []


def _staleness(data: Mapping[str, Any]) -> list[str]:
    stale = data["guards"].get("staleness")
    if not stale:
        return []
    changes = [
        f"{_escape(row['arm'])} new fact {row['new_before']} → {row['new_after']}, "
        f"old {row['old_before']} → {row['old_after']} of {row['n']}"
        for row in stale["arms"]
    ]
    return [f"After the documents changed: {'; '.join(changes)}.", ""]


def _conditions(data: Mapping[str, Any]) -> list[str]:
    data_used, machine = data.get("data") or {}, data.get("environment") or {}
    count = max((arm["n"] for arm in data["arms"]), default=0)
    packages = ", ".join(f"{name} {version}" for name, version in (machine.get("packages") or {}).items())
    digests = ", ".join(
        f"{key} `{data_used[key][:12]}`" for key in ("plan", "split", "base") if data_used.get(key)
    )
    text = f"{count} held-out questions, {_escape(data['verdict']['model'])}, seed {data_used.get('seed', 0)}; {digests}."
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


def _p_value(pair: Mapping[str, Any]) -> float:
    """Return the p-value of a pair, corrected for the number of arms where that was done."""
    corrected = pair.get("p_holm")
    return float(pair["p"] if corrected is None else corrected)


def _escape(text: str) -> str:
    """Return a text from data on one line with Markdown's special characters escaped."""
    return _MARKUP.sub(r"\\\1", single_line(text))
