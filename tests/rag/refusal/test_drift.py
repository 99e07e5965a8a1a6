"""Whether questions are like those that refusals were fitted on: the comparison, its ties, and how often it is said."""

from __future__ import annotations

from dataclasses import replace

from rag.grounding.refusal import (
    RefusalSignals,
    RefusalThreshold,
    default_threshold,
    drift_sample,
    drift_values,
)
from rag.refusal.drift import KEPT, MIN_QUESTIONS, DriftWatch, compare_questions


def signals(n: int, shift: float = 0.0) -> RefusalSignals:
    """Return signals of the nth question; all of them grow with the shift."""
    return RefusalSignals(
        answers=(n % 10) / 2 + shift, coverage=(n % 3) / 3, dense=0.3 + (n % 7) / 20, length=4.0 + n % 5
    )


def stored(count: int = 40) -> RefusalThreshold:
    """Return a threshold with the sample of so many questions, as it is read from its file."""
    fitted = replace(default_threshold(), sample=drift_sample([signals(n) for n in range(count)]))
    return RefusalThreshold.from_json(fitted.to_json())


def test_the_same_questions_do_not_differ() -> None:
    watch = DriftWatch(stored())
    for n in range(40):
        watch.add(f"q{n}", signals(n))
    drift = watch.compare()
    assert drift is not None
    # Thirds are stored with four digits: the ties of what is asked with them must be found.
    assert (drift.distance, drift.p, drift.sure) == (0.0, 1.0, False)
    assert watch.note() == ""


def test_other_questions_differ_and_are_said_once() -> None:
    watch = DriftWatch(stored())
    for n in range(40):
        watch.add(f"q{n}", signals(n, shift=-4.0))
    drift = watch.compare()
    assert drift is not None
    assert drift is watch.compare()
    assert (drift.signal, drift.sure, drift.asked, drift.fitted) == ("answers", True, 40, 40)
    line = watch.note()
    assert "40 questions asked differ from the 40" in line
    assert "tunewise plan --wordings FILE" in line
    assert "\n" not in line
    assert watch.note() == ""
    body = drift.to_json()
    assert list(body) == ["asked", "fitted", "signal", "distance", "p", "differs"]
    assert body["differs"] is True
    assert 0.3 < body["distance"] <= 1


def test_few_questions_are_not_compared() -> None:
    watch = DriftWatch(stored())
    for n in range(MIN_QUESTIONS - 1):
        watch.add(f"q{n}", signals(n, shift=-4.0))
        watch.add("q0", signals(0, shift=-4.0))  # asked again, it counts once
    assert (watch.compare(), watch.note()) == (None, "")
    without_sample = DriftWatch(default_threshold())
    for n in range(2 * MIN_QUESTIONS):
        without_sample.add(f"q{n}", signals(n))
    assert (without_sample.compare(), without_sample.note()) == (None, "")


def test_looking_often_compares_seldom() -> None:
    watch = DriftWatch(stored())
    looked_at = []
    for n in range(3 * KEPT):
        watch.add(f"q{n}", signals(n))
        watch.note()
        looked_at.append(watch.due)
    assert sorted({due for due in looked_at if due <= KEPT}) == [20, 40, 80, 160, 320]
    drift = watch.compare()
    assert drift is not None
    assert drift.asked == KEPT


def test_values_are_rounded_as_they_are_stored() -> None:
    third = RefusalSignals(coverage=1 / 3)
    assert drift_values(third) == (0.0, 0.3333, 0.0, 0.0)
    compared = compare_questions([drift_values(third)] * 20, stored(20).sample)
    assert compared is not None
    assert compared.asked == 20
