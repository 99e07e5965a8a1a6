"""The `bundle` export: a whole run in one archive, with a manifest that the way back is checked against. Light.

A zip file, because its list of members can be checked before anything is unpacked. Equal runs give equal bytes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

from rag.durable import sha256_file, writer_lock
from rag.errors import BadInput
from rag.versions import SCHEMA
from runners.export.job import Job, Made
from runners.export.parcel import require_room
from runners.rundir import INDEX

LIST, KIND = "bundle.json", "tunewise-bundle"
INSIDE = "run/"
"""Where the run's files are in the archive."""
_LOCKS = (".writer.lock", ".writer.pid")
_BESIDE = ("-wal", "-shm", "-journal")
"""Ends of the files that SQLite keeps beside a database; a copy needs none of them."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_STORED = (".safetensors", ".faiss", ".gguf", ".npy")
"""Files that hardly shrink."""


def make(job: Job) -> Made:
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
            from rag.check import check

            with _held(run / INDEX):
                check(run / INDEX)
                found = _pack(run, job, job.made / file)
        else:
            found = _pack(run, job, job.made / file)
    size = sum(entry["bytes"] for entry in found.values())
    read = verify(job.made / file)
    how = (
        f"```bash\ntunewise export {file} --to run --out runs/{source.plan.name}\n```\n\nEvery file is checked against "
        f"`{LIST}` in the archive, and the run against its own manifest. The base model and the embedder are not in it: "
        "they are obtained by name, and ones with other fingerprints than the run's log holds are refused. A base that came "
        "from a folder is given by its folder here: `tunewise ask RUN QUESTION --model FOLDER`.\n\nThe run's own plan and "
        "log are in it as they are: they name folders of the machine it ran on. Arms that show examples need the examples' "
        "file in the place that the plan names.\n"
    )
    of = {"files": f"{len(found):,}, {size:,} bytes unpacked"}
    return Made(how, {"files read back and equal": read, "bytes unpacked": size}, of=of)


def _held(folder: Path) -> AbstractContextManager[None]:
    """Keep writers out while a folder is packed; where it cannot be written, there are none."""
    return writer_lock(folder) if os.access(folder, os.W_OK) else nullcontext()


def _pack(run: Path, job: Job, file: Path) -> dict[str, Any]:
    """Write the archive and return its list: bytes and SHA-256 by name."""
    names = list(_names(run))
    require_room(job.out, sum((run / name).stat().st_size for name in names))
    entries: dict[str, Any] = {}
    copies = job.made / ".databases"
    copies.mkdir()
    try:
        with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
            for name in names:
                path = _settled(run / name, copies)
                entries[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                _add(archive, INSIDE + name, path)
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


def verify(file: Path) -> int:
    """Read an archive to its end against its list; return how many files there are. Nothing is written."""
    from runners.export.unbundle import members, read_list, stream

    with zipfile.ZipFile(file) as archive:
        entries = read_list(archive, file)["files"]
        for name, info in members(archive, entries, file).items():
            for _ in stream(archive, info, entries[name], file):
                pass
    return len(entries)
