"""Do what a plan says: obtain models, train, generate, measure.

``runners`` turns plain data (a plan, examples, questions) into measured results and knows nothing of advice;
it looks things up through :mod:`rag`. ``run_plan`` is imported only when it is asked for, so that
``import runners`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.run import run_plan

__all__ = ["run_plan"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "run_plan":
        from runners.run import run_plan

        return run_plan
    raise AttributeError(f"module 'runners' has no attribute {name!r}")
