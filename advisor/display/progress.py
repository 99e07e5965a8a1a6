"""Progress on stderr: a run's board or a bar with time left on a terminal, plain lines elsewhere.

What a run is doing, at a glance: steps, time left, the loss as a line of bars, questions answered, scores so far.

The board learns everything from the run's events, so a finished run's `events.jsonl` can be played to it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.table import Table
from rich.text import Text

from advisor.display.events import event_lines
from advisor.output import is_quiet as unwanted

BAR_CHARACTERS = " ▁▂▃▄▅▆▇█"
SPARKS, BAR = 48, 14
"""Columns of the loss line and of a step's bar."""
Scorer = Callable[[str], float | None]
"""From an arm to its mean combined score over the answers so far, None where it is not known yet."""


@dataclass
class StepProgress:
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


class ProgressBoard:
    """The state of a run, fed by its events."""

    def __init__(
        self,
        name: str,
        steps: Sequence[str],
        estimates: Mapping[str, float] | None = None,
        scorer: Scorer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the plan's step names in order, their estimated seconds where known, and who scores an arm so far."""
        self.name = name
        self.steps: dict[str, StepProgress] = {step: StepProgress() for step in steps}
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
            self.steps[self.current] = StepProgress("working", at)
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
            done, total = training_progress(event)
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
        remaining = f", about {format_duration(left)} left" if left is not None else ""
        table.title = Text(
            f"{self.name}: {finished} of {len(self.steps)} steps, {format_duration(at - self.started)} gone{remaining}",
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

    def _row(self, name: str, work: StepProgress, at: float) -> tuple[Text, ...]:
        sign, style = {
            "waiting": ("·", "dim"),
            "working": ("▶", "bold cyan"),
            "done": ("✓", ""),
            "before": ("✓", "dim"),
        }[work.state]
        count = f"{work.done} of {work.total}" if work.total else ""
        took = {"done": format_duration(work.seconds), "before": "before"}.get(work.state, "")
        if work.state == "working":
            left = self.left_of(name, at)
            took = format_duration(at - work.started) if left is None else f"{format_duration(left)} left"
        elif work.state == "waiting" and name in self.estimates:
            took = f"about {format_duration(self.estimates[name])}"
        notes = [progress_bar(work.done, work.total)] if work.state == "working" and work.total else []
        notes += [f"score so far {work.score:.2f}"] if work.score is not None else []
        return tuple(Text(text, style) for text in (sign, name, count, took, " ".join(notes)))


def training_progress(event: Mapping[str, Any]) -> tuple[int, int]:
    """Return the optimiser steps taken and to be taken of a training, over all of its seeds."""
    step, steps = int(event["step"]), int(event.get("steps", event["step"]))
    return int(event.get("nth", 0)) * steps + step, int(event.get("seeds", 1)) * steps


def replay_events(
    events: Iterable[Mapping[str, Any]], name: str = "", steps: Sequence[str] = ()
) -> ProgressBoard:
    """Return the board after all these events; time stands still at the last of them."""
    heard = list(events)
    last = float(heard[-1].get("time", 0.0)) if heard else 0.0
    board = ProgressBoard(name, steps, clock=lambda: last)
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
    return "".join(
        BAR_CHARACTERS[1 + round((v - low) / (high - low) * 7) if high > low else 4] for v in means
    )


def progress_bar(done: int, total: int) -> str:
    """Return how much is done as a bar."""
    full = round(BAR * min(1.0, done / total)) if total else 0
    return "━" * full + "╌" * (BAR - full)


def format_duration(seconds: float) -> str:
    """Return a time as 42 s, 3:05 or 1:02:03."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class ProgressWatcher:
    """Turns the events of a run into progress."""

    def __init__(self, console: Console, bars: Progress | None, board: ProgressBoard | None = None) -> None:
        """Draw on `bars` or a `board` when there is one; else print a line per step."""
        self.console = console
        self.bars = bars
        self.board = board
        self.task: TaskID | None = None
        self.reasons: dict[str, str] = {}
        self.started = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind = str(event.get("event", ""))
        if self.board:
            self.board.hear(event)
        for line in event_lines(event):
            self.say(f"  {line}")
        if kind == "step.start":
            self.begin(f"[{event['number']}/{event['total']}] {event['step']}")
        elif kind == "judge.start":
            self.begin(event["title"])
        elif kind == "step.skip":
            self.say(f"  {event['step']}: finished before, skipped")
        elif kind == "step.end":
            self.end(event)
        elif kind == "train.plan" and event.get("reasons") != self.reasons:
            self.reasons = event["reasons"]
            for name, reason in self.reasons.items():
                self.say(f"  {name}: {reason}")
        elif "done" in event and "total" in event:
            self.advance(event["done"], event["total"], "")
        elif kind == "train.step":
            note = f"loss {event['loss']:.2f}" if "loss" in event else ""
            self.advance(*training_progress(event), note)

    def begin(self, title: str) -> None:
        """Start a step."""
        self.started = time.monotonic()
        if self.bars:
            self.task = self.bars.add_task(title, total=None, note="")
        elif not self.board:
            self.say(title)

    def advance(self, done: int, total: int, note: str) -> None:
        """Move the bar of the step at work."""
        if self.bars and self.task is not None:
            self.bars.update(self.task, completed=done, total=total, note=note)

    def end(self, event: dict[str, Any]) -> None:
        """Finish a step with the time it took."""
        took = time.monotonic() - self.started
        if self.bars and self.task is not None:
            self.bars.update(self.task, visible=False)
            self.task = None
        self.say(f"  {event['step']}: {took:.0f} s")
        for item in event.get("skipped", ()):
            self.say(f"  document {item['path']} was left out: {item['reason']}")
        if cut := event.get("cut"):
            self.say(f"  {cut} answers were cut at the plan's max_new_tokens")
        if estimated := event.get("estimated"):
            self.say(f"  the tokens of {estimated} answers are estimated: the server does not count them")
        if note := event.get("refusal", {}).get("note"):
            self.say(f"  {note}")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def watch_progress(
    quiet: bool = False, board: Callable[[], ProgressBoard] | None = None
) -> Iterator[ProgressWatcher]:
    """A watcher for the length of a run; bars, or the board that is made then, only where stderr is a terminal."""
    quiet = quiet or unwanted()
    console = Console(stderr=True, quiet=quiet)
    # A dumb terminal cannot take back what was drawn: lines are all that it shows.
    if not sys.stderr.isatty() or console.is_dumb_terminal or quiet:
        yield ProgressWatcher(console, None)
        return
    if board:
        shown = board()
        with Live(get_renderable=shown.draw, console=console, refresh_per_second=4, transient=True):
            yield ProgressWatcher(console, None, shown)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield ProgressWatcher(console, bars)
