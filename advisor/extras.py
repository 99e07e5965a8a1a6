"""Parts of tunewise that need more than its base install: said before they are imported, with the line that helps."""

from __future__ import annotations

from importlib.util import find_spec

from rag.errors import CannotRun


def need(extra: str, *modules: str) -> None:
    """Raise CannotRun when one of an extra's modules is not installed."""
    absent = [name for name in modules if find_spec(name) is None]
    if absent:
        raise CannotRun(
            f"this needs {', '.join(absent)}, which the base install does not bring",
            f'pip install "tunewise[{extra}]"',
        )
