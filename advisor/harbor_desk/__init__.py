"""The example that ships with tunewise: Harbor Desk, the help desk of a fictional ferry operator."""

from __future__ import annotations

from typing import Any

__all__ = ["path"]


def __getattr__(name: str) -> Any:
    """Import the public name only when it is used."""
    if name == "path":
        from advisor.harbor_desk.folder import example_folder

        return example_folder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
