"""Questions with answers in documents: rows of a table or of JSON Lines, and headings of Markdown that ask.

:func:`faq_pairs` reads them. A file that is anything else has none.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

MAX_FAQ_BYTES = 5_000_000
"""Size of a file above which it is not looked at: a list of questions with answers is smaller."""
_HEADING = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*\s*$", re.MULTILINE)


def faq_pairs(documents: Path) -> list[tuple[str, str]]:
    """Return (question, answer) of the documents that are questions with answers, in the order of the files' names.

    Read are ``.jsonl`` and ``.csv`` with the fields ``question`` and ``answer`` in every row, and ``.md`` files in which at
    least two headings, and at least half of all, end with a question mark; the text below such a heading is its answer.
    """
    files = sorted(documents.rglob("*")) if documents.is_dir() else [documents]
    pairs: list[tuple[str, str]] = []
    for file in files:
        reader = {".jsonl": _json_rows, ".csv": _table_rows, ".md": _headings}.get(file.suffix.lower())
        if reader is None or not file.is_file() or file.stat().st_size > MAX_FAQ_BYTES:
            continue
        try:
            pairs += reader(file.read_text("utf-8-sig"))
        except (OSError, ValueError, csv.Error):  # what cannot be read is reported by the index
            continue
    return pairs


def _json_rows(text: str) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return list(_pairs_of(rows))


def _table_rows(text: str) -> list[tuple[str, str]]:
    return list(_pairs_of(list(csv.DictReader(io.StringIO(text, newline="")))))


def _pairs_of(rows: list[object]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of rows that all have both fields; nothing where one has not."""
    values = [
        {str(key).strip().lower(): value for key, value in row.items()} if isinstance(row, dict) else {}
        for row in rows
    ]
    if all(isinstance(row.get(key), str) for row in values for key in ("question", "answer")):
        for row in values:
            yield str(row["question"]).strip(), str(row["answer"]).strip()


def _headings(text: str) -> list[tuple[str, str]]:
    matches = list(_HEADING.finditer(text))
    asking = [match for match in matches if match["text"].endswith("?")]
    if len(asking) < 2 or 2 * len(asking) < len(matches):
        return []
    ends = [match.start() for match in matches[1:]] + [len(text)]
    return [
        (match["text"], text[match.end() : end].strip())
        for match, end in zip(matches, ends, strict=True)
        if match["text"].endswith("?")
    ]
