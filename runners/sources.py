"""The files that examples are read from: one file, or all that a folder holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from runners.rows import READERS

TEXTS = (".txt", ".md")
"""Files that are one text each, learnt as it is."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of the folder that is not read, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The files to read, in order, and those that are not."""

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...] = ()

    def name(self, path: Path) -> str:
        """Return a file's name as it is shown: from the folder that was given, with / between."""
        return path.name if path == self.root else path.relative_to(self.root).as_posix()


def find(path: Path) -> Sources:
    """Return the file, or every file under the folder in the order of their names, hidden ones ignored.

    Plain texts (.txt, .md) are read when a folder holds nothing else: beside rows they are a README or a
    licence. Raises BadInput when there is nothing to read.
    """
    if not path.is_dir():
        return Sources(path, (path,))
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    seen = [path / name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    rows = [p for p in seen if p.suffix.lower() in READERS]
    files = rows or [p for p in seen if p.suffix.lower() in TEXTS]
    skipped = []
    for other in (p for p in seen if p not in set(files)):
        text = other.suffix.lower() in TEXTS
        why = "a text beside files of rows" if text else f"{other.suffix or 'no ending'} is not read"
        skipped.append(Skipped(other.relative_to(path).as_posix(), why))
    if not files:
        known = ", ".join((*READERS, *TEXTS))
        raise BadInput(f"{path} is a folder without a file of examples", f"it needs files ending in {known}")
    return Sources(path, tuple(files), tuple(skipped))
