"""Measure how fast this machine multiplies matrices, and store the result in the user's cache folder.

:func:`calibrate` measures for about two seconds and is the only function that imports torch;
:func:`read_calibration` and :func:`store_calibration` read and write the file. It holds one measurement of this
machine and is ignored, with a reason, when it is damaged or was made with another processor or torch version.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun, install_hint
from rag.files import SCHEMA, check_schema, write_json
from runners.paths import cache_folder
from runners.resources.machine import GIB

CALIBRATION_FILE = "calibration.json"
CALIBRATION_ENV = "TUNEWISE_CALIBRATION"
"""Environment variable that names another file; empty, nothing is stored or read."""
CALIBRATION_SECONDS = 2.0
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the square matrices: large enough to be bound by arithmetic, not by memory."""
MAX_TRAINING_SPEEDS = 24
"""Speeds of training that are kept."""
BUSY_FACTOR = 1.5
"""Ratio of a product's median time to its fast time from which the processor counts as busy with other work."""
RECALIBRATE_HINT = "measure again with: tunewise doctor --calibrate"


@dataclass(frozen=True, slots=True)
class MatrixSpeed:
    """The matrix speed of one device: FLOP/s by dtype, ``bf16`` and ``fp32``."""

    device: str
    """``cpu`` or ``cuda``."""
    name: str
    flops: Mapping[str, float]
    threads: int = 0
    """Threads of the CPU; 0 for a GPU."""
    memory_gib: float = 0.0
    """Memory of the GPU; 0 for a CPU."""

    @property
    def best(self) -> tuple[str, float]:
        """The faster dtype and its FLOP/s."""
        return max(self.flops.items(), key=lambda item: item[1])

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain JSON."""
        return {
            "device": self.device,
            "name": self.name,
            "threads": self.threads,
            "memory_gib": self.memory_gib,
            "flops": {dtype: float(f"{value:.4g}") for dtype, value in self.flops.items()},
        }


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """The measured speed of training one kind of model on one kind of rows (:mod:`runners.preflight.speed_probe`)."""

    method: str
    layers: int
    hidden: int
    intermediate: int
    vocab: int
    row_tokens: int
    prefix_tokens: int
    """First tokens of a row that all rows share, which are computed once a step."""
    batch_tokens: int
    dtype: str
    threads: int
    seconds_per_token: float
    """Seconds of a step, its optimiser included, for each of its tokens without padding."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Everything but the measured value: a new measurement of the same replaces the old one."""
        return tuple(value for name, value in asdict(self).items() if name != "seconds_per_token")


@dataclass(frozen=True, slots=True)
class Calibration:
    """One measurement: speed of the CPU and of the GPU if there is one, with its day and torch version."""

    day: date
    torch: str
    cpu: MatrixSpeed
    cuda: MatrixSpeed | None = None
    busy: bool = False
    """Whether other work used so much of the processor that the measured speed may be too low."""
    training: tuple[TrainingSpeed, ...] = ()
    """Measured speeds of training, the newest last."""

    def with_training(self, speeds: Iterable[TrainingSpeed]) -> Calibration:
        """Return a copy with more measured speeds of training, of which the newest ``MAX_TRAINING_SPEEDS`` stay."""
        new = tuple(speeds)
        keys = {speed.key for speed in new}
        old = tuple(speed for speed in self.training if speed.key not in keys)
        return replace(self, training=(*old, *new)[-MAX_TRAINING_SPEEDS:])

    def to_json(self) -> dict[str, Any]:
        """Return the file's content."""
        training = {"training": [asdict(speed) for speed in self.training]} if self.training else {}
        return training | {
            "schema": SCHEMA,
            "day": self.day.isoformat(),
            "torch": self.torch,
            "cpu": self.cpu.to_json(),
            "cuda": self.cuda.to_json() if self.cuda else None,
            "busy": self.busy,
        }


@dataclass(frozen=True, slots=True)
class StoredCalibration:
    """Content of the cache folder: a calibration, or the reason why it is ignored, or neither."""

    calibration: Calibration | None = None
    ignored: str = ""


def read_calibration(folder: Path | None = None) -> StoredCalibration:
    """Read the stored calibration; a damaged or outdated one is ignored with a reason. Never raises.

    Args:
        folder: folder of the file; None is the cache folder.
    """
    path = calibration_path(folder)
    if path is None:
        return StoredCalibration()
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return StoredCalibration()
    except (OSError, ValueError, RecursionError) as error:
        return StoredCalibration(
            ignored=f"the calibration {path} cannot be read ({type(error).__name__}); {RECALIBRATE_HINT}"
        )
    try:
        calibration = _parse(loaded)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return StoredCalibration(ignored=f"the calibration {path} is damaged ({error!r}); {RECALIBRATE_HINT}")
    reason = _outdated(calibration)
    return (
        StoredCalibration(ignored=f"the calibration is ignored: {reason}; {RECALIBRATE_HINT}")
        if reason
        else StoredCalibration(calibration)
    )


def store_calibration(calibration: Calibration, folder: Path | None = None) -> Path | None:
    """Write the calibration atomically and return its path, None where nothing is stored.

    Raises:
        CannotRun: the folder cannot be written to.
    """
    path = calibration_path(folder)
    if path is not None:
        write_json(path, calibration.to_json())
    return path


def calibration_path(folder: Path | None = None) -> Path | None:
    """Return the file of the calibration: in ``folder``, else as TUNEWISE_CALIBRATION says, else in the cache folder.

    None where TUNEWISE_CALIBRATION is empty.
    """
    named = os.environ.get(CALIBRATION_ENV)
    if folder is None and named is not None:
        return Path(named).expanduser() if named else None
    return (folder or cache_folder()) / CALIBRATION_FILE


def calibrate(seconds: float = CALIBRATION_SECONDS, day: date | None = None) -> Calibration:
    """Multiply matrices in fp32 and bf16, on the CPU and on a CUDA GPU if present.

    Args:
        seconds: total time, divided evenly among devices and dtypes.
        day: date of the measurement; None is today.

    Raises:
        CannotRun: torch is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise CannotRun(
            f"the matrix speed is measured with torch, which cannot be imported: {error}",
            install_hint(),
        ) from error
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    each = seconds / len(devices) / 2
    durations = {
        device: {
            "fp32": _time_products(torch, device, torch.float32, each),
            "bf16": _time_products(torch, device, torch.bfloat16, each),
        }
        for device in devices
    }
    # A product of two n x n matrices takes n^3 multiplications and as many additions.
    flops = {
        device: {
            dtype: 2.0 * MATRIX_SIDE[device] ** 3 / _fast_time(times) for dtype, times in by_dtype.items()
        }
        for device, by_dtype in durations.items()
    }
    busy = any(
        times[len(times) // 2] > BUSY_FACTOR * _fast_time(times) for times in durations["cpu"].values()
    )
    cpu = MatrixSpeed("cpu", processor_name(), flops["cpu"], threads=torch.get_num_threads())
    cuda = None
    if "cuda" in flops:
        card = torch.cuda.get_device_properties(0)
        cuda = MatrixSpeed("cuda", card.name, flops["cuda"], memory_gib=round(card.total_memory / GIB, 1))
    return Calibration(day or date.today(), torch.__version__, cpu, cuda, busy)


def processor_name() -> str:
    """Return the CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _time_products(torch: Any, device: str, dtype: Any, seconds: float) -> list[float]:
    """Time products of two square matrices for ``seconds``.

    Returns:
        The seconds of each product (2·n³ operations), ascending; the first product only warms up.
    """
    side = MATRIX_SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    a @ b
    wait()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)


def _fast_time(times: list[float]) -> float:
    """Return the 10th percentile of ascending times: the speed of the device when nothing else runs."""
    return times[len(times) // 10]


def _parse(loaded: Mapping[str, Any]) -> Calibration:
    try:
        loaded = check_schema(loaded, "calibration", "it")
    except BadInput as error:
        raise ValueError(error.message) from None
    cuda = _speed(loaded["cuda"]) if loaded["cuda"] is not None else None
    return Calibration(
        date.fromisoformat(loaded["day"]),
        str(loaded["torch"]),
        _speed(loaded["cpu"]),
        cuda,
        bool(loaded["busy"]),
        tuple(_training_speed(row) for row in loaded.get("training", ())),
    )


def _training_speed(row: Mapping[str, Any]) -> TrainingSpeed:
    numbers = {field.name: field.type for field in fields(TrainingSpeed)}
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float}
    speed = TrainingSpeed(**{name: kinds[str(kind)](row[name]) for name, kind in numbers.items()})
    if not 1e-9 < speed.seconds_per_token < 1e4:
        raise ValueError(f"impossible seconds of a token {speed.seconds_per_token}")
    return speed


def _speed(row: Mapping[str, Any]) -> MatrixSpeed:
    flops = {dtype: float(row["flops"][dtype]) for dtype in ("fp32", "bf16")}
    if not all(1e6 < value < 1e18 for value in flops.values()):
        raise ValueError(f"impossible speeds {flops}")
    if row["device"] == "cpu" and int(row["threads"]) < 1:
        raise ValueError(f"impossible threads {row['threads']}")
    return MatrixSpeed(
        str(row["device"]), str(row["name"]), flops, int(row["threads"]), float(row["memory_gib"])
    )


def _outdated(calibration: Calibration) -> str:
    """Return why a calibration is no longer valid for this machine, "" when it is."""
    if calibration.cpu.name != processor_name():
        return f"it was measured on {calibration.cpu.name}, this machine has {processor_name()}"
    try:
        installed = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
    if calibration.torch.split(".")[:2] != installed.split(".")[:2]:
        return f"it was measured with torch {calibration.torch}, installed is {installed}"
    return ""
