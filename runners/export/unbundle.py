"""The way back: an archive of a run, checked member by member before its folder gets its name. Light.

What an archive says of itself is not believed: only members that the list names are read, each only as far as its size
there, its hash is taken on the way, and no name leads out of the folder. Links and folders are no members.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from rag.durable import MANIFEST, publish_folder, writer_lock, writing_into
from rag.errors import BadInput, UsageProblem
from runners.export.bundle import INSIDE, KIND, LIST, SCHEMA
from runners.export.job import Exported
from runners.export.parcel import prepared, require_room
from runners.rundir import INDEX, PLAN, RunFolder, check_replaceable, is_run, read_run_plan

LONGEST_LIST = 64 << 20
"""Bytes of the list, at most: half a million files."""
MOST_FILES = 500_000
_NAME = re.compile(r"[^\\:\x00-\x1f\x7f]+")
_AGAIN = "ask for the archive again: it was changed or cut off on its way"


def unbundle(file: Path, out: Path | None = None, overwrite: bool = False) -> Exported:
    """Unpack a bundle into a run folder (``runs/NAME`` by default); nothing is there until all of it is checked.

    Raises BadInput for what is no bundle, is damaged or holds what does not belong; UsageProblem where ``out`` is taken;
    CannotRun without room.
    """
    import time

    started = time.perf_counter()
    try:
        with zipfile.ZipFile(file) as archive:
            listed = read_list(archive, file)
            entries = listed["files"]
            found = members(archive, entries, file)
            out = out or Path("runs") / str(listed["run"])
            _require_free(out, overwrite)
            size = sum(entry["bytes"] for entry in entries.values())
            require_room(out, size)
            with prepared(out) as made:
                for name, info in found.items():
                    _unpack(archive, info, entries[name], made / name, file)
                checked = _check(made)
                _publish(made, out)
    except zipfile.BadZipFile as error:
        raise BadInput(f"{file} is no bundle, or is damaged: {error}", _AGAIN) from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown way to pack, a password
        raise BadInput(f"{file} cannot be read: {error}", _AGAIN) from None
    except FileNotFoundError:
        raise BadInput(f"there is no file {file}", "give the archive that --to bundle made") from None
    sizes = {name: int(entry["bytes"]) for name, entry in entries.items()}
    return Exported("run", None, None, out, sizes, checked, "", (), round(time.perf_counter() - started, 2))


def read_list(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    """Return the archive's own list, checked for its form; BadInput otherwise."""
    try:
        info = archive.getinfo(LIST)
    except KeyError:
        raise BadInput(
            f"{file} is no bundle: it has no {LIST}", "make one with: tunewise export RUN --to bundle"
        ) from None
    if info.file_size > LONGEST_LIST:
        raise BadInput(f"{file} is no bundle: its {LIST} has {info.file_size:,} bytes", _AGAIN)
    try:
        with archive.open(info) as stream:
            listed = json.loads(stream.read(LONGEST_LIST + 1))
        kind, schema, name, entries = (listed[key] for key in ("kind", "schema", "run", "files"))
        formed = all(
            type(e["bytes"]) is int and e["bytes"] >= 0 and re.fullmatch("[0-9a-f]{64}", e["sha256"])
            for e in entries.values()
        )
        formed = (
            formed
            and len(entries) <= MOST_FILES
            and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error, EOFError) as error:
        raise BadInput(
            f"{file} is damaged: its {LIST} cannot be read ({type(error).__name__})", _AGAIN
        ) from None
    if kind != KIND or not formed:
        raise BadInput(f"{file} is damaged: its {LIST} is malformed", _AGAIN)
    if type(schema) is not int or schema > SCHEMA:
        raise BadInput(f"{file} has schema {schema}, this version reads up to {SCHEMA}", "update tunewise")
    return dict(listed)


def members(archive: zipfile.ZipFile, entries: Mapping[str, Any], file: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the members that hold the listed files, by name; BadInput for a stranger, a double, a link or a way out."""
    found: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in archive.infolist():
        if info.filename == LIST:
            continue
        name = info.filename.removeprefix(INSIDE)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not info.filename.startswith(INSIDE) or not _inside(name) or kind not in (0, stat.S_IFREG):
            raise BadInput(
                f"{file} is refused: {info.filename[:80]!r} is no plain file of a run",
                "do not use this archive",
            )
        if name not in entries:
            raise BadInput(
                f"{file} is refused: {name[:80]!r} is not in its {LIST}", "do not use this archive"
            )
        if name.casefold() in folded:
            raise BadInput(f"{file} is refused: {name[:80]!r} is in it twice", "do not use this archive")
        if info.file_size != entries[name]["bytes"]:
            raise BadInput(
                f"{file} is damaged: {name} has {info.file_size:,} bytes, not {entries[name]['bytes']:,}",
                _AGAIN,
            )
        folded.add(name.casefold())
        found[name] = info
    if missing := [name for name in entries if name not in found]:
        raise BadInput(f"{file} is damaged: {missing[0][:80]} is missing", _AGAIN)
    return found


def stream(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Mapping[str, Any], file: Path
) -> Iterator[bytes]:
    """Yield a member's blocks; BadInput when it is longer or shorter than listed, or its hash differs."""
    digest, left = hashlib.sha256(), int(entry["bytes"])
    try:
        with archive.open(info) as source:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                yield block
    except (zlib.error, EOFError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{file} is damaged: {info.filename} cannot be unpacked ({error})", _AGAIN) from None
    if left or digest.hexdigest() != entry["sha256"]:
        raise BadInput(f"{file} is damaged: the SHA-256 of {info.filename} differs from its list", _AGAIN)


def _inside(name: str) -> bool:
    """Say whether a name stays in its folder, here and on other systems."""
    path = PurePosixPath(name)
    plain = _NAME.fullmatch(name) is not None and not name.startswith("/") and str(path) == name
    return plain and all(part not in ("", ".", "..") and not part.startswith(".") for part in path.parts)


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Mapping[str, Any], path: Path, file: Path
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_into(path.parent), path.open("xb") as target:
        for block in stream(archive, info, entry, file):
            target.write(block)


def _check(made: Path) -> dict[str, Any]:
    """Check the unpacked run as any other: its plan, its manifest, its index; return what was found."""
    if not (made / MANIFEST).is_file() or not (made / PLAN).is_file():
        raise BadInput("the bundle holds no finished run", "make one with: tunewise export RUN --to bundle")
    plan = read_run_plan(made)
    RunFolder(made).check()
    found: dict[str, Any] = {"run": plan.name, "arms": ", ".join(arm.arm for arm in plan.arms)}
    if (made / INDEX).is_dir():
        from rag.check import check

        checked = check(made / INDEX)
        found |= {"documents": checked["documents"], "passages": checked["chunks"]}
    for lock in made.rglob(".writer.*"):
        lock.unlink()
    return found


def _publish(made: Path, out: Path) -> None:
    """Give the run its name in one rename; the run that has it gives way, unless somebody is writing it."""
    with writing_into(out):
        if is_run(out):
            check_replaceable(out, read_run_plan(made))
            with writer_lock(out):
                out.rename(made.parent / "replaced")
        publish_folder(made, out)


def _require_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_run(out):
        raise UsageProblem(f"{out} exists and is not a run folder", "choose another --out")
    if not overwrite:
        raise UsageProblem(f"{out} exists", "replace it with --overwrite, or choose another --out")
