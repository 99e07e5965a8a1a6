"""The choice of device and dtype, from tables and from machines that the tests describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.errors import BadInput
from runners.inference.weights import dtype_for, free_gib
from runners.resources import device
from runners.resources.device import (
    DEVICE_ENV,
    DEVICE_TABLE,
    DTYPE_ENV,
    MEMORY_ENV,
    build_refusal,
    choose_dtype,
    choose_kind,
    memory_cap,
    torch_build,
    unsupported_settings,
)
from runners.resources.gpu import MachineProbe
from runners.resources.machine import Machine, detect_machine

MEMINFO = "MemTotal:       33554432 kB\n"
SMI = {"nvidia-smi": "NVIDIA A100-SXM4-80GB, 81920, 8.0\n"}
T4 = {"nvidia-smi": "Tesla T4, 15360, 7.5\n"}
XPU = {"xpu-smi": "Device ID,Device Name,Memory\n0,Data Center GPU Max,49152 MiB\n"}


def described(
    root: Path,
    outputs: dict[str, str] | None = None,
    flags: str = "avx2",
    system: str = "Linux",
    arch: str = "x86_64",
    build: str = "",
    **environ: str,
) -> Machine:
    """Return a machine on which these programs answer and whose CPU has these flags."""
    for name, text in (("proc/meminfo", MEMINFO), ("proc/cpuinfo", f"processor : 0\nflags : {flags}\n")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    answers = outputs or {}
    probe = MachineProbe(
        root, lambda command: answers.get(command[0]), environ, system, arch, nvml=False, torch_build=build
    )
    return detect_machine(root, probe)


def test_device_is_the_first_of_the_table_that_is_present() -> None:
    assert list(DEVICE_TABLE) == ["cuda", "rocm", "xpu", "mps", "cpu"]
    assert choose_kind({"mps", "xpu", "cuda"}) == "cuda"
    assert choose_kind({"mps", "xpu"}) == "xpu"
    assert choose_kind({"mps"}) == "mps"
    assert choose_kind(()) == "cpu"
    assert choose_kind({"cuda"}, "cpu") == "cpu"
    with pytest.raises(BadInput, match="TUNEWISE_DEVICE=xpu: torch sees cuda here"):
        choose_kind({"cuda"}, "xpu")


@pytest.mark.parametrize(
    ("kind", "bf16", "dtype"),
    [
        ("cuda", True, "bfloat16"),
        ("cuda", False, "float16"),
        ("cuda", None, "float16"),
        ("rocm", True, "bfloat16"),
        ("xpu", True, "bfloat16"),
        ("mps", True, "float32"),
        ("mps", False, "float32"),
        ("cpu", True, "bfloat16"),
        ("cpu", False, "float32"),
    ],
)
def test_dtype_follows_the_table(kind: device.DeviceKind, bf16: bool | None, dtype: str) -> None:
    chosen, why = choose_dtype(kind, bf16, "flags")
    assert chosen == dtype
    assert why
    assert choose_dtype(kind, bf16, "flags", "float32") == ("float32", "TUNEWISE_DTYPE=float32")


def test_described_machines_compute_in_their_dtype(tmp_path: Path) -> None:
    cards = {name: described(tmp_path / name, output) for name, output in (("a", SMI), ("t", T4), ("x", XPU))}
    assert cards["a"].dtype == ("bfloat16", "compute capability 8")
    assert cards["t"].dtype == ("float16", "no native bf16: compute capability 7.5")
    assert (cards["x"].device, cards["x"].dtype[0], cards["x"].own_memory) == ("xpu", "bfloat16", True)
    mac = described(tmp_path / "m", system="Darwin", arch="arm64")
    assert (mac.device, mac.dtype[0], mac.own_memory, mac.device_memory_gib) == ("mps", "float32", False, 32)
    assert described(tmp_path / "c").dtype[0] == "float32"
    assert described(tmp_path / "b", flags="avx512_bf16").dtype[0] == "bfloat16"


def test_gpu_of_unknown_capability_is_not_judged_by_the_cpu(tmp_path: Path) -> None:
    old_driver = {"nvidia-smi": "NVIDIA A100-SXM4-80GB, 81920\n"}
    machine = described(tmp_path, old_driver, flags="avx512_bf16")
    assert machine.bf16.value is None
    assert machine.dtype[0] == "float16"


def test_gpu_that_the_installed_torch_does_not_use_counts_as_none(tmp_path: Path) -> None:
    assert described(tmp_path / "1", SMI, build="cu126").gpu_kind.value == "cuda"
    assert described(tmp_path / "2", SMI).gpu_kind.value == "cuda"
    refused = described(tmp_path / "3", SMI, build="cpu").gpu_kind
    assert refused.value == "none"
    assert (
        refused.how
        == "NVIDIA A100-SXM4-80GB is not used: the installed torch is built for CPUs and does not use it"
    )
    assert described(tmp_path / "4", XPU, build="cu126").gpu_kind.value == "none"
    assert described(tmp_path / "5", XPU, build="xpu").gpu_kind.value == "xpu"
    assert build_refusal("mps", "") == ""
    assert torch_build("2.13.0+rocm6.4") == "rocm6.4"
    assert torch_build("2.13.0") == ""


def test_settings_override_detection(tmp_path: Path) -> None:
    cpu = described(tmp_path / "1", SMI, **{DEVICE_ENV: "cpu"})
    assert cpu.gpu_kind.value == "none"
    assert "TUNEWISE_DEVICE=cpu" in cpu.gpu_kind.how
    both = described(tmp_path / "2", SMI | XPU, **{DEVICE_ENV: "xpu"})
    assert both.gpu_kind.value == "xpu"
    wide = described(tmp_path / "3", None, "avx512_bf16", **{DTYPE_ENV: "float32"})
    assert wide.bf16.value is False
    assert wide.dtype == ("float32", "TUNEWISE_DTYPE=float32")
    assert described(tmp_path / "4", None, **{DTYPE_ENV: "float16"}).dtype[0] == "float16"
    small = described(tmp_path / "5", SMI, **{MEMORY_ENV: "3"})
    assert (small.gpu_memory_gib.value, small.ram_gib.value, small.ram_gib.how) == (3, 3, MEMORY_ENV)
    with pytest.raises(BadInput, match="TUNEWISE_DTYPE=int3 is unknown"):
        described(tmp_path / "6", None, **{DTYPE_ENV: "int3"})
    with pytest.raises(BadInput, match="TUNEWISE_MEMORY_GIB=much is no amount"):
        memory_cap({MEMORY_ENV: "much"})


def test_run_obeys_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DTYPE_ENV, "float32")
    assert str(dtype_for()[0]) == "torch.float32"
    monkeypatch.setenv(DTYPE_ENV, "bfloat16")
    assert str(dtype_for()[0]) == "torch.bfloat16"
    monkeypatch.setenv(MEMORY_ENV, "0.25")
    assert free_gib() <= 0.25
    monkeypatch.setenv(DEVICE_ENV, "cpu")
    assert device.torch_device().type == "cpu"
    assert device.device_name() == "cpu"
    device.synchronize_device()
    device.free_device_cache()


def test_settings_that_a_device_cannot_carry_out_are_named() -> None:
    assert "8-bit optimiser for an Apple GPU" in unsupported_settings("mps", "full", "adamw_8bit")
    assert unsupported_settings("mps", "qlora", "adamw") == ""
    assert unsupported_settings("cuda", "qlora", "paged_adamw_8bit") == ""
