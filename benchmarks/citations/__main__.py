"""How statements that others wrote are judged by citations, by kind, with 95 % Wilson intervals.

A file has a JSON object a line: ``id``, ``kind``, ``title``, ``passage``, ``statement`` and ``label`` (supported, partly or
unsupported). A statement has the lowest level of its sentences' citations, as ``ask`` shows them.

    python -m benchmarks.citations benchmarks/citations/FILE.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rag
from rag.evaluation.statistics import WilsonShare
from rag.types import Chunk, Hit

LEVELS = ("unsupported", "partly", "supported")
COLUMNS = (
    ("false called supported", ("unsupported", "partly"), "supported"),
    ("true called supported", ("supported",), "supported"),
    ("partly found", ("partly",), "partly"),
)
"""Each measure: what is counted, the labels among which, and the level that counts."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A statement with its label and the level that it was given."""

    row: dict[str, str]
    level: str


def main() -> None:
    """Print the table, the time of a statement, and with ``--show`` what was judged otherwise than labelled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", action="store_true", help="list what was judged otherwise than labelled")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.file.read_text("utf-8").splitlines() if line.strip()]
    started = time.perf_counter()
    judged = [Judged(row=row, level=level_of(row)) for row in rows]
    milliseconds = 1000 * (time.perf_counter() - started) / max(1, len(rows))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    print(f"| kind | n | {' | '.join(name for name, _, _ in COLUMNS)} |\n|---|---:|{'---|' * len(COLUMNS)}")
    for kind in kinds:
        print_row(kind, [each for each in judged if each.row["kind"] == kind])
    print_row("all", judged)
    print(f"\n{milliseconds:.1f} ms a statement")
    for each in judged if given.show else ():
        if each.level != each.row["label"]:
            row = each.row
            print(f"\n{row['id']} {row['kind']}: {row['label']}, judged {each.level}\n  {row['passage']}")
            print(f"  -> {row['statement']}")


def level_of(row: dict[str, str]) -> str:
    """Return the lowest level among the citations of a row's statement."""
    passage = row["passage"]
    chunk = Chunk(0, row["id"], row.get("title", ""), 0, passage, 0, len(passage))
    found = {citation.support for citation in rag.cite(row["statement"], [Hit(chunk, 1.0, 1.0, 1.0)])}
    return next((level for level in LEVELS if level in found), "unsupported")


def print_row(kind: str, judged: Sequence[Judged]) -> None:
    """Print one line of the table."""
    cells = []
    for _, labels, level in COLUMNS:
        counted = [each.level == level for each in judged if each.row["label"] in labels]
        cells.append(WilsonShare.of(sum(counted), len(counted)).short())
    print(f"| {kind} | {len(judged)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
