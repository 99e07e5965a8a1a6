"""The loop that makes rows: passages are drawn, the teacher is asked, its rows are checked, until enough have passed.

Every text of the teacher is written to a journal before it is checked, with a digest of what it was asked: after an
interruption nothing is asked twice, and a text that was asked for in another way is not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rag.evaluation.synthetic import make_questions
from rag.files import append_line, canonical_json, sha256_text
from rag.types import Chunk, OnEvent
from runners.data.formats import Message
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, Generator
from runners.run_folder import read_journal
from runners.synthesis.drawing import Draw, draw_passages, usable_passages
from runners.synthesis.row_checks import KNOWN, MALFORMED, CandidateRow, CheckedRow, RowChecker, closed_book
from runners.synthesis.teacher import (
    QUESTION_STYLES,
    ROW_TOKENS,
    TeacherTask,
    read_teacher_text,
    teacher_chat,
)

MOST_ASKED = 4
"""Passages asked about for each row that is wanted; when fewer of the rows pass, the teacher is not up to the task."""
AFFIRMED = "answered yes"
HALF_AFFIRMED = "what is left would be answered yes, and half of the questions are"
_BARE_RANK = {"no": 1, "yes": 2}
"""Order of questions answered with a bare no or yes, after those that ask for a value (0)."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """The model that writes rows.

    Attributes:
        name: its name.
        host: host and port of its endpoint; "" for a model on this machine.
        generator: what generates its texts.
        at_once: passages asked about before the rows are checked.
        form: what its text is held to while it is generated; None for an endpoint, which is asked for it in words alone.
        weights: fingerprint of a model on this machine; "" for an endpoint.
    """

    name: str
    host: str
    generator: Generator
    at_once: int = 16
    form: OutputConstraint | None = None
    weights: str = ""


@dataclass(frozen=True, slots=True)
class BaseModelCheck:
    """The base model that is asked without the passage.

    Attributes:
        name: its name.
        generator: what generates its answers.
        system: its instructions.
        drop: whether rows that it answers rightly are thrown out.
        identity: what tells it from another of its name: its fingerprint, or the host of its endpoint.
    """

    name: str
    generator: Generator
    system: str = ""
    drop: bool = False
    identity: str = ""

    def asked_as(self, row: CandidateRow) -> str:
        """Return the digest of all that decides whether it knows a row."""
        parts = [self.name, self.identity, self.system, row.question, row.reply]
        return sha256_text(canonical_json(parts))[:16]


@dataclass(kw_only=True)
class TeacherUse:
    """What was asked of a teacher."""

    asked: int = 0
    """Texts of the teacher that were read, those of the journal included."""
    reused: int = 0
    """Those of the journal."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    """Whether a server did not count its tokens."""
    new_tokens: int = 0
    """Tokens of both kinds that this run asked for."""

    def count(self, row: Mapping[str, Any]) -> None:
        """Count a text that was read, by its row of the journal."""
        self.asked += 1
        self.prompt_tokens += row["prompt_tokens"]
        self.completion_tokens += row["completion_tokens"]
        self.estimated = self.estimated or bool(row["estimated"])


@dataclass(kw_only=True)
class MakingOutcome(TeacherUse):
    """The rows that passed, those that did not, and what was asked for them."""

    passed: list[tuple[str, CheckedRow]] = field(default_factory=list)
    """(id, row) in the order in which they were drawn."""
    rejected: list[tuple[str, CheckedRow | str]] = field(default_factory=list)
    """(id, row), or the teacher's text where no row could be read from it."""
    passages: int = 0
    """Passages that may be asked about."""
    exhausted: str = ""
    """Why fewer rows than wanted were made; "" where enough were."""

    @property
    def by_reason(self) -> dict[str, int]:
        """Number of rejected rows by kind of reason, most frequent first."""
        kinds = [MALFORMED if isinstance(row, str) else row.kind for _, row in self.rejected]
        return dict(Counter(kinds).most_common())


class TeacherTexts:
    """What a teacher wrote for one task, in a journal: nothing is asked twice."""

    def __init__(self, teacher: Teacher, journal: Path, task: object) -> None:
        """Open the texts of a task.

        Args:
            teacher: the teacher.
            journal: file that its texts are appended to.
            task: everything that it is asked by, but for what an id stands for, as JSON values: with another task it is
                asked again.
        """
        self._teacher, self._journal = teacher, journal
        asked_as = [teacher.name, teacher.host or teacher.weights, task]
        self._asked_as = sha256_text(canonical_json(asked_as))[:16]
        self._rows = {
            row["id"]: row
            for row in read_journal(journal)
            if row.get("asked_as") == self._asked_as and "text" in row
        }

    def __getitem__(self, id: str) -> dict[str, Any]:
        """Return the row of a text: ``text``, ``finish`` and the tokens."""
        return self._rows[id]

    def ask(self, chats: Mapping[str, list[Message]], max_tokens: int, outcome: TeacherUse) -> None:
        """Ask for the texts that the journal does not hold; ``chats`` are by the id of a text."""
        new = [id for id in chats if id not in self._rows]
        outcome.reused += len(chats) - len(new)

        def write(positions: list[int], answers: list[Completion]) -> None:
            for position, answer in zip(positions, answers, strict=True):
                row = {
                    "id": new[position],
                    "asked_as": self._asked_as,
                    "text": answer.text,
                    "finish": answer.finish,
                    "prompt_tokens": answer.prompt_tokens,
                    "completion_tokens": answer.completion_tokens,
                    "estimated": answer.estimated,
                }
                append_line(self._journal, row)
                self._rows[row["id"]] = row
                outcome.new_tokens += answer.prompt_tokens + answer.completion_tokens

        if new:
            self._teacher.generator.generate(
                [chats[id] for id in new], max_tokens, write, constraint=self._teacher.form
            )


class RowMaker:
    """Makes rows from passages with a teacher."""

    def __init__(
        self,
        checker: RowChecker,
        task: TeacherTask,
        teacher: Teacher,
        journal: Path,
        base: BaseModelCheck | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        """Take everything that rows are made with.

        Args:
            checker: the checks.
            task: what the teacher is asked for.
            teacher: the teacher.
            journal: file that its texts are appended to.
            base: the base model, None where it is not asked.
            on_event: receives progress events.
        """
        self._checker, self._task, self._teacher = checker, task, teacher
        self._journal, self._base, self._on_event = journal, base, on_event
        self._texts = TeacherTexts(teacher, journal, asdict(task))
        # 0.2.0 recorded the draw alone, whose question may be another by now: the base is asked again.
        self._known = {
            row["asked_as"]: bool(row["known"])
            for row in read_journal(journal)
            if {"known", "asked_as"} <= row.keys()
        }

    def make(self, chunks: Sequence[Chunk], count: int, seed: int) -> MakingOutcome:
        """Draw passages and ask about them until ``count`` rows have passed, or all or too many were asked about."""
        outcome = MakingOutcome()
        passages = usable_passages(chunks)
        outcome.passages = len(passages)
        draws = draw_passages(passages, len(QUESTION_STYLES), seed)
        limited = islice(draws, MOST_ASKED * count)
        for batch in _batches(limited, self._teacher.at_once):
            self._ask(batch, outcome)
            self._take(batch, count, outcome)
            self._emit(
                {"event": "make.rows", "asked": outcome.asked, "done": len(outcome.passed), "total": count}
            )
            if len(outcome.passed) >= count:
                return outcome
        most = len(passages) * len(QUESTION_STYLES)
        outcome.exhausted = (
            f"every passage was asked about in {len(QUESTION_STYLES)} styles"
            if most <= MOST_ASKED * count
            else f"{MOST_ASKED} passages were tried for each row that was requested"
        )
        return outcome

    def _ask(self, batch: Sequence[Draw], outcome: MakingOutcome) -> None:
        """Ask the teacher about the passages that the journal has no text for."""
        chats = {draw.id: teacher_chat(self._task, draw.passage, draw.style) for draw in batch}
        self._texts.ask(chats, ROW_TOKENS, outcome)

    def _take(self, batch: Sequence[Draw], count: int, outcome: MakingOutcome) -> None:
        """Read the rows of a batch, check them and add them to the outcome, up to ``count`` that passed."""
        read: list[tuple[Draw, CandidateRow | None]] = []
        for draw in batch:
            row = self._texts[draw.id]
            pair = read_teacher_text(row["text"]) if row["finish"] != "length" else None
            read.append((draw, CandidateRow(*pair, draw.passage) if pair else None))
        candidates = [candidate for _, candidate in read if candidate is not None]
        checked = iter(self._checker.check_all(candidates))
        results = [(draw, next(checked) if candidate else None) for draw, candidate in read]
        results = self._without_known(results)
        for draw, result in results:
            if len(outcome.passed) >= count:
                return
            row = self._texts[draw.id]
            outcome.count(row)
            if result is None:
                outcome.rejected.append((draw.id, row["text"]))
            elif result.kind:
                outcome.rejected.append((draw.id, result))
            else:
                outcome.passed.append((draw.id, result))

    def _without_known(
        self, results: list[tuple[Draw, CheckedRow | None]]
    ) -> list[tuple[Draw, CheckedRow | None]]:
        """Return the results with what the base model knows marked, or thrown out."""
        base = self._base
        if base is None:
            return results
        sound = [(draw.id, base.asked_as(row.row), row.row) for draw, row in results if row and not row.kind]
        to_ask = [(id, key, row) for id, key, row in sound if key not in self._known]
        answers = closed_book([row for _, _, row in to_ask], base.generator, base.system)
        for (id, key, _), known in zip(to_ask, answers, strict=True):
            append_line(self._journal, {"id": id, "base": base.name, "asked_as": key, "known": known})
            self._known[key] = known
        return [
            (draw, row if row is None or row.kind else self._marked(row, self._known[base.asked_as(row.row)]))
            for draw, row in results
        ]

    def _marked(self, row: CheckedRow, known: bool) -> CheckedRow:
        assert self._base is not None
        checks = {**row.checks, "known": known}
        if known and self._base.drop:
            reason = f"{self._base.name} answers it without the passage"
            return CheckedRow(row.row, KNOWN, reason, row.spans, checks)
        return CheckedRow(row.row, "", "", row.spans, checks)

    def _emit(self, event: dict[str, Any]) -> None:
        if self._on_event:
            self._on_event(event)


def make_without_teacher(
    checker: RowChecker, chunks: Sequence[Chunk], count: int, seed: int, base: BaseModelCheck | None = None
) -> MakingOutcome:
    """Make questions from English statements by rule, and check them as those of a teacher.

    At most half of them are answered "yes": an arm that always says so would score well on more. There are none in
    documents of other languages.
    """
    outcome = MakingOutcome(passages=len(usable_passages(chunks)))
    by_place = {(chunk.doc, chunk.start, chunk.end): chunk for chunk in chunks}
    candidates: list[tuple[str, CandidateRow]] = []
    questions = make_questions(chunks, MOST_ASKED * count, seed)
    # Statements seldom deny, so most questions that ask for no value are answered "yes", which says little about an arm:
    # those that ask for a value come first, then those answered "no", and "yes" only as often as something else. The order
    # is otherwise that of the documents.
    for question in sorted(questions, key=lambda row: _BARE_RANK.get(row.answers[0], 0)):
        start, end = question.spans[0]
        chunk = next(
            (c for (doc, a, b), c in by_place.items() if doc == question.doc_id and a <= start and end <= b),
            None,
        )
        if chunk is not None:
            row = CandidateRow(question.question, question.answers[0], chunk, True, question.spans)
            candidates.append((question.id, row))
    others = affirmed = 0
    for at in range(0, len(candidates), 32):
        part = candidates[at : at + 32]
        for (id, row), result in zip(part, checker.check_all([row for _, row in part]), strict=True):
            if len(outcome.passed) >= count:
                return _with_known(outcome, base)
            if row.reply == "yes" and affirmed >= others:
                outcome.exhausted = HALF_AFFIRMED
                return _with_known(outcome, base)
            outcome.asked += 1
            affirmed += not result.kind and row.reply == "yes"
            others += not result.kind and row.reply != "yes"
            if result.kind:
                outcome.rejected.append((id, result))
            else:
                outcome.passed.append((id, result))
    if len(outcome.passed) < count:
        outcome.exhausted = (
            f"{MOST_ASKED} questions were tried for each that was requested"
            if len(questions) == MOST_ASKED * count
            else "no more plain English statements of the documents can be turned into questions"
        )
    return _with_known(outcome, base)


def _with_known(outcome: MakingOutcome, base: BaseModelCheck | None) -> MakingOutcome:
    """Mark what the base model knows, or throw it out."""
    if base is None or not outcome.passed:
        return outcome
    answers = closed_book([row.row for _, row in outcome.passed], base.generator, base.system)
    passed: list[tuple[str, CheckedRow]] = []
    for (id, row), known in zip(outcome.passed, answers, strict=True):
        checks = {**row.checks, "known": known}
        if known and base.drop:
            reason = f"{base.name} answers it without the passage"
            outcome.rejected.append((id, CheckedRow(row.row, KNOWN, reason, row.spans, checks)))
        else:
            passed.append((id, CheckedRow(row.row, "", "", row.spans, checks)))
    outcome.passed = passed
    _halve_affirmed(outcome)
    return outcome


def _halve_affirmed(outcome: MakingOutcome) -> None:
    """Throw out the last questions answered "yes" until they are at most half, after others were found to be known."""
    affirmed = [at for at, (_, row) in enumerate(outcome.passed) if row.row.reply == "yes"]
    surplus = max(0, 2 * len(affirmed) - len(outcome.passed))
    for at in reversed(affirmed[len(affirmed) - surplus :]):
        id, row = outcome.passed.pop(at)
        outcome.rejected.append((id, CheckedRow(row.row, AFFIRMED, HALF_AFFIRMED, row.spans, row.checks)))


def example_row(id: str, checked: CheckedRow, system: str, teacher: dict[str, str]) -> dict[str, Any]:
    """Return a row of an examples file: the chat, and where it comes from in ``meta``."""
    row = checked.row
    head = [{"role": "system", "content": system.strip()}] if system.strip() else []
    return {
        "messages": [
            *head,
            {"role": "user", "content": row.question},
            {"role": "assistant", "content": row.reply},
        ],
        "meta": {"id": f"made-{id}", **_provenance(checked, teacher)},
    }


def question_row(id: str, checked: CheckedRow, teacher: dict[str, str]) -> dict[str, Any]:
    """Return a row of a questions file, with its gold and where it comes from."""
    row = checked.row
    return {
        "id": id if id.startswith("made-") else f"made-{id}",
        "question": row.question,
        "answers": [row.reply],
        "answerable": True,
        **_provenance(checked, teacher),
    }


def rejected_row(id: str, rejected: CheckedRow | str) -> dict[str, Any]:
    """Return a row of the file of rejected rows, with the reason."""
    if isinstance(rejected, str):
        return {
            "id": id,
            "rejected": MALFORMED,
            "reason": "no question and reply can be read",
            "text": rejected,
        }
    row = rejected.row
    return {
        "id": id,
        "rejected": rejected.kind,
        "reason": rejected.reason,
        "question": row.question,
        "reply": row.reply,
        "doc_id": row.passage.doc,
        "passage": {"start": row.passage.start, "end": row.passage.end},
        "checks": rejected.checks,
    }


def _provenance(checked: CheckedRow, teacher: dict[str, str]) -> dict[str, Any]:
    return {
        "doc_id": checked.row.passage.doc,
        "spans": [{"start": start, "end": end} for start, end in checked.spans],
        "teacher": teacher,
        "checks": checked.checks,
        "made": True,
    }


def _batches(draws: Iterable[Draw], size: int) -> Iterator[list[Draw]]:
    iterator = iter(draws)
    while batch := list(islice(iterator, size)):
        yield batch
