"""The prediction held against the measurement: pairs of both, and their ratio where they speak of the same work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advisor import taken
from advisor.history import Kind, Pair, Timed
from advisor.taken import Taken
from advisor.timing import schedule
from runners.plan import Plan, TrainStep


def account(
    plan: Plan,
    measured: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    test_questions: int,
    proxy: bool,
) -> dict[str, Any]:
    """Return what the report's ``measured`` adds for the chosen arm: memory, hours, their ratios, and the steps.

    ``measured`` is the seconds of each step and how each training run went. A ratio is measured over predicted; it
    is null, with the reason, where the two are not about the same work. Memory is that of training alone, held
    against the estimate for the run's own settings; the whole process is told beside it.
    """
    memory, hours = taken.most(_runs(plan, measured)), training_hours(plan, measured)
    why = incomparable(plan, proxy)
    likely = (_estimate(plan).get("hours") or {}).get("likely")
    pairs = {"time": pair(likely, hours), "memory": pair(memory.expected, memory.own)}
    ratios: dict[str, Any] = {
        name: None if why or both is None else round(both.ratio, 3) for name, both in pairs.items()
    }
    steps = timed(plan, measured, events, test_questions)
    return {
        **memory.measured,
        "hours": None if hours is None else round(hours, 6),
        "ratios": ratios | ({"not_compared": why} if why else {}),
        "steps": [step.model_dump(exclude_none=True) | {"ratio": round(step.ratio, 3)} for step in steps],
    }


def beside(data: Mapping[str, Any]) -> list[str]:
    """Say what was predicted of the chosen arm beside what was measured, from a report's data; nothing unknown."""
    choice, measured = data["verdict"]["recommended"], data["measured"]
    ranked = [row.get("method") for row in data["predicted"].get("ranked") or ()]
    arms = [arm["arm"] for arm in data["arms"]]
    said = []
    if both := [name for name in ranked if name in arms]:
        said.append(
            f"order predicted {' > '.join(both)}; measured {' > '.join(a for a in arms if a in both)}"
        )
    row = next(
        (r.get("estimate") or {} for r in data["predicted"].get("ranked") or () if r.get("method") == choice),
        {},
    )
    if hours := measured.get("hours"):
        said.append(_both("training", (row.get("hours") or {}).get("likely"), hours, "h"))
    said += taken.lines(
        of_report(data), (row.get("memory_gib") or {}).get("likely"), row.get("assumptions") or ()
    )
    cost = next((arm.get("usd_per_1000") for arm in data["arms"] if arm["arm"] == choice), None)
    if cost is not None:
        call = row.get("per_call_usd")
        said.append(_both("1,000 calls", None if call is None else call * 1000, cost, "USD"))
    if why := measured.get("ratios", {}).get("not_compared"):
        said.append(f"not compared further: {why}")
    return said


def _both(what: str, predicted: float | None, measured: float, unit: str) -> str:
    guess = "not predicted" if predicted is None else f"predicted {predicted:.2g} {unit}"
    return f"{what}: {guess}, measured {measured:.2g} {unit}"


def predicted_pairs(plan: Plan, measured: Mapping[str, Any], proxy: bool) -> tuple[Pair | None, Pair | None]:
    """Return hours and memory of the chosen arm as pairs; None where they cannot be compared."""
    if incomparable(plan, proxy):
        return None, None
    estimate = _estimate(plan)
    hours = pair((estimate.get("hours") or {}).get("likely"), training_hours(plan, measured))
    memory = taken.most(_runs(plan, measured))
    return hours, pair(memory.expected, memory.own)


def pair(predicted: float | None, measured: float | None) -> Pair | None:
    """Return both figures as a pair; None when either is missing or nothing."""
    return Pair(predicted=predicted, measured=measured) if predicted and measured else None


def incomparable(plan: Plan, proxy: bool) -> str:
    """Say why the plan's prediction is about other work than what was measured; "" when it is about the same."""
    if proxy:
        return "measured on another model than the one that was planned for"
    kind = plan.answers.get("gpu_kind")
    if kind is not None and kind.source != "detected":
        return "predicted for a machine that a person described, not for the one found here"
    if quick(plan):
        return "a quick run trains on fewer rows, once"
    counted = plan.answers.get("labelled_examples")
    most = plan.data.max_examples
    if most is not None and counted is not None and counted.value and most < counted.value:
        return f"trained on {most} of the {counted.value:,} examples that were predicted for"
    return ""


def quick(plan: Plan) -> bool:
    """Whether the plan was cut down by ``--quick``, as its reasons say."""
    return any(
        isinstance(step, TrainStep) and "--quick" in step.reasons.get("epochs", "") for step in plan.steps
    )


def of_report(data: Mapping[str, Any]) -> Taken:
    """Return the memory that a report's ``measured`` tells of; older reports told the whole process's as memory_gib."""
    measured = data["measured"]
    if "process_gib" not in measured:
        return replace(taken.NOTHING, peak=measured.get("memory_gib"))
    runs = [run for runs in (measured.get("training") or {}).values() for run in runs or ()]
    return Taken(
        measured["memory_gib"], measured["memory_expected_gib"], measured["process_gib"], measured["held_gib"],
        on_gpu=any(run.get("on_gpu") for run in runs),
    )  # fmt: skip


def training_hours(plan: Plan, measured: Mapping[str, Any]) -> float | None:
    """Return the hours that training the chosen arm took, one seed; None where it was not trained."""
    runs = [[run["seconds"] for run in runs if run.get("seconds")] for runs in _trained(plan, measured)]
    return sum(sum(each) / len(each) for each in runs if each) / 3600 or None


def timed(
    plan: Plan, measured: Mapping[str, Any], events: Sequence[Mapping[str, Any]], test_questions: int
) -> tuple[Timed, ...]:
    """Return each step's seconds, estimated and measured; a step that was gone on with is left out: it was begun before.

    Estimates are those before any correction, for the rows that were trained on.
    """
    trained = [run for runs in measured["training"].values() for run in runs or ()]
    rows = max((run.get("rows", 0) for run in trained), default=0)
    broken = interrupted(events)
    found = []
    for name, estimated in schedule(plan, rows, test_questions):
        seconds = measured["seconds"].get(name)
        kind, _, arm = name.partition(":")
        if seconds and estimated and name not in broken and kind in _KINDS:
            found.append(Timed(kind=_KINDS[kind], arm=arm, predicted=round(estimated, 1), measured=seconds))
    return tuple(found)


_KINDS: Mapping[str, Kind] = {"index": "index", "train": "train", "evaluate": "evaluate"}


def interrupted(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the steps that were started more than once before they were done: their last stretch is not all of them."""
    starts: dict[str, int] = {}
    done: set[str] = set()
    for event in events:
        step = str(event.get("step"))
        if event.get("event") == "step.done":
            done.add(step)
        elif event.get("event") == "step.start" and step not in done:
            starts[step] = starts.get(step, 0) + 1
    return {step for step, count in starts.items() if count > 1}


def _runs(plan: Plan, measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [run for runs in _trained(plan, measured) for run in runs]


def _trained(plan: Plan, measured: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The training runs behind the chosen arm, those it started from included."""
    arm = next((step.weights for step in plan.arms if step.arm == plan.choice), None)
    found = []
    while arm:
        found.append(measured["training"].get(arm) or [])
        arm = plan.train_step(arm).start_from
    return found


def _estimate(plan: Plan) -> Mapping[str, Any]:
    ranked = plan.predicted.get("ranked") or ()
    return next((row.get("estimate") or {} for row in ranked if row.get("method") == plan.choice), {})
