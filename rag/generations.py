"""Immutable generations of derived files, and the one pointer that says which is current.

::

    INDEX/CURRENT          "gen-000002 HASH", replaced atomically: the moment an update becomes visible;
                           the hash is that of the generation's manifest
    INDEX/gen-000002/      vectors, BM25, manifest.json (hashes, fingerprint, settings, counts, next id)
    INDEX/gen-000001/      the generation before, kept for readers that still use it
    INDEX/text.sqlite      documents and chunks of all kept generations
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.durable import (
    MANIFEST,
    check_manifest,
    publish_folder,
    read_manifest,
    sha256_file,
    write_manifest,
    write_text,
)
from rag.errors import BadInput

KIND = "tunewise-index-generation"
CURRENT = "CURRENT"
KEEP = 2
REPAIR = "mend it: tunewise index check INDEX --repair"
_NAME = re.compile(r"gen-(\d{6,})")
_MOST = 2**53
_LEFT = re.compile(r"\.gen-\d{6,}\.tmp|\.[A-Za-z.]+\.\w+\.tmp")
_POINTER = re.compile(r"gen-(\d{6,}) ([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class Generation:
    """A published generation whose files were verified."""

    number: int
    path: Path
    manifest: dict[str, Any]


def name(number: int) -> str:
    """Return the folder name of a generation."""
    return f"gen-{number:06d}"


def current(folder: Path) -> int:
    """Return the current generation's number, 0 when the folder has none; BadInput on a broken pointer."""
    return _pointer(folder)[0]


def _pointer(folder: Path) -> tuple[int, str]:
    try:
        text = (folder / CURRENT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0, ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder / CURRENT} cannot be read: {error}") from error
    if not (match := _POINTER.fullmatch(text)):
        raise BadInput(f"{folder / CURRENT} is damaged: it says {text[:40]!r}", REPAIR)
    return int(match.group(1)), match.group(2)


def verified(folder: Path, number: int) -> Generation:
    """Return a generation after checking every file's hash, before anything in it is parsed."""
    path = folder / name(number)
    try:
        manifest = check_manifest(path, KIND)
    except BadInput as error:
        raise BadInput(error.message, error.hint or REPAIR) from error
    pointed, sha256 = _pointer(folder)
    if pointed == number and sha256_file(path / MANIFEST) != sha256:
        raise BadInput(f"{folder} is damaged: {CURRENT} points to another manifest of {name(number)}", REPAIR)
    return Generation(number, path, manifest)


def trusted_manifest(folder: Path, number: int) -> dict[str, Any]:
    """Return the current generation's manifest if it is the one that was published; its files are not looked at.

    BadInput when it is damaged, when the pointer is, or when the pointer names another generation.
    """
    pointed, sha256 = _pointer(folder)
    path = folder / name(number)
    if pointed != number or not path.is_dir() or sha256_file(path / MANIFEST) != sha256:
        raise BadInput(f"{folder} is damaged: {CURRENT} does not vouch for {name(number)}", REPAIR)
    return read_manifest(path, KIND)


def workplace(folder: Path, number: int) -> Path:
    """Return an empty folder to prepare a generation in."""
    path = folder / f".{name(number)}.tmp"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def publish(folder: Path, number: int, prepared: Path, facts: dict[str, Any]) -> None:
    """Give a prepared generation its manifest and its name, then point to it."""
    write_manifest(prepared, KIND, facts)
    publish_folder(prepared, folder / name(number))
    sha256 = sha256_file(folder / name(number) / MANIFEST)
    write_text(folder / CURRENT, f"{name(number)} {sha256}\n")


def sweep(folder: Path, number: int, keep: int = KEEP) -> int:
    """Remove unpublished leftovers and all but the newest kept generations; return the oldest number left."""
    kept = []
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and number - keep < int(match.group(1)) <= number:
            kept.append(int(match.group(1)))
        elif (match or _LEFT.fullmatch(path.name)) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif _LEFT.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return min(kept, default=number)


def remove(folder: Path, number: int) -> None:
    """Remove a generation's folder."""
    shutil.rmtree(folder / name(number), ignore_errors=True)


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the generation folders there are, oldest first, whatever state they are in."""
    if not folder.is_dir():
        return []
    return sorted(int(m.group(1)) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))


def next_id(folder: Path) -> int:
    """Return the highest next chunk id that any manifest names, 1 when none can be read."""
    found = [1]
    for number in numbers(folder):
        with suppress(BadInput, KeyError, TypeError, ValueError):
            found.append(int(read_manifest(folder / name(number), KIND)["next_id"]))
    return max(id for id in found if id < _MOST)
