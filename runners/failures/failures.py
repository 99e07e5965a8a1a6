"""Name the cause of each wrong answer of a finished run: :func:`find_causes`.

The cause is the first stage that failed: no passage states the gold, the search does not return the one that does, others
take its place in the prompt, or the model has it and does not use it. Each such question is asked again once, with the gold
passage alone: a refusal that stays one was no fault of the search, and how many answers are right then says what mending the
search, or showing fewer passages, can bring. Where the gate refused, it first decides again with the gold passage before the
others. Nothing is asked where the cause is plain: no passage states the gold, the question has no answer, or only the form
is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.errors import BadInput, UsageProblem
from rag.files import append_lines, canonical_json, disk_full_as_problem, sha256_text, write_json, writer_lock
from rag.grounding.answer_search import AnswerFinder
from rag.index import newest_generation
from rag.text.words import count_noun
from rag.types import Chunk, Citation, OnEvent
from runners.arms.answer import Answer, answer_all
from runners.arms.gold_passages import answers_to_find, asked_texts, find_gold_passage
from runners.data.questions import Question
from runners.failures.causes import Cause, FailedAnswer, Failures, Replay
from runners.failures.evidence import evidence_text, fault_of_form, no_answer_text, no_passage_text
from runners.failures.gold_search import (
    GivenPassages,
    GoldPlace,
    GoldSearch,
    gold_sentence,
    likeliest_passage,
)
from runners.lookup.journal import LOOKUPS
from runners.made_from import index_updated, recorded_answers
from runners.plan.steps import EvaluateStep
from runners.run_folder import FAILURES_FOLDER, INDEX, TRIAL, read_journal
from runners.runs.opened import Opening, OpenRun
from runners.scoring.correctness import gold_texts
from runners.scoring.scores import score_answer
from runners.trial import step_runner, trial
from runners.trial.trial import ANSWERS

FAILURES_FILE = "failures.json"
"""In the folder of an arm; what :meth:`Failures.to_json` returns, and of which answers it is."""


def find_causes(path: Path, arm: str | None = None, on_event: OnEvent | None = None) -> Failures:
    """Return the wrong answers of an arm of a finished run, each with its cause, and store them in the run.

    Args:
        path: the run folder.
        arm: the arm; by default the one to use, else the recommended one.
        on_event: receives an event after each batch of answers.

    Raises:
        BadInput: the run is unfinished or searches no documents, or the arm is unknown or has no answers.
        UsageProblem: the arm is none whose answers can be replayed.
    """
    session = OpenRun.open(path, Opening(on_event=on_event))
    step = _chosen_arm(session, arm)
    seed = session.seed(step)
    rows, answered = _judged_rows(session, step, session.plan.seed if seed is None else seed)
    folder = failures_folder(path, step.arm)
    digest = _made_from(session, step)
    with writer_lock(folder), disk_full_as_problem(folder):
        trial.drop_outdated_answers(folder, step.arm, digest)
        work = _Work(session=session, step=step, seed=seed, folder=folder, on_event=on_event)
        result = work.explain(rows, answered)
        answers_from = recorded_answers(path / TRIAL).get(step.arm)
        write_json(folder / FAILURES_FILE, {**result.to_json(), "answers_from": answers_from})
    return result


def failures_folder(run: Path, arm: str) -> Path:
    """Return the folder of an arm's causes in a run."""
    return run / FAILURES_FOLDER / arm


@dataclass(frozen=True, slots=True, kw_only=True)
class _JudgedRow:
    """A row of the trial's journal with what it is judged by."""

    question: Question
    row: Mapping[str, Any]
    scores: Mapping[str, float]
    facts: tuple[str, ...]

    @property
    def right(self) -> bool:
        return self.scores["right"] >= 1.0


def _chosen_arm(session: OpenRun, name: str | None) -> EvaluateStep:
    report, plan = session.report, session.plan
    if report is None:
        raise BadInput(
            f"{session.folder.path} has no report yet, so there are no answers to look at",
            f"finish it with: tunewise run {session.folder.path} --resume",
        )
    step = session.arm(name or session.default_arm or report.verdict.recommended)
    if step.looks_up:
        others = " or ".join(f"--arm {s.arm}" for s in plan.arms if s.retrieval and not s.looks_up)
        raise UsageProblem(
            f"{step.arm} chooses itself what it reads, so no passages can be given to it in place of others",
            f"read its calls in {session.folder.path / TRIAL / LOOKUPS}"
            + (f", or ask {others}" if others else ""),
        )
    if plan.index is None:
        raise BadInput(
            "this run searches no documents, and the causes are those of answers from documents",
            "read its wrong answers in report.html",
        )
    if step.route or step.without_model:
        others = " or ".join(f"--arm {s.arm}" for s in plan.arms if not (s.route or s.without_model))
        raise UsageProblem(
            f"{step.arm} asks no language model of its own, so nothing can be asked again", others
        )
    return step


def _judged_rows(session: OpenRun, step: EvaluateStep, seed: int) -> tuple[list[_JudgedRow], int]:
    """Return the answers of one seed that can be judged, and how many there are; BadInput without any of the arm."""
    recorded = read_journal(session.folder.path / TRIAL / ANSWERS)
    rows = {row["id"]: row for row in recorded if (row["arm"], row["seed"]) == (step.arm, seed)}
    if not rows:
        raise BadInput(
            f"{session.folder.path} has no answers of the arm {step.arm}", "name another: --arm ARM"
        )
    judged = []
    for question in session.split.test:
        if question.id not in rows:
            continue
        row, gold = rows[question.id], _gold_text(session, question)
        cited = [Citation(**citation) for citation in row["citations"]]
        scores = score_answer(session.plan, question, row["answer"], cited, step.retrieval, gold)
        if "right" in scores:
            facts = gold_texts(question, gold)
            judged.append(_JudgedRow(question=question, row=row, scores=scores, facts=facts))
    return judged, len(rows)


def _gold_text(session: OpenRun, question: Question) -> str:
    """Return the text of a question's gold span; "" also where its document has left the index since the trial."""
    try:
        return step_runner.gold_text(session, question)
    except BadInput:
        return ""


def _made_from(session: OpenRun, step: EvaluateStep) -> str:
    """Return the digest of what an arm's replays depend on: its trial's answers and the index of today."""
    run = session.folder.path
    answers = recorded_answers(run / TRIAL).get(step.arm)
    generation = newest_generation(run / INDEX)
    return sha256_text(canonical_json([session.plan.digest(), step.arm, answers, generation]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The steps of one search for causes, with what they share."""

    session: OpenRun
    step: EvaluateStep
    seed: int | None
    folder: Path
    on_event: OnEvent | None

    def explain(self, rows: Sequence[_JudgedRow], answered: int) -> Failures:
        """Return the causes of the judged answers that are wrong; ``answered`` counts those that could not be judged too."""
        plan = self.session.plan
        faults = {
            row.question.id: fault_of_form(plan, row.question, row.row["answer"], row.scores, row.facts)
            for row in rows
        }
        failed = [row for row in rows if not row.right or faults[row.question.id]]
        open_rows = [row for row in failed if row.question.answerable and not faults[row.question.id]]
        gold = self._gold(open_rows)
        places, replays = self._replay([row for row in open_rows if row.question.id in gold], gold)
        answers = []
        for row in failed:
            id = row.question.id
            if fault := faults[id]:
                answers.append(_failed(row, Cause.FORM, fault))
            elif not row.question.answerable:
                answers.append(_failed(row, Cause.ANSWERED_WRONGLY, no_answer_text(row.row)))
            elif id not in gold:
                answers.append(_failed(row, Cause.NOT_IN_DOCUMENTS, no_passage_text(row.facts, row.row)))
            else:
                answers.append(self._explained(row, places[id], replays[id]))
        return Failures(
            arm=self.step.arm,
            seed=plan.seed if self.seed is None else self.seed,
            answers=tuple(answers),
            asked=len(rows),
            wrong=sum(not row.right for row in rows),
            replayed=len(replays),
            notes=self._notes(answered - len(rows)),
        )

    def _gold(self, rows: Sequence[_JudgedRow]) -> dict[str, tuple[Chunk, str]]:
        """Return the passage that states the gold, and its sentence, by question id; questions without one are left out."""
        if not rows:
            return {}
        opened = self.session.retrieval.of(self.step)
        # of a large index only the words that are looked up are kept
        texts = [
            text for row in rows for text in (*asked_texts(row.question), *answers_to_find(row.question))
        ]
        finder = AnswerFinder(opened.index.chunks, texts)
        gold = {}
        for row in rows:
            answer = find_gold_passage(finder, row.question)
            chunk = answer.passage
            if chunk is None and not answer.decided:
                chunk = likeliest_passage(opened.retriever, row.question, row.facts)
            if chunk is not None:
                gold[row.question.id] = chunk, gold_sentence(chunk, row.question, row.facts)
        return gold

    def _replay(
        self, rows: Sequence[_JudgedRow], gold: Mapping[str, tuple[Chunk, str]]
    ) -> tuple[dict[str, GoldPlace], dict[str, Replay]]:
        """Return where each question's gold passage is, and the answer with it; what the folder holds is not asked again."""
        if not rows:
            return {}, {}
        prepared = self.session.prepare(self.step, self.seed)
        search = GoldSearch(prepared.finder, self.session.retrieval.of(self.step).retriever)
        questions = [row.question for row in rows]
        places = search.places(questions, gold)
        refused = {row.question.id: bool(row.row["refused"]) for row in rows}
        given = [search.with_gold(places[question.id], refused[question.id]) for question in questions]
        journal = self.folder / ANSWERS
        known = {row["id"] for row in read_journal(journal)}
        done = len(known)

        def append_batch(answers: list[Answer]) -> None:
            nonlocal done
            done += len(answers)
            append_lines(journal, [answer.to_json(self.step.arm, self.seed or 0) for answer in answers])
            if self.on_event:
                self.on_event(
                    {"event": "answers.batch", "arm": self.step.arm, "done": done, "total": len(questions)}
                )

        answer_all(
            prepared.plan,
            self.step.model_copy(update={"retrieval": True}),
            questions,
            lambda: self.session.generator(self.step, self.seed),
            GivenPassages(given),
            prepared.shots,
            append_batch,
            known,
        )
        answered = {row["id"]: row for row in read_journal(journal)}
        replays = {row.question.id: self._judged_replay(row, answered[row.question.id]) for row in rows}
        return places, replays

    def _judged_replay(self, judged: _JudgedRow, row: Mapping[str, Any]) -> Replay:
        gold = _gold_text(self.session, judged.question)
        scores = score_answer(self.session.plan, judged.question, row["answer"], (), True, gold)
        return Replay(
            passages="first" if row["finish"] == "refused" else "alone",
            answer=row["answer"],
            right=scores.get("right", 0.0) >= 1.0,
            refused=bool(row["refused"]),
        )

    def _explained(self, row: _JudgedRow, place: GoldPlace, replay: Replay) -> FailedAnswer:
        refused = bool(row.row["refused"])
        if place.shown:
            cause = Cause.REFUSED_WRONGLY if refused else Cause.IGNORED
        elif refused and replay.refused:
            cause = Cause.REFUSED_WRONGLY
        else:
            # an arm that looks nothing up has no prompt from which others crowd it out
            is_hit = place.retrieved is not None and place.rank is not None
            cause = Cause.CROWDED_OUT if is_hit else Cause.NOT_FOUND
        failed = _failed(row, cause, evidence_text(row.row, place, replay, self.step.arm))
        return replace(failed, gold=place.gold.location(short=True), rank=place.rank, replay=replay)

    def _notes(self, unjudged: int) -> tuple[str, ...]:
        notes = []
        if how_far := self.session.folder.incomplete_arms().get(self.step.arm):
            notes.append(f"{self.step.arm} is incomplete, {how_far}")
        if unjudged:
            notes.append(
                f"left out: {count_noun(unjudged, 'answer')} without a gold answer that is known today"
            )
        if index_updated(self.session.folder):
            notes.append(
                "the index was updated after the trial: passages are those of today, and the answers those of the trial"
            )
        if (
            self.seed is not None
            and len(seeds := self.session.plan.train_step(str(self.step.weights)).seeds) > 1
        ):
            notes.append(
                f"{self.step.arm} has {count_noun(len(seeds), 'seed')}: the answers are those of seed {self.seed}"
            )
        return tuple(notes)


def _failed(row: _JudgedRow, cause: Cause, evidence: str) -> FailedAnswer:
    return FailedAnswer(
        id=row.question.id,
        question=row.question.question,
        answer=row.row["answer"],
        cause=cause,
        evidence=evidence,
        document=row.question.doc_id,
    )
