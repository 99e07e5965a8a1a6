"""The packages that a method needs and this machine lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from advisor.answers import Answers

NEEDS: Mapping[str, tuple[str, ...]] = {
    "lora": ("torch", "peft"),
    "qlora": ("torch", "peft", "bitsandbytes"),
    "full": ("torch",),
    "hybrid": ("torch", "peft"),
}
"""The packages without which a method cannot be run here."""


def installed(package: str) -> bool:
    """Say whether a package could be imported; it is not imported."""
    return find_spec(package) is not None


def missing(answers: Answers, have: Callable[[str], bool] = installed) -> dict[str, str]:
    """Return for each method that lacks a package what it needs; nothing when another machine is planned for."""
    elsewhere = ("gpu_kind", "gpu_count", "gpu_memory_gib")
    if any(
        key in answers and answers[key].source in ("flag", "file", "asked", "config") for key in elsewhere
    ):
        return {}
    lacks = {method: [name for name in names if not have(name)] for method, names in NEEDS.items()}
    return {method: f"needs {', '.join(names)}, missing" for method, names in lacks.items() if names}
