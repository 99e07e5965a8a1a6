"""A judge that may count, from the run over people's labels to the verdict: it counts where labels bear it out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from advisor.report.report import judge
from runners.labels.gold import gold_changes, write_gold
from runners.labels.labels import answer_digest, read_labels
from runners.labels.session import LabelSession
from runners.plan.schema import Plan, parse_plan
from runners.report.trial_report import TrialReport
from runners.run_folder import read_journal
from runners.trial.execute import run_plan

COUNT, LABELLED = 70, 40
CHOICE, OTHER = "few-shot", "prompting"


@dataclass
class Town:
    """What the two arms answer, which of it is right by people, and how the judge grades."""

    right: dict[str, list[bool]]
    judged: Callable[[str, int, bool], bool]

    @classmethod
    def of(cls, shares: dict[str, float], judged: Callable[[str, int, bool], bool]) -> Town:
        """Draw which answers are right, by the share of each arm."""
        drawn = random.Random(4)
        return cls(
            {arm: [drawn.random() < share for _ in range(COUNT)] for arm, share in shares.items()}, judged
        )

    def answer(self, body: dict[str, Any]) -> str:
        """Answer as the arms' model, or grade as the judge."""
        text = str(body["messages"][-1]["content"])
        if body["model"] == "judge-2":
            if "Which answer is better?" in text:
                return "TIE"
            given = text.split("ANSWER TO GRADE\n")[1].split("\n\n")[0]
            asked = int(text.split("QUESTION\n")[1].split("\n")[0].rsplit("number ", 1)[1].split("?")[0])
            word = next(
                word for word in given.split() if "-" in word and word.split("-")[0] in ("warm", "cold")
            )
            arm, n = (OTHER, CHOICE)[word.split("-")[1] == "b"], int(word.split("-")[2])
            return "right" if n == asked and self.judged(arm, n, self.right[arm][n]) else "wrong"
        n = int(text.rsplit("number ", 1)[1].split("?")[0])
        arm = CHOICE if len(body["messages"]) > 2 else OTHER
        return f"The water was {'warm' if self.right[arm][n] else 'cold'}-{'b' if arm == CHOICE else 'a'}-{n} that day."

    def label(self, questions: Path, run: Path, count: int = LABELLED) -> None:
        """Grade the first answers as people would."""
        with LabelSession.open(questions, run, "anna", all_pairs=True) as session:
            for _ in range(count):
                task = session.task()
                assert task is not None
                for side, answer in zip(("first", "second"), task.answers, strict=False):
                    session.grade(task.key, side, "right" if "warm" in answer else "wrong")  # type: ignore[arg-type]


def plan_of(server: Any, folder: Path, **changes: Any) -> Plan:
    """Return a plan whose gold is prose that no rule can compare with the answers."""
    rows = [
        {
            "id": f"q{n:02}",
            "question": f"How was day number {n}?",
            "reference": f"Pleasant to bathe in, entry {n}.",
        }
        for n in range(COUNT)
    ]
    pairs = [{"prompt": "How was the first of May?", "completion": "Fine for a swim."}]
    for name, content in (("test.jsonl", rows), ("pairs.jsonl", pairs)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    return plan_of_folder(server, folder, **changes)


def plan_of_folder(server: Any, folder: Path, **changes: Any) -> Plan:
    """Return the plan with the files as they are."""
    return parse_plan(
        {
            "name": "bay",
            "choice": CHOICE,
            "model": {"name": f"openai:tern-2@{server.url}"},
            "judge": {"name": f"openai:judge-2@{server.url}", "counts": True},
            "data": {"examples": str(folder / "pairs.jsonl"), "test_questions": str(folder / "test.jsonl")},
            "steps": [
                {"kind": "evaluate", "arm": OTHER},
                {"kind": "evaluate", "arm": CHOICE, "shots": 1},
            ],
            "gate": {"must_beat": [OTHER]},
            "weights": {"token_f1": 1},
            **changes,
        }
    )


def honest(arm: str, n: int, right: bool) -> bool:
    """Be right on nine of ten answers of either arm."""
    return right is not (n % 10 == 7)


def carried_out(town: Town, server: Any, folder: Path, **changes: Any) -> Path:
    """Carry out the plan and return the run folder."""
    server.answer = town.answer
    run = run_plan(plan_of(server, folder, **changes), folder / "run", accept_failing_gold=True).path
    judge(run)
    return run


def report_of(run: Path) -> TrialReport:
    """Judge the run and return its report."""
    return judge(run).content


def test_the_verdict_changes_once_labels_bear_the_judge_out(server: Any, tmp_path: Path) -> None:
    town = Town.of({CHOICE: 0.85, OTHER: 0.35}, honest)
    run = carried_out(town, server, tmp_path)
    before = report_of(run)
    # no rule can tell the answers apart, so that the cheaper arm scored the same
    assert (before.verdict.outcome, before.verdict.use) == ("overturned", None)
    assert before.verdict.judged_labels is None
    assert "The judge does not count for few-shot against prompting: 0 of 30 labels" in before.verdict.text
    town.label(tmp_path / "test.jsonl", run, 12)
    assert "12 of 30 labels" in report_of(run).verdict.text
    town.label(tmp_path / "test.jsonl", run, LABELLED - 12)
    after = report_of(run)
    assert (after.verdict.outcome, after.verdict.use) == ("confirmed", CHOICE)
    assert after.verdict.gate_met is True
    labels = after.verdict.judged_labels
    assert labels is not None
    assert 30 <= labels <= LABELLED
    (pair,) = after.paired
    assert (pair.labels, pair.low > 0) == (labels, True)
    assert after.graded is not None
    (graded,) = after.graded.pairs
    assert graded.counts
    assert graded.j is not None
    assert graded.j > 0.5
    assert graded.difference is not None
    assert graded.by_labels is not None
    truth = (sum(town.right[CHOICE]) - sum(town.right[OTHER])) / COUNT
    assert graded.difference.low < truth < graded.difference.high
    width, alone = (e.high - e.low for e in (graded.difference, graded.by_labels))
    assert width < alone
    text = (run / "report.md").read_text("utf-8")
    assert f"measured with a calibrated judge ({labels} labels)" in text
    assert "Grades by people and by the judge" in text
    assert f"calibrated judge ({labels} labels)" in (run / "report.html").read_text("utf-8")
    asked = len(server.seen)
    only_shown = {"name": f"openai:judge-2@{server.url}"}
    for changes in ({}, {"judge": only_shown}, {}):  # grades that were paid for stay while they do not count
        run_plan(plan_of(server, tmp_path, **changes), run, resume=True, accept_failing_gold=True)
    assert len(server.seen) == asked


def test_a_judge_that_favours_one_arm_does_not_turn_the_sign(server: Any, tmp_path: Path) -> None:
    """By the judge alone the choice is ahead, by people it is behind."""
    town = Town.of({CHOICE: 0.3, OTHER: 0.75}, lambda arm, n, right: right or (arm == CHOICE and n % 5 > 0))
    run = carried_out(town, server, tmp_path)
    rows = read_journal(run / "trial" / "grades.jsonl")
    choice = {
        (row["id"], answer_digest(row["answer"]))
        for row in read_journal(run / "trial" / "answers.jsonl")
        if row["arm"] == CHOICE
    }
    good = [row for row in rows if row["grade"] == "right" and not row.get("check")]
    of_choice = sum((row["id"], row["answer"]) in choice for row in good)
    assert of_choice > len(good) - of_choice
    town.label(tmp_path / "test.jsonl", run)
    report = report_of(run)
    assert report.graded is not None
    (pair,) = report.graded.pairs
    assert pair.counts
    assert pair.difference is not None
    assert pair.difference.high < 0
    assert report.verdict.outcome == "overturned"
    assert report.verdict.use in (OTHER, None)


def test_a_judge_no_better_than_chance_stays_decoration(server: Any, tmp_path: Path) -> None:
    town = Town.of({CHOICE: 0.85, OTHER: 0.35}, lambda arm, n, right: n % 2 == 0)
    run = carried_out(town, server, tmp_path)
    town.label(tmp_path / "test.jsonl", run)
    report = report_of(run)
    assert "than chance on the labels: Youden's J" in report.verdict.text
    assert report.paired[0].labels is None


def test_labels_without_a_judge_are_shown_and_decide_nothing(server: Any, tmp_path: Path) -> None:
    town = Town.of({CHOICE: 0.85, OTHER: 0.35}, honest)
    run = carried_out(town, server, tmp_path, judge=None)
    plain = report_of(run)
    assert plain.graded is None
    town.label(tmp_path / "test.jsonl", run)
    labelled = report_of(run)
    assert labelled.verdict == plain.verdict
    assert labelled.graded is not None
    (pair,) = labelled.graded.pairs
    assert labelled.graded.judge is None
    assert (pair.counts, pair.missing, pair.difference) == (False, "", None)
    assert pair.by_labels is not None
    assert pair.by_labels.low > 0
    assert "| few-shot against prompting | " in (run / "report.md").read_text("utf-8")
    assert len(read_labels(run).people) == 1
    # a judge that may count can be added to a run that is finished and labelled
    run_plan(plan_of(server, tmp_path), run, resume=True, accept_failing_gold=True)
    assert report_of(run).verdict.judged_labels == pair.labels


def test_money_for_the_judge_ends_and_the_rest_is_asked_later(server: Any, tmp_path: Path) -> None:
    town = Town.of({CHOICE: 0.85, OTHER: 0.35}, honest)
    priced = {
        "name": f"openai:judge-2@{server.url}",
        "counts": True,
        "at_once": 1,
        "usd_per_million_input": 1.0,
        "usd_per_million_output": 1.0,
    }
    events: list[dict[str, Any]] = []
    server.answer = town.answer
    plan = plan_of(server, tmp_path, judge=priced, most_usd=0.02)
    run = run_plan(plan, tmp_path / "run", accept_failing_gold=True, on_event=events.append).path
    (failed,) = [event["reason"] for event in events if event["event"] == "judge.failed"]
    assert failed.startswith("the judge graded ")
    assert "of 140 answers" in failed
    assert "limit of 0.02 USD is reached" in failed
    some = len(read_journal(run / "trial" / "grades.jsonl"))
    assert some > 0
    more = plan.model_copy(update={"most_usd": 10.0})
    run_plan(more, run, resume=True, accept_failing_gold=True)
    assert len({row["key"] for row in read_journal(run / "trial" / "grades.jsonl")}) > some


def test_gold_written_while_labelling_does_not_teach_the_judge_the_labelled_rows(
    server: Any, tmp_path: Path
) -> None:
    """Grades of before stay; a judge that is asked afterwards knows the labelled rows better, and does not count."""
    town = Town.of({CHOICE: 0.85, OTHER: 0.35}, honest)
    run = carried_out(town, server, tmp_path)
    town.label(tmp_path / "test.jsonl", run)
    with LabelSession.open(tmp_path / "test.jsonl", run, "bert") as session:
        task = session.task()
        assert task is not None
        session.set_gold(task.key, "Warm enough to bathe in.")
        changes = gold_changes(session.labels(), session.questions)
    write_gold(changes)
    grades, asked = (run / "trial" / "grades.jsonl").read_text("utf-8"), len(server.seen)
    run_plan(plan_of_folder(server, tmp_path), run, resume=True, accept_failing_gold=True)
    assert (run / "trial" / "grades.jsonl").read_text("utf-8") == grades
    # only the comparisons of two answers read the new gold
    assert all("Which answer is better?" in body["messages"][-1]["content"] for body in server.seen[asked:])
    assert report_of(run).verdict.judged_labels is not None
    (run / "trial" / "grades.jsonl").unlink()
    run_plan(plan_of_folder(server, tmp_path), run, resume=True, accept_failing_gold=True)
    later = report_of(run)
    assert later.verdict.judged_labels is None
    assert "graded 1 row by gold that people wrote while labelling" in later.verdict.text


@pytest.mark.parametrize("changes", [{}, {"judge": None}])
def test_runs_without_labels_or_counts_report_as_before(
    server: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    judge_named = {"judge": {"name": f"openai:judge-2@{server.url}"}, **changes}
    run = carried_out(Town.of({CHOICE: 0.5, OTHER: 0.5}, honest), server, tmp_path, **judge_named)
    assert report_of(run).graded is None
    assert not (run / "trial" / "grades.jsonl").exists()
    assert "graded" not in json.loads((run / "report.json").read_text("utf-8"))
