"""What ``tunewise adapters`` prints: a table of all tuned weights, or one of them in full, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from advisor.output import emit_result, open_console
from rag.text.words import count_noun
from runners.models.adapters import StoredAdapter

COMBINED_SCORE = "combined"


def show_adapters(adapters: Sequence[StoredAdapter], as_json: bool) -> None:
    """Print all tuned weights, grouped by base model."""
    if as_json:
        body = {"schema": 1, "adapters": [adapter.to_json() for adapter in adapters]}
        emit_result(body)
        return
    console = open_console()
    if not adapters:
        console.print("no tuned weights here; make some with: tunewise train --examples FILE --out DIR")
        return
    cells = [_cells(adapter) for adapter in adapters]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    last_base = ""
    for adapter, row in zip(adapters, cells, strict=True):
        base = f"[bold]{escape(adapter.base or 'base unknown')}[/] [dim]{adapter.fingerprint[:16]}[/]"
        if base != last_base:
            console.print(base, soft_wrap=True, highlight=False)
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(f"  {escape(line.rstrip())}", soft_wrap=True, highlight=False)
        if adapter.problem:
            console.print(f"    [red]{escape(adapter.problem)}[/]", soft_wrap=True, highlight=False)
        last_base = base


def show_adapter(adapter: StoredAdapter, as_json: bool) -> None:
    """Print everything that is known of one folder of tuned weights."""
    if as_json:
        emit_result({"schema": 1, **adapter.to_json()})
        return
    base = f"{adapter.base} ({adapter.source} {adapter.revision})".replace(" )", ")")
    lines = {
        "folder": str(adapter.folder),
        "base": base,
        "weights of the base": adapter.fingerprint[:16],
        "tokenizer": adapter.tokenizer_sha256[:16],
        "chat template": adapter.template_sha256[:16] or "none; a plain one is stored with the adapter",
        "method": _method(adapter) + (f", rank {adapter.rank}" if adapter.rank else ""),
        "data": f"{', '.join(adapter.files)} {_text(adapter.rows)} rows, SHA-256 {adapter.data_sha256[:16]}".strip(),
        **({"teacher": " ".join(teacher.line for teacher in adapter.teachers)} if adapter.teachers else {}),
        "plan": adapter.plan_sha256[:16] or "none",
        "size": f"{adapter.bytes / 1e6:.1f} MB",
        "state": adapter.problem or "whole",
    }
    for name, score in adapter.scores.get("scores", {}).items():
        lines[name] = f"{_mean(score)} on {count_noun(score['n'], 'question')}"
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")


def _mean(score: Mapping[str, float]) -> str:
    return f"{score['mean']:.2f} {score['low']:.2f}–{score['high']:.2f}"


def _cells(adapter: StoredAdapter) -> tuple[str, ...]:
    """Return the cells of an adapter's row."""
    rank = f"rank {adapter.rank}" if adapter.rank else "all weights"
    rows = (
        f"{count_noun(adapter.rows, 'row')} {adapter.data_sha256[:8]}".rstrip()
        if adapter.rows is not None
        else ""
    )
    score = adapter.scores.get("scores", {}).get(COMBINED_SCORE)
    return (
        str(adapter.folder),
        _method(adapter),
        rank,
        rows,
        f"{COMBINED_SCORE} {_mean(score)}" if score else "not measured",
    )


def _method(adapter: StoredAdapter) -> str:
    return f"{adapter.method} {adapter.variant}" if adapter.variant not in ("", "lora") else adapter.method


def _text(value: object) -> str:
    return "" if value is None else str(value)
