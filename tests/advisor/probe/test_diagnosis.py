"""The decision table of the probe, on made-up answers: what intervals settle, and what they leave open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from advisor.probe.diagnosis import diagnose
from runners.trial.base_probe import ALONE, CLOSED, OPEN, RETRIEVED, ProbeReplies, ProbeReply


def replies(way: str, right: int, of: int, style: int | None = None) -> list[ProbeReply]:
    """Replies of which the first are right, and the first are in style."""
    return [
        ProbeReply(
            way,
            f"{way}{n}" if way == ALONE else f"q{n}",
            True,
            n < right,
            None if style is None else n < style,
            "",
        )
        for n in range(of)
    ]


def asked(
    closed: int, opened: int, found: int, n: int = 30, style: int | None = None, brought: int = 30
) -> ProbeReplies:
    """A probe of n questions, each with its passage."""
    rows = [
        *replies(CLOSED, closed, n, style),
        *replies(OPEN, opened, n),
        *replies(RETRIEVED, found, n),
        *replies(
            ALONE, 0 if style is None else style * 10 // n, 10, None if style is None else style * 10 // n
        ),
    ]
    return ProbeReplies(tuple(rows), n, frozenset(f"q{i}" for i in range(n)), 0, brought)


KNOWN = {"task_needs_facts": "known", "behaviour_gap": "none"}


@pytest.mark.parametrize(
    ("probe", "settled", "said"),
    [
        (asked(30, 30, 30, style=30), KNOWN, "closed-book high"),
        (asked(2, 28, 27, style=0), {"task_needs_facts": "new", "behaviour_gap": "high"}, "so retrieval"),
        (asked(1, 3, 3), {"behaviour_gap": "high"}, "open-book low"),
        (asked(1, 28, 10, brought=12), {"task_needs_facts": "new"}, "fix retrieval first"),
        (asked(1, 28, 10, brought=30), {"task_needs_facts": "new"}, "mislead the model"),
        (asked(2, 29, 29, style=20), {"task_needs_facts": "new"}, "so retrieval"),
    ],
)
def test_the_table(probe: ProbeReplies, settled: dict[str, object], said: str) -> None:
    found = diagnose(probe)
    passes = found.settled.pop("prompting_pass_rate")
    assert passes == round(found.shares["passes"].hits / 40, 2)
    assert found.settled == settled
    assert any(said in line for line in found.reading), found.reading
    assert set(found.because) == {*found.settled, "prompting_pass_rate"}


def test_a_middling_style_is_a_low_gap_only_when_both_thresholds_are_excluded() -> None:
    rows = replies(CLOSED, 0, 200, style=130)
    probe = ProbeReplies(tuple(rows), 200, frozenset(), 0, 0)
    assert diagnose(probe).settled["behaviour_gap"] == "low"
    assert "behaviour_gap" not in diagnose(ProbeReplies(tuple(rows[:12]), 12, frozenset(), 0, 0)).settled


def test_few_questions_settle_nothing() -> None:
    found = diagnose(asked(2, 3, 3, n=4, brought=4))
    assert "task_needs_facts" not in found.settled
    assert "behaviour_gap" not in found.settled


def test_where_many_answers_were_cut_style_settles_nothing() -> None:
    probe = asked(2, 28, 27, style=0)
    cut = replace(probe, cut=len(probe.replies) // 5)
    assert diagnose(cut).settled == {"task_needs_facts": "new"}
    assert diagnose(replace(probe, cut=3)).settled == diagnose(probe).settled


def test_ten_of_ten_examples_alone_do_not_settle_the_stop_rule() -> None:
    """Their interval begins at 0.72: below the bar of 0.8."""
    found = diagnose(ProbeReplies(tuple(replies(ALONE, 10, 10, style=10)), 0, frozenset(), 0, 0))
    assert found.shares["stop_rule"].hits == 10
    assert "prompting_pass_rate" not in found.settled


def test_without_documents_low_knowledge_is_not_called_missing_facts() -> None:
    found = diagnose(ProbeReplies(tuple(replies(CLOSED, 0, 30)), 30, frozenset(), 0, 0))
    assert "task_needs_facts" not in found.settled
    assert any("cannot be told" in line for line in found.reading)


def test_unanswerable_questions_count_for_passing_and_not_for_knowing() -> None:
    rows = [ProbeReply(CLOSED, f"u{n}", False, True, None, "") for n in range(30)]
    found = diagnose(ProbeReplies(tuple(rows), 30, frozenset(), 0, 0))
    assert found.shares[CLOSED].n == 0
    assert found.settled == {"prompting_pass_rate": 1.0}
    assert found.to_json()["lift"] is None
