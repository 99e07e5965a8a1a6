"""Access to the Hugging Face hub: only when it is allowed, and blocked for every library otherwise."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from rag.errors import CannotRun

ALLOW_HUB_VARIABLE = "TUNEWISE_ALLOW_HUB"
_WANTED = ("*.safetensors", "*.json", "*.jinja", "vocab.txt", "merges.txt", "1_Pooling/config.json")
_UNWANTED = ("onnx/*", "openvino/*", "*.index.json.bak", "original/*")


def hub_allowed(flag: bool = False) -> bool:
    """Whether the hub may be accessed: by the caller's flag or by TUNEWISE_ALLOW_HUB=1."""
    return flag or os.environ.get(ALLOW_HUB_VARIABLE, "").lower() in {"1", "true", "yes", "on"}


def block_hub() -> None:
    """Set environment variables that stop libraries from accessing the hub, unless it is allowed.

    Must run before transformers, huggingface_hub or bitsandbytes are imported: they read the variables at import
    (bitsandbytes asks the hub for a CPU kernel when it is imported). Telemetry is switched off in every case.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # bitsandbytes warns on import that it could not fetch that kernel, which is intended here.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if not hub_allowed():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")


def cached_snapshot(repo: str) -> Path | None:
    """Return the newest complete copy of a repository in the hub's own cache, None without one; makes no request."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    complete = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if complete else None


def download_from_hub(repo: str) -> Path:
    """Download a repository's safetensors, configs and tokenizer into the hub's own cache and return the folder.

    Raises:
        CannotRun: the hub cannot be reached or does not have the repository.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED)))
    except Exception as error:  # the hub's client raises a dozen types of error
        raise CannotRun(f"the hub did not deliver {repo}: {type(error).__name__}: {error}") from error
