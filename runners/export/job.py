"""The request, the job and the result of an export, and the folder in which it is put together.

An export is written into a working folder next to its destination and published by one rename, so that it is complete
or not there at all. One that goes to a URL is written into a temporary folder and uploaded.
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
from runners.data.teachers import RowTeacher
from runners.export.registry import Target
from runners.export.source import ExportSource
from runners.models.cards import CARD_FILE
from runners.plan.arm_names import plain_name
from runners.runs.plan_models import MovedModels

EXPORT_KIND = "export"
SPARE_DISK_FACTOR = 1.02
"""Factor on the size of the files that must be free on the disk: room for folders, manifest and card."""
OUT_PLACEHOLDER = "{out}"
"""Where the export's folder is put into a command."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """The options of an export, as on the command line."""

    to: str
    """The name of the target."""
    arm: str | None = None
    """The arm to export; None for the one that the verdict says to use."""
    seed: int | None = None
    """The seed of its weights; None for the first."""
    out: Path | str | None = None
    """The folder to make, or as text the URL to upload to; None for one in `exports`."""
    overwrite: bool = False
    dtype: str = "auto"
    model: MovedModels = None
    """The folder of the run's base model, where it is not at the path in the plan."""


@dataclass(frozen=True, slots=True)
class ExportJob:
    """A running export: the maker writes its files into `folder`, which is renamed to `out` or uploaded at the end."""

    source: ExportSource
    target: Target
    folder: Path
    out: Path
    dtype: str = "auto"

    @property
    def name(self) -> str:
        """A name for the model or the file: the plan's and the arm's, with - for an @, which few programs take."""
        arm = self.source.arm
        return f"{self.source.plan.name}-{plain_name(arm.arm)}" if arm else self.source.plan.name


@dataclass(frozen=True, slots=True)
class ExportedFiles:
    """What a maker reports of the files it wrote."""

    usage: str
    """How to use them, in Markdown; paths are relative to the export's folder."""
    checked: Mapping[str, Any]
    """What was read back and compared, with the numbers."""
    line: tuple[str, ...] = ()
    """The command that uses the export, in parts, with {out} for the folder."""
    notes: tuple[str, ...] = ()
    """Notes for the user, a sentence each: what was left out, rounded or replaced."""
    kind: str = EXPORT_KIND
    """The manifest's kind; an exported adapter keeps "adapter", so that tunewise can load it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the manifest besides those of every export."""
    made_from: Mapping[str, Any] = field(default_factory=dict)
    """Rows for the card's table "Made from"."""
    teachers: tuple[RowTeacher, ...] = ()
    """Models that wrote training rows which are among the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export."""

    to: str
    arm: str | None
    seed: int | None
    out: Path | str
    """The folder, or the URL."""
    files: Mapping[str, int]
    """Bytes by name, without card and manifest."""
    checked: Mapping[str, Any]
    """What was read back and compared, with the numbers."""
    line: str
    """The command that uses the export; "" without one."""
    notes: tuple[str, ...]
    seconds: float
    again: bool = False
    """Whether a complete export of the same input existed already."""

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


def require_disk_space(out: Path, size: int) -> None:
    """Raise `CannotRun` when the disk of `out` has less than `size` bytes free, with a reserve."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size * SPARE_DISK_FACTOR > free:
        raise CannotRun(
            f"the export takes about {size / 2**20:,.0f} MiB at {out}, where {free / 2**20:,.0f} MiB are free",
            "free some space, or choose another --out (with a URL, another TMPDIR)",
        )


def existing_export(out: Path, made_from: str, overwrite: bool) -> dict[str, Any] | None:
    """Return the manifest of a complete export of the same input at `out`; None when a new one may be written.

    Args:
        out: the destination.
        made_from: the hash of the input.
        overwrite: whether an export of other input may be replaced.

    Raises:
        UsageProblem: `out` holds something that may not be replaced.
        BadInput: the export of the same input is damaged.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    manifest = _read_export_manifest(out)
    if not manifest:
        raise UsageProblem(f"{out} exists and is no export", "choose another --out")
    if overwrite:
        return None
    if manifest["export"].get("made_from") == made_from:
        try:
            return check_manifest(out, manifest["kind"], (CARD_FILE,))
        except BadInput as damage:
            raise BadInput(damage.message, "make it again with --overwrite") from None
    raise UsageProblem(
        f"{out} exists and was made from something else",
        "replace it with --overwrite, or choose another --out",
    )


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder next to `out`, locked against a second export; it is removed afterwards."""
    work = _work_folder(out)
    with disk_full_as_problem(out.parent), writer_lock(work):
        _restore(work, out)
        try:
            (work / "made").mkdir()
            yield work / "made"
        finally:
            _restore(work, out)
            shutil.rmtree(work, ignore_errors=True)


def refuse_working_directory(out: Path) -> None:
    """Raise `UsageProblem` when `out` is the current directory or a parent of it, which cannot be replaced."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise UsageProblem(
            f"{out} is where you are, and an export makes its own folder",
            f"name one that is not there yet: --out {out.resolve().name or 'exports'}-export",
        )


def remove_leftovers(out: Path) -> None:
    """Remove what a killed export left next to `out`, unless another export is running there."""
    work = _work_folder(out)
    if work.is_dir():
        with suppress(BadInput, CannotRun), writer_lock(work):
            _restore(work, out)
            shutil.rmtree(work, ignore_errors=True)


def seal_export(folder: Path, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write and return the manifest, with the hash of every file but the card, which users may edit."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    for name in names:
        (folder / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    return write_manifest(folder, kind, facts, [n for n in names if n not in (CARD_FILE, MANIFEST)])


def publish_export(folder: Path, out: Path) -> None:
    """Rename a sealed folder to `out`; an older export there is moved into the working folder first."""
    if out.exists():
        out.rename(folder.parent / "replaced")
    publish_folder(folder, out)


def shell_line(parts: Sequence[str], out: str) -> str:
    """Return a command's parts as one shell line, with `out` for the export's folder."""
    return shlex.join(part.replace(OUT_PLACEHOLDER, out) for part in parts)


def _work_folder(out: Path) -> Path:
    return out.parent / f".{out.name}.export"


def _restore(work: Path, out: Path) -> None:
    """Move back what a failed export had begun to replace, and remove its other files."""
    if (work / "replaced").exists() and not out.exists():
        (work / "replaced").rename(out)
    for name in ("made", "replaced"):
        shutil.rmtree(work / name, ignore_errors=True)


def _read_export_manifest(out: Path) -> dict[str, Any]:
    """Return the manifest of an export of this program, {} for any other folder."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        is_export = isinstance(manifest["export"], dict) and isinstance(manifest["kind"], str)
        return dict(manifest) if is_export else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
