"""Decide: questionnaire, profile, rules, recommendation, plan, verdict and report."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["recommend"]


def __getattr__(name: str) -> Any:
    """Import the public names only when they are used."""
    if name == "recommend":
        from advisor.engine import recommend

        return recommend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
