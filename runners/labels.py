"""Label tasks: recognised by their replies, and checked for balance and for contradictions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from runners.complaints import Check, place, places
from runners.example import Example, normalised

MOST_LABELS = 200
"""More different replies than this are not a choice between labels."""
MOST_SHARE = 0.8
"""From this share on, always answering with one label looks like success."""
FEWEST = 5
"""Fewer rows than this hardly teach a label."""


def labels_of(replies: Sequence[str]) -> tuple[str, ...]:
    """Return the labels when replies are a few short texts, each used about three times or more; else ()."""
    found = {reply.strip() for reply in replies}
    sentences = sum(bool(re.search(r"[.?!]$", label)) for label in found)
    short = all(len(x.split()) <= 6 and len(x) <= 60 for x in found) and sentences <= 0.05 * len(found)
    few = len(found) <= MOST_LABELS and len(replies) >= 3 * len(found) and len(found) >= 2
    return tuple(sorted(found)) if short and few else ()


def check(rows: Sequence[Example]) -> Check | None:
    """Return the check of a label task: one label for nearly all, labels with few rows, contradictions."""
    if not labels_of([row.reply for row in rows]):
        return None
    counts = Counter(row.reply.strip() for row in rows)
    given = defaultdict[str, list[Example]](list)
    for row in rows:
        given[normalised(row.question)].append(row)
    torn = [same for same in given.values() if len({row.reply.strip() for row in same}) > 1]
    complaints, lines, todo = [], [], []
    label, most = counts.most_common(1)[0]
    if most >= MOST_SHARE * len(rows):
        complaints.append(f"{most} of {len(rows)} rows have the label {_short(label)}")
    if rare := [name for name, count in counts.items() if count < FEWEST]:
        have = "label has" if len(rare) == 1 else "labels have"
        complaints.append(f"{len(rare)} {have} fewer than {FEWEST} rows ({', '.join(map(_short, rare[:3]))})")
        lines += [place(row) for row in rows if row.reply.strip() in set(rare)]
    if complaints:
        todo.append("balance the labels, and judge by each label's own score")
    if torn:
        todo.append("decide for one label where an input has several")
        complaints.append(f"{len(torn)} {'inputs have' if len(torn) > 1 else 'input has'} two labels or more")
        lines = [place(row) for same in torn for row in same] + lines
    least = min(counts.values())
    if not complaints:
        return Check("PF017", "ok", f"{len(counts)} labels, {least} to {most} rows each")
    return Check("PF017", "warn", "; ".join(complaints), places(lines), "; ".join(todo))


def _short(label: str) -> str:
    return repr(label if len(label) <= 30 else label[:29] + "…")
