"""Access to the Hugging Face hub: only when it is allowed, and blocked for every library otherwise."""

from __future__ import annotations

import logging
import os
import re
from fnmatch import fnmatch
from pathlib import Path

from rag.errors import BadInput, CannotRun
from runners.models.completeness import WEIGHTS, file_of, incomplete_files, name_files
from runners.models.digests import file_sha256
from runners.paths import cache_folder

ALLOW_HUB_VARIABLE = "TUNEWISE_ALLOW_HUB"
_WANTED = ("*.safetensors", "*.json", "*.jinja", "vocab.txt", "merges.txt", "1_Pooling/config.json")
_UNWANTED = ("onnx/*", "openvino/*", "*.index.json.bak", "original/*")

# It warns on import that it could not fetch a kernel for the CPU from the hub, which is intended here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def hub_allowed(flag: bool = False) -> bool:
    """Whether the hub may be accessed: by the caller's flag or by TUNEWISE_ALLOW_HUB=1."""
    return flag or os.environ.get(ALLOW_HUB_VARIABLE, "").lower() in {"1", "true", "yes", "on"}


def allow_hub() -> None:
    """Allow the hub in this process, by its variable; before a library is imported that reads :func:`offline_variables`."""
    os.environ[ALLOW_HUB_VARIABLE] = "1"


def offline_variables() -> dict[str, str]:
    """Return the environment variables that stop libraries from accessing the hub, unless it is allowed.

    Those that are set already are left out. Telemetry is switched off in every case. They have to be set before
    transformers, huggingface_hub or bitsandbytes are imported, which read them then (bitsandbytes asks the hub for a CPU
    kernel when it is imported): the modules that import one of these first begin with it.
    """
    variables = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    if not hub_allowed():
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {name: value for name, value in variables.items() if name not in os.environ}


def has_folder(repo: str) -> bool:
    """Return whether the hub's own cache has a folder for a repository, complete or not."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return (Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}").is_dir()


def find_snapshot(repo: str) -> Path | None:
    """Return the newest copy of a repository in the hub's own cache, complete or not; None without one. Makes no request."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except HFValidationError:
        return None
    except LocalEntryNotFoundError as error:
        # Recent releases refuse a copy that lacks any file of the repository, needed or not, and name its folder.
        folder = getattr(error, "snapshot_path", None)
        return Path(folder) if folder else None


def snapshot_problems(folder: Path, repo: str) -> tuple[str, ...]:
    """Return the files that a copy in the hub's cache lacks or that are cut off; () for a complete one."""
    listed = _listed_sizes(repo, folder.name) or {}
    problems = incomplete_files(folder, {name: size for name, size in listed.items() if _is_wanted(name)})
    # The modules of an embedder may have all files in their own folders (StaticEmbedding, Router).
    modular = (folder / "modules.json").is_file()
    files = folder.rglob if modular else folder.glob
    weights = WEIGHTS if not any(files("*.safetensors")) else ""
    required = ("tokenizer.json",) if modular else ("config.json", "tokenizer.json")
    needed = [name for name in required if not any(files(name))]
    return tuple(dict.fromkeys([*needed, *([weights] if weights and not problems else []), *problems]))


def cached_snapshot(repo: str) -> Path | None:
    """Return the newest copy of a repository in the hub's own cache if it is complete, else None; makes no request."""
    folder = find_snapshot(repo)
    return folder if folder and not snapshot_problems(folder, repo) else None


def download_from_hub(repo: str) -> Path:
    """Download a repository's safetensors, configs and tokenizer into the hub's own cache and return the folder.

    A download that was cut off goes on: files that are there with their whole size are not fetched again.

    Raises:
        CannotRun: the hub cannot be reached, does not have the repository, or did not deliver all its files.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)))
        for name in map(file_of, snapshot_problems(folder, repo)):
            if (folder / name).is_file():  # the hub's client takes a file that is there for whole
                hf_hub_download(repo, name, revision=folder.name, force_download=True)
    except Exception as error:  # the hub's client raises a dozen types of error
        raise CannotRun(f"the hub did not deliver {repo}: {type(error).__name__}: {error}") from error
    if problems := snapshot_problems(folder, repo):
        raise CannotRun(
            f"the hub's copy of {repo} cannot be used: {name_files(problems)}",
            "choose a repository with safetensors weights and a tokenizer.json",
        )
    return folder


def find_config(repo: str) -> Path | None:
    """Return the config.json of a repository, kept in tunewise's cache; fetched alone where it is not there and may be.

    None where it is not here and the hub is not allowed. It is kept apart from the hub's own cache, where a repository
    without weights would look like a download that was cut off.

    Raises:
        CannotRun: the hub is allowed, and did not deliver it.
    """
    folder = cache_folder() / "configs"
    present = sorted((folder / f"models--{repo.replace('/', '--')}").glob("snapshots/*/config.json"))
    if present or not hub_allowed():
        return present[-1] if present else None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, "config.json", cache_dir=folder))
    except Exception as error:  # the hub's client raises a dozen types of error
        first = str(error).partition("\n")[0]
        raise CannotRun(f"the hub did not deliver the config.json of {repo}: {first}") from error


def refuse_damage(folder: Path) -> None:
    """Raise BadInput for a weight file of the hub's cache whose SHA-256 is not the one it was stored under.

    The cache stores large files as ``blobs/SHA256``; files stored under other names cannot be checked.
    """
    for path in sorted(folder.rglob("*.safetensors")):
        blob = path.resolve()
        if blob.parent.name != "blobs" or not re.fullmatch("[0-9a-f]{64}", blob.name):
            continue
        if (digest := file_sha256(path)) != blob.name:
            raise BadInput(
                f"{path} is damaged: its SHA-256 is {digest[:16]}, the hub's {blob.name[:16]}",
                f"remove {blob}, and fetch it again with {ALLOW_HUB_VARIABLE}=1",
            )


def _is_wanted(name: str) -> bool:
    """Whether a file of a repository is one that is downloaded."""
    wanted = any(fnmatch(name, pattern) for pattern in _WANTED)
    return wanted and not any(fnmatch(name, pattern) for pattern in _UNWANTED)


def _listed_sizes(repo: str, revision: str) -> dict[str, int] | None:
    """Return the files of a repository and their sizes, as listed when it was downloaded; None where that is unknown."""
    try:
        from huggingface_hub import get_cached_repo_tree
    except ImportError:  # releases before 2.0 keep no list
        return None
    try:
        files = get_cached_repo_tree(repo, revision=revision)
    except Exception:  # no list of this copy, or one that cannot be read
        return None
    return {file.path: int(file.size) for file in files}
