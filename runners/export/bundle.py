"""The `bundle` export: a whole run in one archive, with a manifest that the way back is checked against. Light.

A zip file, because its list of members can be checked before anything is unpacked. Equal runs give equal bytes.

The way back: an archive of a run, checked member by member before its folder gets its name. Light.

What an archive says of itself is not believed: only members that the list names are read, each only as far as its size
there, its hash is taken on the way, and no name leads out of the folder. Links and folders are no members.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import sqlite3
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import (
    MANIFEST,
    SCHEMA,
    UPDATE_HINT,
    check_schema,
    disk_full_as_problem,
    publish_folder,
    sha256_file,
    writer_lock,
)
from runners.export.job import ExportedFiles, ExportJob, ExportResult, require_disk_space, working_folder
from runners.run_folder import INDEX, PLAN, RunFolder, check_replaceable, is_run, read_run_plan
from runners.runs.session import named_models

LIST, KIND = "bundle.json", "tunewise-bundle"
RUN_PREFIX = "run/"
"""Where the run's files are in the archive."""
_LOCKS = (".writer.lock", ".writer.pid")
_BESIDE = ("-wal", "-shm", "-journal")
"""Ends of the files that SQLite keeps beside a database; a copy needs none of them."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_STORED = (".safetensors", ".faiss", ".gguf", ".npy")
"""Files that hardly shrink."""


def make_bundle(job: ExportJob) -> ExportedFiles:
    """Pack the run; BadInput for one that was not finished or whose index is damaged."""
    source = job.source
    run = source.run.path
    if not source.sealed:
        raise BadInput(
            f"{run} was not finished, so nothing says what belongs in it",
            f"finish it with: tunewise run {run} --resume",
        )
    file = f"{source.plan.name}.zip"
    with _held(run):
        if (run / INDEX).is_dir():
            from rag.indexing.repair import check_index

            with _held(run / INDEX):
                check_index(run / INDEX)
                found = _pack(run, job, job.made / file)
        else:
            found = _pack(run, job, job.made / file)
    size = sum(entry["bytes"] for entry in found.values())
    read = verify_bundle(job.made / file)
    how = (
        f"```bash\ntunewise export {file} --to run --out runs/{source.plan.name}\n```\n\nEvery file is checked against "
        f"`{LIST}` in the archive, and the run against its own manifest. The base model and the embedder are not in it: "
        "they are obtained by name, and ones with other fingerprints than the run's log holds are refused. A base that came "
        "from a folder is given by its folder here: `tunewise ask RUN QUESTION --model FOLDER`.\n\nThe run's own plan and "
        "log are in it as they are: they name folders of the machine it ran on. Arms that show examples need the examples' "
        "file in the place that the plan names.\n"
    )
    of = {"files": f"{len(found):,}, {size:,} bytes unpacked"}
    return ExportedFiles(how, {"files read back and equal": read, "bytes unpacked": size}, of=of)


def _held(folder: Path) -> AbstractContextManager[None]:
    """Keep writers out while a folder is packed; where it cannot be written, there are none."""
    return writer_lock(folder) if os.access(folder, os.W_OK) else nullcontext()


def _pack(run: Path, job: ExportJob, file: Path) -> dict[str, Any]:
    """Write the archive and return its list: bytes and SHA-256 by name."""
    names = list(_names(run))
    require_disk_space(job.out, sum((run / name).stat().st_size for name in names))
    entries: dict[str, Any] = {}
    copies = job.made / ".databases"
    copies.mkdir()
    try:
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name in names:
                path = _settled(run / name, copies)
                entries[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                _add(archive, RUN_PREFIX + name, path)
            listed = {
                "schema": SCHEMA,
                "kind": KIND,
                "run": job.source.plan.name,
                "files": entries,
            }
            archive.writestr(_info(LIST), json.dumps(listed, indent=1, sort_keys=True) + "\n")
    finally:
        for left in copies.iterdir():
            left.unlink()
        copies.rmdir()
    return entries


def _names(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_symlink():
            raise BadInput(f"{run} holds a link, {name}", "a run has none; remove it")
        if path.is_file() and not hidden and path.name not in _LOCKS and not name.endswith(_BESIDE):
            yield name


def _settled(path: Path, copies: Path) -> Path:
    """Return a file, or a consistent copy of a database that is being read with a log beside it."""
    if path.suffix != ".sqlite" or not path.with_name(f"{path.name}-wal").exists():
        return path
    copy = copies / path.name
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _info(name: str, stored: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    return info


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    info = _info(name, path.suffix in _STORED)
    info.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        while block := source.read(1 << 20):
            target.write(block)


def verify_bundle(file: Path) -> int:
    """Read an archive to its end against its list; return how many files there are. Nothing is written."""

    with zipfile.ZipFile(file) as archive:
        entries = read_list(archive, file)["files"]
        for name, info in checked_members(archive, entries, file).items():
            for _ in stream_member(archive, info, entries[name], file):
                pass
    return len(entries)


MAX_LIST_BYTES = 64 << 20
"""Bytes of the list, at most: half a million files."""
MAX_BUNDLE_FILES = 500_000
_NAME = re.compile(r"[^\\:\x00-\x1f\x7f]+")
_UNPACKED = (zlib.error, lzma.LZMAError, EOFError, OSError, zipfile.BadZipFile)
"""What reading a damaged member raises."""
_AGAIN = "ask for the archive again: it was changed or cut off on its way"


def unbundle(file: Path, out: Path | None = None, overwrite: bool = False) -> ExportResult:
    """Unpack a bundle into a run folder (``runs/NAME`` by default); nothing is there until all of it is checked.

    Raises BadInput for what is no bundle, is damaged or holds what does not belong; UsageProblem where ``out`` is taken;
    CannotRun without room.
    """
    import time

    started = time.perf_counter()
    file = _archive(file)
    try:
        with zipfile.ZipFile(file) as archive:
            listed = read_list(archive, file)
            entries = listed["files"]
            found = checked_members(archive, entries, file)
            out = out or Path("runs") / str(listed["run"])
            _require_free(out, overwrite)
            size = sum(entry["bytes"] for entry in entries.values())
            require_disk_space(out, size)
            with working_folder(out) as made:
                for name, info in found.items():
                    _unpack(archive, info, entries[name], made / name, file)
                checked, notes = _check(made, file)
                _publish(made, out)
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no bundle, or is damaged: {error}", _AGAIN) from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown way to pack, a password
        raise BadInput(f"{file} cannot be read: {error}", _AGAIN) from None
    sizes = {name: int(entry["bytes"]) for name, entry in entries.items()}
    return ExportResult(
        "run", None, None, out, sizes, checked, "", notes, round(time.perf_counter() - started, 2)
    )


def _archive(given: Path) -> Path:
    """Return the archive that was given, by itself or by the folder that ``--to bundle`` made; BadInput otherwise."""
    if is_run(given):
        raise BadInput(
            f"{given} is a run folder already", f"pack it with: tunewise export {given} --to bundle"
        )
    found = sorted(given.glob("*.zip")) if given.is_dir() else [given]
    if len(found) == 1 and found[0].is_file():
        return found[0]
    if given.is_dir():
        what = f"{given} is a folder that holds {len(found)} archives, not one"
    else:
        what = f"{given} is no plain file" if given.exists() else f"there is no file {given}"
    raise BadInput(what, "give the archive that --to bundle made")


def read_list(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    """Return the archive's own list, checked for its form; BadInput otherwise."""
    try:
        info = archive.getinfo(LIST)
    except KeyError:
        raise BadInput(
            f"{file} is no bundle: it has no {LIST}", "make one with: tunewise export RUN --to bundle"
        ) from None
    if info.file_size > MAX_LIST_BYTES:
        raise BadInput(f"{file} is no bundle: its {LIST} has {info.file_size:,} bytes", _AGAIN)
    try:
        with archive.open(info) as stream:
            listed = dict(json.loads(stream.read(MAX_LIST_BYTES + 1)))
    except (ValueError, TypeError, RecursionError, *_UNPACKED) as error:
        raise BadInput(
            f"{file} is damaged: its {LIST} cannot be read ({type(error).__name__})", _AGAIN
        ) from None
    if listed.get("kind") != KIND:
        raise BadInput(f"{file} is no bundle: its {LIST} is of another kind", _AGAIN)
    listed = check_schema({"schema": None, **listed}, KIND, file)  # a newer one may have another form
    if not _formed(listed):
        raise BadInput(f"{file} is damaged: its {LIST} is malformed", _AGAIN)
    return listed


def _formed(listed: Mapping[str, Any]) -> bool:
    """Say whether a list names a run and, for each file, its size and hash."""
    try:
        name, entries = listed["run"], listed["files"]
        return (
            all(
                type(e["bytes"]) is int and e["bytes"] >= 0 and re.fullmatch("[0-9a-f]{64}", e["sha256"])
                for e in entries.values()
            )
            and len(entries) <= MAX_BUNDLE_FILES
            and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
        )
    except (KeyError, TypeError, AttributeError):
        return False


def checked_members(
    archive: zipfile.ZipFile, entries: Mapping[str, Any], file: Path
) -> dict[str, zipfile.ZipInfo]:
    """Return the members that hold the listed files, by name; BadInput for a stranger, a double, a link or a way out."""
    found: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in archive.infolist():
        if info.filename == LIST:
            continue
        name = info.filename.removeprefix(RUN_PREFIX)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not info.filename.startswith(RUN_PREFIX) or not _inside(name) or kind not in (0, stat.S_IFREG):
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


def stream_member(
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
    except _UNPACKED as error:
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
    try:
        with disk_full_as_problem(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                for block in stream_member(archive, info, entry, file):
                    target.write(block)
    except OSError as error:  # a name that is a file's and a folder's, or too long
        raise BadInput(
            f"{file} is refused: {info.filename[:80]!r} cannot be written ({error.strerror or error})",
            "do not use this archive",
        ) from None


def _check(made: Path, file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check the unpacked run as any other; return what was found and what to know.

    BadInput names the archive, because the folder goes.
    """
    try:
        return _found(made)
    except BadInput as problem:
        hint = problem.hint if problem.hint == UPDATE_HINT else _AGAIN
        raise BadInput(problem.message.replace(str(made), f"the run in {file}"), hint) from None


def _found(made: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check plan, manifest and index of an unpacked run; return what is told of them, and whom its models ask."""
    if not (made / MANIFEST).is_file() or not (made / PLAN).is_file():
        raise BadInput(f"{made} was not finished")
    plan = read_run_plan(made)
    RunFolder(made).check()
    found: dict[str, Any] = {"run": plan.name, "arms": ", ".join(arm.arm for arm in plan.arms)}
    if (made / INDEX).is_dir():
        from rag.indexing.repair import check_index

        checked = check_index(made / INDEX)
        found |= {"documents": checked["documents"], "passages": checked["chunks"]}
    for lock in made.rglob(".writer.*"):
        lock.unlink()
    asked = [
        f"its plan asks {row['model']} at {row['endpoint']}: what is asked goes there, with your API key where one is set"
        for row in named_models(plan)
        if "endpoint" in row
    ]
    return found, tuple(asked)


def _publish(made: Path, out: Path) -> None:
    """Give the run its name in one rename; the run that has it gives way, unless somebody is writing it."""
    with disk_full_as_problem(out):
        if is_run(out):
            check_replaceable(out, read_run_plan(made))
            with writer_lock(out):
                out.rename(made.parent / "replaced")
        else:
            with suppress(OSError):  # an empty folder gives way; any other is refused by its name
                out.rmdir()
        publish_folder(made, out)


def _require_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_run(out):
        raise UsageProblem(f"{out} exists and is not a run folder", "choose another --out")
    if not overwrite:
        raise UsageProblem(f"{out} exists", "replace it with --overwrite, or choose another --out")
