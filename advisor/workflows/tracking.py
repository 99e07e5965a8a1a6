"""The trackers that ``--track``, the settings file or TUNEWISE_TRACK chooses, for the verbs that train."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.output import note
from advisor.terminal import require_extra
from runners.tracking.clients import required_modules
from runners.tracking.records import TRACK_ENV, chosen_trackers, tracker_names
from runners.tracking.tracking import RunTracking, track_run

if TYPE_CHECKING:
    from advisor.verdict.predictions import RunLabel
    from runners.plan.schema import Plan


def choose_trackers(names: Iterable[str]) -> None:
    """Choose trackers for this process, those of the setting or the environment where none are named.

    Raises:
        UsageProblem: for an unknown name.
        CannotRun: the client of one is not installed; the message names the extra.
    """
    chosen = tracker_names(names) or chosen_trackers()
    for name in chosen:
        require_extra(name, *required_modules(name))
    if chosen:
        os.environ[TRACK_ENV] = ",".join(chosen)


def track_flags() -> list[object]:
    """Return the flags that name the chosen trackers, for a command that resumes."""
    return [part for name in chosen_trackers() for part in ("--track", name)]


@contextmanager
def tracked_run(plan: Plan, out: Path, resume: bool, label: RunLabel) -> Iterator[RunTracking]:
    """Feed the chosen trackers with a run, and say at the end where they show it; the demo is not tracked."""
    with track_run(plan, out, resume, chosen_trackers() if label == "run" else ()) as tracking:
        yield tracking
    show_locations(tracking)


def show_locations(tracking: RunTracking) -> None:
    """Print where each tracker shows the run."""
    for line in tracking.locations():
        note(line)
