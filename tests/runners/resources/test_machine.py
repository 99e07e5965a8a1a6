"""Detection of GPU, memory, cores and bf16, from files and programs that the tests provide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.resources.gpu import MachineProbe
from runners.resources.machine import detect_machine, nominal_gib

MEMINFO = "MemTotal:       33554432 kB\nMemFree: 1 kB\n"


def machine(
    root: Path,
    files: Mapping[str, str],
    outputs: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    system: str = "Linux",
    arch: str = "x86_64",
) -> MachineProbe:
    """A machine made of these files, on which these programs answer."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    found = outputs or {}
    return MachineProbe(root, lambda command: found.get(command[0]), environ or {}, system, arch, nvml=False)


def test_memory_limit_respects_cgroup(tmp_path: Path) -> None:
    """The machine's RAM, or the container's limit when that is lower; "max" is no limit."""
    probe = machine(tmp_path / "a", {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": "8589934592\n"})
    assert detect_machine(tmp_path, probe).ram_gib.value == 8.0
    assert "cgroup v2" in detect_machine(tmp_path, probe).ram_gib.how
    probe = machine(tmp_path / "b", {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory.max": "max\n"})
    assert detect_machine(tmp_path, probe).ram_gib.value == 32.0
    old = {"proc/meminfo": MEMINFO, "sys/fs/cgroup/memory/memory.limit_in_bytes": "4294967296"}
    assert detect_machine(tmp_path, machine(tmp_path / "c", old)).ram_gib.value == 4.0


def test_cores_respect_cgroup_quota(tmp_path: Path) -> None:
    """A quota below the affinity counts; at least one core is left."""
    found = detect_machine(tmp_path, machine(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000"})).cpu_cores
    assert found.value == 1
    assert "cpu.max" in found.how
    unlimited = detect_machine(
        tmp_path, machine(tmp_path / "x", {"sys/fs/cgroup/cpu.max": "max 100000"})
    ).cpu_cores
    assert unlimited.value >= 1


def test_nvidia_smi_reports_cuda_gpus(tmp_path: Path) -> None:
    """Count, the smallest card's memory, name and capability, within CUDA_VISIBLE_DEVICES."""
    smi = {"nvidia-smi": "NVIDIA A100-SXM4-80GB, 81920, 8.0\nNVIDIA T4, 15360, 7.5\n"}
    found = detect_machine(tmp_path, machine(tmp_path, {}, smi))
    assert (found.gpu_kind.value, found.gpu_count.value, found.gpu_memory_gib.value) == ("cuda", 2, 15.0)
    assert found.bf16.value is False
    one = detect_machine(tmp_path, machine(tmp_path, {}, smi, {"CUDA_VISIBLE_DEVICES": "0"}))
    assert (one.gpu_count.value, one.gpu_memory_gib.value, one.bf16.value) == (1, 80.0, True)
    none = detect_machine(tmp_path, machine(tmp_path, {}, smi, {"CUDA_VISIBLE_DEVICES": ""}))
    assert none.gpu_kind.value == "none"
    assert "CUDA_VISIBLE_DEVICES" in none.gpu_kind.how


def test_rocm_xpu_and_mps_are_detected(tmp_path: Path) -> None:
    """ROCm from /sys/class/kfd, XPU from xpu-smi, MPS from the platform."""
    node = "sys/class/kfd/kfd/topology/nodes/1"
    rocm = machine(
        tmp_path / "r",
        {
            "sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 8\nsimd_count 0\n",
            f"{node}/properties": "simd_count 440\n",
            f"{node}/mem_banks/0/properties": "size_in_bytes 68702699520\n",
        },
    )
    found = detect_machine(tmp_path, rocm)
    assert (found.gpu_kind.value, found.gpu_count.value, found.gpu_memory_gib.value) == ("rocm", 1, 64.0)
    xpu = machine(
        tmp_path / "x", {}, {"xpu-smi": "Device ID,Device Name,Memory\n0,Data Center GPU Max,49152 MiB\n"}
    )
    assert (
        detect_machine(tmp_path, xpu).gpu_kind.value,
        detect_machine(tmp_path, xpu).gpu_memory_gib.value,
    ) == ("xpu", 48.0)
    mac = machine(tmp_path / "m", {"proc/meminfo": MEMINFO}, system="Darwin", arch="arm64")
    assert (
        detect_machine(tmp_path, mac).gpu_kind.value,
        detect_machine(tmp_path, mac).gpu_memory_gib.value,
    ) == ("mps", 24.0)


@pytest.mark.parametrize(
    ("flags", "native"), [("fpu avx512f avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx2", False)]
)
def test_bf16_support_of_cpu_flags(tmp_path: Path, flags: str, native: bool) -> None:
    """From the CPU's flags."""
    probe = machine(tmp_path, {"proc/cpuinfo": f"processor : 0\nflags : {flags}\n"})
    assert detect_machine(tmp_path, probe).bf16.value is native


def test_machine_without_information_has_unknown_values(tmp_path: Path) -> None:
    """An empty root gives unknown values with a reason, and this very machine gives real ones."""
    found = detect_machine(tmp_path / "not" / "yet", machine(tmp_path, {}))
    assert found.gpu_kind.value == "none"
    assert found.ram_gib.value is None
    assert found.disk_gib.value > 0
    assert all(row["how"] for row in detect_machine().to_json().values())


def test_nominal_gib_of_detected_sizes() -> None:
    """79.1 is an 80 GB card, 15.0 a 16 GB one, 21 is itself."""
    assert [nominal_gib(x) for x in (79.1, 80, 15.0, 23.6, 139.8, 21, 1000)] == [
        80,
        80,
        16,
        24,
        141,
        21,
        1000,
    ]


@given(st.floats(0.1, 400), st.floats(0, 100))
def test_nominal_gib_is_monotone(gib: float, more: float) -> None:
    """The label never falls as memory grows."""
    assert nominal_gib(gib) <= nominal_gib(gib + more)
