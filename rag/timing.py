"""Where the time of a search goes, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds by stage; a stage that comes again is added up."""

    def __init__(self) -> None:
        """Begin."""
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + (time.perf_counter() - began) * 1000

    def part(self, count: int) -> Stopwatch:
        """Return a watch that begins with one of ``count`` equal parts of what was timed so far."""
        other = Stopwatch()
        other._began -= (time.perf_counter() - self._began) / count
        other._stages = {name: ms / count for name, ms in self._stages.items()}
        return other

    def read(self) -> dict[str, float]:
        """Return the milliseconds of each stage and in total, with two places."""
        total = (time.perf_counter() - self._began) * 1000
        return {name: round(ms, 2) for name, ms in {**self._stages, "total": total}.items()}
