"""The checks before a training run: their codes and titles, and the result of one check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from runners.data.examples import RowPlace

CheckLevel = Literal["ok", "warn", "stop"]
"""ok: checked and fine; warn: worth knowing, the run continues; stop: the run would be wasted."""
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
"""Title of each check; the failures of training.md are among them, each with a test that provokes it."""
MACHINE_CODES = frozenset(("PF020", "PF021", "PF022", "PF023", "PF024"))
"""Checks of this machine and not of the data: when only these stop the run, the exit code is 4, not 3."""
ACCEPTABLE_CODES = frozenset(("PF013", "PF014", "PF016", "PF022", "PF023", "PF024"))
"""Checks whose stop the user may overrule; the others would be refused by the run itself."""
MAX_PLACES = 5
"""Most rows named for one finding; the text has the count."""


@dataclass(frozen=True, slots=True)
class PreflightCheck:
    """The result of one check."""

    code: str
    level: CheckLevel
    text: str
    rows: tuple[RowPlace, ...] = ()
    """The rows that the finding is about, at most MAX_PLACES."""
    next: str = ""
    """What to do about it, "" when nothing needs to be done."""
    placed: bool = False
    """Whether the text names the rows already."""

    @property
    def title(self) -> str:
        """Title of the check."""
        return CHECK_CODES[self.code]

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        values = {**asdict(self), "title": self.title, "rows": list(self.rows)}
        del values["placed"]
        return values

    def sentence(self) -> str:
        """Return text and rows in one line, for an error or an event."""
        if not self.rows or self.placed:
            return self.text
        return f"{self.text} (line{'s' if len(self.rows) > 1 else ''} {', '.join(map(str, self.rows))})"


def first_places(lines: Iterable[RowPlace]) -> tuple[RowPlace, ...]:
    """Return the first MAX_PLACES different rows."""
    return tuple(dict.fromkeys(lines))[:MAX_PLACES]


def count_of_rows(count: int) -> str:
    """Return "1 row" or "1,200 rows"."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def gravest_per_code(checks: Iterable[PreflightCheck]) -> tuple[PreflightCheck, ...]:
    """Return one check per code, the gravest and of equals the first, in the order of the codes."""
    gravest = dict[str, PreflightCheck]()
    for check in checks:
        known = gravest.setdefault(check.code, check)
        if CHECK_LEVELS.index(check.level) > CHECK_LEVELS.index(known.level):
            gravest[check.code] = check
    return tuple(gravest[code] for code in sorted(gravest))
