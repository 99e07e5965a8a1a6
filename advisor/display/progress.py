"""Progress of a run on stderr: a board or a progress bar on a terminal, plain lines elsewhere.

:class:`ProgressBoard` shows steps, time left, loss, answered questions and scores. It is fed by the events of the run
alone, so the ``events.jsonl`` of a finished run can be replayed on it (:func:`replay_events`). :func:`watch_progress`
chooses what to show for a verb.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from advisor.display.events import event_lines
from advisor.output import is_quiet, is_verbose, open_console, print_wrapped
from rag.text.words import count_noun
from runners.plan.schema import Plan, step_name

if TYPE_CHECKING:
    from runners.runs.dataset import RunData

BAR_CHARACTERS = " ▁▂▃▄▅▆▇█"
SPARKLINE_COLUMNS = 48
"""Width of the line of bars that shows the loss."""
BAR_COLUMNS = 14
"""Width of the progress bar of a step."""


@dataclass
class StepProgress:
    """State of one step."""

    state: str = "waiting"
    """waiting, working, done, or before (finished in an earlier run)."""
    started: float = 0.0
    seconds: float = 0.0
    """What it took; of a step that was finished before, then."""
    done: int = 0
    total: int = 0
    first: tuple[float, int] | None = None
    """Time of the first count of this step, and the number done by then."""
    losses: list[float] = field(default_factory=list)
    """Losses of the training seed at work."""
    seed: int | None = None
    scored: str | None = None
    """Right answers and score so far, in words."""


class ProgressBoard:
    """The state of a run, updated by its events."""

    def __init__(
        self,
        name: str,
        steps: Sequence[str],
        estimates: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start with all steps waiting.

        Args:
            name: name of the plan.
            steps: names of its steps, in order.
            estimates: estimated seconds of each step, where known.
            clock: current time in seconds.
        """
        self.name = name
        self.steps: dict[str, StepProgress] = {step: StepProgress() for step in steps}
        self.estimates = dict(estimates or {})
        self.clock = clock
        self.started = clock()
        self.current = ""

    def update(self, event: Mapping[str, Any]) -> None:
        """Update the state with one event; the time recorded in the event counts, if there is one."""
        kind, now = str(event.get("event", "")), float(event.get("time", self.clock()))
        if kind == "run.start":
            self.started = now
        elif kind == "step.start":
            name = str(event["step"])
            self.current = self.current if "beside" in event else name
            before = self.steps.get(name, StepProgress())
            seconds = before.seconds if before.state in ("done", "before") else 0.0
            self.steps[name] = StepProgress("working", now, seconds)
        elif kind == "step.skip" and event["step"] in self.steps:
            self.steps[event["step"]].state = "before"
        elif kind == "arm.incomplete":
            self.steps[f"evaluate:{event['arm']}"].state = "waiting"
        elif kind == "step.end" and event["step"] in self.steps:
            step = self.steps[event["step"]]
            step.state, step.seconds = "done", now - step.started
            step.done = step.total
        elif name := str(event.get("beside") or self.current):
            self._count(self.steps[name], kind, event, now)

    def take_over(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take what an earlier start of the run finished, with its seconds; a step that was broken off waits again."""
        for event in events:
            self.update(event)
        for name, step in list(self.steps.items()):
            finished = step.state in ("done", "before")
            self.steps[name] = StepProgress("before", seconds=step.seconds) if finished else StepProgress()
        self.started, self.current = self.clock(), ""

    def _count(self, step: StepProgress, kind: str, event: Mapping[str, Any], now: float) -> None:
        done, total = event.get("done"), event.get("total")
        if kind == "train.step":
            done, total = training_progress(event)
            if "loss" in event:
                if event.get("seed") != step.seed:
                    step.seed, step.losses = event.get("seed"), []
                step.losses.append(float(event["loss"]))
        if done is None or total is None:
            return
        if step.first is None or done < step.first[1]:
            step.first = (now, int(done))
        step.done, step.total = int(done), int(total)
        if "score" in event:
            # The right answers are left out where answers cannot be judged. With several seeds the count is a mean.
            judged = event["judged"]
            right = f"right {round(event['right'], 1):g} of {judged}, " if judged else ""
            step.scored = f"{right}score so far {event['score']:.2f}"

    def time_left(self, now: float) -> float | None:
        """Return the seconds left of the run: of the step at work and of those that wait; None if any is unknown."""
        waiting = [
            None if (estimate := self.estimates.get(name)) is None else estimate * self.correction(name, now)
            for name, step in list(self.steps.items())
            if step.state == "waiting"
        ]
        step = self.steps.get(self.current)
        current_left = self.step_time_left(self.current, now) if step and step.state == "working" else 0.0
        known = [seconds for seconds in (current_left, *waiting) if seconds is not None]
        return sum(known) if len(known) == len(waiting) + 1 else None

    def correction(self, name: str, now: float | None = None) -> float:
        """Return the measured over the estimated seconds of the steps of the same kind; 1 before the first is measured.

        Args:
            name: the step whose estimate is corrected.
            now: time at which the step at work counts with what it is expected to take by its own speed; None counts
                finished steps alone.
        """
        kind = name.partition(":")[0]
        measured = [
            (seconds, self.estimates[other])
            for other, step in list(self.steps.items())
            if other.partition(":")[0] == kind
            and self.estimates.get(other)
            and (seconds := self._measured_seconds(step, now)) is not None
        ]
        estimated = sum(estimate for _, estimate in measured)
        return sum(seconds for seconds, _ in measured) / estimated if estimated else 1.0

    def _measured_seconds(self, step: StepProgress, now: float | None) -> float | None:
        """Return the seconds that a step took, or at work will take by its own speed; None where nothing is measured."""
        if step.state == "done" or (step.state == "before" and step.seconds):
            return step.seconds
        left = None if step.state != "working" or now is None else _left_by_own_speed(step, now)
        return None if left is None or now is None else now - step.started + left

    def step_time_left(self, name: str, now: float) -> float | None:
        """Return the seconds left of a step at work: by its own speed, before its first counts by its corrected estimate.

        None where it has no estimate, or takes longer than that and has counted nothing.
        """
        step = self.steps[name]
        if (left := _left_by_own_speed(step, now)) is not None:
            return left
        estimate = self.estimates.get(name)
        if estimate is None:
            return None
        left = estimate * self.correction(name) - (now - step.started)
        return left if left > 0 else None

    def draw(self, now: float | None = None) -> Group:
        """Return the board for rich: a line for each step, and the loss of the training at work or last done.

        Args:
            now: time to draw it for; None is the present.
        """
        now = self.clock() if now is None else now
        table = Table(box=None, pad_edge=False, show_header=False, title_justify="left", title_style="")
        finished = sum(step.state in ("done", "before") for step in list(self.steps.values()))
        left = self.time_left(now)
        remaining = f", about {format_duration(left)} left" if left is not None else ""
        table.title = Text(
            f"{self.name}: {finished} of {len(self.steps)} steps, {format_duration(now - self.started)} so far{remaining}",
            style="bold",
        )
        for number in range(5):
            table.add_column(
                no_wrap=True, overflow="ellipsis", min_width=None if number == 4 else (1, 12, 8, 6)[number]
            )
        for name, step in list(self.steps.items()):  # a copy: a step may begin while another thread draws
            table.add_row(*self._row(name, step, now))
        trained = [(name, step.losses) for name, step in list(self.steps.items()) if step.losses]
        if not trained:
            return Group(table)
        name, losses = trained[-1]
        loss_text = f"  loss of {name.partition(':')[2] or name}: {losses[0]:.2f} to {losses[-1]:.2f}  {sparkline(losses)}"
        return Group(table, Text(loss_text, no_wrap=True, overflow="ellipsis"))

    def _row(self, name: str, step: StepProgress, now: float) -> tuple[Text, ...]:
        symbol, style = {
            "waiting": ("·", "dim"),
            "working": ("▶", "bold cyan"),
            "done": ("✓", ""),
            "before": ("✓", "dim"),
        }[step.state]
        count = f"{step.done} of {step.total}" if step.total else ""
        time_text = {"done": format_duration(step.seconds), "before": "before"}.get(step.state, "")
        if step.state == "working":
            left = self.step_time_left(name, now)
            time_text = (
                format_duration(now - step.started) if left is None else f"{format_duration(left)} left"
            )
        elif step.state == "waiting" and name in self.estimates:
            time_text = f"about {format_duration(self.estimates[name] * self.correction(name, now))}"
        notes = [progress_bar(step.done, step.total)] if step.state == "working" and step.total else []
        notes += [step.scored] if step.scored is not None else []
        return tuple(Text(text, style) for text in (symbol, name, count, time_text, " ".join(notes)))


def _left_by_own_speed(step: StepProgress, now: float) -> float | None:
    """Return the seconds left of a step at the speed of what it has done; None before its first count."""
    if not step.first or not step.total or not step.done:
        return None
    if step.done > step.first[1]:
        seconds_each = (now - step.first[0]) / (step.done - step.first[1])
    else:
        # One count so far: the time to it holds loading too, so this is rather too long than nothing at all.
        seconds_each = (now - step.started) / step.done
    return max(0.0, seconds_each * (step.total - step.done))


def training_progress(event: Mapping[str, Any]) -> tuple[int, int]:
    """Return the optimiser steps done and in total of a training, over all of its seeds."""
    step, steps = int(event["step"]), int(event.get("steps", event["step"]))
    return int(event.get("nth", 0)) * steps + step, int(event.get("seeds", 1)) * steps


def replay_events(
    events: Iterable[Mapping[str, Any]], name: str = "", steps: Sequence[str] = ()
) -> ProgressBoard:
    """Return the board after all these events, with its clock at the time of the last one."""
    past_events = list(events)
    last = float(past_events[-1].get("time", 0.0)) if past_events else 0.0
    board = ProgressBoard(name, steps, clock=lambda: last)
    for event in past_events:
        board.update(event)
    return board


def sparkline(values: Sequence[float], columns: int = SPARKLINE_COLUMNS) -> str:
    """Return values as a line of bars, scaled from lowest to highest; each column is the mean of its values."""
    if not values:
        return ""
    columns = min(columns, len(values))
    edges = [round(number * len(values) / columns) for number in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    return "".join(
        BAR_CHARACTERS[1 + round((mean - low) / (high - low) * 7) if high > low else 4] for mean in means
    )


def progress_bar(done: int, total: int) -> str:
    """Return the share that is done as a bar of characters."""
    full = round(BAR_COLUMNS * min(1.0, done / total)) if total else 0
    return "━" * full + "╌" * (BAR_COLUMNS - full)


def format_duration(seconds: float) -> str:
    """Return seconds as 42 s, 3:05 or 1:02:03."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class ProgressWatcher:
    """Shows the events of a run as they come; called with each event."""

    def __init__(self, console: Console, bars: Progress | None, board: ProgressBoard | None = None) -> None:
        """Choose where to show progress.

        Args:
            console: where lines are printed.
            bars: progress bars, or None.
            board: board of the run, or None. Without bars and board, a line is printed for each step.
        """
        self.console = console
        self.bars = bars
        self.board = board
        self.task: TaskID | None = None
        self.reasons: dict[str, str] = {}
        self.started = time.monotonic()
        self.beside: dict[str, float] = {}
        """When each step began that runs beside the current one."""
        self.current = ""
        """The current step."""

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind = str(event.get("event", ""))
        if self.board:
            self.board.update(event)
        name = self.step_of(event) if self.beside else ""
        for line in event_lines(event):
            self.say(f"  {line}" if not name or line.startswith(name) else f"  {name}: {line}")
        if "beside" in event:
            self.show_beside(kind, event)
        elif kind == "step.start":
            self.current = event["step"]
            self.begin(f"[{event['number']}/{event['total']}] {event['step']}")
        elif kind == "judge.start":
            self.current = ""
            self.begin(event["title"])
        elif kind == "step.skip":
            self.say(f"  {event['step']}: finished before, skipped")
        elif kind == "step.end":
            self.end(event)
        elif kind == "train.plan" and is_verbose() and event.get("reasons") != self.reasons:
            self.reasons = event["reasons"]
            for name, reason in self.reasons.items():
                self.say(f"  {name}: {reason}")
        elif "done" in event and "total" in event:
            self.advance(event["done"], event["total"], "")
        elif kind == "train.step":
            note = f"loss {event['loss']:.2f}" if "loss" in event else ""
            self.advance(*training_progress(event), note)

    def step_of(self, event: Mapping[str, Any]) -> str:
        """Return the arm, or the step, that an event's lines are about where several run at once; "" for the run."""
        step = str(event.get("beside", self.current))
        return step.removeprefix("evaluate:")

    def show_beside(self, kind: str, event: dict[str, Any]) -> None:
        """Print the start and the end of a step that runs beside the current one, and nothing in between."""
        if kind == "step.start":
            self.beside[event["step"]] = time.monotonic()
            if not self.board:
                self.say(f"[{event['number']}/{event['total']}] {event['step']}, beside the other steps")
        elif kind == "step.skip":
            self.say(f"  {event['step']}: finished before, skipped")
        elif kind == "step.end":
            self.report(event, time.monotonic() - self.beside.pop(event["step"], self.started))

    def begin(self, title: str) -> None:
        """Start a step."""
        self.started = time.monotonic()
        if self.bars:
            self.task = self.bars.add_task(title, total=None, note="")
        elif not self.board:
            self.say(title)

    def advance(self, done: int, total: int, note: str) -> None:
        """Move the bar of the current step."""
        if self.bars and self.task is not None:
            self.bars.update(self.task, completed=done, total=total, note=note)

    def end(self, event: dict[str, Any]) -> None:
        """Take the bar of the current step away, and report the step."""
        if self.bars and self.task is not None:
            self.bars.update(self.task, visible=False)
            self.task = None
        self.report(event, time.monotonic() - self.started)

    def report(self, event: dict[str, Any], seconds: float) -> None:
        """Print the time a step took, and what it left out."""
        self.say(f"  {event['step']}: {seconds:.0f} s")
        for item in event.get("skipped", ()):
            self.say(f"  document {item['path']} was skipped: {item['reason']}")
        if cut_answers := event.get("cut"):
            self.say(
                f"  {count_noun(cut_answers, 'answer')} cut at the limit of tokens, or because it repeated itself"
            )
        if limited := event.get("limited"):
            self.say(f"  {count_noun(limited, 'answer')} given at a limit of the plan's lookups")
        if reasoned := event.get("reasoned"):
            self.say(f"  reasoning, cut and not scored, before {count_noun(reasoned, 'answer')}")
        if unfinished := event.get("reasoning_cut"):
            self.say(
                f"  {unfinished} of them are empty: the reasoning reached the plan's thinking.max_tokens"
            )
        if estimated := event.get("estimated"):
            self.say(
                f"  tokens estimated for {count_noun(estimated, 'answer')}: the server does not count them"
            )
        if note := event.get("refusal", {}).get("note"):
            self.say(f"  {note}")

    def say(self, line: str) -> None:
        """Print a line above the bars or the board."""
        print_wrapped(self.console, line)


class _CountColumn(MofNCompleteColumn):
    """How many of how many are done; nothing while the number is not known."""

    def render(self, task: Task) -> Text:
        """Return the count, "" without a total."""
        return super().render(task) if task.total is not None else Text("")


class _LeftColumn(TimeRemainingColumn):
    """The time left, with that word; nothing while it is not known."""

    def render(self, task: Task) -> Text:
        """Return the time left, "" without one."""
        return super().render(task).append(" left") if task.time_remaining is not None else Text("")


def bar_columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of the progress bars."""
    return (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        _CountColumn(),
        TimeElapsedColumn(),
        _LeftColumn(),
        TextColumn("{task.fields[note]}"),
    )


@contextmanager
def watch_progress(
    quiet: bool = False, board: Callable[[], ProgressBoard] | None = None
) -> Iterator[ProgressWatcher]:
    """Yield a watcher to pass the events of a run to.

    Args:
        quiet: whether to show nothing.
        board: makes the board to show on a terminal; without it, bars are shown there.
    """
    quiet = quiet or is_quiet()
    console = open_console(stderr=True, quiet=quiet)
    # A dumb terminal cannot redraw: it gets plain lines.
    if not sys.stderr.isatty() or console.is_dumb_terminal or quiet:
        yield ProgressWatcher(console, None)
        return
    if board:
        live_board = board()
        with Live(get_renderable=live_board.draw, console=console, refresh_per_second=4, transient=True):
            yield ProgressWatcher(console, None, live_board)
        return
    with Progress(*bar_columns(), console=console, transient=True) as bars:
        yield ProgressWatcher(console, bars)


def board_for_plan(plan: Plan, only: str | None = None, data: RunData | None = None) -> ProgressBoard:
    """Return the progress board of a plan: its steps, and their estimated times on this machine.

    Args:
        plan: the plan.
        only: name of the only step that is run, None for all.
        data: the plan's data, where it is read already.
    """
    from advisor.verdict.predictions import corrected_step_times
    from runners.runs.dataset import read_data

    data = data or read_data(plan)
    times, _ = corrected_step_times(plan, len(data.examples), len(data.split.test))
    estimates = {name: corrected for name, _, corrected in times}
    # The estimates hold what is measured beside the plan's steps too: forgetting.
    names = dict.fromkeys([*map(step_name, plan.steps), *estimates])
    return ProgressBoard(plan.name, [name for name in names if only in (None, name)], estimates)
