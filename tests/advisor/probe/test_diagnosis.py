"""The diagnosis of a probe on made-up replies: what the intervals settle, and what they leave open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from advisor.probe.diagnosis import MAX_P, diagnose
from advisor.questionnaire.probe_facts import ProbeFacts, ProbeShare
from runners.trial.base_probe import (
    ALONE,
    CLOSED,
    FEW_SHOT,
    OPEN,
    RETRIEVED,
    ClassifiedRows,
    ProbeReplies,
    ProbeReply,
)


def replies(mode: str, right: int, of: int, style: int | None = None) -> list[ProbeReply]:
    """Return replies of which the first are right, and the first are in style."""
    return [
        ProbeReply(
            way=mode,
            id=f"{mode}{number}" if mode == ALONE else f"q{number}",
            answerable=True,
            right=number < right,
            style=None if style is None else number < style,
            answer="",
        )
        for number in range(of)
    ]


def probe_of(
    closed_book: int, open_book: int, retrieved: int, n: int = 30, style: int | None = None, brought: int = 30
) -> ProbeReplies:
    """Return a probe of n questions, each with its passage."""
    rows = [
        *replies(CLOSED, closed_book, n, style),
        *replies(OPEN, open_book, n),
        *replies(RETRIEVED, retrieved, n),
        *replies(
            ALONE, 0 if style is None else style * 10 // n, 10, None if style is None else style * 10 // n
        ),
    ]
    return ProbeReplies(
        replies=tuple(rows),
        questions=n,
        grounded=frozenset(f"q{i}" for i in range(n)),
        ungrounded=0,
        brought=brought,
    )


KNOWN = {"task_needs_facts": "known", "behaviour_gap": "none"}


@pytest.mark.parametrize(
    ("probe", "settled", "sentence"),
    [
        (probe_of(30, 30, 30, style=30), KNOWN, "knows this already"),
        (
            probe_of(2, 28, 27, style=0),
            {"task_needs_facts": "new", "behaviour_gap": "high"},
            "only the facts are missing",
        ),
        (probe_of(1, 3, 3), {"behaviour_gap": "high"}, "wrong even with the right passage"),
        (probe_of(1, 28, 10, brought=12), {"task_needs_facts": "new"}, "improve the search first"),
        (probe_of(1, 28, 10, brought=30), {"task_needs_facts": "new"}, "mislead the model"),
        (probe_of(2, 29, 29, style=20), {"task_needs_facts": "new"}, "only the facts are missing"),
    ],
)
def test_diagnose_settles_answers(probe: ProbeReplies, settled: dict[str, object], sentence: str) -> None:
    diagnosis = diagnose(probe)
    passes = diagnosis.settled.pop("prompting_pass_rate")
    assert passes == round(diagnosis.shares["passes"].hits / 40, 2)
    assert diagnosis.settled == settled
    assert any(sentence in line for line in diagnosis.reading), diagnosis.reading
    assert set(diagnosis.because) == {*diagnosis.settled, "prompting_pass_rate"}


def test_low_behaviour_gap_needs_both_thresholds_excluded() -> None:
    rows = replies(CLOSED, 0, 200, style=130)
    probe = ProbeReplies(replies=tuple(rows), questions=200, grounded=frozenset(), ungrounded=0, brought=0)
    assert diagnose(probe).settled["behaviour_gap"] == "low"
    assert (
        "behaviour_gap"
        not in diagnose(
            ProbeReplies(
                replies=tuple(rows[:12]), questions=12, grounded=frozenset(), ungrounded=0, brought=0
            )
        ).settled
    )


def test_style_alone_is_no_proof_of_skill() -> None:
    """Labels are always in style, and may be wrong."""
    diagnosis = diagnose(
        ProbeReplies(
            replies=tuple(replies(CLOSED, 15, 40, style=40)),
            questions=40,
            grounded=frozenset(),
            ungrounded=0,
            brought=0,
        )
    )
    assert "behaviour_gap" not in diagnosis.settled
    right = diagnose(
        ProbeReplies(
            replies=tuple(replies(CLOSED, 40, 40, style=40)),
            questions=40,
            grounded=frozenset(),
            ungrounded=0,
            brought=0,
        )
    )
    assert right.settled["behaviour_gap"] == "none"


def test_few_questions_settle_nothing() -> None:
    diagnosis = diagnose(probe_of(2, 3, 3, n=4, brought=4))
    assert "task_needs_facts" not in diagnosis.settled
    assert "behaviour_gap" not in diagnosis.settled


def test_style_settles_nothing_when_many_answers_were_cut() -> None:
    probe = probe_of(2, 28, 27, style=0)
    cut = replace(probe, cut=len(probe.replies) // 5)
    assert diagnose(cut).settled == {"task_needs_facts": "new"}
    assert diagnose(replace(probe, cut=3)).settled == diagnose(probe).settled


def test_ten_right_examples_do_not_settle_the_pass_rate() -> None:
    """The interval of 10 of 10 starts at 0.72, below the threshold of 0.8."""
    diagnosis = diagnose(
        ProbeReplies(
            replies=tuple(replies(ALONE, 10, 10, style=10)),
            questions=0,
            grounded=frozenset(),
            ungrounded=0,
            brought=0,
        )
    )
    assert diagnosis.shares["stop_rule"].hits == 10
    assert "prompting_pass_rate" not in diagnosis.settled


def test_low_knowledge_without_documents_settles_nothing() -> None:
    diagnosis = diagnose(
        ProbeReplies(
            replies=tuple(replies(CLOSED, 0, 30)), questions=30, grounded=frozenset(), ungrounded=0, brought=0
        )
    )
    assert "task_needs_facts" not in diagnosis.settled
    assert any("it is not known whether" in line for line in diagnosis.reading)


def test_unanswerable_questions_count_only_for_passing() -> None:
    rows = [
        ProbeReply(way=CLOSED, id=f"u{n}", answerable=False, right=True, style=None, answer="")
        for n in range(30)
    ]
    diagnosis = diagnose(
        ProbeReplies(replies=tuple(rows), questions=30, grounded=frozenset(), ungrounded=0, brought=0)
    )
    assert diagnosis.shares[CLOSED].n == 0
    assert diagnosis.settled == {"prompting_pass_rate": 1.0}
    assert diagnosis.to_json()["lift"] is None


def test_facts_hold_what_was_measured() -> None:
    """Shares of what was asked; with many answers cut, nothing that style is part of."""
    probe = probe_of(2, 28, 27, style=6)
    shown = [replace(reply, way=FEW_SHOT) for reply in replies(CLOSED, 25, 30, 25)]
    rows = (*(replace(reply, f1=0.25) for reply in probe.replies), *shown)
    probe = replace(probe, replies=rows, classified=ClassifiedRows(80, 100, 3))
    diagnosis = diagnose(probe)
    share = ProbeShare
    assert diagnosis.facts() == ProbeFacts(
        closed_book=share(2, 30),
        open_book=share(28, 30),
        retrieved=share(27, 30),
        style=share(8, 40),
        passes=share(4, 40),
        few_shot=share(25, 30),
        classifier=share(80, 100),
        reply_f1=0.25,
    )
    assert any("try few-shot before a prompt alone" in line for line in diagnosis.reading)
    assert any("80 of 100" in line for line in diagnosis.reading)
    cut = diagnose(replace(probe, cut=len(rows) // 5)).facts()
    assert (cut.style, cut.passes, cut.few_shot) == (None, None, None)
    assert cut.closed_book == share(2, 30)
    alone = diagnose(
        ProbeReplies(
            replies=(),
            questions=0,
            grounded=frozenset(),
            ungrounded=0,
            brought=0,
            classified=ClassifiedRows(90, 100, 0),
        )
    )
    assert alone.facts() == ProbeFacts(classifier=share(90, 100))
    passing = diagnose(
        ProbeReplies(
            replies=tuple(replies(CLOSED, 3, 30, 30)),
            questions=30,
            grounded=frozenset(),
            ungrounded=0,
            brought=0,
            classified=ClassifiedRows(90, 100, 0),
        )
    )
    assert any("measure it first" in line for line in passing.reading)


@pytest.mark.parametrize("n", [12, 30])
def test_a_passage_that_changes_nothing_is_seldom_called_a_help(n: int) -> None:
    """The sentence and the answer that it settles are as rare as a test at 5 % allows, on few questions too."""
    draw, helped, trials = np.random.default_rng(n), 0, 150
    for trial in range(trials):
        rows = [
            ProbeReply(way=way, id=f"q{i}", answerable=True, right=right, style=None, answer="")
            for i in range(n)
            for way, right in ((CLOSED, draw.random() < 0.3), (OPEN, draw.random() < 0.3))
        ]
        probe = ProbeReplies(
            replies=tuple(rows),
            questions=n,
            grounded=frozenset(f"q{i}" for i in range(n)),
            ungrounded=0,
            brought=n,
        )
        found = diagnose(probe, seed=trial)
        helped += "task_needs_facts" in found.settled or any(
            "passage helps" in line for line in found.reading
        )
    assert helped <= binom.ppf(0.999, trials, MAX_P)
