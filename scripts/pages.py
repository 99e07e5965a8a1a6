"""What the scripts that write pages share: tables of Markdown, and the generated parts of pages that people write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

Part = Callable[[], list[str]]
PART = re.compile(
    r"(?P<start><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end of (?P=name) -->)", re.DOTALL
)
"""A generated part: what stands between two comments with its name."""


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table, with bars, line ends and tags in cells escaped."""
    body = [[" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (list(columns), ["---"] * len(columns), *body)]


def with_parts(page: str, parts: Mapping[str, Part]) -> str:
    """Return a page with its generated parts written again.

    Raises:
        ValueError: a part is not in the page exactly once, or the page has one that is not named.
    """
    names = [match["name"] for match in PART.finditer(page)]
    if sorted(names) != sorted(parts):
        raise ValueError(f"the page has the generated parts {sorted(names)}, not {sorted(parts)}")
    return PART.sub(
        lambda match: "\n".join([match["start"], *parts[match["name"]](), "", match["end"]]), page
    )
