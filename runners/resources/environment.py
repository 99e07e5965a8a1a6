"""Describe the environment of a run: package versions, operating system and machine, logged when it starts."""

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
    """Return Python, operating system, processor, cores, RAM in GiB, GPU and package versions.

    None of the packages is imported: their versions are read from the installed metadata.
    """
    machine = detect_machine(Path())
    gpu = machine.gpu_name.value or machine.gpu_kind.value
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor_name(),
        "cores": machine.cpu_cores.value,
        "ram_gib": machine.ram_gib.value,
        "gpu": "none" if gpu in (None, "") else str(gpu),
        "packages": {name: installed for name in RECORDED_PACKAGES if (installed := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
