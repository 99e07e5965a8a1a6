"""What a report is made of, read once: the plan, the event log and the answers of a run, and its test questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag.evaluation.question_words import QuestionWords
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.report.json_records import from_json
from runners.report.records import IncompleteArm
from runners.report.trial_report import QUESTION_WORDS
from runners.resources.environment import ENVIRONMENT_EVENT, describe_environment
from runners.run_folder import TRIAL, RunFolder, read_journal
from runners.trial import staleness
from runners.trial.remote_arms import INCOMPLETE_EVENT
from runners.trial.trial import ANSWERS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecords:
    """The records of one run, after all of its arms were scored."""

    path: Path
    """The run folder."""
    plan: Plan
    events: Sequence[Mapping[str, Any]]
    answers: Sequence[Mapping[str, Any]]
    """The rows of the trial's journal."""
    questions: Sequence[Question] = ()
    """The test questions, for what needs their text; () where they are not at hand."""
    staleness: Mapping[str, Any] | None = None
    """What was measured after an update of the index; None for a run without."""

    @property
    def question_words(self) -> QuestionWords | None:
        """How near the test questions are to the documents' words; None where it was not recorded."""
        recorded = self.last(QUESTION_WORDS)
        return from_json(QuestionWords, recorded) if recorded else None

    @classmethod
    def read(cls, run: RunFolder, plan: Plan, questions: Sequence[Question] = ()) -> RunRecords:
        """Read events, answers and the result of a staleness test."""
        return cls(
            path=run.path,
            plan=plan,
            events=run.events(),
            answers=read_journal(run.path / TRIAL / ANSWERS),
            questions=questions,
            staleness=staleness.read_staleness(run.path),
        )

    def last(self, kind: str, **wanted: str) -> Mapping[str, Any]:
        """Return the last event of a kind, with these values; {} without one."""
        wanted["event"] = kind
        matching = (e for e in reversed(self.events) if wanted.items() <= e.items())
        return next(matching, {})

    @property
    def gpu(self) -> str:
        """The GPU of the machine of the run as its driver names it; "" for none."""
        return next((str(event["gpu"] or "") for event in reversed(self.events) if "gpu" in event), "")

    @property
    def environment(self) -> dict[str, Any]:
        """The environment that the run recorded when it was last started, and the date of its first event (UTC)."""
        recorded = self.last(ENVIRONMENT_EVENT) or describe_environment()
        started = next((event["time"] for event in self.events if "time" in event), None)
        date = datetime.fromtimestamp(started, UTC).date().isoformat() if started is not None else None
        return {
            "date": date,
            **{key: value for key, value in recorded.items() if key not in ("event", "time")},
        }

    def without_incomplete(self, scored: Collection[str]) -> tuple[RunRecords, tuple[IncompleteArm, ...]]:
        """Return the records without the answers of arms that did not answer all questions, and these arms.

        Args:
            scored: the arms that have scores.
        """
        names = [step.arm for step in self.plan.arms if step.arm not in scored]
        events = {name: event for name in names if (event := self.last(INCOMPLETE_EVENT, arm=name))}
        incomplete = tuple(
            IncompleteArm(
                arm=name,
                reason=str(event["reason"]),
                answered=int(event["answered"]),
                questions=int(event["questions"]),
            )
            for name, event in events.items()
        )
        answers = self.answers if not events else [row for row in self.answers if row["arm"] not in events]
        return replace(self, answers=answers), incomplete

    def result(self, step: str) -> Mapping[str, Any]:
        """Return the result of a step that is done; {} of one that is not."""
        return self.last("step.done", step=step).get("result") or {}
