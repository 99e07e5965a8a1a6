"""Everything that is checked before a training run, by code: the table of contents of the preflight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runners.data.examples import RowPlace

CheckLevel = Literal["ok", "warn", "stop"]
"""ok: looked at and fine; warn: worth knowing, the run goes on; stop: it would waste the run."""

CHECK_LEVELS: tuple[CheckLevel, ...] = ("ok", "warn", "stop")
CHECK_CODES: Mapping[str, str] = {
    "PF001": "rows",
    "PF002": "row length",
    "PF003": "something to learn",
    "PF004": "end of answers",
    "PF005": "padding",
    "PF006": "both sides",
    "PF007": "chat template",
    "PF008": "round trip",
    "PF009": "golden prompt",
    "PF010": "control tokens",
    "PF011": "template family",
    "PF012": "repeats",
    "PF013": "leak to questions",
    "PF014": "leak to validation",
    "PF015": "personal data",
    "PF016": "secrets",
    "PF017": "labels",
    "PF018": "reply length",
    "PF019": "context",
    "PF020": "device",
    "PF021": "4-bit",
    "PF022": "memory",
    "PF023": "one step",
    "PF024": "disk",
}
"""What each check is called; training.md's failures are in it, each with a test that provokes it."""
MACHINE_CODES = frozenset(("PF020", "PF021", "PF022", "PF023", "PF024"))
"""Checks of this machine and not of the data: a stop among them means exit code 4, not 3."""
ACCEPTABLE_CODES = frozenset(("PF013", "PF014", "PF016", "PF022", "PF023", "PF024"))
"""Checks whose stop a person may overrule, knowing better; the others would be refused by the run itself."""
MAX_PLACES = 5
"""Rows named for one complaint at most; the text has the count."""


@dataclass(frozen=True, slots=True)
class PreflightCheck:
    """One thing that was looked at, and what was found."""

    code: str
    level: CheckLevel
    text: str
    rows: tuple[RowPlace, ...] = ()
    """Where: up to five lines."""
    next: str = ""
    """What to do about it, "" when nothing needs doing."""
    placed: bool = False
    """Whether the text names the rows itself."""

    @property
    def title(self) -> str:
        """Return what is checked, in a word or two."""
        return CHECK_CODES[self.code]

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        values = {**asdict(self), "title": self.title, "rows": list(self.rows)}
        del values["placed"]
        return values

    def sentence(self) -> str:
        """Return text and places in one line, for an error or an event."""
        if not self.rows or self.placed:
            return self.text
        return f"{self.text} (line{'s' if len(self.rows) > 1 else ''} {', '.join(map(str, self.rows))})"


def first_places(lines: Iterable[RowPlace]) -> tuple[RowPlace, ...]:
    """Return the first few different places."""
    return tuple(dict.fromkeys(lines))[:MAX_PLACES]


def count_of_rows(count: int) -> str:
    """Return "1 row" or "1,200 rows"."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def gravest_per_code(checks: Iterable[PreflightCheck]) -> tuple[PreflightCheck, ...]:
    """Return one check per code, the gravest and of equals the first, in the order of the codes."""
    found = dict[str, PreflightCheck]()
    for check in checks:
        known = found.setdefault(check.code, check)
        if CHECK_LEVELS.index(check.level) > CHECK_LEVELS.index(known.level):
            found[check.code] = check
    return tuple(found[code] for code in sorted(found))
