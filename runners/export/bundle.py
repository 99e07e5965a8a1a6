"""The `bundle` export: a whole run in one zip archive; and the import, which makes it a run folder again.

`make_bundle` writes the archive with a list of its files, their sizes and hashes. It is a zip file because the directory
of members can be checked before anything is unpacked. Equal runs give equal bytes.

`unbundle` does not trust the archive: only members of the list are read, each no further than its listed size, hashes
are checked while unpacking, and path traversal, links and folders are refused. The run folder is published only when all
of it has been checked.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import sqlite3
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from rag.backends.base import shown_url
from rag.backends.consent import stored_url
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
from rag.indexing.repair import check_index
from rag.object_storage import is_url
from runners.export.job import ExportedFiles, ExportJob, ExportResult, require_disk_space, working_folder
from runners.export.upload import local_archive
from runners.run_folder import (
    INDEX,
    PLAN,
    TRACKING,
    TUNED_INDEX,
    RunFolder,
    check_replaceable,
    is_run,
    read_run_plan,
)
from runners.runs.endpoint_consent import sent_by_plan, set_unconfirmed
from runners.runs.plan_models import named_models

LIST = "bundle.json"
"""The member that lists the files."""
KIND = "tunewise-bundle"
RUN_PREFIX = "run/"
"""The folder of the run's files in the archive."""
_LOCKS = (".writer.lock", ".writer.pid")
_SQLITE_SIDE_FILES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps next to an open database; a copy needs none of them."""
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""The date of every member, the earliest of the format, so that equal runs give equal bytes."""
_UNCOMPRESSED = (".safetensors", ".faiss", ".gguf", ".npy")
"""Suffixes of files that compression hardly shrinks."""
MAX_LIST_BYTES = 64 << 20
"""Most bytes of the list: about half a million files."""
MAX_BUNDLE_FILES = 500_000
_SAFE_NAME = re.compile(r"[^\\:\x00-\x1f\x7f]+")
_UNPACK_ERRORS = (zlib.error, lzma.LZMAError, EOFError, OSError, zipfile.BadZipFile)
"""What reading a damaged member raises."""
_DAMAGED_HINT = "ask for the archive again: it was changed or cut off on its way"


def make_bundle(job: ExportJob) -> ExportedFiles:
    """Pack the run into an archive and read it back; raise `BadInput` for an unfinished or damaged run."""
    source = job.source
    run = source.run.path
    if not source.sealed:
        raise BadInput(
            f"{run} was not finished, so its list of files is missing",
            f"finish it with: tunewise run {run} --resume",
        )
    file = f"{source.plan.name}.zip"
    with _lock_if_writable(run):
        if (run / INDEX).is_dir() and stored_url(run / INDEX) is None:
            with _lock_if_writable(run / INDEX):
                check_index(run / INDEX)
                if (run / TUNED_INDEX).is_dir():
                    check_index(run / TUNED_INDEX)
                entries = _pack(run, job, job.folder / file)
        else:
            entries = _pack(run, job, job.folder / file)
    size = sum(entry["bytes"] for entry in entries.values())
    count = verify_bundle(job.folder / file)
    usage = (
        f"```bash\ntunewise export {file} --to run --out runs/{source.plan.name}\n```\n\nEvery file is checked against "
        f"`{LIST}` in the archive, and the run against its own manifest. The base model, the embedder and a reranker "
        "are not in it: they are obtained by name, and ones with other fingerprints than the run's log holds are "
        "refused. A base that came "
        "from a folder is given by its folder here: `tunewise ask RUN QUESTION --model FOLDER`.\n\nThe run's own plan and "
        "log are in it as they are: they name folders of the machine it ran on. Arms that show examples need the examples' "
        "file in the place that the plan names, and an arm that looks things up itself the documents; an arm of nearest "
        "replies has its examples' questions and replies in it.\n"
    )
    checked = {"files read back and equal": count, "bytes unpacked": size}
    made_from = {"files": f"{len(entries):,}, {size:,} bytes unpacked"}
    return ExportedFiles(usage, checked, made_from=made_from)


def unbundle(file: Path | str, out: Path | None = None, overwrite: bool = False) -> ExportResult:
    """Unpack a bundle into a run folder, which appears only when all of it has been checked.

    The endpoints that its plan names are asked only after :func:`runners.runs.endpoint_consent.allow_endpoints`.

    Args:
        file: the archive, or the folder of a `bundle` export; as text also a URL of either.
        out: the run folder; None for `runs/NAME`.
        overwrite: whether a run at `out` may be replaced.

    Raises:
        BadInput: the file is no bundle, is damaged, or holds a file that does not belong in it.
        UsageProblem: `out` exists and may not be replaced.
        CannotRun: too little disk space, or storage that cannot be used.
    """
    started = time.perf_counter()
    if isinstance(file, str) and is_url(file):
        with local_archive(file) as copy:
            return _unbundle_archive(copy, file, out, overwrite, started)
    path = _find_archive(Path(file))
    return _unbundle_archive(path, path, out, overwrite, started)


def _unbundle_archive(
    path: Path, file: Path | str, out: Path | None, overwrite: bool, started: float
) -> ExportResult:
    """Unpack the archive at `path`, which messages call `file`."""
    try:
        with zipfile.ZipFile(path) as archive:
            listed = read_list(archive, file)
            entries = listed["files"]
            members = checked_members(archive, entries, file)
            out = out or Path("runs") / str(listed["run"])
            _require_free(out, overwrite)
            size = sum(entry["bytes"] for entry in entries.values())
            require_disk_space(out, size)
            with working_folder(out) as folder:
                for name, info in members.items():
                    _unpack(archive, info, entries[name], folder / name, file)
                checked, notes = _check_unpacked(folder, file)
                set_unconfirmed(folder, _endpoint_hosts(folder))
                _publish(folder, out)
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no bundle, or is damaged: {error}", _DAMAGED_HINT) from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, a password
        raise BadInput(f"{file} cannot be read: {error}", _DAMAGED_HINT) from None
    sizes = {name: int(entry["bytes"]) for name, entry in entries.items()}
    return ExportResult(
        to="run",
        arm=None,
        seed=None,
        out=out,
        files=sizes,
        checked=checked,
        line="",
        notes=notes,
        seconds=round(time.perf_counter() - started, 2),
    )


def verify_bundle(file: Path) -> int:
    """Check a whole archive against its list without writing anything; return the number of files."""
    with zipfile.ZipFile(file) as archive:
        entries = read_list(archive, file)["files"]
        for name, info in checked_members(archive, entries, file).items():
            for _ in stream_member(archive, info, entries[name], file):
                pass
    return len(entries)


def read_list(archive: zipfile.ZipFile, file: Path | str) -> dict[str, Any]:
    """Read and validate the archive's list of files; raise `BadInput` when it is missing or malformed."""
    try:
        info = archive.getinfo(LIST)
    except KeyError:
        raise BadInput(
            f"{file} is no bundle: it has no {LIST}", "make one with: tunewise export RUN --to bundle"
        ) from None
    if info.file_size > MAX_LIST_BYTES:
        raise BadInput(f"{file} is no bundle: its {LIST} has {info.file_size:,} bytes", _DAMAGED_HINT)
    try:
        with archive.open(info) as stream:
            listed = dict(json.loads(stream.read(MAX_LIST_BYTES + 1)))
    except (ValueError, TypeError, RecursionError, *_UNPACK_ERRORS) as error:
        raise BadInput(
            f"{file} is damaged: its {LIST} cannot be read ({type(error).__name__})", _DAMAGED_HINT
        ) from None
    if listed.get("kind") != KIND:
        raise BadInput(f"{file} is no bundle: its {LIST} is of another kind", _DAMAGED_HINT)
    listed = check_schema({"schema": None, **listed}, KIND, file)  # a newer one may have another form
    if not _is_valid_list(listed):
        raise BadInput(f"{file} is damaged: its {LIST} is malformed", _DAMAGED_HINT)
    return listed


def checked_members(
    archive: zipfile.ZipFile, entries: Mapping[str, Any], file: Path | str
) -> dict[str, zipfile.ZipInfo]:
    """Return the members of the listed files, by name.

    Args:
        archive: the open archive.
        entries: size and SHA-256 by name, from the list.
        file: the archive's path, for messages.

    Raises:
        BadInput: an unknown, repeated or missing member, a link, or a path that leaves the folder.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()  # some file systems do not distinguish upper and lower case
    for info in archive.infolist():
        if info.filename == LIST:
            continue
        name = info.filename.removeprefix(RUN_PREFIX)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if (
            not info.filename.startswith(RUN_PREFIX)
            or not _is_safe_name(name)
            or kind not in (0, stat.S_IFREG)
        ):
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
                _DAMAGED_HINT,
            )
        folded.add(name.casefold())
        members[name] = info
    if missing := [name for name in entries if name not in members]:
        raise BadInput(f"{file} is damaged: {missing[0][:80]} is missing", _DAMAGED_HINT)
    return members


def stream_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Mapping[str, Any], file: Path | str
) -> Iterator[bytes]:
    """Yield a member's blocks; raise `BadInput` when its size or hash differs from the list."""
    digest = hashlib.sha256()
    left = int(entry["bytes"])
    try:
        with archive.open(info) as source:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    break
                digest.update(block)
                yield block
    except _UNPACK_ERRORS as error:
        raise BadInput(
            f"{file} is damaged: {info.filename} cannot be unpacked ({error})", _DAMAGED_HINT
        ) from None
    if left or digest.hexdigest() != entry["sha256"]:
        raise BadInput(
            f"{file} is damaged: the SHA-256 of {info.filename} differs from its list", _DAMAGED_HINT
        )


def _lock_if_writable(folder: Path) -> AbstractContextManager[None]:
    """Lock a folder against writers while it is packed; a read-only folder has no writers."""
    return writer_lock(folder) if os.access(folder, os.W_OK) else nullcontext()


def _pack(run: Path, job: ExportJob, file: Path) -> dict[str, Any]:
    """Write the archive and return its list: size and SHA-256 by file name."""
    names = list(_file_names(run))
    require_disk_space(job.out, sum((run / name).stat().st_size for name in names))
    entries: dict[str, Any] = {}
    copies = job.folder / ".databases"
    copies.mkdir()
    try:
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name in names:
                path = _consistent_copy(run / name, copies)
                entries[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                _add_member(archive, RUN_PREFIX + name, path)
            listed = {
                "schema": SCHEMA,
                "kind": KIND,
                "run": job.source.plan.name,
                "files": entries,
            }
            archive.writestr(_member_info(LIST), json.dumps(listed, indent=1, sort_keys=True) + "\n")
    finally:
        for copy in copies.iterdir():
            copy.unlink()
        copies.rmdir()
    return entries


def _file_names(run: Path) -> Iterator[str]:
    """Yield the names of the run's files, sorted, without those of trackers; raise `BadInput` for a symbolic link."""
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if name.split("/")[0] == TRACKING:
            continue
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_symlink():
            raise BadInput(f"{run} contains a link, {name}", "a run has none; remove it")
        if (
            path.is_file()
            and not hidden
            and path.name not in _LOCKS
            and not name.endswith(_SQLITE_SIDE_FILES)
        ):
            yield name


def _consistent_copy(path: Path, copies: Path) -> Path:
    """Return the path of a file, or of a consistent copy for an SQLite database with a write-ahead log."""
    if path.suffix != ".sqlite" or not path.with_name(f"{path.name}-wal").exists():
        return path
    copy = copies / path.name
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _member_info(name: str, stored: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _TIMESTAMP)
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    return info


def _add_member(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    info = _member_info(name, path.suffix in _UNCOMPRESSED)
    info.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        while block := source.read(1 << 20):
            target.write(block)


def _find_archive(path: Path) -> Path:
    """Return the archive at a path, or the one in the folder of a `bundle` export; raise `BadInput` without one."""
    if is_run(path):
        raise BadInput(f"{path} is a run folder already", f"pack it with: tunewise export {path} --to bundle")
    archives = sorted(path.glob("*.zip")) if path.is_dir() else [path]
    if len(archives) == 1 and archives[0].is_file():
        return archives[0]
    if path.is_dir():
        problem = f"{path} is a folder with {len(archives)} archives, expected one"
    else:
        problem = f"{path} is no plain file" if path.exists() else f"there is no file {path}"
    raise BadInput(problem, "give the archive that --to bundle made")


def _is_valid_list(listed: Mapping[str, Any]) -> bool:
    """Return whether a list names a run and, for each file, its size and hash."""
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


def _is_safe_name(name: str) -> bool:
    """Return whether a name stays inside its folder, on this and on other operating systems."""
    path = PurePosixPath(name)
    normal = _SAFE_NAME.fullmatch(name) is not None and not name.startswith("/") and str(path) == name
    return normal and all(part not in ("", ".", "..") and not part.startswith(".") for part in path.parts)


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Mapping[str, Any], path: Path, file: Path | str
) -> None:
    try:
        with disk_full_as_problem(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                for block in stream_member(archive, info, entry, file):
                    target.write(block)
    except OSError as error:  # a name used for a file and a folder, or too long
        raise BadInput(
            f"{file} is refused: {info.filename[:80]!r} cannot be written ({error.strerror or error})",
            "do not use this archive",
        ) from None


def _check_unpacked(folder: Path, file: Path | str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check the unpacked run; errors name the archive, because the folder is removed.

    Returns:
        The facts to print, and notes for the user.
    """
    try:
        return _check_run(folder)
    except BadInput as problem:
        hint = problem.hint if problem.hint == UPDATE_HINT else _DAMAGED_HINT
        raise BadInput(problem.message.replace(str(folder), f"the run in {file}"), hint) from None


def _check_run(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check plan, manifest and index of a run; return facts about them, and a note for each remote endpoint."""
    if not (folder / MANIFEST).is_file() or not (folder / PLAN).is_file():
        raise BadInput(f"{folder} was not finished")
    plan = read_run_plan(folder)
    RunFolder(folder).check()
    facts: dict[str, Any] = {"run": plan.name, "arms": ", ".join(arm.arm for arm in plan.arms)}
    if url := stored_url(folder / INDEX):
        facts["index"] = f"in a database, {shown_url(url)}, and not in the archive"
    elif (folder / INDEX).is_dir():
        checked = check_index(folder / INDEX)
        facts |= {"documents": checked["documents"], "passages": checked["chunks"]}
        if (folder / TUNED_INDEX).is_dir():
            check_index(folder / TUNED_INDEX)
    for lock in folder.rglob(".writer.*"):
        lock.unlink()
    endpoint_notes = [
        f"its plan asks {row['model']} at {row['endpoint']}: {sent_by_plan(plan)} go there, once you allow it"
        for row in named_models(plan)
        if "endpoint" in row
    ]
    return facts, tuple(endpoint_notes)


def _endpoint_hosts(folder: Path) -> list[str]:
    """Return the hosts that the plan of an unpacked run asks."""
    return [row["endpoint"] for row in named_models(read_run_plan(folder)) if "endpoint" in row]


def _publish(folder: Path, out: Path) -> None:
    """Rename the checked folder to `out`; a run there is moved away first, unless it is being written."""
    with disk_full_as_problem(out):
        if is_run(out):
            check_replaceable(out, read_run_plan(folder))
            with writer_lock(out):
                out.rename(folder.parent / "replaced")
        else:
            with suppress(OSError):  # an empty folder is replaced; any other makes the rename fail
                out.rmdir()
        publish_folder(folder, out)


def _require_free(out: Path, overwrite: bool) -> None:
    """Raise `UsageProblem` when `out` exists and may not be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_run(out):
        raise UsageProblem(f"{out} exists and is not a run folder", "choose another --out")
    if not overwrite:
        raise UsageProblem(f"{out} exists", "replace it with --overwrite, or choose another --out")
