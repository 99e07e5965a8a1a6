"""The device that models run on, the dtype they compute in, and what each kind of device can do. One place for all.

:data:`DEVICE_TABLE` holds the facts of each kind. :func:`choose_kind` and :func:`choose_dtype` decide from them alone,
so that the advice (which imports no torch) and the run (which asks torch) decide alike; :func:`torch_device`,
:func:`torch_dtype` and :func:`free_device_gib` are the run's side and import torch when they are called. Three
environment variables override the detection: TUNEWISE_DEVICE, TUNEWISE_DTYPE and TUNEWISE_MEMORY_GIB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from rag.errors import BadInput

if TYPE_CHECKING:
    import torch

DeviceKind = Literal["cuda", "rocm", "xpu", "mps", "cpu"]
DtypeName = Literal["bfloat16", "float16", "float32"]
WantedDtype = Literal["auto", "bfloat16", "float16", "float32"]
"""The dtype that a caller asks for; auto is what the device computes in (:func:`choose_dtype`)."""
DEVICE_ENV = "TUNEWISE_DEVICE"
DTYPE_ENV = "TUNEWISE_DTYPE"
MEMORY_ENV = "TUNEWISE_MEMORY_GIB"
DTYPE_BYTES: Mapping[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes of one value of each dtype that models compute in."""
NATIVE_BF16_CAPABILITY = 8.0
"""CUDA compute capability from which bf16 is native (Ampere); T4 has 7.5, V100 7.0."""
GIB = 2**30
"""Bytes of a GiB; defined here because the other modules of the machine import this one."""
INITIAL_LOSS_SCALE = 65536.0
"""The loss scale that a run in float16 begins with, torch's own default."""
ALL_DTYPES: tuple[DtypeName, ...] = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What one kind of device can do."""

    name: str
    """The kind in words."""
    torch_type: str
    """torch's name of the device; ROCm builds of torch call AMD GPUs cuda."""
    own_memory: bool
    """Whether it has memory of its own, and does not share the RAM with the CPU."""
    without_bf16: DtypeName
    """The dtype where bf16 is not native: float16 where a loss scale keeps small gradients, else float32."""
    compiles: bool = False
    """Whether torch.compile is used; only where its gain was measured by others on such devices."""
    fused_optimizer: bool = True
    """Whether torch's AdamW has a fused kernel (torch.utils._foreach_utils)."""
    eight_bit_optimizer: bool = True
    """Whether bitsandbytes has 8-bit optimisers for it (bitsandbytes 0.50: all but MPS)."""
    four_bit: bool = True
    """Whether bitsandbytes computes nf4 layers on it (bitsandbytes 0.50: all; on MPS from torch 2.9 on, slowly)."""
    fallback: str = ""
    """What is done in another way than on CUDA."""


DEVICE_TABLE: Mapping[DeviceKind, DeviceFacts] = {
    "cuda": DeviceFacts("NVIDIA GPU", "cuda", True, "float16", compiles=True),
    "rocm": DeviceFacts("AMD GPU", "cuda", True, "float16", compiles=True),
    "xpu": DeviceFacts("Intel GPU", "xpu", True, "float16", fallback="torch.compile is not used"),
    "mps": DeviceFacts(
        "Apple GPU",
        "mps",
        False,
        "float32",
        eight_bit_optimizer=False,
        fallback="everything is computed in float32; no 8-bit optimiser, torch.compile is not used",
    ),
    "cpu": DeviceFacts("CPU", "cpu", False, "float32", fallback="torch.compile is not used"),
}
"""Every kind of device, preferred first."""
BUILD_KINDS: tuple[tuple[str, frozenset[DeviceKind]], ...] = (
    ("cpu", frozenset()),
    ("cu", frozenset({"cuda"})),
    ("rocm", frozenset({"rocm"})),
    ("xpu", frozenset({"xpu"})),
)
"""The GPUs that a build of torch drives, by how the label of its version begins (2.13.0+cu126)."""


def wanted_device(environ: Mapping[str, str] | None = None) -> str:
    """Return the value of TUNEWISE_DEVICE, "auto" without one; BadInput for a value that is no kind of device."""
    return _choice(DEVICE_ENV, ("auto", *DEVICE_TABLE), environ)


def wanted_dtype(environ: Mapping[str, str] | None = None) -> str:
    """Return the value of TUNEWISE_DTYPE, "auto" without one; BadInput for a value that is no dtype."""
    return _choice(DTYPE_ENV, ("auto", *DTYPE_BYTES), environ)


def memory_cap(environ: Mapping[str, str] | None = None) -> float | None:
    """Return the GiB of device memory that TUNEWISE_MEMORY_GIB allows, None without it; BadInput for no number above 0."""
    text = (os.environ if environ is None else environ).get(MEMORY_ENV, "").strip()
    if not text:
        return None
    try:
        gib = float(text)
    except ValueError:
        gib = 0.0
    if not 0 < gib < float("inf"):
        raise BadInput(f"{MEMORY_ENV}={text} is no amount of memory", "give GiB, for instance 8")
    return gib


def choose_kind(present: Collection[str], wanted: str = "auto") -> DeviceKind:
    """Return the kind to run on: the one that is wanted, else the first of the table that is present, else the CPU.

    Args:
        present: the kinds of GPU that could be used.
        wanted: a kind, or auto.

    Raises:
        BadInput: the wanted kind is not present.
    """
    if wanted == "auto":
        return next((kind for kind in DEVICE_TABLE if kind in present), "cpu")
    kind = next(kind for kind in DEVICE_TABLE if kind == wanted)
    if kind != "cpu" and kind not in present:
        seen = ", ".join(sorted(present)) or "no GPU"
        raise BadInput(f"{DEVICE_ENV}={wanted}: torch sees {seen} here", f"unset {DEVICE_ENV}, or set cpu")
    return kind


def choose_dtype(
    kind: DeviceKind, bf16: bool | None, how: str = "", wanted: str = "auto"
) -> tuple[DtypeName, str]:
    """Return the dtype that models compute in, and why.

    bf16 where it is native; else float16 on a GPU whose training scales the loss, float32 elsewhere. An Apple GPU
    computes in float32 whatever it supports: nothing else was measured on one.

    Args:
        kind: the kind of device.
        bf16: whether bf16 is native; None is unknown.
        how: how that was determined.
        wanted: a dtype, or auto.
    """
    facts = DEVICE_TABLE[kind]
    if wanted != "auto":
        return next(name for name in ALL_DTYPES if name == wanted), f"{DTYPE_ENV}={wanted}"
    if kind == "mps":
        return "float32", "float32 on an Apple GPU"
    if bf16:
        return "bfloat16", how
    missing = "whether it has native bf16 is unknown" if bf16 is None else "no native bf16"
    return facts.without_bf16, f"{missing}: {how}" if how else missing


def torch_build(version: str | None = None) -> str:
    """Return the label of the installed torch, such as cpu or cu126; "" when it has none or there is no torch."""
    if version is None:
        try:
            version = metadata.version("torch")
        except metadata.PackageNotFoundError:
            return ""
    return version.partition("+")[2]


def build_refusal(kind: str, build: str) -> str:
    """Return why the installed torch cannot use a kind of GPU, "" when it can or when its label says nothing.

    Args:
        kind: the kind of GPU.
        build: the label of torch's version (:func:`torch_build`).
    """
    drives = next((kinds for label, kinds in BUILD_KINDS if build.startswith(label)), None)
    if drives is None or kind in drives:
        return ""
    return f"the installed torch is built for {'CPUs' if build == 'cpu' else build} and does not use it"


def unsupported_settings(kind: DeviceKind, method: str, optimizer: str) -> str:
    """Return why a training run cannot be carried out on a kind of device, "" when it can.

    Args:
        kind: the kind of device.
        method: lora, qlora or full.
        optimizer: a name of :data:`runners.plan.train_config.OPTIMIZERS`.
    """
    facts = DEVICE_TABLE[kind]
    if method == "qlora" and not facts.four_bit:
        return f"bitsandbytes has no 4-bit layers for an {facts.name}"
    if "8bit" in optimizer and not facts.eight_bit_optimizer:
        return f"bitsandbytes has no 8-bit optimiser for an {facts.name}"
    return ""


def device_kind() -> DeviceKind:
    """Return the kind of device that models run on here: what torch sees, or what TUNEWISE_DEVICE says. Imports torch."""
    import torch

    present: set[str] = set()
    if torch.cuda.is_available():
        present.add("rocm" if torch.version.hip else "cuda")
    if torch.xpu.is_available():
        present.add("xpu")
    if torch.backends.mps.is_available():
        present.add("mps")
    return choose_kind(present, wanted_device())


def torch_device() -> torch.device:
    """Return the device that models run on here. Imports torch."""
    import torch

    return torch.device(DEVICE_TABLE[device_kind()].torch_type)


def torch_dtype(cpu_bf16: Callable[[], tuple[bool | None, str]]) -> tuple[DtypeName, str]:
    """Return the dtype that models compute in here, and why. Imports torch.

    ``cpu_bf16`` returns whether the CPU multiplies in bf16 natively, and how that was determined.
    """
    import torch

    kind = device_kind()
    if kind == "cpu":
        return choose_dtype(kind, *cpu_bf16(), wanted_dtype())
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability()
        capability = major + minor / 10
        native = capability >= NATIVE_BF16_CAPABILITY
        return choose_dtype(kind, native, f"compute capability {capability:g}", wanted_dtype())
    return choose_dtype(kind, True, f"{DEVICE_TABLE[kind].name}s in use today support it", wanted_dtype())


def device_name() -> str:
    """Return the name of the device as its driver gives it, "cpu" for the CPU. Imports torch."""
    import torch

    kind = device_kind()
    if DEVICE_TABLE[kind].torch_type == "cuda":
        return torch.cuda.get_device_name()
    return (
        torch.xpu.get_device_name() if kind == "xpu" else DEVICE_TABLE[kind].name if kind == "mps" else "cpu"
    )


def device_counters() -> Any:
    """Return torch's module that counts the memory of a GPU with its own (torch.cuda, torch.xpu), else None.

    Imports torch.
    """
    import torch

    return {"cuda": torch.cuda, "xpu": torch.xpu}.get(DEVICE_TABLE[device_kind()].torch_type)


def free_device_gib(ram: Callable[[], float]) -> float:
    """Return the free memory of the device in GiB, at most what TUNEWISE_MEMORY_GIB allows. Imports torch.

    ``ram`` returns the free RAM in GiB, which a CPU and an Apple GPU share.
    """
    counters = device_counters()
    free = float(counters.mem_get_info()[0]) / GIB if counters else ram()
    cap = memory_cap()
    return free if cap is None else min(free, cap)


def synchronize_device() -> None:
    """Wait until the GPU has computed what it was given; nothing on a CPU. Imports torch."""
    import torch

    kind = device_kind()
    if kind == "mps":
        torch.mps.synchronize()
    elif counters := device_counters():
        counters.synchronize()


def free_device_cache() -> None:
    """Return the memory that torch holds on the GPU and no tensor uses; nothing on a CPU. Imports torch."""
    import torch

    kind = device_kind()
    if kind == "mps":
        torch.mps.empty_cache()
    elif counters := device_counters():
        counters.empty_cache()


def loss_scaler(
    dtype: torch.dtype, device: torch.device, scale: float = INITIAL_LOSS_SCALE
) -> torch.amp.GradScaler | None:
    """Return the loss scaler of a run that computes in float16, None for another dtype. Imports torch.

    float16 holds nothing below 6e-8, where most gradients of a mean loss lie: the loss is multiplied by a scale, and
    the gradients are divided by it again in fp32 (Micikevicius et al., Mixed Precision Training, arXiv 1710.03740).
    """
    import torch

    return torch.amp.GradScaler(device.type, init_scale=scale) if dtype == torch.float16 else None


def _choice(env: str, allowed: tuple[str, ...], environ: Mapping[str, str] | None) -> str:
    """Return the value of an environment variable among ``allowed``, the first of them where it is not set."""
    value = (os.environ if environ is None else environ).get(env, "").strip().lower()
    if value and value not in allowed:
        raise BadInput(f"{env}={value} is unknown", f"one of {', '.join(allowed)}")
    return value or allowed[0]
