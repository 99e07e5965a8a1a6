"""Detect the accelerator without torch: CUDA by NVML or nvidia-smi; ROCm, XPU and MPS are reported by name.

Files are read under ``MachineProbe.root`` and programs are run through ``MachineProbe.run``, so that tests can
pass a folder and a function of their own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runners.resources.device import DEVICE_ENV, GIB, build_refusal, wanted_device


def run_program(command: list[str]) -> str | None:
    """Return a program's output, None when it is missing, fails or takes over five seconds."""
    if not shutil.which(command[0]):
        return None
    try:
        result = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


@dataclass(frozen=True, slots=True)
class MachineProbe:
    """Sources of the detection: file system root, a function that runs programs, environment, platform."""

    root: Path = Path("/")
    run: Callable[[list[str]], str | None] = run_program
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    system: str = field(default_factory=platform.system)
    arch: str = field(default_factory=platform.machine)
    nvml: bool = True
    torch_build: str = ""
    """Label of the installed torch (:func:`runners.resources.device.torch_build`); "" says nothing."""

    def read(self, path: str) -> str | None:
        """Return the text of a file under the root, None when it cannot be read."""
        try:
            return (self.root / path).read_text("utf-8", "replace")
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPUs of one kind; ``memory_gib`` is that of the smallest one, 0 without a GPU, None if unknown."""

    kind: str
    """cuda, rocm, mps, xpu or none."""
    count: int
    memory_gib: float | None
    name: str
    how: str
    capability: float | None = None
    """Lowest CUDA compute capability among them; 8.0 and up has native bf16."""


def find_gpu(probe: MachineProbe) -> Gpu:
    """Return the first kind of accelerator that runs can use, in the order CUDA, ROCm, XPU, MPS, none.

    One that TUNEWISE_DEVICE or the installed torch rules out counts as none, and the reason names it.
    """
    wanted, unused = wanted_device(probe.environ), ""
    for detect in (_nvml, _nvidia_smi, _rocm, _xpu, _mps):
        gpu = detect(probe)
        if gpu is None or (gpu.kind == "none" and wanted not in ("auto", "cpu")):
            continue
        if gpu.kind == "none":
            return gpu
        other = "" if wanted in ("auto", gpu.kind) else f"{DEVICE_ENV}={wanted}"
        refusal = other or build_refusal(gpu.kind, probe.torch_build)
        if not refusal:
            return gpu
        unused = unused or f"{gpu.name or gpu.kind} is not used: {refusal}"
    return Gpu("none", 0, 0.0, "", unused or "no NVML, nvidia-smi, ROCm, XPU or Apple GPU answered")


def _visible(probe: MachineProbe, count: int) -> tuple[list[int], str]:
    """Return the indices that CUDA_VISIBLE_DEVICES leaves, and a note about the limit ("" without one)."""
    chosen = probe.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(range(count)), ""
    indices = [int(entry) for entry in chosen.split(",") if entry.strip().isdigit() and int(entry) < count]
    if not indices and "GPU-" in chosen:
        indices = list(range(min(count, chosen.count("GPU-"))))
    return indices, ", limited by CUDA_VISIBLE_DEVICES"


def _cuda(probe: MachineProbe, cards: list[tuple[str, float, float | None]], how: str) -> Gpu | None:
    """Return the visible CUDA cards as one Gpu; ``cards`` are (name, GiB, compute capability)."""
    indices, limit = _visible(probe, len(cards))
    if not indices:
        return Gpu("none", 0, 0.0, "", f"{how}{limit}") if cards else None
    names, sizes, capabilities = zip(*(cards[i] for i in indices), strict=True)
    known = [c for c in capabilities if c is not None]
    return Gpu("cuda", len(indices), round(min(sizes), 1), names[0], how + limit, min(known, default=None))


def _nvml(probe: MachineProbe) -> Gpu | None:
    if not probe.nvml:
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        cards = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            size = pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB
            cards.append((name if isinstance(name, str) else name.decode(), size, major + minor / 10))
        return _cuda(probe, cards, "NVML")
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _nvidia_smi(probe: MachineProbe) -> Gpu | None:
    fields = "--query-gpu=name,memory.total,compute_cap"
    text = probe.run(["nvidia-smi", fields, "--format=csv,noheader,nounits"])
    cards: list[tuple[str, float, float | None]] = []
    for line in (text or "").splitlines():
        parts = [part.strip() for part in line.split(",")]
        try:
            cards.append((parts[0], float(parts[1]) / 1024, float(parts[2]) if len(parts) > 2 else None))
        except (ValueError, IndexError):
            continue
    return _cuda(probe, cards, "nvidia-smi")


def _rocm(probe: MachineProbe) -> Gpu | None:
    nodes = probe.root / "sys/class/kfd/kfd/topology/nodes"
    sizes = []
    for node in sorted(nodes.glob("*")) if nodes.is_dir() else []:
        properties = probe.read(f"sys/class/kfd/kfd/topology/nodes/{node.name}/properties") or ""
        # CPUs are nodes too; only GPUs have SIMD units.
        if any(x.startswith("simd_count") and not x.endswith(" 0") for x in properties.splitlines()):
            banks = (node / "mem_banks").glob("*/properties")
            lines = [line for bank in banks for line in bank.read_text("utf-8", "replace").splitlines()]
            sizes.append(sum(int(x.split()[1]) for x in lines if x.startswith("size_in_bytes")) / GIB)
    if not sizes:
        return None
    memory = round(min(sizes), 1) or None
    return Gpu("rocm", len(sizes), memory, "AMD GPU", "/sys/class/kfd (ROCm)")


def _xpu(probe: MachineProbe) -> Gpu | None:
    text = probe.run(["xpu-smi", "discovery", "--dump", "1,2,16"])
    rows = [line.split(",") for line in (text or "").splitlines()[1:] if "," in line]
    if not rows:
        return None
    name = rows[0][1].strip().strip('"')
    digits = "".join(c for c in rows[0][-1] if c.isdigit() or c == ".")
    return Gpu("xpu", len(rows), round(float(digits) / 1024, 1) if digits else None, name, "xpu-smi")


def _mps(probe: MachineProbe) -> Gpu | None:
    if probe.system == "Darwin" and probe.arch == "arm64":
        return Gpu("mps", 1, None, "Apple GPU", "macOS on Apple silicon")
    return None
