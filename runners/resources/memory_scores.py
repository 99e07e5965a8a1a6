"""Figures: measured memory peaks from a file, and how near the estimate comes to them.

A file is ``{"figures": [...]}`` or the list itself. A figure needs id, config (layers, hidden, heads,
intermediate, vocab), method, batch, seq_len, peak and unit; everything else has a default that is counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, cast, get_args

from rag.errors import BadInput
from runners.resources.machine import GIB
from runners.resources.memory_estimate import MemoryEstimate, estimate_memory
from runners.resources.memory_terms import (
    FITTED,
    FittedConstants,
    LossKind,
    MemorySetup,
    MemoryUse,
    OptimizerKind,
    WeightKind,
)
from runners.resources.model_shape import ALL_LINEAR, LORA_TARGETS, ModelShape, count_parameters

MAX_UNDERESTIMATE = -0.1
"""An estimate this much too low is the costly kind: a run that was said to fit and does not."""
MEMORY_UNITS = {"GiB": 1.0, "MiB": 2**-10, "1e9": 1e9 / GIB, "GB": 1e9 / GIB}
METHODS = tuple(use for use in get_args(MemoryUse) if use != "inference")
_PERCENTILE = re.compile(r"\b\d+(st|nd|rd|th) percentile\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """One measured peak, ready to be estimated."""

    id: str
    source: str
    """Who published it: the source up to its version, file or table."""
    use: MemoryUse
    shape: ModelShape
    setup: MemorySetup
    gib: float
    assumed: tuple[str, ...]
    """Fields that the file leaves out and a default stands for."""


@dataclass(frozen=True, slots=True)
class ScoredPeak:
    """A figure with its estimate."""

    figure: MeasuredPeak
    memory: MemoryEstimate

    @property
    def error(self) -> float:
        """Estimate / measured - 1."""
        return self.memory.likely / self.figure.gib - 1

    @property
    def inside(self) -> bool:
        """Whether the measured peak lies between low and high."""
        return self.memory.low <= self.figure.gib <= self.memory.high

    def to_json(self) -> dict[str, Any]:
        """Return one entry of the ``rows`` of product.md."""
        return {
            "id": self.figure.id,
            "source": self.figure.source,
            "method": self.figure.use,
            "measured_gib": round(self.figure.gib, 3),
            "likely_gib": self.memory.likely,
            "low_gib": self.memory.low,
            "high_gib": self.memory.high,
            "error": round(self.error, 4),
            "assumed": list(self.figure.assumed),
        }


def score_estimates(
    figures: Iterable[MeasuredPeak], fitted: FittedConstants = FITTED
) -> tuple[ScoredPeak, ...]:
    """Estimate each figure."""
    return tuple(ScoredPeak(f, estimate_memory(f.shape, f.use, f.setup, fitted)) for f in figures)


def accuracy_summary(scored: Iterable[ScoredPeak]) -> dict[str, Any]:
    """Return n, mape and worst in percent, and as shares: under_10 and inside."""
    rows = tuple(scored)
    errors = [row.error for row in rows]
    return {
        "n": len(rows),
        "mape": round(100 * mean(abs(e) for e in errors), 2),
        "worst": round(100 * max(errors, key=abs), 2),
        "under_10": round(mean(e < MAX_UNDERESTIMATE for e in errors), 4),
        "inside": round(mean(row.inside for row in rows), 4),
    }


def accuracy_report(scored: tuple[ScoredPeak, ...]) -> dict[str, Any]:
    """Return the object that ``tunewise estimate --rows`` prints."""
    by: dict[str, Callable[[ScoredPeak], str]] = {
        "by_method": lambda row: row.figure.use,
        "by_source": lambda row: row.figure.source,
    }
    tables = {
        name: {
            key: accuracy_summary(row for row in scored if of(row) == key)
            for key in sorted(set(map(of, scored)))
        }
        for name, of in by.items()
    }
    assumed = Counter(name for row in scored for name in row.figure.assumed)
    return {
        "schema": 1,
        **accuracy_summary(scored),
        **tables,
        "assumed": dict(assumed),
        "rows": [row.to_json() for row in scored],
    }


def read_measured_peaks(path: Path) -> tuple[MeasuredPeak, ...]:
    """Read a figures file; BadInput names the file, the row's id and the key that is wrong."""
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"the figures file {path} cannot be read: {error.strerror}", "check --rows") from None
    except ValueError as error:
        raise BadInput(f"the figures file {path} is not JSON: {error}", "check --rows") from None
    rows = loaded.get("figures") if isinstance(loaded, dict) else loaded
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{path} holds no figures", 'it should be {"figures": [...]}, with at least one')
    return tuple(_Row(path, number, row).figure() for number, row in enumerate(rows, 1))


class _Row:
    """One row of a figures file while it is read; keeps what had to be assumed."""

    def __init__(self, path: Path, number: int, row: Any) -> None:
        self.place = f"{path}: row {number}"
        if not isinstance(row, Mapping):
            raise BadInput(f"{self.place} is not an object")
        self.row: Mapping[str, Any] = row
        self.assumed: list[str] = []
        self.id = str(self.take("id", lambda x: x))
        self.place = f"{path}: {self.id}"

    def take(
        self, key: str, read: Callable[[Any], Any], default: Any = None, of: Mapping[str, Any] | None = None
    ) -> Any:
        """Read a key; without a default it is required, with one its absence is noted."""
        value = (self.row if of is None else of).get(key)
        where = key if of is None else f"config.{key}"
        if value is None:
            if default is None:
                raise BadInput(f"{self.place} lacks {where}", "a figure needs it; see the docs of --rows")
            self.assumed.append(where)
            return default
        try:
            return read(value)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            said = str(error) if isinstance(error, ValueError) else "it has the wrong type"
            raise BadInput(f"{self.place} has {where} = {value!r}: {said}") from None

    def figure(self) -> MeasuredPeak:
        """Return the row as a figure."""
        use: MemoryUse = self.take("method", one_of_reader(METHODS))
        unit = self.take("unit", MEMORY_UNITS.__getitem__)
        return MeasuredPeak(
            self.id,
            _publisher(self.take("source", str, "unknown")),
            use,
            self.shape(),
            self.setup(use),
            self.take("peak", positive_number) * unit,
            tuple(self.assumed),
        )

    def shape(self) -> ModelShape:
        """Return the shape of ``config``; where it is silent, tied or not is what its size says."""
        config: Mapping[str, Any] = self.take("config", lambda x: dict(x))
        need = {
            key: self.take(key, whole_number, of=config)
            for key in ("layers", "hidden", "heads", "intermediate", "vocab")
        }
        gated = self.take("mlp", one_of_reader(("gated", "plain")), "gated", config) == "gated"
        shape = ModelShape(
            params=0,
            gated=gated,
            tied=False,
            **need,
            kv_heads=self.take("kv_heads", whole_number, need["heads"], config),
            head_dim=self.take("head_dim", whole_number, max(1, need["hidden"] // need["heads"]), config),
        )
        given = config.get("params_b")
        params = None if given is None else int(self.take("params_b", positive_number, of=config) * 1e9)
        tied = config.get("tied_embeddings")
        if tied is None:
            self.assumed.append("config.tied_embeddings")
            one, two = count_parameters(replace(shape, tied=True)), count_parameters(shape)
            tied = params is not None and abs(one - params) < abs(two - params)
        shape = replace(shape, tied=bool(tied))
        return replace(shape, params=params or count_parameters(shape))

    def setup(self, use: MemoryUse) -> MemorySetup:
        """Return how the run was set up."""
        flag = one_of_reader((True, False))
        tuned = use != "full"
        adapter = self.row.get("adapter_dtype") or "bf16"
        held = self.take("weights_dtype", one_of_reader(("bf16", "fp16", "fp32", "nf4", "nf4-dq")), "default")
        return MemorySetup(
            batch=self.take("batch", whole_number),
            seq_len=self.take("seq_len", whole_number),
            rank=self.take("rank", whole_number, 16) if tuned else 16,
            targets=self.take("lora_targets", lora_targets, ALL_LINEAR) if tuned else ALL_LINEAR,
            adapter_dtype="fp32" if adapter == "fp32" else "bf16",
            prepared=self.prepared(use, adapter),
            weights=cast("WeightKind | None", {"default": None, "fp16": "bf16"}.get(held, held)),
            optimizer=self.take("optimizer", optimizer_named, "adamw"),
            optimizer_in_backward=self.row.get("optimizer_in_backward") is True,
            checkpointing=self.take("grad_checkpointing", flag, False),
            offloading=self.row.get("activation_offloading") is True,
            loss=cast(
                LossKind, self.take("loss_path", one_of_reader(("full", "chunked", "fused", "rows")), "full")
            ),
            compiled=self.take("compile", flag, False),
            percentile=self.percentile(),
            counter=self.take("counter", one_of_reader(("allocated", "reserved", "device")), "allocated"),
            device_gib=_card(self.row.get("gpu")),
        )

    def prepared(self, use: MemoryUse, adapter: str) -> bool:
        """Whether a 4-bit base went through PEFT's helper: its adapters are in fp32, or eager layers checkpoint.

        That helper is what switches checkpointing on for bitsandbytes; compiled recipes (torchtune) have their own.
        """
        eager = self.row.get("compile") is not True
        return use == "qlora" and (
            adapter == "fp32" or (eager and self.row.get("grad_checkpointing") is True)
        )

    def percentile(self) -> bool:
        """Whether the note says that the peak is a percentile over the steps, and rows differ in length."""
        packed = self.take("packed", one_of_reader((True, False)), True)
        return not packed and bool(_PERCENTILE.search(str(self.row.get("note") or "")))


def optimizer_named(text: str) -> OptimizerKind:
    """Return the optimiser that a source's words mean; ValueError when none is recognised."""
    said = text.lower().replace("-", "").replace("_", "")
    small = "8bit" in said
    if "adafactor" in said:
        return "adafactor"
    if "lion" in said:
        return "lion"
    if "paged" in said:
        return "paged_adamw_8bit" if small else "paged_adamw"
    if "adam" in said or "lorafa" in said:
        return "adamw_8bit" if small else "adamw"
    if "sgd" in said:
        return "sgd"
    raise ValueError("not an optimiser that is known (adamw, 8-bit, paged, lion, adafactor, sgd)")


def lora_targets(given: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return the LoRA targets of "q,k,v,o,mlp,lm_head" (or a list); ValueError names a stranger."""
    names = tuple(name.strip() for name in (given.split(",") if isinstance(given, str) else given))
    if names == ("all",) or names == ("all-linear",):
        return ALL_LINEAR
    if not names or (strange := [name for name in names if name not in LORA_TARGETS]):
        raise ValueError(
            f"{', '.join(map(repr, strange if names else ['']))} is none of {', '.join(LORA_TARGETS)}"
        )
    return names


def whole_number(value: Any) -> int:
    """Return a whole number of 1 or more; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise ValueError("not a whole number of 1 or more")
    return int(value)


def positive_number(value: Any) -> float:
    """Return a finite number above 0; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        raise ValueError("not a number above 0")
    return float(value)


def one_of_reader(allowed: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Return a reader that lets only these values pass; ValueError names them."""

    def read(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"not one of {', '.join(map(str, allowed))}")
        return value

    return read


def _publisher(source: str) -> str:
    return re.split(r"[@,\s]", source.strip(), maxsplit=1)[0] or "unknown"


def _card(gpu: Any) -> float | None:
    found = re.search(r"(\d+)\s*Gi?B", str(gpu or ""))
    return float(found.group(1)) if found else None
