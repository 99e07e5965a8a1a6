"""Progress on stderr: a run's board or a bar with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from advisor.board import Board, reached
from advisor.output import quiet as unwanted
from advisor.telling import lines


class Watcher:
    """Turns the events of a run into progress."""

    def __init__(self, console: Console, bars: Progress | None, board: Board | None = None) -> None:
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
        for line in lines(event):
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
            self.advance(*reached(event), note)

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
def watching(quiet: bool = False, board: Callable[[], Board] | None = None) -> Iterator[Watcher]:
    """A watcher for the length of a run; bars, or the board that is made then, only where stderr is a terminal."""
    quiet = quiet or unwanted()
    console = Console(stderr=True, quiet=quiet)
    # A dumb terminal cannot take back what was drawn: lines are all that it shows.
    if not sys.stderr.isatty() or console.is_dumb_terminal or quiet:
        yield Watcher(console, None)
        return
    if board:
        shown = board()
        with Live(get_renderable=shown.draw, console=console, refresh_per_second=4, transient=True):
            yield Watcher(console, None, shown)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeLeft(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        yield Watcher(console, bars)
