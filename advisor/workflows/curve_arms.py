"""Several arms of ``tunewise curve`` together: one result, the comparisons between them, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advisor.output import print_plain
from advisor.report.learning_curve import LEADER, LEADER_TEXT
from advisor.verdict.crossings import compare_curves
from runners.trial.curve_points import CurvePointName

if TYPE_CHECKING:
    from rich.console import Console

    from runners.trial.curve import Curves
    from runners.trial.trial import ArmScores

MAX_COLUMNS = 160
"""Widest table of rows by arms; more arms follow in a table below."""
SPACE = 2


def arms_json(
    opened: Curves,
    results: Sequence[dict[str, Any]],
    scores: Sequence[Mapping[CurvePointName, ArmScores]],
) -> dict[str, Any]:
    """Return the result of several arms: each one's own, and with how many rows which is clearly ahead of which.

    Args:
        opened: the curves; arms that failed are in ``left_out``.
        results: what ``curve --json`` prints of each arm alone.
        scores: the scores of each arm's points.
    """
    first = results[0]
    compared = compare_curves(
        {
            setup.arm.arm: {
                size: [own[CurvePointName(setup.arm.arm, size, seed)] for seed in first["seeds"]]
                for size in setup.sizes
            }
            for setup, own in zip(opened.setups, scores, strict=True)
        },
        opened.setups[0].source.seed,
    )
    warnings = unmeasured_lines(opened)
    for result in results:
        shared = [line for line in result["warnings"] if all(line in other["warnings"] for other in results)]
        arm = result["arm"]
        own = [
            line if line.startswith(arm) else f"{arm}: {line}"
            for line in result["warnings"]
            if line not in shared
        ]
        warnings += [line for line in (*shared, *own) if line not in warnings]
    return {
        **{key: first[key] for key in ("schema", "name", "score", "rows", "questions", "seeds")},
        "model": ", ".join(dict.fromkeys(result["model"] for result in results)),
        "sizes": list(opened.setups[0].sizes),
        "arms": list(results),
        "left_out": [{"arm": arm, "reason": str(problem)} for arm, problem in opened.left_out.items()],
        "crossings": compared.to_json(),
        "seconds": round(sum(result["seconds"] for result in results), 1),
        "warnings": warnings,
        "folder": str(opened.folder),
        "text": " ".join(compared.sentences()) or first["text"],
    }


def unmeasured_lines(opened: Curves) -> list[str]:
    """Return which arms are not measured, with the reason."""
    return [f"{arm} is not measured: {problem}" for arm, problem in opened.left_out.items()]


def show_curve_arms(data: Mapping[str, Any], console: Console) -> None:
    """Print rows by arms, no wider than :data:`MAX_COLUMNS`, and what is decided between the arms."""
    from rich.table import Table

    leaders = {row["n"]: row["arm"] for row in data["crossings"]["leaders"]}
    sizes = [f"{size:,}" for size in data["sizes"]]
    columns = [
        (curve["arm"], [_cell(row, leaders[row["n"]] == curve["arm"]) for row in curve["points"]])
        for curve in data["arms"]
    ]
    width = min(console.width, MAX_COLUMNS) - max(map(len, ("rows", *sizes)))
    for block in _blocks(columns, width):
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, SPACE, 0, 0))
        for title in ("rows", *(name for name, _ in block)):
            table.add_column(title, justify="right", no_wrap=True)
        for position, size in enumerate(sizes):
            table.add_row(size, *(cells[position] for _, cells in block))
        console.print(table)
    print_plain(console, f"combined score, 95 % interval, right answers; {LEADER_TEXT}")
    for line in data["crossings"]["sentences"] or [data["text"]]:
        print_plain(console, line)


def _cell(row: Mapping[str, Any], leads: bool) -> str:
    right = "" if row["right"] is None else f"  {row['right']:g}/{row['of']}"
    return f"{row['score']:.3f}{LEADER if leads else ' '} {row['low']:.2f}–{row['high']:.2f}{right}"


def _blocks(columns: Sequence[tuple[str, list[str]]], width: int) -> list[list[tuple[str, list[str]]]]:
    """Return the columns in groups that fit into a width; one that does not stands alone."""
    blocks, used = list[list[tuple[str, list[str]]]](), width
    for name, cells in columns:
        wide = SPACE + max(len(name), *map(len, cells))
        if not blocks or used + wide > width:
            blocks, used = [*blocks, []], 0
        blocks[-1].append((name, cells))
        used += wide
    return blocks
