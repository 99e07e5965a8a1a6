"""Immutable generations of derived files, and the pointer to the current one.

::

    INDEX/CURRENT          "gen-000002 HASH", replaced atomically: the moment an update becomes visible;
                           the hash is that of the generation's manifest
    INDEX/gen-000002/      vectors, BM25, manifest.json (hashes, fingerprint, settings, counts, next id)
    INDEX/gen-000001/      the previous generation, retained for readers that still use it
    INDEX/text.sqlite      documents and chunks of all retained generations
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput, system_reason
from rag.files import (
    MANIFEST,
    check_manifest,
    publish_folder,
    read_manifest,
    sha256_file,
    write_manifest,
    write_text,
)
from rag.indexing.file_hashes import FileHashes
from rag.settings import IndexSettings

GENERATION_KIND = "tunewise-index-generation"
DELTA_KIND = "tunewise-index-delta-generation"
"""A generation whose vectors and words are those of an earlier one with a few rows removed and added: see
:mod:`rag.indexing.segments`. It has a kind of its own, so that a reader of whole ones does not read only half of it."""
CURRENT_POINTER = "CURRENT"
KEPT_GENERATIONS = 2

REPAIR_HINT = "mend it: tunewise index check INDEX --repair"
_NAME = re.compile(r"gen-(\d{6,})")
_MAX_CHUNK_ID = 2**53  # a damaged manifest could name any number; above this JSON numbers are not exact
_LEFTOVER = re.compile(r"\.gen-\d{6,}\.tmp|\.[A-Za-z.]+\.\w+\.tmp")
_POINTER = re.compile(r"gen-(\d{6,}) ([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class Generation:
    """A published generation whose files were verified."""

    number: int
    path: Path
    manifest: dict[str, Any]


def generation_name(number: int) -> str:
    """Return the folder name of a generation."""
    return f"gen-{number:06d}"


def current_generation(folder: Path) -> int:
    """Return the current generation's number, 0 if the folder has none; BadInput for a damaged pointer."""
    return _pointer(folder)[0]


def _pointer(folder: Path) -> tuple[int, str]:
    """Return the number and the manifest's hash from the pointer; (0, "") without one."""
    try:
        text = (folder / CURRENT_POINTER).read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0, ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder / CURRENT_POINTER} cannot be read: {system_reason(error)}") from error
    if not (match := _POINTER.fullmatch(text)):
        raise BadInput(f"{folder / CURRENT_POINTER} is damaged: it says {text[:40]!r}", REPAIR_HINT)
    return int(match.group(1)), match.group(2)


def open_verified(folder: Path, number: int, digest: Callable[[Path], str] | None = None) -> Generation:
    """Return a generation after verifying the hash of every file, before any of them is parsed.

    Args:
        folder: of the index.
        number: of the generation.
        digest: returns the SHA-256 of a file; None uses, for a large index, recorded ones of files that have not changed.
    """
    path = folder / generation_name(number)
    try:
        manifest = check_manifest(path, _kind(path), digest=digest or _digest(folder, path))
    except BadInput as error:
        raise BadInput(error.message, error.hint or REPAIR_HINT) from error
    pointed, sha256 = _pointer(folder)
    if pointed == number and sha256_file(path / MANIFEST) != sha256:
        raise BadInput(
            f"{folder} is damaged: {CURRENT_POINTER} points to another manifest of {generation_name(number)}",
            REPAIR_HINT,
        )
    return Generation(number, path, manifest)


def trusted_manifest(folder: Path, number: int) -> dict[str, Any]:
    """Return the current generation's manifest if it is the one that was published; other files are not verified.

    Raises:
        BadInput: if the manifest or the pointer is damaged, or the pointer names another generation.
    """
    pointed, sha256 = _pointer(folder)
    path = folder / generation_name(number)
    if pointed != number or not path.is_dir() or sha256_file(path / MANIFEST) != sha256:
        raise BadInput(
            f"{folder} is damaged: {CURRENT_POINTER} does not vouch for {generation_name(number)}",
            REPAIR_HINT,
        )
    return read_manifest(path, _kind(path))


def is_large(facts: dict[str, Any]) -> bool:
    """Return whether an index is large, by its facts or a manifest (:attr:`rag.settings.IndexSettings.large_chunks`).

    Texts of a large one are read and verified when a search returns them, hashes of its files are recorded
    (:mod:`rag.indexing.file_hashes`), and small updates are written as a delta. A smaller one is read, verified and
    rewritten whole, which takes about two seconds.
    """
    settings = facts.get("settings", {})
    return int(facts.get("chunks", 0)) >= int(settings.get("large_chunks", IndexSettings().large_chunks))


def _digest(folder: Path, path: Path) -> Callable[[Path], str]:
    """Return what hashes the files of a generation: every file is read, unless its index is large."""
    manifest = read_manifest(path, _kind(path))
    return FileHashes(folder).sha256 if is_large(manifest) else sha256_file


def _kind(path: Path) -> str:
    """Return the kind of generation that a manifest names; that of a whole one if it cannot be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        if json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("kind") == DELTA_KIND:
            return DELTA_KIND
    return GENERATION_KIND


def prepare_folder(folder: Path, number: int) -> Path:
    """Return an empty temporary folder to write a generation into."""
    path = folder / f".{generation_name(number)}.tmp"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def publish_generation(
    folder: Path, number: int, prepared: Path, facts: dict[str, Any], kind: str = GENERATION_KIND
) -> None:
    """Write the manifest of a prepared generation, give the folder its name, then point to it."""
    write_manifest(
        prepared, kind, facts, digest=FileHashes(folder).sha256 if is_large(facts) else sha256_file
    )
    publish_folder(prepared, folder / generation_name(number))
    sha256 = sha256_file(folder / generation_name(number) / MANIFEST)
    write_text(folder / CURRENT_POINTER, f"{generation_name(number)} {sha256}\n")


def remove_old_generations(folder: Path, number: int, keep: int = KEPT_GENERATIONS) -> int:
    """Remove unpublished leftovers and all but the newest ``keep`` generations; return the oldest number left."""
    remaining = []
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and number - keep < int(match.group(1)) <= number:
            remaining.append(int(match.group(1)))
        elif (match or _LEFTOVER.fullmatch(path.name)) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)
    return min(remaining, default=number)


def remove_generation(folder: Path, number: int) -> None:
    """Remove a generation's folder."""
    shutil.rmtree(folder / generation_name(number), ignore_errors=True)


def generation_numbers(folder: Path) -> list[int]:
    """Return the numbers of all generation folders, oldest first, whether damaged or not."""
    if not folder.is_dir():
        return []
    return sorted(int(match.group(1)) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def next_chunk_id(folder: Path) -> int:
    """Return the highest next chunk id in any manifest, 1 if none can be read."""
    ids = [1]
    for number in generation_numbers(folder):
        with suppress(BadInput, KeyError, TypeError, ValueError):
            path = folder / generation_name(number)
            ids.append(int(read_manifest(path, _kind(path))["next_id"]))
    return max(id for id in ids if id < _MAX_CHUNK_ID)
