"""The environment of a run: package versions, system and machine, logged at its start; the limit of the kernel cache."""

from __future__ import annotations

import os
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

KERNEL_CACHE_CAPACITY = "64"
"""Kernels that oneDNN keeps compiled, for every new number of tokens of a product another one; its default is 1,024. In
training nearly every step has another number of tokens: SmolLM2-135M, lora, 25 steps, one thread of a Xeon with AMX, took
2.08 GiB with 1,024, 1.66 with 32 (benchmarks/LOG.md). A step needs about 40 of them, for every block the same."""


def limit_kernel_cache() -> None:
    """Bound oneDNN's cache of kernels unless the user has; read at the first product, so call it before."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNEL_CACHE_CAPACITY)


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
        "dtype": machine.dtype[0],
        "packages": {name: installed for name in RECORDED_PACKAGES if (installed := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
