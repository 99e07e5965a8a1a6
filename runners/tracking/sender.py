"""The thread that talks to a tracker: a training never waits for it, and none of its errors ends a training.

Records are put on a queue and sent in batches every FLUSH_SECONDS. What fails is sent again where that cannot double it,
else it is counted; the first failure is reported in one line, and the number of records not sent at the end.
The id of each run and the last step sent are kept in a file beside the tracker's own, so that a resumed run goes on in the
same run of the tracker without doubling a step.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rag.files import write_json
from runners.tracking.records import (
    WHOLE,
    Begin,
    End,
    Flush,
    Forget,
    MetricRow,
    Note,
    RunStatus,
    Summary,
    Tracker,
    TrackerRecord,
)

FLUSH_SECONDS = 5.0
"""Seconds between batches: at most so many seconds of steps are lost, or sent twice, when a process is killed."""
LONGEST_PAUSE = 60.0
"""Most seconds between attempts to reach a tracker that fails."""
LAST_ATTEMPTS = 3
"""Attempts, a second apart, to send what is left at the end."""
MAX_WAITING = 20_000
"""Records that wait for a slow tracker at most; later ones are counted as not sent."""
CLOSE_SECONDS = {"finished": 60.0, "failed": 15.0, "killed": 8.0}
"""Seconds that the end of a run waits for the tracker. A launcher that ends a job kills it after 30 s."""
SILENT_SECONDS = 5.0
"""Seconds of this wait before it is reported."""
FAILING_SECONDS = 10.0
"""Seconds that the end waits for a tracker whose last attempt failed."""

_SECRET = re.compile(r"(://)[^/@\s]+(?=@)|((?<=token=)|(?<=key=))[^&\s]+")
"""User and password of a URL, and tokens in its query: a client's error may quote them."""


class TrackerSender:
    """Sends the records of a run to one tracker, in a thread of its own."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        state_file: Path,
        resume: bool,
        warn: Callable[[str], None],
        interval: float = FLUSH_SECONDS,
    ) -> None:
        """Start the thread; nothing is sent before the first record.

        Args:
            name: name of the tracker, for messages.
            tracker: its client.
            state_file: where ids and steps are recorded.
            resume: whether the runs recorded there are continued.
            warn: called from the thread with the one line about the first failure.
            interval: seconds between batches.
        """
        self.name, self.tracker = name, tracker
        self.warn, self.interval = warn, interval
        self.unsent = 0
        self.has_begun = False
        self._state_file = state_file
        self._runs, damage = _read_state(state_file) if resume else ({}, "")
        if damage:
            warn(f"tracking by {name} begins a new run: {damage}")
        self._begun: set[str] = set()
        self._queue: queue.Queue[TrackerRecord | None] = queue.Queue(MAX_WAITING)
        self._waiting: deque[TrackerRecord] = deque()
        self._failures = 0
        self._warned = False
        self._changed = False
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, record: TrackerRecord) -> None:
        """Hand over a record without waiting; one too many is counted as not sent."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.unsent += 1

    def close(self, status: RunStatus) -> int:
        """Send what is left, for a limited time; return how many records were not sent."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return self._count_left()
        longest = min(CLOSE_SECONDS[status], FAILING_SECONDS if self._failures else CLOSE_SECONDS[status])
        self._thread.join(min(longest, SILENT_SECONDS))
        if self._thread.is_alive():
            self.warn(f"tracking by {self.name}: sending what is left, {longest:.0f} s at most")
            self._thread.join(longest - SILENT_SECONDS)
        return self._count_left() if self._thread.is_alive() else self.unsent

    def _count_left(self) -> int:
        return self.unsent + self._queue.qsize() + len(self._waiting)

    def _work(self) -> None:
        """Collect records and send them until None arrives."""
        due = 0.0  # the first record is sent at once, so that a tracker that cannot be reached is reported early
        open_ = True
        while open_:
            try:
                pause = max(0.0, due - time.monotonic()) if self._waiting else None
                record = self._queue.get(timeout=pause)
                open_ = record is not None
                if isinstance(record, Flush):
                    due = 0.0 if not self._failures else due
                elif record is not None:
                    self._wait(record)
            except queue.Empty:
                pass
            if open_ and (time.monotonic() < due or not self._waiting):
                continue
            self._send_waiting()
            due = time.monotonic() + min(LONGEST_PAUSE, self.interval * 2**self._failures)
        for _ in range(LAST_ATTEMPTS - 1):
            if self._waiting:
                time.sleep(min(1.0, self.interval))
                self._send_waiting()
        self.unsent += sum(not isinstance(record, Begin | Forget | End) for record in self._waiting)
        self._waiting.clear()

    def _wait(self, record: TrackerRecord) -> None:
        """Let a record wait for the next batch; when too many wait, a row is counted as not sent."""
        if len(self._waiting) >= MAX_WAITING and isinstance(record, MetricRow):
            self.unsent += 1
            return
        self._waiting.append(record)

    def _send_waiting(self) -> None:
        """Send what waits, in order, until it is all sent or the tracker fails."""
        try:
            while self._waiting:
                self._send_next()
            self.tracker.flush()
            if self._changed:
                write_json(self._state_file, {"schema": 1, "runs": self._runs})
                self._changed = False
            self._failures = 0
        except Exception as error:  # whatever a client raises must not end the training
            self._failures = min(self._failures + 1, 8)
            self._report(error)

    def _send_next(self) -> None:
        """Send the next record, or the next rows of one run together; raise when it has to be sent again later."""
        first = self._waiting[0]
        if isinstance(first, Begin):
            self._begin(first)  # repeated until it succeeds: without it, nothing of the run can be sent
            self._waiting.popleft()
            return
        batch = [self._waiting.popleft()]
        if isinstance(first, MetricRow):
            while self._waiting and self._follows(first, self._waiting[0]):
                batch.append(self._waiting.popleft())
        try:
            self._send(batch)
        except Exception as error:
            if self.tracker.may_repeat(error):
                self._waiting.extendleft(reversed(batch))
            else:
                self.unsent += len(batch)
            raise

    @staticmethod
    def _follows(first: MetricRow, record: TrackerRecord) -> bool:
        return isinstance(record, MetricRow) and record.key == first.key

    def _begin(self, record: Begin) -> None:
        """Begin a run, unless it was begun in this process."""
        key = record.run.key
        if key in self._begun:
            return
        state = self._runs.get(key, {"id": "", "sent": {}})
        parent = self._runs.get(WHOLE, {}).get("id", "") if key != WHOLE else ""
        sent = max(record.run.from_step, *state["sent"].values(), 0)
        run_id = self.tracker.begin(record.run, state["id"], sent, parent)
        self._runs[key] = {"id": run_id, "sent": state["sent"] if run_id == state["id"] else {}}
        self._begun.add(key)
        self.has_begun = self._changed = True

    def _send(self, batch: list[TrackerRecord]) -> None:
        """Send one record, or rows of one run."""
        record = batch[0]
        if isinstance(record, MetricRow):
            sent = self._runs[record.key]["sent"]
            rows = [row for row in batch if isinstance(row, MetricRow) and row.step > sent.get(row.series, 0)]
            if rows:
                self.tracker.log(rows)
            for row in rows:
                sent[row.series] = max(row.step, sent.get(row.series, 0))
                self._changed = True
        elif isinstance(record, Summary):
            self.tracker.summarise(record)
        elif isinstance(record, Note):
            self.tracker.note(record)
        elif isinstance(record, End):
            if record.key in self._begun:
                self._begun.discard(record.key)
                self.tracker.end(record)
        elif isinstance(record, Forget):
            self._runs.pop(record.key, None)
            self._begun.discard(record.key)

    def _report(self, error: Exception) -> None:
        """Report the first failure in one line."""
        if self._warned:
            return
        self._warned = True
        reason = (
            _SECRET.sub(lambda match: f"{match[1] or ''}***", " ".join(str(error).split()))
            or type(error).__name__
        )
        reason = reason if len(reason) <= 160 else reason[:160] + "..."
        self.warn(f"tracking by {self.name} fails: {reason}; the run continues, what is not sent is counted")


def _read_state(file: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the runs recorded in a file by key, id and last step sent of each series, and what is damaged, "" for none."""
    try:
        runs = json.loads(file.read_text("utf-8"))["runs"]
        return {
            str(key): {"id": str(run["id"]), "sent": {str(k): int(v) for k, v in run["sent"].items()}}
            for key, run in runs.items()
        }, ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"{file} cannot be read ({error!r})"
