"""How often the ranges of hours, money and cost per call hold, over recorded runs.

    python -m benchmarks.estimates [--cases SHARED/cases/memory_dev.json]

Reads benchmarks/estimate_runs.json (published training speeds, our own runs, two published bills, tokens of calls), makes
the estimate for each without any correction, and prints the share of runs inside low to high, by class of machine: every
source counts the same, so that a long table does not outvote a short one. Then each source is left out once: ranges made
from the others alone (their 5th and 95th percentile, 10 % wider on either side) are tried on it. With --cases the speeds of
the public memory file are added.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from advisor.catalog import gpus
from advisor.costs.call_prices import CALL_RANGES
from advisor.costs.communication import PASS_TOKENS, DeviceGroup
from advisor.costs.rental import RENT_RANGE
from advisor.costs.tokens import CONTEXT_TOKENS, DEFAULT_SHOTS, Range
from advisor.costs.training_time import (
    TrainingDevice,
    card_device,
    cpu_device,
    device_group,
    measured_device,
    training_seconds,
)
from benchmarks.scorers.memory_peaks import read_measured_peaks
from runners.catalog import models
from runners.resources.calibration import MatrixSpeed
from runners.resources.model_shape import ModelShape, typical_shape

RECORD = Path(__file__).parent / "estimate_runs.json"
SMALL_PASSES = "GPU, under 1,024 tokens a pass"
"""Class of runs that fill a GPU less than any plan does: shown, and in no coverage."""
WIDER = 1.1
"""How much wider than the percentiles of the other sources a range of the leave-one-out check is."""
IN_PUBLIC_FILE = ("torchtune README", "PEFT MetaMathQA")
"""Sources of which the public memory file holds more runs than the record."""
PEFT_ROW = 210
"""Tokens of a row in PEFT's MetaMathQA runs on average; they are padded to at most 768."""


@dataclass(frozen=True, slots=True)
class EstimatedRun:
    """One recorded figure with its estimate, in the same unit.

    Attributes:
        source: where it was published, or the section of the log.
        kind: class of machine, or way of answering.
    """

    source: str
    kind: str
    estimate: Range
    measured: float

    @property
    def inside(self) -> bool:
        """Whether it lies between low and high."""
        return self.estimate.low <= self.measured <= self.estimate.high

    @property
    def ratio(self) -> float:
        """Measured over likely."""
        return self.measured / self.estimate.likely


def device_of(row: Mapping[str, Any]) -> TrainingDevice:
    """Return the device of a record: cards, cores of a CPU, or a CPU at its measured matrix speed."""
    spec = row["device"]
    if "card" in spec:
        card = gpus.find_gpu(spec["card"])
        if card is None:
            raise SystemExit(f"estimate_runs.json: the catalogue has no {spec['card']}")
        return card_device(card, spec.get("count", 1), group_of_run(card, row))
    if "cores" in spec:
        return cpu_device(spec["cores"], spec["bf16"])
    speed = MatrixSpeed("cpu", "a CPU", {spec["dtype"]: spec["cpu_gflops"] * 1e9}, 2)
    return measured_device(speed, spec["day"])


def group_of_run(card: gpus.GpuFacts, row: Mapping[str, Any]) -> DeviceGroup | None:
    """Return how the cards of a record trained: sharded, each with ``device_tokens`` tokens a pass, else a full pass.

    On several nodes the shards are spread over all of them, as torchtitan's were: none of the records is of replicas.
    """
    count = row.get("count") or row["device"].get("count", 1)
    if count == 1:
        return None
    tokens = row.get("device_tokens") or max(PASS_TOKENS, row["row_tokens"])
    group = device_group((card,), count, row.get("parallel", "fsdp"), count * tokens, row.get("nodes", 1))
    return replace(group, pass_tokens=tokens)


def shape_of(row: Mapping[str, Any]) -> ModelShape:
    """Return the shape of a record's model: the catalogue's, else one that is typical for its size."""
    known = models.find_model(row["model"]) if "model" in row else None
    return known.shape if known and known.shape else typical_shape(row["params_b"])


def training_runs(record: Mapping[str, Any]) -> list[EstimatedRun]:
    """Return the recorded trainings with their estimates, in seconds; tokens as they were planned, not as counted."""
    return [
        EstimatedRun(
            row["source"],
            row["class"],
            training_seconds(
                shape_of(row),
                row["method"],
                device_of(row),
                [(row["planned_tokens"], row["row_tokens"])],
            ),
            row["seconds"],
        )
        for row in record["hours"]
    ]


def published_speeds(path: Path) -> list[EstimatedRun]:
    """Return the speeds of the public memory file as seconds for a million tokens."""
    figures = {figure.id: figure for figure in read_measured_peaks(path)}
    runs = []
    for row in json.loads(path.read_text("utf-8"))["figures"]:
        card = gpus.find_gpu(row["gpu"]) or gpus.find_gpu(row["gpu"].rpartition(" ")[0])
        if row["tokens_per_s"] and card:
            tokens = row["seq_len"] if row["packed"] else PEFT_ROW
            estimate = training_seconds(
                figures[row["id"]].shape, row["method"], card_device(card), [(1e6, tokens)]
            )
            source = next(name for name in IN_PUBLIC_FILE if name.split()[0].lower() in row["source"])
            runs.append(EstimatedRun(source, "GPU", estimate, 1e6 / row["tokens_per_s"]))
    return runs


def bills(record: Mapping[str, Any]) -> list[EstimatedRun]:
    """Return the published bills with the money estimated today: hours at the catalogue's rent."""
    runs = []
    for row in record["bills"]:
        card = gpus.find_gpu(row["card"])
        if card is None or card.usd_hour is None:
            raise SystemExit(f"estimate_runs.json: no rent of {row['card']} is known")
        seconds = training_seconds(
            shape_of(row),
            row["method"],
            card_device(card, row["count"], group_of_run(card, row)),
            [(row["tokens"], row["row_tokens"])],
        )
        per_second = card.usd_hour * row["count"] / 3600
        usd = seconds.times(per_second, per_second, per_second).times_independent(RENT_RANGE)
        runs.append(EstimatedRun(row["source"], "bills", usd, row["usd"]))
    return runs


def rents(training: Sequence[EstimatedRun]) -> list[EstimatedRun]:
    """Return the runs on one GPU as money: each hour may cost what the range of rents allows, here the catalogue's price."""
    return [
        EstimatedRun(run.source, "GPU", run.estimate.times_independent(RENT_RANGE), run.measured)
        for run in training
        if run.kind == "GPU"
    ]


def calls(record: Mapping[str, Any]) -> list[EstimatedRun]:
    """Return the tokens of calls with those that the price of a call counts, at one price for each token."""
    runs = []
    for row in record["calls"]:
        likely = float(row["prompt_tokens"] + row["answer_tokens"])
        likely += DEFAULT_SHOTS * likely if row["arm"] == "few-shot" else 0.0
        likely += CONTEXT_TOKENS if row["arm"] in ("rag", "hybrid") else 0.0
        estimate = CALL_RANGES[row["arm"]].times(likely, likely, likely)
        runs.append(
            EstimatedRun(row["set"], row["arm"], estimate, row["measured_prompt"] + row["measured_answer"])
        )
    return runs


def coverage(runs: Iterable[EstimatedRun]) -> float:
    """Return the share of runs inside their range, every source counting the same.

    Raises:
        ZeroDivisionError: without runs.
    """
    by_source: dict[str, list[bool]] = defaultdict(list)
    for run in runs:
        by_source[run.source].append(run.inside)
    return sum(sum(inside) / len(inside) for inside in by_source.values()) / len(by_source)


def coverage_left_out(runs: Sequence[EstimatedRun]) -> float | None:
    """Return the coverage of ranges made from the other sources alone; None with fewer than three sources."""
    by_source: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        by_source[run.source].append(run.ratio)
    if len(by_source) < 3:
        return None
    shares = []
    for source, ratios in by_source.items():
        others = [(r, 1 / len(rs)) for other, rs in by_source.items() if other != source for r in rs]
        low, high = weighted_quantile(others, 0.05) / WIDER, weighted_quantile(others, 0.95) * WIDER
        shares.append(sum(low <= ratio <= high for ratio in ratios) / len(ratios))
    return sum(shares) / len(shares)


def weighted_quantile(values: Iterable[tuple[float, float]], share: float) -> float:
    """Return the smallest value at which this share of the weight is reached; pairs are of value and weight."""
    ordered = sorted(values)
    total, below = sum(weight for _, weight in ordered), 0.0
    for value, weight in ordered:
        below += weight
        if below >= share * total * (1 - 1e-12):
            return value
    return ordered[-1][0]


def read_record() -> dict[str, Any]:
    """Return the recorded runs."""
    return dict(json.loads(RECORD.read_text("utf-8")))


def stated_runs(record: Mapping[str, Any]) -> list[EstimatedRun]:
    """Return the trainings that the stated coverage of hours is computed from: all but those in small passes."""
    return [run for run in training_runs(record) if run.kind != SMALL_PASSES]


def main() -> None:
    """Print the coverage of hours, money and calls, by class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=Path, help="the public memory file, whose speeds are added")
    given = parser.parse_args()
    record = read_record()
    training = training_runs(record)
    if given.cases:
        training = [run for run in training if run.source not in IN_PUBLIC_FILE or run.kind != "GPU"]
        training += published_speeds(given.cases)
    print("hours")
    for kind in dict.fromkeys(run.kind for run in training):
        _print(kind, [run for run in training if run.kind == kind])
    _print("all but small passes", [run for run in training if run.kind != SMALL_PASSES])
    print("money")
    _print("hours times a rent", rents(training))
    _print("published bills", bills(record))
    print("tokens of a call")
    answered = calls(record)
    for kind in dict.fromkeys(run.kind for run in answered):
        _print(kind, [run for run in answered if run.kind == kind])
    _print("all", answered)


def _print(name: str, runs: Sequence[EstimatedRun]) -> None:
    ratios = sorted(run.ratio for run in runs)
    left_out = coverage_left_out(runs)
    shown = "too few sources" if left_out is None else f"{left_out:.2f}"
    widths = sorted(run.estimate.high / run.estimate.low for run in runs)
    print(
        f"  {name:32} {len(runs):3} runs, {len({run.source for run in runs}):2} sources: {coverage(runs):.2f} inside; "
        f"left out: {shown}; measured / likely {ratios[0]:.2f} to {ratios[-1]:.2f}, "
        f"high / low {widths[len(widths) // 2]:.1f}"
    )


if __name__ == "__main__":
    main()
