"""What a tracker is told: a run begins, rows of metrics, a summary, notes, and how the run ended. Plain data.

:class:`Tracker` is the base of the clients in :mod:`runners.tracking.clients`; :mod:`runners.tracking.sender` calls it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rag.errors import UsageProblem

RunStatus = Literal["finished", "failed", "killed"]
"""How a run ended: whole, by an error, or by Ctrl-C or SIGTERM."""
WHOLE = ""
"""Key of the run that holds all others; the only one of ``tunewise train``."""
TRACKER_NAMES = ("mlflow", "wandb", "tensorboard", "trackio")
TRACK_ENV = "TUNEWISE_TRACK"
"""Names of the chosen trackers, with commas between them."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. /]")
"""Characters that MLflow refuses in the name of a metric."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run in a tracker: the whole run, or one training of it."""

    key: str
    """WHOLE, or ARM-sSEED as the folder of the weights is named."""
    name: str
    config: Mapping[str, Any]
    """Settings and facts by name: strings, numbers, truth values or None."""
    group: str = ""
    """Name of the whole run that a training belongs to; "" for the whole run itself."""
    from_step: int = 0
    """The step of the checkpoint that a training goes on from."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A run begins, or goes on in another process."""

    run: TrackedRun


@dataclass(frozen=True, slots=True)
class Forget:
    """The training of this key starts again with other settings: it becomes a new run of the tracker."""

    key: str


@dataclass(frozen=True, slots=True)
class MetricRow:
    """Values measured at a step."""

    key: str
    series: str
    """train or eval; of each the last step that was sent is recorded."""
    step: int
    values: Mapping[str, float]
    time: float = field(default_factory=time.time)
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Results at the end, which have no step."""

    key: str
    values: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened in a run: a skipped step, less memory, a restart."""

    key: str
    kind: str
    text: str
    step: int


@dataclass(frozen=True, slots=True)
class Flush:
    """A checkpoint was written: what waits is sent at once, so that steps before it are not missing after a kill."""


@dataclass(frozen=True, slots=True)
class End:
    """A run ended."""

    key: str
    status: RunStatus


TrackerRecord = Begin | Forget | MetricRow | Summary | Note | Flush | End


class Tracker:
    """The client of one tracker. All calls come from one thread; any of them may raise anything."""

    def __init__(self, folder: Path) -> None:
        """Keep the tracker's own files in a folder."""
        self.folder = folder
        self._runs: dict[str, Any] = {}
        """The open runs of the client by key."""

    def begin(self, run: TrackedRun, earlier: str, sent: int, parent: str) -> str:
        """Begin a run, or continue it; return its id, which differs from ``earlier`` when it is a new one.

        Args:
            run: what begins.
            earlier: id of the run that is continued, "" for a new one.
            sent: the last step that is not measured again, or was sent.
            parent: id of the whole run, "" for that run itself.
        """
        raise NotImplementedError

    def log(self, rows: Sequence[MetricRow]) -> None:
        """Add rows of one run, in order of their steps; rows of the same step become one."""
        for row in rows:
            self._runs[row.key].log(dict(row.values), step=row.step)

    def summarise(self, summary: Summary) -> None:
        """Add final results."""
        raise NotImplementedError

    def note(self, note: Note) -> None:
        """Add a note."""
        raise NotImplementedError

    def end(self, end: End) -> None:
        """Close a run."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write out what the client buffers, so far as it can without waiting for a network; most write by themselves."""

    def may_repeat(self, error: Exception) -> bool:
        """Return whether rows that failed with this error may be sent again: not where part of them may be there."""
        return False

    def location(self) -> str:
        """Return where the user finds the runs, in words; "" before the first one began."""
        raise NotImplementedError


def metric_name(*parts: str) -> str:
    """Return parts as the name of a metric, joined by a slash; characters that a tracker refuses become ``_``."""
    return "/".join(_NOT_IN_NAMES.sub("_", part) for part in parts)


def config_text(value: Any) -> str:
    """Return a setting as text, for trackers that hold text alone."""
    return "" if value is None else str(value)


def tracker_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of trackers in lower case, each once; UsageProblem for an unknown one."""
    cleaned = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in cleaned:
        if name not in TRACKER_NAMES:
            raise UsageProblem(f"there is no tracker {name!r}", f"choose one of {', '.join(TRACKER_NAMES)}")
    return cleaned


def chosen_trackers() -> tuple[str, ...]:
    """Return the trackers chosen by flag, setting or TUNEWISE_TRACK; UsageProblem for an unknown name."""
    return tracker_names(os.environ.get(TRACK_ENV, "").split(","))
