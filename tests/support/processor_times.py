"""Processor time of each test: of this process and its threads, of the child processes that it waited for, and of those
that the processes in `LONG_LIVED` waited for.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest

SMALLEST_S = 0.1
"""Test functions that take less are added up, file by file."""
LONG_LIVED: list[int] = []
"""Process ids of children that live as long as the tests and start others."""


class ProcessorTimes:
    """Measure the phases of each test and write a table of them, test functions first, then the rest of each file.

    Workers of pytest-xdist attach the seconds to their reports; the process that prints the results adds them up.
    Each line holds seconds, number of cases and the test function; lines are sorted by seconds.
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.before = _used_s()
        self.seconds: dict[str, float] = defaultdict(float)
        self.cases: dict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logstart(self) -> None:
        """Leave out what was used between two tests."""
        self.before = _used_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Attach the processor time of this phase to its report."""
        report = yield
        now = _used_s()
        report.processor_s = now - self.before
        self.before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add one phase to its test function."""
        function = report.nodeid.partition("[")[0]
        self.seconds[function] += getattr(report, "processor_s", 0.0)
        self.cases[function].add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the table."""
        if hasattr(session.config, "workerinput"):
            return
        rest: dict[str, tuple[float, int]] = {}
        rows: list[tuple[float, int, str]] = []
        for function, seconds in self.seconds.items():
            count = len(self.cases[function])
            if seconds >= SMALLEST_S:
                rows.append((seconds, count, function))
            else:
                file = function.partition("::")[0]
                before = rest.get(file, (0.0, 0))
                rest[file] = (before[0] + seconds, before[1] + count)
        rows += [(seconds, count, f"{file} (the rest)") for file, (seconds, count) in rest.items()]
        rows.sort(key=lambda row: (-row[0], row[2]))
        lines = [f"{seconds:.2f}\t{count}\t{name}" for seconds, count, name in rows]
        self.table.write_text("\n".join(["seconds\tcases\ttest", *lines, ""]), encoding="utf-8")


def _used_s() -> float:
    times = os.times()
    used = times.user + times.system + times.children_user + times.children_system
    for pid in LONG_LIVED:
        children = psutil.Process(pid).cpu_times()
        used += sum(children[:4])
    return used
