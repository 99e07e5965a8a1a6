"""What an export is asked for, what its maker hands back, and what the caller gets. Light.

Where an export is put together and takes its place: whole, or not there. Light.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import (
    MANIFEST,
    check_manifest,
    disk_full_as_problem,
    publish_folder,
    write_manifest,
    writer_lock,
)
from runners.export.registry import Target
from runners.export.source import ExportSource
from runners.models.cards import CARD_FILE

EXPORT_KIND = "export"
SPARE_DISK_FACTOR = 1.02
"""Of what the files take, what must be free: folders, manifest and card."""


def require_disk_space(out: Path, size: int) -> None:
    """Raise CannotRun when the disk of ``out`` has not ``size`` bytes free."""
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if size * SPARE_DISK_FACTOR > free:
        raise CannotRun(
            f"the export takes about {size / 2**20:,.0f} MiB at {out}, where {free / 2**20:,.0f} MiB are free",
            "free some space, or choose another --out",
        )


def existing_export(out: Path, made_from: str, overwrite: bool) -> dict[str, Any] | None:
    """Return the manifest of a whole export of the same things at ``out``; None where there is room for a new one.

    Raises UsageProblem for anything else that stands there, unless it is an export and ``overwrite`` is given.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    found = _exported(out)
    if not found:
        raise UsageProblem(f"{out} exists and is no export", "choose another --out")
    if overwrite:
        return None
    if found["export"].get("made_from") == made_from:
        try:
            return check_manifest(out, found["kind"], (CARD_FILE,))
        except BadInput as damage:
            raise BadInput(damage.message, "make it again with --overwrite") from None
    raise UsageProblem(
        f"{out} exists and was made from something else",
        "replace it with --overwrite, or choose another --out",
    )


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside ``out`` to work in, held against a second export; it is gone afterwards."""
    work = _work(out)
    with disk_full_as_problem(out.parent), writer_lock(work):
        _restore(work, out)
        try:
            (work / "made").mkdir()
            yield work / "made"
        finally:
            _restore(work, out)
            shutil.rmtree(work, ignore_errors=True)


def refuse_working_directory(out: Path) -> None:
    """Raise UsageProblem for the folder one stands in, or one around it: its name cannot change hands."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise UsageProblem(
            f"{out} is where you are, and an export makes its own folder",
            f"name one that is not there yet: --out {out.resolve().name or 'exports'}-export",
        )


def remove_leftovers(out: Path) -> None:
    """Remove what an export that was killed left beside ``out``, unless another is at work there."""
    work = _work(out)
    if work.is_dir():
        with suppress(BadInput, CannotRun), writer_lock(work):
            _restore(work, out)
            shutil.rmtree(work, ignore_errors=True)


def seal_export(made: Path, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest over everything but the card, which people write on in; return it."""
    names = [p.relative_to(made).as_posix() for p in sorted(made.rglob("*")) if p.is_file()]
    for name in names:
        (made / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    return write_manifest(made, kind, facts, [n for n in names if n not in (CARD_FILE, MANIFEST)])


def publish_export(made: Path, out: Path) -> None:
    """Give a sealed folder its name in one rename; what was there before gives way first."""
    if out.exists():
        out.rename(made.parent / "replaced")
    publish_folder(made, out)


def _work(out: Path) -> Path:
    return out.parent / f".{out.name}.export"


def _restore(work: Path, out: Path) -> None:
    """Put back what an export that failed or was cut off had begun to replace, and clear what else it left."""
    if (work / "replaced").exists() and not out.exists():
        (work / "replaced").rename(out)
    for name in ("made", "replaced"):
        shutil.rmtree(work / name, ignore_errors=True)


def _exported(out: Path) -> dict[str, Any]:
    """Return the manifest of a folder that this program exported, {} for any other."""
    try:
        found = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        return dict(found) if isinstance(found["export"], dict) and isinstance(found["kind"], str) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


OUT_PLACEHOLDER = "{out}"


def shell_line(parts: Sequence[str], out: str) -> str:
    """Return a command's parts as one line for a shell, with the export's folder put in."""
    return shlex.join(part.replace(OUT_PLACEHOLDER, out) for part in parts)


@dataclass(frozen=True, slots=True)
class ExportRequest:
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
class ExportJob:
    """One export at work: the maker writes its files into `made`, which will be called `out`."""

    source: ExportSource
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
class ExportedFiles:
    """What a maker says of its files."""

    how: str
    """How to use them, in Markdown; paths begin in the export's own folder."""
    checked: Mapping[str, Any]
    """What was read back and compared, with the numbers."""
    line: tuple[str, ...] = ()
    """The one command that uses it, in parts, with {out} for the folder."""
    notes: tuple[str, ...] = ()
    """What a user should know: what was left out, rounded or put instead, a sentence each."""
    kind: str = EXPORT_KIND
    """The manifest's kind: "adapter" stays one, so that tunewise goes on knowing it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys that the manifest keeps beside those of every export."""
    of: Mapping[str, Any] = field(default_factory=dict)
    """Rows for the card's table of what it was made from."""


@dataclass(frozen=True, slots=True)
class ExportResult:
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
            "schema": 1,
            "to": self.to,
            "arm": self.arm,
            "seed": self.seed,
            "out": str(self.out),
            "files": [{"name": n, "bytes": b} for n, b in self.files.items()],
            "bytes": sum(self.files.values()),
            "checked": dict(self.checked),
            "line": self.line or None,
            "notes": list(self.notes),
            "again": self.again,
            "seconds": self.seconds,
        }
