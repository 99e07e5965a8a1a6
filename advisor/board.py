"""What a run is doing, at a glance: steps, time left, the loss as a line of bars, questions answered, scores so far.

The board learns everything from the run's events, so a finished run's `events.jsonl` can be played to it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
SPARKS, BAR = 48, 14
"""Columns of the loss line and of a step's bar."""
Scorer = Callable[[str], float | None]
"""From an arm to its mean combined score over the answers so far, None where it is not known yet."""


@dataclass
class Work:
    """One step: where it stands, and since when."""

    state: str = "waiting"
    """waiting, working, done or before (finished in an earlier run)."""
    started: float = 0.0
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    first: tuple[float, int] | None = None
    """When this step was first heard of counting, and how much was done by then."""
    losses: list[float] = field(default_factory=list)
    """Of the training seed at work."""
    seed: int | None = None
    score: float | None = None


class Board:
    """The state of a run, fed by its events."""

    def __init__(self, name: str, steps: Sequence[str], estimates: Mapping[str, float] | None = None,
                 scorer: Scorer | None = None, clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        """Take the plan's step names in order, their estimated seconds where known, and who scores an arm so far."""
        self.name = name
        self.steps: dict[str, Work] = {step: Work() for step in steps}
        self.estimates = dict(estimates or {})
        self.scorer = scorer
        self.clock = clock
        self.started = clock()
        self.current = ""

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take one event; its own time counts when it has one (a run played again)."""
        kind, at = str(event.get("event", "")), float(event.get("time", self.clock()))
        if kind == "run.start":
            self.started = at
        elif kind == "step.start":
            self.current = str(event["step"])
            self.steps[self.current] = Work("working", at)
        elif kind == "step.skip" and self.current:
            self.steps[self.current].state = "before"
        elif kind == "step.end" and event["step"] in self.steps:
            work = self.steps[event["step"]]
            work.state, work.seconds = "done", at - work.started
            work.done = work.total
        elif self.current:
            self._count(kind, event, at)

    def _count(self, kind: str, event: Mapping[str, Any], at: float) -> None:
        work = self.steps[self.current]
        done, total = event.get("done"), event.get("total")
        if kind == "train.step":
            done, total = reached(event)
            if "loss" in event:
                if event.get("seed") != work.seed:
                    work.seed, work.losses = event.get("seed"), []
                work.losses.append(float(event["loss"]))
        if done is None or total is None:
            return
        if work.first is None or done < work.first[1]:
            work.first = (at, int(done))
        work.done, work.total = int(done), int(total)
        if kind == "answers.batch" and self.scorer:
            work.score = self.scorer(str(event["arm"]))

    def left(self, at: float) -> float | None:
        """Seconds left of the run: what is counted of the step at work, and the estimates of those that wait."""
        waiting = [
            self.estimates.get(name) for name, work in list(self.steps.items()) if work.state == "waiting"
        ]
        work = self.steps.get(self.current)
        own = self.left_of(self.current, at) if work and work.state == "working" else 0.0
        known = [seconds for seconds in (own, *waiting) if seconds is not None]
        return sum(known) if len(known) == len(waiting) + 1 else None

    def left_of(self, name: str, at: float) -> float | None:
        """Seconds left of a step at work, from its own pace, else from its estimate."""
        work = self.steps[name]
        if work.first and work.done > work.first[1] and work.total:
            pace = (at - work.first[0]) / (work.done - work.first[1])
            return max(0.0, pace * (work.total - work.done))
        estimate = self.estimates.get(name)
        return None if estimate is None else max(0.0, estimate - (at - work.started))

    def draw(self, at: float | None = None) -> Group:
        """Return the board as rich draws it: a line a step, and the loss of the training at work or last done."""
        at = self.clock() if at is None else at
        table = Table(box=None, pad_edge=False, show_header=False, title_justify="left", title_style="")
        finished = sum(work.state in ("done", "before") for work in list(self.steps.values()))
        left = self.left(at)
        remaining = f", about {span(left)} left" if left is not None else ""
        table.title = Text(
            f"{self.name}: {finished} of {len(self.steps)} steps, {span(at - self.started)} gone{remaining}",
            style="bold",
        )
        for number in range(5):
            table.add_column(
                no_wrap=True, overflow="ellipsis", min_width=None if number == 4 else (1, 12, 8, 6)[number]
            )
        for name, work in list(self.steps.items()):  # a step may begin while another thread draws
            table.add_row(*self._row(name, work, at))
        trained = [(name, work.losses) for name, work in list(self.steps.items()) if work.losses]
        if not trained:
            return Group(table)
        name, losses = trained[-1]
        said = f"  loss of {name.partition(':')[2] or name}: {losses[0]:.2f} to {losses[-1]:.2f}  {sparkline(losses)}"
        return Group(table, Text(said, no_wrap=True, overflow="ellipsis"))

    def _row(self, name: str, work: Work, at: float) -> tuple[Text, ...]:
        sign, style = {"waiting": ("·", "dim"), "working": ("▶", "bold cyan"), "done": ("✓", ""), "before": ("✓", "dim")}[
            work.state
        ]  # fmt: skip
        count = f"{work.done} of {work.total}" if work.total else ""
        took = {"done": span(work.seconds), "before": "before"}.get(work.state, "")
        if work.state == "working":
            left = self.left_of(name, at)
            took = span(at - work.started) if left is None else f"{span(left)} left"
        elif work.state == "waiting" and name in self.estimates:
            took = f"about {span(self.estimates[name])}"
        notes = [bar_of(work.done, work.total)] if work.state == "working" and work.total else []
        notes += [f"score so far {work.score:.2f}"] if work.score is not None else []
        return tuple(Text(text, style) for text in (sign, name, count, took, " ".join(notes)))


def reached(event: Mapping[str, Any]) -> tuple[int, int]:
    """Return the optimiser steps taken and to be taken of a training, over all of its seeds."""
    step, steps = int(event["step"]), int(event.get("steps", event["step"]))
    return int(event.get("nth", 0)) * steps + step, int(event.get("seeds", 1)) * steps


def replay(events: Iterable[Mapping[str, Any]], name: str = "", steps: Sequence[str] = ()) -> Board:
    """Return the board after all these events; time stands still at the last of them."""
    heard = list(events)
    last = float(heard[-1].get("time", 0.0)) if heard else 0.0
    board = Board(name, steps, clock=lambda: last)
    for event in heard:
        board.hear(event)
    return board


def sparkline(values: Sequence[float], columns: int = SPARKS) -> str:
    """Return values as a line of bars, the highest full, each column the mean of its share of them."""
    if not values:
        return ""
    columns = min(columns, len(values))
    cuts = [round(n * len(values) / columns) for n in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    return "".join(BARS[1 + round((v - low) / (high - low) * 7) if high > low else 4] for v in means)


def bar_of(done: int, total: int) -> str:
    """Return how much is done as a bar."""
    full = round(BAR * min(1.0, done / total)) if total else 0
    return "━" * full + "╌" * (BAR - full)


def span(seconds: float) -> str:
    """Return a time as 42 s, 3:05 or 1:02:03."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
