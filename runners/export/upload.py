"""Exports at a URL: uploaded with the manifest last, and bundles read back from there.

An export is put together in a temporary folder of this machine, checked there, and then uploaded. While its files go up
an object `UPLOAD_MARK` stands beside them; the manifest is written last, by conditional put, and the mark removed.
Without a manifest nothing there counts: a reader refuses it. What a killed upload left is replaced with ``--overwrite``.
Objects that no export wrote are neither replaced nor removed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import MANIFEST, SCHEMA
from rag.object_storage import (
    check_url,
    download_file,
    exists,
    is_url,
    join_url,
    list_objects,
    listed_files,
    put_new,
    put_object,
    read_bytes,
    remove_objects,
    storage_endpoint,
    upload_folder,
)
from runners.models.cards import CARD_FILE
from runners.models.endpoint import check_may_contact
from runners.plan.schema import Plan
from runners.runs.plan_models import must_stay_local

UPLOAD_MARK = "upload-in-progress.json"
"""The object beside an export that is being uploaded; it names the files."""
_UPLOAD_KIND = "tunewise-upload"
_ANOTHER = "choose another --out"


def destination(out: Path | str) -> Path | str:
    """Return where an export goes: a checked URL without a slash at its end, or a path.

    Raises:
        UsageProblem: the path was made from a URL, which takes one of its slashes away.
        BadInput: the URL cannot be used.
    """
    if isinstance(out, str) and is_url(out):
        check_url(out)
        return out.rstrip("/")
    path = Path(out)
    if path.parts and path.parts[0] in ("s3:", "file:", "memory:"):
        raise UsageProblem(f"{path} was a URL, and is now a path", "give the URL as text")
    return path


def check_may_upload(url: str, plan: Plan) -> None:
    """Raise `BadInput` when the run's data must stay local and the URL's endpoint is a public one; nothing is sent."""
    if endpoint := storage_endpoint(url):
        check_may_contact(url, endpoint, must_stay_local(plan))


def existing_upload(url: str, made_from: str, overwrite: bool) -> dict[str, Any] | None:
    """Return the manifest of a complete export of the same input at a URL; None when a new one may be uploaded.

    The sizes of its files are compared with the manifest; their hashes are when they are read.

    Args:
        url: the destination.
        made_from: the hash of the input.
        overwrite: whether an export of other input, or what an upload left that did not finish, may be replaced.

    Raises:
        UsageProblem: the URL holds something that may not be replaced.
        BadInput: the export of the same input is damaged.
        CannotRun: the storage cannot be used.
    """
    sizes = list_objects(url)
    if MANIFEST not in sizes:
        _require_no_other_objects(url, sizes, overwrite)
        return None
    manifest = _export_manifest(url)
    if not manifest:
        raise UsageProblem(f"{url} has a {MANIFEST} of something other than an export", _ANOTHER)
    if overwrite:
        return None
    if manifest["export"].get("made_from") != made_from:
        raise UsageProblem(
            f"{url} was made from something else", f"replace it with --overwrite, or {_ANOTHER}"
        )
    for name, entry in manifest["files"].items():
        if sizes.get(name) != entry["bytes"]:
            state = f"has {sizes[name]:,} bytes, not {entry['bytes']:,}" if name in sizes else "is missing"
            raise BadInput(f"{url} is damaged: {name} {state}", "make it again with --overwrite")
    return manifest


def upload_export(folder: Path, url: str, overwrite: bool) -> None:
    """Upload a sealed export.

    Args:
        folder: its folder on this machine.
        url: the destination.
        overwrite: whether what is there is replaced: its manifest is removed first.

    Raises:
        UsageProblem: another upload to the same place began or finished meanwhile.
        CannotRun: the storage cannot be used; what was uploaded has no manifest.
    """
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    mark = join_url(url, UPLOAD_MARK)
    begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    body = json.dumps({"schema": SCHEMA, "kind": _UPLOAD_KIND, "begun": begun, "files": names}).encode()
    if overwrite:
        earlier = _earlier_names(url)
        put_object(mark, body)
        remove_objects(url, [MANIFEST, *(name for name in earlier if name not in names)])
    elif not put_new(mark, body):
        raise UsageProblem(f"another upload to {url} has just begun", f"wait for it, or {_ANOTHER}")
    if not upload_folder(folder, url):
        raise UsageProblem(
            f"another export was published at {url} meanwhile",
            f"make it again with --overwrite, or {_ANOTHER}",
        )
    remove_objects(url, [UPLOAD_MARK])


@contextmanager
def local_archive(url: str) -> Iterator[Path]:
    """Yield a temporary copy of the one archive of a bundle at a URL, checked against the manifest beside it.

    Args:
        url: the folder that `--to bundle --out URL` made, or the archive in it.

    Raises:
        BadInput: there is no complete bundle, or the archive's size or hash differs from its manifest.
        CannotRun: the storage cannot be used.
    """
    url = url.rstrip("/")
    check_url(url)
    folder, _, name = url.rpartition("/") if url.endswith(".zip") else (url, "", "")
    if not exists(join_url(folder, MANIFEST)):
        reason = "it is no bundle, or its upload did not finish"
        raise BadInput(
            f"{folder} has no {MANIFEST}: {reason}", "upload it: tunewise export RUN --to bundle --out URL"
        )
    entries = listed_files(read_bytes(join_url(folder, MANIFEST)), join_url(folder, MANIFEST)) or {}
    archives = [entry for entry in entries if entry.endswith(".zip") and name in ("", entry)]
    if len(archives) != 1:
        what = f"does not list {name}" if name else f"lists {len(archives)} archives, not one"
        raise BadInput(f"the {MANIFEST} of {folder} {what}", "give the URL that --to bundle made")
    with TemporaryDirectory(prefix="tunewise-bundle-", ignore_cleanup_errors=True) as temporary:
        file = Path(temporary, "bundle.zip")
        download_file(join_url(folder, archives[0]), file, entries[archives[0]])
        yield file


def _require_no_other_objects(url: str, sizes: Mapping[str, int], overwrite: bool) -> None:
    """Raise `UsageProblem` when a place without a manifest holds objects that may not be replaced."""
    others = sorted(set(sizes) - {UPLOAD_MARK})
    if UPLOAD_MARK not in sizes:
        if others:
            raise UsageProblem(f"{url} has {others[0]!r} and is not an export", _ANOTHER)
        return
    mark = _mark(url)
    if unknown := [name for name in others if name not in mark["files"]]:
        raise UsageProblem(f"{url} has {unknown[0]!r}, which no export wrote", _ANOTHER)
    if not overwrite:
        raise UsageProblem(
            f"an upload to {url} began at {mark['begun']} and has not finished",
            f"wait for it; when none runs any more, repeat it with --overwrite, or {_ANOTHER}",
        )


def _mark(url: str) -> dict[str, Any]:
    """Return what the mark of an upload says; `UsageProblem` for an object of that name that is no mark."""
    with suppress(ValueError, TypeError, KeyError, BadInput):
        mark = json.loads(read_bytes(join_url(url, UPLOAD_MARK)))
        if mark["kind"] == _UPLOAD_KIND:
            return {"begun": str(mark["begun"])[:40], "files": [str(name) for name in mark["files"]]}
    raise UsageProblem(f"{url} has a {UPLOAD_MARK} that cannot be read", _ANOTHER)


def _earlier_names(url: str) -> list[str]:
    """Return the names that an earlier export, or its upload, wrote at a URL."""
    names: list[str] = []
    if exists(join_url(url, UPLOAD_MARK)):
        names += _mark(url)["files"]
    if manifest := _export_manifest(url):
        names += [*manifest["files"], CARD_FILE]
    return [name for name in dict.fromkeys(names) if name not in (MANIFEST, UPLOAD_MARK)]


def _export_manifest(url: str) -> dict[str, Any]:
    """Return the manifest of an export at a URL; {} where there is none, or one of something else."""
    location = join_url(url, MANIFEST)
    try:
        body = read_bytes(location)
    except CannotRun:
        raise
    except BadInput:
        return {}
    try:
        manifest = json.loads(body)
        is_export = isinstance(manifest["export"], dict) and listed_files(body, location) is not None
        return dict(manifest) if is_export else {}
    except (ValueError, KeyError, TypeError, BadInput):
        return {}
