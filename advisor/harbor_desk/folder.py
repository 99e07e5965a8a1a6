"""The folder of the example's files, however the package was installed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def example_folder() -> Path:
    """Return the example's folder; its README.md says what the files are."""
    return Path(str(files("advisor") / "harbor_desk"))
