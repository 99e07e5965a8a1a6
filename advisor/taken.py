"""The memory that training took: alone, as the estimate speaks of it, and the whole process, which has to fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runners.footprint import CONTEXT
from runners.machine import GIB
from runners.memory import HISTORY

RUNTIME_GIB = CONTEXT / GIB
"""What a plan's figure holds for the device's runtime, beside training."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Of the training run that took most; GiB, None where it was not recorded."""

    own: float | None
    """How far the peak rose above what was held before: weights, gradients, optimiser, activations."""
    expected: float | None
    """The estimate of exactly that, for the settings and the way the run really took."""
    peak: float | None
    """The peak of everything: the process, or on a GPU what torch had reserved there."""
    held: float | None
    """What was held before training began."""
    method: str = "lora"
    on_gpu: bool = False

    @property
    def measured(self) -> dict[str, Any]:
        """The keys that the report's ``measured`` has of it."""
        return {"memory_gib": self.own, "memory_expected_gib": self.expected, "process_gib": self.peak,
                "held_gib": self.held}  # fmt: skip

    @property
    def expected_range(self) -> tuple[float, float, float] | None:
        """Low, likely and high of the estimate, as wide as for published runs of the method."""
        if self.expected is None:
            return None
        spread = HISTORY.get(self.method, HISTORY["lora"])  # type: ignore[call-overload]
        return self.expected * spread.low, self.expected, self.expected * spread.high

    @property
    def whole(self) -> str:
        """Say what the peak of everything was and what of it was there before; "" where it is not known."""
        if self.peak is None:
            return ""
        if self.on_gpu:
            return f"torch had reserved {self.peak:.2g} GiB of the GPU at the peak"
        before = (
            ""
            if self.held is None
            else f", {self.held:.2g} of it before training (libraries, index, embedder)"
        )
        return f"the whole process held {self.peak:.2g} GiB at its peak{before}"


NOTHING = Taken(None, None, None, None)


def most(runs: Sequence[Mapping[str, Any]]) -> Taken:
    """Return what the hungriest of some training runs took; runs of earlier versions knew only the process's peak."""
    kept = [run for run in runs if run.get("peak_gib")]
    if not kept:
        return NOTHING
    run = max(kept, key=lambda one: (one.get("own_gib") or 0.0, one["peak_gib"]))
    peak = max(one["peak_gib"] for one in kept)
    return Taken(
        run.get("own_gib"), run.get("expected_gib"), peak, run.get("held_gib"), str(run.get("method", "lora")),
        bool(run.get("on_gpu")),
    )  # fmt: skip


def lines(taken: Taken, planned: float | None, assumed: Sequence[str] = ()) -> list[str]:
    """Say estimate and measurement of the same thing, then the whole process, then what the plan's figure was for."""
    said = []
    if taken.own is not None:
        guess = "not estimated" if taken.expected is None else f"estimated {taken.expected:.2g} GiB"
        said.append(f"memory of training: {guess}, measured {taken.own:.2g} GiB")
    elif taken.peak is not None:
        said.append("memory of training: not measured apart from the process")
    if taken.whole:
        said.append(taken.whole)
    if planned is not None and taken.peak is not None:
        why = "".join(f" for {text}" for text in assumed if "tokens at a time" in text)
        said.append(f"the plan said {planned:.2g} GiB{why}, {RUNTIME_GIB:.1f} of it the runtime of a GPU")
    return said
