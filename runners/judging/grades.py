"""The judge's grade of each answer by itself: what is asked, the journal of replies, and the grades read from it.

One chat for each different answer of a question; of an arm with several seeds the answers of the first. Refusals are graded
without asking (right where the question has no answer, else wrong), and so are empty answers and answers to questions that
have none. A good grade that an order in the answer may have brought about is checked (:mod:`runners.judging.obedience`).
Replies are rows of :data:`GRADE_JOURNAL`, each with the digest of its chat, so that nothing is asked twice and a run that
was interrupted goes on.

A judge must not know the labelled rows better than the others, or its errors on them would say nothing of those on the
others. So once answers are labelled, grades stay as they are when people write gold; one that is given first from gold
that they wrote (:attr:`AnswerGrades.informed`) keeps a pair of arms from counting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.files import append_line, canonical_json, sha256_text, write_text
from rag.types import OnEvent
from runners.data.formats import Message
from runners.data.questions import Question
from runners.judging.asking import OpenJudge
from runners.judging.obedience import check_prompts, other_question
from runners.judging.prompts import GRADES, GradedMaterial, grade_prompt, read_grade
from runners.labels.labels import answer_digest
from runners.labels.records import GRADE_VALUE
from runners.plan.schema import Plan
from runners.run_folder import read_journal
from runners.scoring.correctness import gold_texts, lacks_answer
from runners.scoring.scores import absence_is_legal, fault_by_plan

GRADE_JOURNAL = "grades.jsonl"
UNKNOWN_GRADE = 0.5
"""What stands in for a grade that could not be read or was thrown away: any fixed value keeps the estimate right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeTask:
    """One answer to grade, with the chats that check a good grade."""

    question: str
    answer: str
    """The digest of its text."""
    chat: tuple[Message, ...]
    checks: tuple[tuple[Message, ...], ...] = ()
    grade: str | None = None
    """The grade of an answer that is not asked about; None for all others."""
    informed: bool = False
    """Whether people wrote the gold while they labelled this run."""

    def key(self, judge: str) -> str:
        """Return the digest of all that the reply depends on."""
        return _key(judge, self.question, self.answer if self.grade else self.chat)

    def check_keys(self, judge: str) -> list[str]:
        """Return the digests of the checks."""
        return [_key(judge, self.question, chat) for chat in self.checks]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerGrades:
    """The grades of a trial's answers, by question and digest of the answer."""

    grades: Mapping[tuple[str, str], str]
    unreadable: frozenset[tuple[str, str]] = frozenset()
    """Answers about which no reply could be read."""
    thrown_away: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The grades of answers that followed the answer's own words about its grade."""
    by_rule: frozenset[tuple[str, str]] = frozenset()
    """Answers with a grade that the judge was not asked for."""
    informed: frozenset[tuple[str, str]] = frozenset()
    """Answers that were graded by gold that people wrote while they labelled this run."""

    def is_informed(self, question: str, answer: str) -> bool:
        """Return whether an answer was graded by gold that people wrote while labelling this run."""
        return (question, answer_digest(answer)) in self.informed

    def value(self, question: str, answer: str) -> float | None:
        """Return the grade of an answer as a number, :data:`UNKNOWN_GRADE` without a usable one; None if not asked yet."""
        key = (question, answer_digest(answer))
        if key in self.unreadable or key in self.thrown_away:
            return UNKNOWN_GRADE
        return GRADE_VALUE[self.grades[key]] if key in self.grades else None

    def reply_value(self, question: str, answer: str) -> float | None:
        """Return the grade that the judge replied, also where it was thrown away; None where it was not asked."""
        key = (question, answer_digest(answer))
        if key in self.thrown_away:
            return GRADE_VALUE[self.thrown_away[key]]
        return None if key in self.by_rule else self.value(question, answer)


def grade_tasks(
    plan: Plan,
    questions: Sequence[Question],
    rows: Sequence[Mapping[str, Any]],
    passages: Callable[[Mapping[str, Any]], tuple[str, ...]],
    gold: Callable[[Question], str],
    informed: Container[str] = (),
) -> list[GradeTask]:
    """Return every different answer of a trial as a task, by question in their order.

    Args:
        plan: the run's plan.
        questions: the test questions.
        rows: of the journal of answers.
        passages: returns the texts of what was found for a row.
        gold: returns the text of a question's gold span, "" when it has none.
        informed: ids of questions whose gold people wrote while they labelled this run.
    """
    first: dict[str, dict[str, Mapping[str, Any]]] = {}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if (row["arm"], row["id"]) not in seen:
            seen.add((row["arm"], row["id"]))
            first.setdefault(row["id"], {}).setdefault(str(row["answer"]).strip(), row)
    asked = [question for question in questions if question.id in first]
    materials = [
        _material(plan, question, passages(next(iter(first[question.id].values()))), gold)
        for question in asked
    ]
    tasks = []
    for at, question in enumerate(asked):
        for answer, row in first[question.id].items():
            digest = answer_digest(answer)
            by_people = question.id in informed
            if known := _known_grade(plan, question, answer):
                tasks.append(
                    GradeTask(question=question.id, answer=digest, chat=(), grade=known, informed=by_people)
                )
                continue
            material = _material(plan, question, passages(row), gold)

            def is_wrong(place: int, answer: str = answer) -> bool:
                return bool(fault_by_plan(plan, asked[place], answer, gold(asked[place])))

            checks = check_prompts(
                material,
                answer,
                fault_by_plan(plan, question, answer, gold(question)) == "",
                other_question(at, materials, is_wrong),
            )
            tasks.append(
                GradeTask(
                    question=question.id,
                    answer=digest,
                    chat=tuple(grade_prompt(material, answer)),
                    checks=tuple(tuple(chat) for chat in checks),
                    informed=by_people,
                )
            )
    return tasks


class GradeJournal:
    """The replies of a judge about answers, which are appended to a file one by one."""

    def __init__(self, path: Path, judge: str, labelled: bool = False) -> None:
        """Read what the judge said before.

        Args:
            path: the file.
            judge: its name.
            labelled: whether answers of the run are labelled, so that grades stay though the gold has changed.
        """
        self.path, self.judge = path, judge
        self._rows = {row["key"]: row for row in read_journal(path)}
        own = (row for row in self._rows.values() if labelled and row.get("judge") == judge)
        self._settled = {
            (row["id"], row["answer"]): row
            for row in own
            if not (GRADE_VALUE.get(row["grade"] or "wrong") and set(row["checks"]) - self._rows.keys())
        }
        """Grades that stay, with all their checks."""

    def outdated(self, tasks: Sequence[GradeTask]) -> bool:
        """Return whether the file has rows of other answers, chats or checks, or lacks those that need no reply."""
        return self._wanted(tasks) != self._rows

    def keep_only(self, tasks: Sequence[GradeTask]) -> None:
        """Remove rows of other answers or chats, name the checks of today, and write rows that need no reply."""
        self._rows = self._wanted(tasks)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows.values())
        write_text(self.path, "".join(lines))

    def _wanted(self, tasks: Sequence[GradeTask]) -> dict[str, dict[str, Any]]:
        wanted = set[str]()
        for task in tasks:
            settled = self._settled.get((task.question, task.answer))
            wanted |= {settled["key"], *settled["checks"]} if settled else set()
            wanted |= set() if settled else {task.key(self.judge), *task.check_keys(self.judge)}
        rows = {key: row for key, row in self._rows.items() if key in wanted}
        open_tasks = [task for task in tasks if (task.question, task.answer) not in self._settled]
        for task in open_tasks:  # other questions make other checks of the same chat
            if (key := task.key(self.judge)) in rows:
                rows[key] = rows[key] | {"checks": task.check_keys(self.judge)}
        known = {task.key(self.judge): self._row(task, "", task.grade) for task in open_tasks if task.grade}
        return rows | {key: row for key, row in known.items() if key not in rows}

    def open_chats(self, tasks: Sequence[GradeTask]) -> list[tuple[GradeTask, int]]:
        """Return what is still to be asked: tasks with -1 for their own chat, or the place of a check that is needed now."""
        chats = []
        for task in tasks:
            if (task.question, task.answer) in self._settled:
                continue
            row = self._rows.get(task.key(self.judge))
            if row is None:
                chats.append((task, -1))
            elif GRADE_VALUE.get(row["grade"] or "wrong"):
                keys = task.check_keys(self.judge)
                chats += [(task, place) for place, key in enumerate(keys) if key not in self._rows]
        return chats

    def ask(
        self,
        chats: Sequence[tuple[GradeTask, int]],
        judge: OpenJudge,
        on_event: OnEvent | None = None,
    ) -> None:
        """Ask these chats; each reply is written before the next one is awaited."""

        def write(position: int, reply: str) -> None:
            task, place = chats[position]
            row = self._row(task, reply, read_grade(reply), place)
            append_line(self.path, row)
            self._rows[row["key"]] = row

        judge.ask(
            [task.checks[place] if place >= 0 else task.chat for task, place in chats],
            GRADES,
            write,
            on_event,
        )

    def _row(self, task: GradeTask, reply: str, grade: str | None, place: int = -1) -> dict[str, Any]:
        keys = task.check_keys(self.judge)
        row = {"id": task.question, "answer": task.answer, "said": reply, "grade": grade}
        if place >= 0:
            return {"key": keys[place], "check": True, **row}
        informed = {"informed": True} if task.informed else {}
        return {"key": task.key(self.judge), "judge": self.judge, "checks": keys, **row, **informed}


def read_grades(rows: Sequence[Mapping[str, Any]]) -> AnswerGrades:
    """Return the grades in a journal; an answer whose checks are not all asked has none yet."""
    replies = {row["key"]: row["grade"] for row in rows}
    grades: dict[tuple[str, str], str] = {}
    thrown_away: dict[tuple[str, str], str] = {}
    unreadable, by_rule = set(), set()
    for row in rows:
        answer, grade = (row["id"], row["answer"]), row["grade"]
        if row.get("check"):
            continue
        if grade is not None and not row["said"]:
            by_rule.add(answer)
        if grade is None:
            unreadable.add(answer)
        elif not GRADE_VALUE[grade] or not row["checks"]:
            grades[answer] = grade
        elif all(key in replies for key in row["checks"]):
            if any(replies[key] != "wrong" for key in row["checks"]):
                thrown_away[answer] = grade
            else:
                grades[answer] = grade
    return AnswerGrades(
        grades=grades,
        unreadable=frozenset(unreadable),
        thrown_away=thrown_away,
        by_rule=frozenset(by_rule),
        informed=frozenset((row["id"], row["answer"]) for row in rows if row.get("informed")),
    )


def _key(judge: str, question: str, asked: str | Sequence[Message]) -> str:
    return sha256_text(canonical_json([judge, question, asked if isinstance(asked, str) else list(asked)]))


def _material(
    plan: Plan, question: Question, passages: tuple[str, ...], gold: Callable[[Question], str]
) -> GradedMaterial:
    texts = question.references or tuple(filter(None, (question.reference, *question.short_answers)))
    return GradedMaterial(
        question=question.question,
        before="\n".join(f"{turn['role']}: {turn['content']}" for turn in question.history),
        instructions=question.system or plan.prompts.system,
        gold=texts or gold_texts(question, gold(question)),
        answerable=question.answerable,
        passages=passages,
    )


def _known_grade(plan: Plan, question: Question, answer: str) -> str | None:
    """Return the grade of an answer that is clear without asking; None where it is not."""
    refuses = plan.refuses(answer)
    if not question.answerable:
        return "right" if refuses else "wrong"
    if lacks_answer(question, absence_is_legal(plan) is True):
        return "right" if refuses else None
    return "wrong" if refuses or not answer.strip() else None
