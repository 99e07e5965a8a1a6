"""The work behind ``tunewise runs show --watch``: follow a run that another process carries out.

Only files are read, the event log above all, so that watching never touches the run: :class:`EventFollower` reads what was
appended since the last look, :class:`RunStatus` keeps what the events say, and :func:`watch_run` shows it until the run
ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from advisor.display.progress import ProgressBoard, board_for_plan, format_duration
from advisor.output import command_line, emit_result, open_console, print_wrapped
from advisor.report.data import read_report
from advisor.workflows.run import check_gate
from rag.errors import BadInput, Problem
from rag.files import MANIFEST, has_active_writer, writer_process
from rag.text.words import count_noun
from runners.plan.schema import Plan, step_name
from runners.run_folder import EVENTS, REPORT, open_run_folder, read_run_plan

if TYPE_CHECKING:
    from rich.console import RenderableType

POLL_SECONDS = 1.0
"""Time between two looks at the log."""
STATUS_SECONDS = 10.0
"""Time between two status lines of ``--json``, where something has happened meanwhile."""
GRACE_SECONDS = 3.0
"""Time without a writing process after which an unfinished run counts as stopped."""
REPORT_SECONDS = 120.0
"""The same once all steps are done: the arms are compared then, which writes nothing for a while."""
GIB = float(1 << 30)


class EventFollower:
    """Reads the events that another process appends to a log; an incomplete last line waits for its end."""

    def __init__(self, path: Path) -> None:
        """Start at the beginning of a log, which need not exist yet."""
        self._path = path
        self._offset = 0
        self._file = 0

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the events since the last call, and whether the log was replaced, so that they are all it holds."""
        try:
            with self._path.open("rb") as stream:
                status = self._path.stat()
                replaced = self._offset > 0 and (status.st_ino != self._file or status.st_size < self._offset)
                if replaced:
                    self._offset = 0
                self._file = status.st_ino
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return [], False
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_json_objects(whole)), replaced


def _json_objects(lines: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of lines; a line that a crash tore in two is skipped, as when the run goes on."""
    for line in lines.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


@dataclass(frozen=True, slots=True)
class Milestone:
    """Something that has been reached: a start, a finished step, an arm that cannot be used."""

    time: float
    """In seconds since 1970, as the run recorded it."""
    kind: str
    """start, step or refused."""
    step: str
    text: str

    def line(self) -> str:
        """Return the milestone as a line that begins with its time, on another day than today with the date."""
        when = datetime.fromtimestamp(self.time)
        date = "" if when.date() == datetime.now().date() else f"{when:%Y-%m-%d} "
        return f"{date}{when:%H:%M:%S} {self.text}"


@dataclass
class RunStatus:
    """How far a run is, by its events."""

    board: ProgressBoard
    starts: int = 0
    """How often the run was started or resumed."""
    last: float = 0.0
    """Time of the last event."""
    answered: dict[str, int] = field(default_factory=dict)
    """Questions answered, by arm."""
    position: str = ""
    """Number of the step at work, as "3/11"."""
    losses: list[float] = field(default_factory=list)
    """Losses of the training at work or done last."""

    def update(self, event: Mapping[str, Any]) -> Milestone | None:
        """Take one event; return the milestone that it reaches, if any."""
        self.board.update(event)
        kind, self.last = str(event.get("event", "")), float(event.get("time", self.last))
        if kind == "run.start":
            self.starts += 1
            text = "started" if self.starts == 1 else f"resumed (start {self.starts})"
            return Milestone(self.last, "start", "", f"{self.board.name}: {text}")
        if kind == "step.start":
            self.position = f"{event['number']}/{event['total']}"
            self.losses = []
        elif kind == "answers.batch" and "done" in event:
            self.answered[str(event.get("arm", ""))] = int(event["done"])
        elif kind == "train.step" and "loss" in event:
            self.losses.append(float(event["loss"]))
        elif kind == "arm.refused":
            text = f"{event['arm']} is skipped: {event['reason']}"
            return Milestone(self.last, "refused", str(event["arm"]), text)
        elif kind == "step.end":
            return self._step_done(event)
        return None

    def _step_done(self, event: Mapping[str, Any]) -> Milestone:
        name = str(event["step"])
        parts = [f"[{self.position}] {name}: done in {format_duration(self.board.steps[name].seconds)}"]
        if self.losses:
            parts.append(f"loss {self.losses[0]:.2f} to {self.losses[-1]:.2f}")
        peaks = [row["peak_gib"] for row in event.get("trained", ()) if row.get("peak_gib")]
        if peaks:
            parts.append(f"at most {max(peaks):.1f} GiB")
        parts.append(self.board.steps[name].scored or "")
        return Milestone(self.last, "step", name, ", ".join(filter(None, parts)))

    def to_json(self, now: float, memory: float | None) -> dict[str, Any]:
        """Return the status at a time as JSON.

        Args:
            now: the time, in seconds since 1970.
            memory: GiB that the process of the run holds; None when there is none.
        """
        board = self.board
        step = board.steps.get(board.current)
        working = step is not None and step.state == "working"
        left = board.time_left(now)
        gone = now - board.started
        return {
            "steps": {
                "done": [name for name, each in board.steps.items() if each.state in ("done", "before")],
                "current": board.current if working else None,
                "left": [name for name, each in board.steps.items() if each.state == "waiting"],
            },
            "done": step.done if step and working else None,
            "total": step.total if step and working else None,
            "percent": round(100 * step.done / step.total, 1) if step and working and step.total else None,
            "loss": round(self.losses[-1], 4) if self.losses and working else None,
            "questions_answered": sum(self.answered.values()),
            "seconds": round(gone, 1) if self.starts else None,
            "seconds_left": round(left, 1) if left is not None and working else None,
            "memory_gib": round(memory, 2) if memory is not None else None,
            "last_event": self.last or None,
        }

    def line(self, now: float, memory: float | None) -> str:
        """Return the status at a time in one line; the arguments are those of :meth:`to_json`."""
        status = self.to_json(now, memory)
        steps = status["steps"]
        parts = [f"{len(steps['done'])} of {len(self.board.steps)} steps done"]
        if steps["current"]:
            count = f" {status['done']} of {status['total']}" if status["total"] else ""
            share = f" ({status['percent']:.0f} %)" if status["percent"] is not None else ""
            parts.append(f"now {steps['current']}{count}{share}")
        if status["loss"] is not None:
            parts.append(f"loss {status['loss']:.2f}")
        if status["questions_answered"]:
            parts.append(f"{count_noun(status['questions_answered'], 'answer')} so far")
        if status["seconds"] is not None:
            parts.append(f"{format_duration(status['seconds'])} gone")
        if status["seconds_left"] is not None:
            parts.append(f"about {format_duration(status['seconds_left'])} left")
        if memory is not None:
            parts.append(f"memory {memory:.1f} GiB")
        return ", ".join(parts)


class RunWatch:
    """One watched run: its log, its status, and whether a process is still at work on it."""

    def __init__(self, path: Path, grace_seconds: float = GRACE_SECONDS) -> None:
        """Open a run folder; BadInput when there is none, or its plan cannot be read.

        ``grace_seconds``: without a process at work for so long, an unfinished run counts as stopped.
        """
        self._grace_seconds = grace_seconds
        self.path = open_run_folder(path).path
        self.plan = read_run_plan(self.path)
        self._follower = EventFollower(self.path / EVENTS)
        self.status = RunStatus(_board(self.plan))
        self._silent_since: float | None = None

    def read(self) -> list[Milestone]:
        """Take the events written since the last call; return the milestones among them."""
        events, replaced = self._follower.read()
        if replaced:
            self.status = RunStatus(_board(self.plan))
        return [reached for event in events if (reached := self.status.update(event)) is not None]

    def state(self) -> str:
        """Return writing, finished, killed or stopped; "" for a short while in which that is not clear."""
        if has_active_writer(self.path):
            self._silent_since = None
            return "writing"
        if (self.path / MANIFEST).is_file() and (self.path / REPORT).is_file():
            return "finished"
        if writer_process(self.path) is not None:
            return "killed"  # a process that ends in order takes its number away
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        waiting = any(step.state in ("waiting", "working") for step in self.status.board.steps.values())
        grace = self._grace_seconds if waiting else REPORT_SECONDS
        return "stopped" if now - self._silent_since >= grace else ""

    def memory(self) -> float | None:
        """Return the GiB that the process of the run holds; None when it cannot be asked."""
        number = writer_process(self.path)
        try:
            return float(psutil.Process(number).memory_info().rss) / GIB if number else None
        except psutil.Error:
            return None

    def draw(self) -> Group:
        """Return the board with a line on the process, for a terminal."""
        now, memory = time.time(), self.memory()
        parts = [count_noun(sum(self.status.answered.values()), "question") + " answered"]
        parts += [f"process {writer_process(self.path)} holds {memory:.1f} GiB"] if memory is not None else []
        quiet = now - self.status.last
        parts += [f"last event {format_duration(quiet)} ago"] if self.status.last and quiet > 60 else []
        footer: list[RenderableType] = [
            Text(f"  {', '.join(parts)}", no_wrap=True, overflow="ellipsis"),
            Text("  Ctrl-C stops watching only; the run continues", "dim", no_wrap=True, overflow="ellipsis"),
        ]
        return Group(self.status.board.draw(now), *footer)


def watch_run(run: Path, as_json: bool, grace_seconds: float = GRACE_SECONDS) -> None:
    """Show how a run is going until it ends: a board on a terminal, else a line for each milestone.

    Args:
        run: the run folder.
        as_json: whether to print lines of JSON: ``milestone``, ``status`` and ``end``.
        grace_seconds: see :class:`RunWatch`.

    Raises:
        BadInput: there is no run; or it is not finished, and no process is at work on it any more.
        GateNotMet: the run has finished, and its gate was not met or no arm can be used.
    """
    watch = RunWatch(run, grace_seconds)
    screen = open_console()
    if as_json or not screen.is_terminal or screen.is_dumb_terminal:
        state = _follow_in_lines(watch, as_json)
    else:
        watch.read()
        with Live(get_renderable=watch.draw, console=screen, refresh_per_second=2):
            while (state := watch.state()) in ("writing", ""):
                time.sleep(POLL_SECONDS)
                watch.read()
            watch.read()
    _show_end(watch, state, as_json, screen)


def run_progress(run: Path) -> tuple[str, dict[str, Any]]:
    """Return how far a run is that a process works on: in one line, and as JSON."""
    watch = RunWatch(run)
    watch.read()
    now, memory = time.time(), watch.memory()
    return watch.status.line(now, memory), watch.status.to_json(now, memory)


def _follow_in_lines(watch: RunWatch, as_json: bool) -> str:
    """Print each milestone, and with ``as_json`` the status from time to time, until the run ends; return its state."""
    shown_at, shown_event, first = 0.0, 0.0, True
    while True:
        state = watch.state()  # before reading, so that nothing is missed that was written until then
        for milestone in watch.read():
            if as_json:
                body = {"kind": milestone.kind, "step": milestone.step, "text": milestone.text}
                _emit("milestone", {"time": milestone.time, **body})
            else:
                print(milestone.line(), flush=True)
        now, last = time.time(), watch.status.last
        if first or (as_json and now - shown_at >= STATUS_SECONDS and last != shown_event):
            shown_at, shown_event, first = now, last, False
            if state in ("writing", "") and as_json:
                _emit("status", watch.status.to_json(now, watch.memory()))
            elif state in ("writing", ""):
                print(f"{datetime.now():%H:%M:%S} {watch.status.line(now, watch.memory())}", flush=True)
        if state not in ("writing", ""):
            return state
        time.sleep(POLL_SECONDS)


def _show_end(watch: RunWatch, state: str, as_json: bool, screen: Console) -> None:
    """Print how a run ended, and raise what its exit code stands for; see :func:`watch_run`."""
    resume = command_line("run", watch.path, "--resume")
    if state == "finished":
        report = read_report(watch.path)
        verdict = report.verdict
        if as_json:
            _emit("end", {"state": state, "outcome": verdict.outcome, "text": verdict.text})
        else:
            print_wrapped(screen, f"finished: {verdict.text}")
        check_gate(report)
        return
    number = writer_process(watch.path)
    why = (
        f"process {number} has ended without a message (killed?)"
        if state == "killed"
        else "no process writes it"
    )
    done = len(watch.status.to_json(0.0, None)["steps"]["done"])
    text = f"{watch.path} is not finished: {why}; {done} of {len(watch.status.board.steps)} steps are done"
    if as_json:
        _emit("end", {"state": state, "text": text, "resume": resume})
    raise BadInput(text, f"continue with: {resume}")


def _emit(event: str, body: Mapping[str, Any]) -> None:
    emit_result({"schema": 1, "event": event, **body}, ascii=True)
    sys.stdout.flush()


def _board(plan: Plan) -> ProgressBoard:
    """Return the board of a run; without estimates where the plan's data cannot be read."""
    try:
        return board_for_plan(plan)
    except (Problem, OSError):
        return ProgressBoard(plan.name, [step_name(step) for step in plan.steps])
