"""Every file format with its number: what is written, what is still read, and how an older file becomes today's.

A format's number goes up when older versions could not read what is written. Then its row in the table below gets a
migration from the number before, and the fixtures of that number stay in the tests for good. Plans, reports and
manifests are brought up to date in memory and never rewritten by being read, so the version that wrote them can still
read them; a text store is changed where it lies, by the next writer, after a copy of it was put beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rag.errors import BadInput

Migration = Callable[[Any], Any]
"""From one number to the next: takes a mapping and returns another; a text store's takes the connection."""
UPDATE = "update tunewise: pip install --upgrade tunewise"
_MOST = 1000
"""A higher number is damage, not a version."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format: its number today, the oldest that is read, and the way from each number to the next."""

    name: str
    current: int = 1
    oldest: int = 1
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    again: str = "make it again with this version"
    """What to do with one that is older than the oldest."""

    def number(self, given: Any, place: object) -> int:
        """Return a number as this format's.

        Raises BadInput, with what to do, when it is no number, newer than this version, or too old for it.
        """
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= _MOST:
            raise BadInput(f"{place} is damaged: its schema is {given!r}, not a number", self.again)
        if given > self.current:
            raise BadInput(
                f"{place} was written by a newer tunewise: {self.name} of schema {given}, "
                f"this version reads up to {self.current}",
                UPDATE,
            )
        if given < self.oldest:
            raise BadInput(
                f"{place} was written by an older tunewise: {self.name} of schema {given}, "
                f"this version reads from {self.oldest}",
                self.again,
            )
        return given

    def today(self, loaded: Mapping[str, Any], place: object) -> dict[str, Any]:
        """Return a loaded mapping as today's: migrated step by step, with today's number; its own is checked.

        A mapping without a number is one a person wrote, in today's form.
        """
        now = dict(loaded)
        number = self.number(now.get("schema", self.current), place)
        for step in range(number, self.current):
            now = dict(self.migrations[step](now))
        return {**now, "schema": self.current} if "schema" in loaded else now


_AGAIN = "tunewise index build INDEX --documents DOCUMENTS"

FORMATS: tuple[Format, ...] = (
    Format("plan", again="make it again: tunewise plan"),
    Format("report", again="write it again: tunewise run RUN --resume"),
    Format("scores", again="score it again: tunewise run RUN --resume"),
    Format("run", again="run it again: tunewise run PLAN"),
    Format("tunewise-index-generation", again=f"build the index again: {_AGAIN}"),
    Format("text store", again=f"build the index again: {_AGAIN}"),
    Format("adapter", again="train it again"),
    Format("refusal", again="fit it again: tunewise run RUN --resume"),
    Format("tunewise-bundle", again="make it again: tunewise export RUN --to bundle"),
    Format("model", again="obtain it again: tunewise models pull NAME"),
    Format("calibration", again="measure again: tunewise doctor --calibrate"),
)
"""The table. A kind of manifest that is not in it (checkpoints, classifiers) has number 1 and no migration."""
_BY_NAME = {each.name: each for each in FORMATS}


def format_of(name: str) -> Format:
    """Return the format of a name, or of a kind of manifest."""
    return _BY_NAME.get(name) or Format(name)
