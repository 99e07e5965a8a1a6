"""The part of docs/how-it-measures.md on simulated verdicts and rechecks, from benchmarks/simulated_verdicts.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.pages import table

RECORD = Path(__file__).resolve().parent.parent / "benchmarks" / "simulated_verdicts.json"
FALSE_TEXT = """\
Two equal arms, simulated through the function that decides: the share of trials in which one came out as surely better;
lowest and highest over strong and very strong luck by document, and documents alike and unlike in size. Nominal is .05. A
share is of {trials} trials, so chance alone moves it by up to {wobble}; the number of each is in
`benchmarks/simulated_verdicts.json`. `python -m benchmarks.simulated_verdicts --record` makes the tables again."""
POWER_TEXT = """\
How often an arm that is truly better is found, by 1.5 in log odds (about 50 against 75 right of 100), documents alike in
size; without luck by document, and with strong luck:"""
RECHECK_TEXT = """\
What a recheck prints as found with 80 % chance, and how often its decision found a loss of that size in {trials} simulated
rechecks of which 70 % of the answers were right. "Change by chance" is the share of the answers that come out otherwise
when asked again, half of them in either direction; every recheck states its loss by what it saw, so there it is a span."""

NEEDED_TEXT = """\
Further questions that an open verdict or recheck names, and how often so many more decided, in {trials} simulated trials
each. *As seen*: the true difference is the one that was seen, which is what the sentence assumes (nominal .80). *As it is*:
the difference is where the trial's questions came from, often smaller than the one seen. Trials that decided at once, or
named more than 2,000 questions, are left out."""
NEEDED_COLUMNS = (
    "of",
    "documents",
    "questions each",
    "open",
    "named, median (10 to 90 %)",
    "as seen",
    "as it is",
)
CROSSING_TEXT = """\
Learning curves of several arms at four sizes (`tunewise curve --arm all`): the share of {trials} simulated calls in which
any arm is called clearly ahead at any size where it is not better (nominal .05), and in which an arm that is better at the
two larger sizes, by so much in log odds, is clearly ahead of every other from one of these on."""


def simulated_section() -> list[str]:
    """Return the tables: false alarms and power by number of documents, the stated power of rechecks, and curves."""
    record = json.loads(RECORD.read_text("utf-8"))
    false = [*record["few"], *record["many"]]
    trials = {row["trials"] for row in false}
    each = sorted({row["each"] for row in record["few"]})
    columns = ("documents", *(f"{count} questions each" for count in each))
    return [
        FALSE_TEXT.format(
            trials=f"{min(trials)} to {max(trials)}",
            wobble=f"{2 * (0.05 * 0.95 / min(trials)) ** 0.5:.2f}"[1:],
        ),
        "",
        *table(columns, _rows(false, each, "false", " to ")),
        "",
        POWER_TEXT,
        "",
        *table(columns, _rows([*record["few power"], *record.get("many power", ())], each, "found", ", ")),
        "",
        RECHECK_TEXT.format(trials=record["recheck"][0]["trials"]),
        "",
        *table(
            ("questions", "of a document", "margin", "change by chance", "stated loss", "found"),
            [
                (
                    str(row["questions"]),
                    str(row["each"]),
                    f"{row['margin']:g}",
                    f"{row['flips']:g}",
                    " to ".join(str(count) for count in dict.fromkeys(row["stated"])),
                    f"{row['found']:.2f}",
                )
                for row in record["recheck"]
            ],
        ),
        "",
        NEEDED_TEXT.format(trials=record["needed"][0]["trials"]),
        "",
        *table(
            NEEDED_COLUMNS,
            [_needed_row(row) for row in record["needed"]],
        ),
        "",
        CROSSING_TEXT.format(trials=record["crossings"][0]["trials"]),
        "",
        *table(
            ("arms", "questions", "better by", "wrongly ahead", "found"),
            [
                (
                    str(row["arms"]),
                    str(row["questions"]),
                    f"{row['lift']:g}",
                    f"{row['false']:.3f}"[1:],
                    f"{row['found']:.2f}" if row["lift"] else "–",
                )
                for row in record["crossings"]
            ],
        ),
    ]


def _needed_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    low, median, high = row["named"]
    as_it_is = f"{row['as it is']:.2f}" if "as it is" in row else "–"
    counts = (str(row["documents"]), str(row["each"]), str(row["open"]))
    return (row["of"], *counts, f"{median} ({low} to {high})", f"{row['as seen']:.2f}", as_it_is)


def _rows(
    rows: Sequence[Mapping[str, Any]], each: Sequence[int], key: str, between: str
) -> list[tuple[str, ...]]:
    """Return a row for each number of documents: of false alarms the lowest and highest, else every value."""
    lines = []
    for documents in sorted({row["documents"] for row in rows}):
        cells = []
        for count in each:
            shares = [row[key] for row in rows if (row["documents"], row["each"]) == (documents, count)]
            shown = [min(shares), max(shares)] if key == "false" and shares else shares
            cells.append(
                "–"
                if not shares
                else between.join(f"{share:.3f}"[1:] if share < 1 else "1" for share in shown)
            )
        lines.append((str(documents), *cells))
    return lines
