"""Folders outside any run: the user's cache of models and measurements, and the checkpoints of a training."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return the folder of cached models and measurements: TUNEWISE_CACHE, else the platform's user cache folder."""
    chosen = os.environ.get("TUNEWISE_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("tunewise", appauthor=False)


def work_folder(out: Path) -> Path:
    """Return the folder of the checkpoints of a training that will publish ``out``."""
    return out.parent / f".{out.name}.work"
