"""What an export is asked for, what its maker hands back, and what the caller gets. Light."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.export.parcel import KIND
from runners.export.source import Source
from runners.export.targets import Target

OUT = "{out}"


def quoted(parts: Sequence[str], out: str) -> str:
    """Return a command's parts as one line for a shell, with the export's folder put in."""
    return shlex.join(part.replace(OUT, out) for part in parts)


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as on the command line."""

    to: str
    arm: str | None = None
    seed: int | None = None
    out: Path | None = None
    overwrite: bool = False
    dtype: str = "auto"
    model: Path | None = None
    """The folder of the run's base, where that lies elsewhere than the plan says."""


@dataclass(frozen=True, slots=True)
class Job:
    """One export at work: the maker writes its files into `made`, which will be called `out`."""

    source: Source
    target: Target
    made: Path
    out: Path
    dtype: str = "auto"

    @property
    def name(self) -> str:
        """A name for the model or the file: the plan's and the arm's."""
        arm = self.source.arm
        return f"{self.source.plan.name}-{arm.arm}" if arm else self.source.plan.name


@dataclass(frozen=True, slots=True)
class Made:
    """What a maker says of its files."""

    how: str
    """How to use them, in Markdown; paths begin in the export's own folder."""
    checked: Mapping[str, Any]
    """What was read back and compared, with the numbers."""
    line: tuple[str, ...] = ()
    """The one command that uses it, in parts, with {out} for the folder."""
    notes: tuple[str, ...] = ()
    """What a user should know: what was left out, rounded or put instead, a sentence each."""
    kind: str = KIND
    """The manifest's kind: "adapter" stays one, so that tunewise goes on knowing it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys that the manifest keeps beside those of every export."""
    of: Mapping[str, Any] = field(default_factory=dict)
    """Rows for the card's table of what it was made from."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export."""

    to: str
    arm: str | None
    seed: int | None
    out: Path
    files: Mapping[str, int]
    """Bytes by name, card and manifest not counted."""
    checked: Mapping[str, Any]
    line: str
    notes: tuple[str, ...]
    seconds: float
    again: bool = False
    """Whether it was there already, whole and made from the same things."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``export --json`` prints."""
        return {
            "schema": 1, "to": self.to, "arm": self.arm, "seed": self.seed, "out": str(self.out),
            "files": [{"name": n, "bytes": b} for n, b in self.files.items()], "bytes": sum(self.files.values()),
            "checked": dict(self.checked), "line": self.line or None, "notes": list(self.notes),
            "again": self.again, "seconds": self.seconds,
        }  # fmt: skip
