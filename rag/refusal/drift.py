"""Whether the questions that are asked are like those that a refusal threshold was fitted on.

:class:`DriftWatch` collects the signals of what is asked and compares them with the threshold's sample by the
Kolmogorov-Smirnov test of two samples, one for each signal, with Bonferroni's correction (scipy's ``ks_2samp``).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.grounding.refusal import DRIFT_SIGNALS, RefusalSignals, RefusalThreshold, drift_values

MIN_QUESTIONS = 20
"""Questions on each side from which they are compared."""
KEPT = 500
"""The last so many different questions are compared."""
LEVEL = 0.01
"""Chance of a false alarm at one comparison."""
MIN_DISTANCE = 0.3
"""Least distance of the distributions that is said: with hundreds of questions small differences are sure too."""
_SAID = {
    "answers": "how likely a passage answers them",
    "coverage": "the share of their words that passages hold",
    "dense": "how near the nearest passage is",
    "length": "their length",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The comparison of what is asked with what the threshold was fitted on."""

    asked: int
    fitted: int
    signal: str
    """The one of :data:`rag.grounding.refusal.DRIFT_SIGNALS` that differs most."""
    distance: float
    """Of its two distributions, 0 to 1."""
    p: float
    """Of the test, corrected for the number of signals."""
    medians: tuple[float, float]
    """Of the signal: asked, fitted."""

    @property
    def sure(self) -> bool:
        """Whether they differ surely, and by enough to matter."""
        return self.p < LEVEL and self.distance >= MIN_DISTANCE

    @property
    def text(self) -> str:
        """One line: what differs, and what to do."""
        return (
            f"the {self.asked} questions asked differ from the {self.fitted} that refusals were fitted on: "
            f"{_SAID[self.signal]} is {self.medians[0]:.2f} at the median, not {self.medians[1]:.2f}; give questions of "
            "your own log: tunewise plan --wordings FILE"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object; ``differs`` is :attr:`sure`."""
        return {
            "asked": self.asked,
            "fitted": self.fitted,
            "signal": self.signal,
            "distance": round(self.distance, 4),
            "p": float(f"{self.p:.3g}"),
            "differs": self.sure,
        }


class DriftWatch:
    """Collects the signals of questions; shared by the threads of a server."""

    def __init__(self, threshold: RefusalThreshold) -> None:
        """Take the threshold with its sample."""
        self._sample = threshold.sample
        self._asked: OrderedDict[str, tuple[float, ...]] = OrderedDict()
        self._added = 0
        self.due = MIN_QUESTIONS
        """Different questions from which :meth:`note` compares again."""
        self._compared: tuple[int, Drift | None] = (0, None)
        self._said = False
        self._lock = threading.Lock()

    def add(self, question: str, signals: RefusalSignals) -> None:
        """Take a question; one that is asked again counts once."""
        with self._lock:
            self._added += question not in self._asked
            self._asked[question] = drift_values(signals)
            self._asked.move_to_end(question)
            if len(self._asked) > KEPT:
                self._asked.popitem(last=False)

    def compare(self) -> Drift | None:
        """Return the comparison; None with too few questions on one side. It is made once for the same questions."""
        with self._lock:
            if self._compared[0] != self._added:
                self._compared = self._added, compare_questions(list(self._asked.values()), self._sample)
            return self._compared[1]

    def note(self) -> str:
        """Return the line to show, once; "" where they do not differ surely or it was said before.

        However often it is called, the questions are compared when there are 20 of them, 40, 80 and so on: with every look
        more, a difference by chance becomes likelier.
        """
        with self._lock:
            if self._said or self._added < self.due:
                return ""
            self.due = self._added + min(self._added, KEPT)
        if not (drift := self.compare()) or not drift.sure:
            return ""
        with self._lock:
            first, self._said = not self._said, True
        return drift.text if first else ""


def compare_questions(asked: Sequence[Sequence[float]], fitted: Sequence[Sequence[float]]) -> Drift | None:
    """Compare questions by the values that :func:`drift_values` gives of each; None with too few on one side."""
    if min(len(asked), len(fitted)) < MIN_QUESTIONS:
        return None
    from scipy.stats import ks_2samp

    now, then = np.array(asked, dtype=np.float64), np.array(fitted, dtype=np.float64)
    tests = [ks_2samp(now[:, n], then[:, n]) for n in range(len(DRIFT_SIGNALS))]
    n = min(range(len(tests)), key=lambda number: (tests[number].pvalue, -tests[number].statistic))
    return Drift(
        asked=len(asked),
        fitted=len(fitted),
        signal=DRIFT_SIGNALS[n],
        distance=float(tests[n].statistic),
        p=min(1.0, float(tests[n].pvalue) * len(tests)),
        medians=(float(np.median(now[:, n])), float(np.median(then[:, n]))),
    )
