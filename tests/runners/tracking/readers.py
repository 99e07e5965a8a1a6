"""Reads back what the clients wrote: TensorBoard's event files, and the files of wandb's offline runs."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.limits import HANG_S

BLOCK = 32_768
FULL, LAST = 1, 4


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the step and value of every scalar in a folder of event files, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def texts(folder: Path) -> dict[str, list[str]]:
    """Return every text in a folder of event files, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return {
        name.removesuffix("/text_summary"): [
            event.tensor_proto.string_val[0].decode() for event in events.Tensors(name)
        ]
        for name in events.Tags()["tensors"]
    }


class OfflineRun:
    """One file of an offline run of wandb."""

    def __init__(self, file: Path) -> None:
        """Read all its records."""
        self.id = file.stem.removeprefix("run-")
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.run: Any = None
        self.exit_code: int | None = None
        self.notes = ""
        self.tags: list[str] = []
        for record in _wandb_records(file):
            self._add(record)

    def _add(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = self.run or record.run
            self.notes, self.tags = record.run.notes or self.notes, list(record.run.tags) or self.tags
            self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            row = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item}
            self.history.append(row)
        elif kind == "summary":
            update = record.summary.update
            self.summary |= {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in update}
        elif kind == "exit":
            self.exit_code = record.exit.exit_code


def offline_runs(folder: Path) -> list[OfflineRun]:
    """Return the offline runs below a folder, oldest first.

    A process of wandb's own writes the files; on a busy machine it may still be at it.
    """
    until = time.monotonic() + HANG_S
    while True:
        runs = [OfflineRun(file) for file in folder.rglob("offline-run-*/*.wandb")]
        if all(run.run is not None for run in runs) or time.monotonic() > until:
            break
        time.sleep(0.5)
    return sorted(runs, key=lambda run: run.run.start_time.ToNanoseconds())


def _wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a file: LevelDB's log format behind a header of 7 bytes."""
    # protobuf adds the classes when it is imported, out of a type checker's sight.
    record_class = import_module("wandb.proto.wandb_internal_pb2").Record

    data, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (FULL, LAST):
            record = record_class()
            record.ParseFromString(parts)
            parts = b""
            yield record
