"""Compare the memory estimate with measured peaks that are read from a file.

:func:`read_measured_peaks` reads the file, ``{"figures": [...]}`` or the list itself; :func:`score_estimates` and
:func:`accuracy_report` compare. A row needs id, config (layers, hidden, heads, intermediate, vocab), method, batch,
seq_len, peak and unit; everything else has a default, whose uses are counted.
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

from rich.markup import escape

from advisor.display import console as display_console
from advisor.output import emit_result
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
from runners.resources.model_shape import (
    ALL_LINEAR,
    CAPPED_LOGITS_FAMILIES,
    FOUR_NORM_FAMILIES,
    HEAD_NORM_FAMILIES,
    ModelShape,
    count_parameters,
    lora_targets,
)

MAX_UNDERESTIMATE = -0.1
"""Error below which an estimate counts as too low, the costly kind: a run that was expected to fit does not."""
WORST_SHOWN = 5
"""Measured peaks listed as the worst in the text view of a score."""
MEMORY_UNITS = {"GiB": 1.0, "MiB": 2**-10, "1e9": 1e9 / GIB, "GB": 1e9 / GIB}
"""GiB of each unit that a row may use."""
METHODS = tuple(use for use in get_args(MemoryUse) if use != "inference")
FAMILY_BY_NAME = (
    ("gemma-2-", "gemma2"),
    ("gemma-3n", "gemma3n_text"),
    ("gemma-3-", "gemma3_text"),
    ("qwen3-", "qwen3"),
    ("recurrentgemma", "recurrent_gemma"),
)
"""Model types by how a model's name starts: a row has dimensions and a name, and no model type."""
_PERCENTILE = re.compile(r"\b\d+(st|nd|rd|th) percentile\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPeak:
    """One measured peak and the run it was measured on."""

    id: str
    source: str
    """The publisher: the row's source without its version, file or table."""
    use: MemoryUse
    shape: ModelShape
    setup: MemorySetup
    gib: float
    assumed: tuple[str, ...]
    """Fields that the file leaves out, so that their default is used."""


@dataclass(frozen=True, slots=True)
class ScoredPeak:
    """A measured peak with its estimate."""

    figure: MeasuredPeak
    memory: MemoryEstimate

    @property
    def error(self) -> float:
        """Estimate / measured - 1."""
        return self.memory.likely / self.figure.gib - 1

    @property
    def inside(self) -> bool:
        """Whether the measured peak is between low and high."""
        return self.memory.low <= self.figure.gib <= self.memory.high

    def to_json(self) -> dict[str, Any]:
        """Return one entry of ``rows`` in the JSON of ``tunewise estimate --rows``."""
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
    """Estimate the memory of each measured run."""
    return tuple(
        ScoredPeak(figure, estimate_memory(figure.shape, figure.use, figure.setup, fitted))
        for figure in figures
    )


def accuracy_summary(scored: Iterable[ScoredPeak]) -> dict[str, Any]:
    """Summarise the errors of estimates.

    Returns:
        n; mape (mean absolute percentage error) and worst, in percent; as shares, under_10 (estimates more than 10 %
        too low) and inside (measured peaks within the range).
    """
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
    groupings: dict[str, Callable[[ScoredPeak], str]] = {
        "by_method": lambda row: row.figure.use,
        "by_source": lambda row: row.figure.source,
    }
    tables = {
        name: {
            key: accuracy_summary(row for row in scored if key_of(row) == key)
            for key in sorted(set(map(key_of, scored)))
        }
        for name, key_of in groupings.items()
    }
    assumed = Counter(name for row in scored for name in row.figure.assumed)
    return {
        "schema": 1,
        **accuracy_summary(scored),
        **tables,
        "assumed": dict(assumed),
        "rows": [row.to_json() for row in scored],
    }


def show_estimate_score(path: Path, as_json: bool) -> None:
    """Print how close the estimate is to a file of measured peaks; BadInput names a broken row and key."""
    scored = score_estimates(read_measured_peaks(path))
    report = accuracy_report(scored)
    if as_json:
        emit_result(report)
        return
    console = display_console.console()
    parts = {"all": report, **report["by_method"], **report["by_source"]}
    rows = [
        (
            escape(name),
            str(part["n"]),
            f"{part['mape']:.1f}",
            f"{part['worst']:+.1f}",
            f"{part['under_10']:.0%}",
            f"{part['inside']:.0%}",
        )
        for name, part in parts.items()
    ]
    columns = ("figures", "n", "mean error %", "worst %", "under by > 10 %", "inside the range")
    console.print(display_console.table(columns, rows, right=(1, 2, 3, 4, 5)))
    worst = sorted(scored, key=lambda score: -abs(score.error))[:WORST_SHOWN]
    lines = [
        (
            escape(score.figure.id),
            f"{score.figure.gib:.2f}",
            f"{score.memory.likely:.2f}",
            f"{100 * score.error:+.1f}",
        )
        for score in worst
    ]
    console.print()
    console.print(
        display_console.table(("worst", "measured GiB", "estimated", "error %"), lines, right=(1, 2, 3))
    )
    for name, number in report["assumed"].items():
        console.print(f"[dim]• {number} figures do not give {escape(name)}: its default was assumed[/]")


def read_measured_peaks(path: Path) -> tuple[MeasuredPeak, ...]:
    """Read a file of measured peaks; BadInput names the file, the row's id and the key that is wrong."""
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"the figures file {path} cannot be read: {error.strerror}", "check --rows") from None
    except ValueError as error:
        raise BadInput(f"the figures file {path} is not JSON: {error}", "check --rows") from None
    rows = loaded.get("figures") if isinstance(loaded, dict) else loaded
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{path} has no figures", 'it should be {"figures": [...]}, with at least one')
    return tuple(_PeakReader(path, number, row).peak() for number, row in enumerate(rows, 1))


class _PeakReader:
    """Reads one row of a file of measured peaks and collects the names of fields that had to be assumed."""

    def __init__(self, path: Path, number: int, row: Any) -> None:
        self.location = f"{path}: row {number}"
        if not isinstance(row, Mapping):
            raise BadInput(f"{self.location} is not an object")
        self.row: Mapping[str, Any] = row
        self.assumed: list[str] = []
        self.id = str(self.take("id", lambda value: value))
        self.location = f"{path}: {self.id}"

    def take(
        self, key: str, read: Callable[[Any], Any], default: Any = None, of: Mapping[str, Any] | None = None
    ) -> Any:
        """Read the value of a key.

        Args:
            key: name of the field.
            read: validates and converts the value.
            default: value for a missing key, which is then listed as assumed; None makes the key required.
            of: object that holds the key, the row's ``config``; None is the row itself.

        Raises:
            BadInput: the key is required and missing, or ``read`` refuses its value.
        """
        value = (self.row if of is None else of).get(key)
        name = key if of is None else f"config.{key}"
        if value is None:
            if default is None:
                raise BadInput(f"{self.location} lacks {name}", "a figure needs it; see the docs of --rows")
            self.assumed.append(name)
            return default
        try:
            return read(value)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            reason = str(error) if isinstance(error, ValueError) else "it has the wrong type"
            raise BadInput(f"{self.location} has {name} = {value!r}: {reason}") from None

    def peak(self) -> MeasuredPeak:
        """Return the row as a measured peak."""
        use: MemoryUse = self.take("method", one_of_reader(METHODS))
        unit = self.take("unit", MEMORY_UNITS.__getitem__)
        return MeasuredPeak(
            id=self.id,
            source=_publisher(self.take("source", str, "unknown")),
            use=use,
            shape=self.shape(),
            setup=self.setup(use),
            gib=self.take("peak", positive_number) * unit,
            assumed=tuple(self.assumed),
        )

    def shape(self) -> ModelShape:
        """Return the model shape of ``config``.

        Without ``tied_embeddings``, embeddings count as tied when the parameter count of the tied shape is nearer to
        ``params_b``.
        """
        config: Mapping[str, Any] = self.take("config", lambda value: dict(value))
        required = {
            key: self.take(key, whole_number, of=config)
            for key in ("layers", "hidden", "heads", "intermediate", "vocab")
        }
        gated = self.take("mlp", one_of_reader(("gated", "plain")), "gated", config) == "gated"
        shape = ModelShape(
            params=0,
            gated=gated,
            tied=False,
            **required,
            kv_heads=self.take("kv_heads", whole_number, required["heads"], config),
            head_dim=self.take(
                "head_dim", whole_number, max(1, required["hidden"] // required["heads"]), config
            ),
        )
        params_b = config.get("params_b")
        params = None if params_b is None else int(self.take("params_b", positive_number, of=config) * 1e9)
        tied = config.get("tied_embeddings")
        if tied is None:
            self.assumed.append("config.tied_embeddings")
            tied_params = count_parameters(replace(shape, tied=True))
            untied_params = count_parameters(shape)
            tied = params is not None and abs(tied_params - params) < abs(untied_params - params)
        shape = replace(shape, tied=bool(tied))
        family = _family_of(str(self.row.get("model") or ""))
        return replace(
            shape,
            params=params or count_parameters(shape),
            norms=4 if family in FOUR_NORM_FAMILIES else 2,
            head_norms=family in HEAD_NORM_FAMILIES,
            capped_logits=family in CAPPED_LOGITS_FAMILIES,
        )

    def setup(self, use: MemoryUse) -> MemorySetup:
        """Return the setup of the run: batch, optimiser, loss and the like."""
        flag = one_of_reader((True, False))
        with_adapter = use != "full"
        adapter_dtype = self.row.get("adapter_dtype") or "bf16"
        dtype = self.take(
            "weights_dtype", one_of_reader(("bf16", "fp16", "fp32", "nf4", "nf4-dq")), "default"
        )
        return MemorySetup(
            program="other",
            batch=self.take("batch", whole_number),
            seq_len=self.take("seq_len", whole_number),
            rank=self.take("rank", whole_number, 16) if with_adapter else 16,
            targets=self.take("lora_targets", lora_targets, ALL_LINEAR) if with_adapter else ALL_LINEAR,
            adapter_dtype="fp32" if adapter_dtype == "fp32" else "bf16",
            prepared=self.prepared(use, adapter_dtype),
            weights=cast("WeightKind | None", {"default": None, "fp16": "bf16"}.get(dtype, dtype)),
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
            device_gib=_gpu_gib(self.row.get("gpu")),
        )

    def prepared(self, use: MemoryUse, adapter_dtype: str) -> bool:
        """Whether PEFT's ``prepare_model_for_kbit_training`` was applied to the 4-bit base.

        True when its adapters are in fp32, or eager layers use checkpointing: that function switches checkpointing
        on for bitsandbytes; compiled recipes (torchtune) have their own.
        """
        eager = self.row.get("compile") is not True
        return use == "qlora" and (
            adapter_dtype == "fp32" or (eager and self.row.get("grad_checkpointing") is True)
        )

    def percentile(self) -> bool:
        """Whether the note calls the peak a percentile over the steps, and rows differ in length."""
        packed = self.take("packed", one_of_reader((True, False)), True)
        return not packed and bool(_PERCENTILE.search(str(self.row.get("note") or "")))


def optimizer_named(text: str) -> OptimizerKind:
    """Return the optimiser that a source's description means; ValueError when none is recognised."""
    name = text.lower().replace("-", "").replace("_", "")
    eight_bit = "8bit" in name
    if "adafactor" in name:
        return "adafactor"
    if "lion" in name:
        return "lion"
    if "paged" in name:
        return "paged_adamw_8bit" if eight_bit else "paged_adamw"
    if "adam" in name or "lorafa" in name:
        return "adamw_8bit" if eight_bit else "adamw"
    if "sgd" in name:
        return "sgd"
    raise ValueError("not an optimiser that is known (adamw, 8-bit, paged, lion, adafactor, sgd)")


def whole_number(value: Any) -> int:
    """Return the value as an int of 1 or more; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise ValueError("not a whole number of 1 or more")
    return int(value)


def positive_number(value: Any) -> float:
    """Return the value as a float above 0 and below 1e15; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
        raise ValueError("not a number above 0")
    return float(value)


def one_of_reader(allowed: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Return a reader that accepts only these values; its ValueError names them."""

    def read(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"not one of {', '.join(map(str, allowed))}")
        return value

    return read


def _family_of(model: str) -> str:
    """Return the model type that a model's name tells, where its blocks or logits differ from Llama's; "" for others."""
    name = model.rpartition("/")[2].lower()
    return next((family for start, family in FAMILY_BY_NAME if name.startswith(start)), "")


def _publisher(source: str) -> str:
    """Return a source without its version, file or table."""
    return re.split(r"[@,\s]", source.strip(), maxsplit=1)[0] or "unknown"


def _gpu_gib(gpu: Any) -> float | None:
    """Return the GiB in a GPU's name, such as "A100 80GB"; None without one."""
    match = re.search(r"(\d+)\s*Gi?B", str(gpu or ""))
    return float(match.group(1)) if match else None
