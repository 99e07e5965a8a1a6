"""Detect GPU, memory, cores, disk and bf16 support of this machine. Imports no torch.

Main entry point: :func:`detect_machine`. Every value is a :class:`Detected`, which also says how it was found, so
that the advisor can show it and a person can override it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.resources import device as resources_device
from runners.resources import gpu as resources_gpu
from runners.resources.device import DEVICE_TABLE, DTYPE_ENV, MEMORY_ENV, DeviceKind, DtypeName
from runners.resources.gpu import MachineProbe

GIB = resources_device.GIB
"""Bytes of a GiB; other modules import it from here."""
NOMINAL_GIB = (
    2,
    3,
    4,
    6,
    8,
    10,
    11,
    12,
    16,
    20,
    24,
    32,
    40,
    48,
    64,
    80,
    94,
    96,
    128,
    141,
    180,
    192,
    256,
    288,
)
"""Memory sizes printed on GPUs, in GiB."""


@dataclass(frozen=True, slots=True)
class Detected:
    """One value and how it was found; ``value`` is None when it could not be."""

    value: Any
    how: str


@dataclass(frozen=True, slots=True)
class Machine:
    """The detected machine; field names are the questionnaire's ids, plus the GPU's name and bf16."""

    gpu_kind: Detected
    gpu_count: Detected
    gpu_memory_gib: Detected
    gpu_name: Detected
    ram_gib: Detected
    cpu_cores: Detected
    disk_gib: Detected
    bf16: Detected

    @property
    def device(self) -> DeviceKind:
        """The kind of device that models run on."""
        return next((kind for kind in DEVICE_TABLE if kind == self.gpu_kind.value), "cpu")

    @property
    def own_memory(self) -> bool:
        """Whether the device has memory of its own, and does not share the RAM."""
        return DEVICE_TABLE[self.device].own_memory

    @property
    def device_memory_gib(self) -> float | None:
        """GiB of one device: a GPU's own memory, else the RAM; None when unknown."""
        value = self.gpu_memory_gib.value if self.own_memory else self.ram_gib.value
        return None if value is None else float(value)

    @property
    def dtype(self) -> tuple[DtypeName, str]:
        """The dtype that models compute in here, and why."""
        wanted = (
            self.bf16.how.removeprefix(f"{DTYPE_ENV}=") if self.bf16.how.startswith(DTYPE_ENV) else "auto"
        )
        return resources_device.choose_dtype(self.device, self.bf16.value, self.bf16.how, wanted)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return ``{name: {"value", "how"}}``."""
        return {
            name: {"value": detected.value, "how": detected.how}
            for name in self.__slots__
            if isinstance(detected := getattr(self, name), Detected)
        }


def detect_machine(runs: Path = Path(), probe: MachineProbe | None = None) -> Machine:
    """Detect what this machine has. Never raises: what is unknown has the value None.

    Args:
        runs: folder on the disk whose free space is reported.
        probe: where to look; None is this machine.
    """
    probe = probe or MachineProbe(torch_build=resources_device.torch_build())
    ram = memory_limit(probe)
    gpu = resources_gpu.find_gpu(probe)
    # Apple GPUs share the RAM with the CPU; three quarters of it are taken as the GPU's.
    shared = gpu.kind == "mps" and ram.value
    memory = round(ram.value * 0.75, 1) if shared else gpu.memory_gib
    how = f"{gpu.how}, three quarters of the shared memory" if shared else gpu.how
    cap = resources_device.memory_cap(probe.environ)
    if cap is not None and memory and cap < memory and not shared:
        memory, how = cap, MEMORY_ENV
    return Machine(
        gpu_kind=Detected(gpu.kind, gpu.how),
        gpu_count=Detected(gpu.count, gpu.how),
        gpu_memory_gib=Detected(memory, how),
        gpu_name=Detected(gpu.name, gpu.how),
        ram_gib=ram,
        cpu_cores=available_cores(probe),
        disk_gib=free_disk(runs),
        bf16=supports_bf16(probe, gpu),
    )


def nominal_gib(gib: float) -> float:
    """Return the size printed on the GPU: a detected 79.1 GiB and a nominal 80 are the same card.

    The smallest common size at most 8 % above the value, else the value itself, so the result never falls as
    memory grows.
    """
    above = next((size for size in NOMINAL_GIB if size >= gib), None)
    return float(above) if above and gib >= 0.92 * above else float(gib)


def memory_limit(probe: MachineProbe) -> Detected:
    """Return the RAM a process may use in GiB: the machine's, or a lower limit of the cgroup or TUNEWISE_MEMORY_GIB."""
    total, how = _total_ram(probe)
    limits = (
        ("sys/fs/cgroup/memory.max", "cgroup v2 memory.max"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "cgroup v1 memory limit"),
    )
    for path, name in limits:
        text = (probe.read(path) or "").strip()
        if text.isdigit() and (total is None or int(text) < total):
            total, how = int(text), name
    cap = resources_device.memory_cap(probe.environ)
    if cap is not None and (total is None or cap * GIB < total):
        return Detected(cap, MEMORY_ENV)
    return Detected(round(total / GIB, 1) if total else None, how)


def free_ram(probe: MachineProbe) -> Detected:
    """Return the RAM in GiB that can be allocated now, on the machine and in the cgroup; caches count as free."""
    import psutil

    free, how = int(psutil.virtual_memory().available), "available memory"
    limit = (probe.read("sys/fs/cgroup/memory.max") or "").strip()
    used = (probe.read("sys/fs/cgroup/memory.current") or "").strip()
    if limit.isdigit() and used.isdigit():
        stat = dict(line.split() for line in (probe.read("sys/fs/cgroup/memory.stat") or "").splitlines())
        # memory.current counts the page cache, whose inactive part is reclaimed on demand.
        left = int(limit) - int(used) + int(stat.get("inactive_file", 0))
        if left < free:
            free, how = left, "cgroup v2 memory.max less what is used"
    cap = resources_device.memory_cap(probe.environ)
    if cap is not None and cap * GIB < free:
        free, how = int(cap * GIB), MEMORY_ENV
    return Detected(round(max(0, free) / GIB, 2), how)


def _total_ram(probe: MachineProbe) -> tuple[int | None, str]:
    for line in (probe.read("proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024, "/proc/meminfo"
    if probe.root == Path("/"):
        import psutil

        return int(psutil.virtual_memory().total), "psutil"
    return None, "no memory information was found"


def available_cores(probe: MachineProbe) -> Detected:
    """Return the CPU cores a process may use: its affinity, or the cgroup's quota when that is lower."""
    try:
        count, how = len(os.sched_getaffinity(0)), "the process's CPU affinity"
    except AttributeError:
        count, how = os.cpu_count() or 1, "the operating system's count"
    quota, name = _cpu_quota(probe)
    if quota is not None and quota < count:
        return Detected(max(1, int(quota)), f"{name} allows {quota:g} of {count} cores")
    return Detected(count, how)


def _cpu_quota(probe: MachineProbe) -> tuple[float | None, str]:
    """Return the cgroup's CPU quota in cores (quota / period) and its source; None without a limit."""
    parts = (probe.read("sys/fs/cgroup/cpu.max") or "").split()
    if len(parts) == 2 and parts[0].isdigit() and int(parts[1]):
        return int(parts[0]) / int(parts[1]), "cgroup v2 cpu.max"
    quota = (probe.read("sys/fs/cgroup/cpu/cpu.cfs_quota_us") or "").strip()
    period = (probe.read("sys/fs/cgroup/cpu/cpu.cfs_period_us") or "").strip()
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period), "cgroup v1 CPU quota"
    return None, ""


def free_disk(runs: Path) -> Detected:
    """Return the free GiB of the disk that holds ``runs`` (or its nearest existing parent)."""
    folder = runs.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        gib = round(shutil.disk_usage(folder).free / GIB, 1)
        return Detected(gib, f"free space at {folder.name or folder}")
    except OSError as error:
        return Detected(None, f"the disk could not be read: {error.strerror}")


def supports_bf16(probe: MachineProbe, gpu: resources_gpu.Gpu) -> Detected:
    """Return whether bf16 is native: GPU compute capability 8 and up, CPU AVX512-BF16 / AMX; None when unknown.

    TUNEWISE_DTYPE decides where it is set: bfloat16 counts as native, float16 and float32 as not.
    """
    wanted = resources_device.wanted_dtype(probe.environ)
    if wanted != "auto":
        return Detected(wanted == "bfloat16", f"{DTYPE_ENV}={wanted}")
    if gpu.capability is not None:
        native = gpu.capability >= resources_device.NATIVE_BF16_CAPABILITY
        return Detected(native, f"compute capability {gpu.capability:g}")
    if gpu.kind in ("rocm", "xpu"):
        return Detected(True, f"{gpu.kind} devices in use today support it")
    if gpu.kind == "mps":
        return Detected(False, "float32 on an Apple GPU")
    if gpu.kind == "cuda":
        return Detected(None, "the driver does not report the compute capability")
    return cpu_supports_bf16(probe)


def cpu_supports_bf16(probe: MachineProbe) -> Detected:
    """Return whether the CPU multiplies in bf16 natively, by its flags: AVX512-BF16 or AMX."""
    flags = next((x for x in (probe.read("proc/cpuinfo") or "").splitlines() if x.startswith("flags")), "")
    bf16_flags = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags.split()]
    if bf16_flags:
        return Detected(True, f"/proc/cpuinfo lists {bf16_flags[0]}")
    return Detected(
        False, "/proc/cpuinfo lists neither amx_bf16 nor avx512_bf16" if flags else "no CPU flags found"
    )
