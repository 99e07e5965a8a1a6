"""Where an export is put together and takes its place: whole, or not there. Light."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rag.durable import MANIFEST, check_manifest, publish_folder, write_manifest, writer_lock, writing_into
from rag.errors import BadInput, CannotRun, UsageProblem
from runners.card import CARD

KIND = "export"
SPARE = 1.02
"""Of what the files take, what must be free: folders, manifest and card."""


def require_room(out: Path, size: int) -> None:
    """Raise CannotRun when the disk of ``out`` has not ``size`` bytes free."""
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if size * SPARE > free:
        raise CannotRun(
            f"the export takes about {size / 2**20:,.0f} MiB at {out}, where {free / 2**20:,.0f} MiB are free",
            "free some space, or choose another --out",
        )


def already(out: Path, made_from: str, overwrite: bool) -> dict[str, Any] | None:
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
            return check_manifest(out, found["kind"], (CARD,))
        except BadInput as damage:
            raise BadInput(damage.message, "make it again with --overwrite") from None
    raise UsageProblem(
        f"{out} exists and was made from something else",
        "replace it with --overwrite, or choose another --out",
    )


@contextmanager
def prepared(out: Path) -> Iterator[Path]:
    """Give an empty folder beside ``out`` to work in, held against a second export; it is gone afterwards."""
    work = _work(out)
    with writing_into(out.parent), writer_lock(work):
        _restore(work, out)
        try:
            (work / "made").mkdir()
            yield work / "made"
        finally:
            _restore(work, out)
            shutil.rmtree(work, ignore_errors=True)


def refuse_here(out: Path) -> None:
    """Raise UsageProblem for the folder one stands in, or one around it: its name cannot change hands."""
    if Path.cwd().is_relative_to(out.resolve()):
        raise UsageProblem(
            f"{out} is where you are, and an export makes its own folder",
            f"name one that is not there yet: --out {out.resolve().name or 'exports'}-export",
        )


def tidy(out: Path) -> None:
    """Remove what an export that was killed left beside ``out``, unless another is at work there."""
    work = _work(out)
    if work.is_dir():
        with suppress(BadInput, CannotRun), writer_lock(work):
            _restore(work, out)
            shutil.rmtree(work, ignore_errors=True)


def seal(made: Path, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest over everything but the card, which people write on in; return it."""
    names = [p.relative_to(made).as_posix() for p in sorted(made.rglob("*")) if p.is_file()]
    for name in names:
        (made / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    return write_manifest(made, kind, facts, [n for n in names if n not in (CARD, MANIFEST)])


def publish(made: Path, out: Path) -> None:
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
