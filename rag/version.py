"""The version of the installed distribution, or of the checkout when it is not installed."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "tunewise"


def _read_version() -> str:
    """Return the version in the distribution's metadata; without one, that of the checkout's pyproject.toml.

    Indexes record it as their maker, so it must not change from one start to the next.

    Raises:
        PackageNotFoundError: when there is neither.
    """
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        project = Path(__file__).resolve().parent.parent / "pyproject.toml"
        if not project.is_file():
            raise
        return str(tomllib.loads(project.read_text("utf-8"))["project"]["version"])


__version__ = _read_version()
