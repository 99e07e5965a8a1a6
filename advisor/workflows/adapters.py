"""The adapter store for people and as JSON: a table of all tuned weights, one of them in full."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from advisor.output import emit_result, format_interval
from runners.models.adapters import StoredAdapter

COMBINED_SCORE = "combined"


def show_adapters(stored: Sequence[StoredAdapter], as_json: bool) -> None:
    """Print all tuned weights, grouped by base."""
    if as_json:
        body = {"schema": 1, "adapters": [one.to_json() for one in stored]}
        emit_result(body)
        return
    console = Console()
    if not stored:
        console.print("no tuned weights here; make some with: tunewise train --examples FILE --out DIR")
        return
    cells = [_cells(one) for one in stored]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    before = ""
    for one, row in zip(stored, cells, strict=True):
        base = f"[bold]{escape(one.base or 'base unknown')}[/] [dim]{one.fingerprint[:16]}[/]"
        if base != before:
            console.print(base, soft_wrap=True, highlight=False)
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(f"  {escape(line.rstrip())}", soft_wrap=True, highlight=False)
        if one.problem:
            console.print(f"    [red]{escape(one.problem)}[/]", soft_wrap=True, highlight=False)
        before = base


def _cells(one: StoredAdapter) -> tuple[str, ...]:
    rank = f"rank {one.rank}" if one.rank else "all weights"
    rows = f"{one.rows} rows {one.data_sha256[:8]}".rstrip() if one.rows is not None else ""
    found = one.scores.get("scores", {}).get(COMBINED_SCORE)
    return (
        str(one.folder),
        _method(one),
        rank,
        rows,
        f"{COMBINED_SCORE} {found['mean']:.2f} {format_interval(found)}" if found else "not measured",
    )


def show_adapter(one: StoredAdapter, as_json: bool) -> None:
    """Print everything that is known of one folder of tuned weights."""
    if as_json:
        emit_result({"schema": 1, **one.to_json()})
        return
    where = f"{one.base} ({one.source} {one.revision})".replace(" )", ")")
    lines = {
        "folder": str(one.folder),
        "base": where,
        "weights of the base": one.fingerprint[:16],
        "tokenizer": one.tokenizer_sha256[:16],
        "chat template": one.template_sha256[:16] or "none, a plain one is kept",
        "method": _method(one) + (f", rank {one.rank}" if one.rank else ""),
        "data": f"{', '.join(one.files)} {_text(one.rows)} rows, SHA-256 {one.data_sha256[:16]}".strip(),
        "plan": one.plan_sha256[:16] or "none",
        "size": f"{one.bytes / 1e6:.1f} MB",
        "state": one.problem or "whole",
    }
    for name, score in one.scores.get("scores", {}).items():
        lines[name] = f"{score['mean']:.2f} {format_interval(score)} on {score['n']} questions"
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def _method(one: StoredAdapter) -> str:
    return f"{one.method} {one.variant}" if one.variant not in ("", "lora") else one.method


def _text(value: object) -> str:
    return "" if value is None else str(value)
