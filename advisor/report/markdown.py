"""The report as Markdown, short enough for a pull request."""

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
    out = [
        f"## tunewise: {_said(data['name'])}",
        "",
        f"**{verdict['outcome'].upper()}** ({verdict['strength']}). {_said(verdict['text'])}",
        "",
        *([f"{_said(verdict['taught'])}", ""] if verdict.get("taught") else ()),
    ]
    out += [f"> {_said(warning)}" for warning in data.get("warnings") or []]
    out += [*_arms(data), "", *_pairs(data), "", *_stale(data), *_how(data)]
    return "\n".join(out) + "\n"


def _arms(data: Mapping[str, Any]) -> list[str]:
    weights = data["weights"]
    names = [n for n in weights if weights[n] and any(n in arm["scores"] for arm in data["arms"])]
    head = ["arm", "combined (95 %)", *(n.replace("_", " ") for n in names), "s/answer"]
    rows = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for arm in data["arms"]:
        named = f"**{_said(arm['arm'])}**" if arm["arm"] == data["verdict"]["winner"] else _said(arm["arm"])
        each = [f"{arm['scores'][n]['mean']:.2f}" if n in arm["scores"] else "–" for n in names]
        combined = f"{arm['score']['mean']:.2f} ({format_interval(arm['score'])})"
        cells = [named, combined, *each, f"{arm['seconds_per_answer']:.2f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _pairs(data: Mapping[str, Any]) -> list[str]:
    rows = [f"| {_said(data['verdict']['recommended'])} against | difference (95 %) | p |", "|---|---:|---:|"]
    for pair in data["paired"]:
        found = f"{pair['difference']:+.2f} ({format_interval(pair, signed=True)})"
        rows.append(f"| {_said(pair['b'])} | {found} | {_chance(pair):.4f} |")
    return rows if data["paired"] else []


def _stale(data: Mapping[str, Any]) -> list[str]:
    stale = data["guards"].get("staleness")
    if not stale:
        return []
    moved = [
        f"{_said(r['arm'])} new fact {r['new_before']} → {r['new_after']}, "
        f"old {r['old_before']} → {r['old_after']} of {r['n']}"
        for r in stale["arms"]
    ]
    return [f"After the documents changed: {'; '.join(moved)}.", ""]


def _how(data: Mapping[str, Any]) -> list[str]:
    source, machine = data.get("data") or {}, data.get("environment") or {}
    count = max((arm["n"] for arm in data["arms"]), default=0)
    packages = ", ".join(f"{name} {v}" for name, v in (machine.get("packages") or {}).items())
    digests = ", ".join(f"{k} `{source[k][:12]}`" for k in ("plan", "split", "base") if source.get(k))
    told = f"{count} held-out questions, {_said(data['verdict']['model'])}, seed {source.get('seed', 0)}; {digests}."
    return [
        "<details><summary>How it was measured</summary>",
        "",
        told,
        "",
        f"{_said(str(machine.get('processor', '')))}, {machine.get('cores')} cores, {machine.get('ram_gib')} GiB RAM, "
        f"GPU {_said(str(machine.get('gpu', 'none')))}, {machine.get('system')}, Python {machine.get('python')}; "
        f"{packages}.",
        "",
        "</details>",
    ]


def _chance(pair: Mapping[str, Any]) -> float:
    """A pair's p, corrected for the number of arms where it was."""
    corrected = pair.get("p_holm")
    return float(pair["p"] if corrected is None else corrected)


def _said(text: str) -> str:
    """A text that somebody wrote: on one line, and nothing of it markup."""
    return _MARKUP.sub(r"\\\1", single_line(text))
