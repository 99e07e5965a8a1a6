"""What a run was carried out with: versions, operating system and machine, written down when it starts."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runners.resources.calibration import processor_name
from runners.resources.machine import detect_machine

ENVIRONMENT_EVENT = "run.environment"
RECORDED_PACKAGES = (
    "tunewise",
    "torch",
    "transformers",
    "peft",
    "sentence-transformers",
    "faiss-cpu",
    "bm25s",
    "numpy",
    "scipy",
)


def describe_environment() -> dict[str, Any]:
    """Return Python, operating system, processor, cores, RAM in GiB, GPU and package versions; imports none of them."""
    machine = detect_machine(Path())
    gpu = machine.gpu_name.value or machine.gpu_kind.value
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor_name(),
        "cores": machine.cpu_cores.value,
        "ram_gib": machine.ram_gib.value,
        "gpu": "none" if gpu in (None, "") else str(gpu),
        "packages": {name: found for name in RECORDED_PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
