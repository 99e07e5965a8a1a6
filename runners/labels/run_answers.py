"""What of a finished run is labelled: answers of its arms, questions with their gold, passages that were found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

from rag.backends.consent import stored_url
from rag.errors import BadInput
from rag.files import has_active_writer
from rag.index import newest_generation
from rag.stores.text import TextStore
from rag.text.words import count_noun, sentence_spans
from rag.types import Document
from runners.data.examples import normalise_text
from runners.data.questions import Question, load_questions, with_wordings
from runners.data.tabular import read_rows
from runners.labels.labels import RowFacts, read_row_facts
from runners.labels.order import RowSignals
from runners.labels.records import LabelPassage
from runners.made_from import measured_generation
from runners.plan.schema import Plan
from runners.report.report_file import read_report
from runners.report.trial_report import TrialReport
from runners.run_folder import (
    INDEX,
    TRIAL,
    TUNED_INDEX,
    RunFolder,
    open_run_folder,
    read_journal,
    read_run_plan,
    read_scores,
)

ANSWERS_FILE = "answers.jsonl"
BEST_OTHERS = 3
"""Arms with the highest scores that the recommended one is compared with, beside its rival and the arms of the gate."""
GOLD_CHARS = 1000
"""Longest paragraph that is shown around a gold passage that was not found; of a longer one its lines."""
MOST_PASSAGES = 12
"""Passages that are shown with a question; an arm that is given all documents has more."""

_LIST_NUMBER = re.compile(r"\d{1,3}[.)]")

Span = tuple[str, int, int]
"""Document, start and end of a passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAnswers:
    """The answers of a finished run's arms, by the row that was asked, and the pairs of arms to tell apart."""

    folder: RunFolder
    plan: Plan
    arms: tuple[str, ...]
    texts: Mapping[str, str]
    """The question of each row as it was asked, in the order of the trial."""
    answers: Mapping[str, Mapping[str, str]]
    """By arm; of an arm with several seeds those of the first one."""
    spans: Mapping[tuple[str, str], tuple[Span, ...]]
    """What an arm was shown for a row."""
    scores: Mapping[str, Mapping[str, float]]
    """The combined score, by arm and row."""
    cut: frozenset[tuple[str, str]]
    """Arm and row of answers that ended at the limit of length."""
    nearness: Mapping[str, float]
    """How far the refusal gate was from the other decision; rows that no arm searched for are missing."""
    facts: Mapping[str, RowFacts]
    pairs: tuple[tuple[str, str], ...]
    """The recommended arm against each other one, in the order in which they are asked about."""
    deciding: int
    """How many of the pairs, from the first on, can change the verdict."""

    def signals(self, groups: Mapping[str, str]) -> list[RowSignals]:
        """Return what makes each row worth labelling early; ``groups`` are the clusters of questions, by question."""
        distances = [distance for distance in self.nearness.values() if distance > 0]
        usual = median(distances) if distances else 0.0
        chosen = self.pairs[0][0]
        others = [arm for arm in self.arms if arm != chosen]
        signals = []
        for row, fact in self.facts.items():
            apart = [
                abs(self.scores[chosen][row] - self.scores[arm][row])
                for arm in others
                if row in self.scores[chosen] and row in self.scores[arm]
            ]
            unsure = max(0.0, 1 - self.nearness[row] / usual) if row in self.nearness and usual else 0.0
            signals.append(
                RowSignals(
                    id=row,
                    weight=fact.weight,
                    disagreement=min(1.0, fmean(apart)) if apart else 0.0,
                    unsure=unsure,
                    group=groups.get(fact.original),
                )
            )
        return signals


def read_run_answers(run: Path) -> RunAnswers:
    """Read what of a run can be labelled.

    Raises:
        BadInput: there is no run, or it is unfinished, or it has no two arms with answers to the same questions.
    """
    folder = open_run_folder(run)
    report = read_report(run)
    if has_active_writer(run):
        raise BadInput(f"{run} is being written by another process", "label it when its run has ended")
    resume = f"finish it with: tunewise run {run} --resume"
    rows = read_journal(run / TRIAL / ANSWERS_FILE)
    if not rows:
        raise BadInput(f"{run} has no answers to label", resume)
    scores = read_scores(run).get("arms", {})
    if report is None or not scores:
        raise BadInput(f"{run} is unfinished: its answers are not scored yet", resume)
    combined = {
        arm: {row: float(values["combined"]) for row, values in of_arm.items()}
        for arm, of_arm in scores.items()
    }
    answers: dict[str, dict[str, str]] = {}
    spans: dict[tuple[str, str], tuple[Span, ...]] = {}
    cut: set[tuple[str, str]] = set()
    texts, nearness = dict[str, str](), dict[str, float]()
    for row in (row for row in rows if row["arm"] in combined):
        arm, id = row["arm"], row["id"]
        if id not in combined[arm] or id in answers.setdefault(arm, {}):
            continue
        answers[arm][id] = row["answer"]
        texts.setdefault(id, row["question"])
        if row.get("finish") == "length":
            cut.add((arm, id))
        spans[arm, id] = tuple((one["doc"], one["start"], one["end"]) for one in row.get("context", ()))
        if "score" in (decision := row.get("decision") or {}):
            nearness[id] = min(abs(float(decision["score"])), nearness.get(id, float("inf")))
    arms = tuple(arm for arm in combined if answers.get(arm))
    plan = read_run_plan(run)
    means = {arm: fmean(combined[arm].values()) for arm in arms}
    pairs, deciding = _pairs(report, plan, means)
    if not any(set(answers[a]) & set(answers[b]) for a, b in pairs):
        raise BadInput(
            f"{run} has no two arms that answered the same questions, so there is nothing to compare",
            "measure a plan with several arms",
        )
    facts = read_row_facts(run)
    return RunAnswers(
        folder=folder,
        plan=plan,
        arms=arms,
        texts=texts,
        answers=answers,
        spans=spans,
        scores=combined,
        cut=frozenset(cut),
        nearness=nearness,
        facts={row: facts[row] for row in texts},
        pairs=pairs,
        deciding=deciding,
    )


def _pairs(
    report: TrialReport, plan: Plan, means: Mapping[str, float]
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return the recommended arm against each other one, and how many pairs can change the verdict, which come first.

    These are its rival (what the scores leave open first, nearest first), the other arms of the gate, and the
    :data:`BEST_OTHERS` with the highest scores.
    """
    arms = list(means)
    chosen = next((arm for arm in (report.verdict.recommended, plan.choice, *arms[:1]) if arm in arms), "")
    compared = {frozenset((pair.a, pair.b)): pair for pair in report.paired}

    def rank(arm: str) -> tuple[bool, float]:
        pair = compared.get(frozenset((chosen, arm)))
        return (
            (True, float("inf")) if pair is None else (not pair.low <= 0 <= pair.high, abs(pair.difference))
        )

    others = sorted((arm for arm in arms if arm != chosen), key=rank)
    first = [*others[:1], *(arm for arm in others[1:] if arm in plan.gate.must_beat)]
    rest = sorted((arm for arm in others if arm not in first), key=lambda arm: -means[arm])
    deciding = len(first) + len(rest[:BEST_OTHERS])
    return tuple((chosen, arm) for arm in (*first, *rest)), deciding


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelQuestions:
    """The questions of a file that a run asked, with the gold that the file has."""

    file: Path
    of_row: Mapping[str, Question]
    """By the run's row; rows that the file does not have are missing."""
    groups: Mapping[str, str]
    """Cluster of each question that names one, by the run's own id."""
    missing: int
    """Questions of the run that the file does not have."""
    asked: int
    """Questions of the file that the run asked in its trial."""
    others: int
    """Those that it did not ask."""
    columns: Mapping[str, str] | None = None
    """Column of each role, as the run's plan declares them."""

    def notes(self) -> list[str]:
        """Return what of the file and the run does not fit together, in sentences."""
        notes = []
        if self.missing:
            missing = count_noun(self.missing, "question")
            notes.append(f"not in {self.file}: {missing} of the run, which can be graded but get no gold")
        if self.others:
            count = count_noun(self.asked + self.others, "question")
            have = "has" if self.others == 1 else "have"
            notes.append(
                f"{self.asked} of the {count} were asked in this run; the other {self.others} {have} no answers to label"
            )
        return notes


def match_questions(file: Path, run: RunAnswers) -> LabelQuestions:
    """Find the run's questions in a file: by id and text, or by the text where rows have no ids of their own.

    Raises:
        BadInput: the file is broken, or has none of the run's questions.
    """
    questions = load_questions(file, run.plan.data.columns)
    asked = with_wordings(questions)
    by_id = {question.id: question for question in asked}
    by_text: dict[str, list[Question]] = {}
    for question in asked:
        by_text.setdefault(question.question.strip(), []).append(question)
    of_row: dict[str, Question] = {}
    for row, text in run.texts.items():
        same_id, same_text = by_id.get(row), by_text.get(text.strip(), [])
        if same_id is not None and same_id.question.strip() == text.strip():
            of_row[row] = same_id
        elif len(same_text) == 1:
            of_row[row] = same_text[0]
    if not of_row:
        raise BadInput(
            f"{file} has none of the {count_noun(len(run.texts), 'question')} that {run.folder.path} asked",
            f"name the run's own file: {run.plan.data.test_questions or run.plan.data.questions}",
        )
    clusters = {
        line: str(group)
        for line, row in read_rows(file)
        if (
            group := row.get(
                "group", (row.get("meta") or {}).get("group") if isinstance(row.get("meta"), dict) else None
            )
        )
        is not None
    }
    originals = {run.facts[row].original: question for row, question in of_row.items()}
    missing = {run.facts[row].original for row in run.texts if row not in of_row}
    lines = {question.line for question in of_row.values()}
    others = sum(question.line not in lines for question in questions)
    return LabelQuestions(
        file=file,
        of_row=of_row,
        groups={
            id: clusters[question.line] for id, question in originals.items() if question.line in clusters
        },
        missing=len(missing),
        asked=len(questions) - others,
        others=others,
        columns=run.plan.data.columns,
    )


@dataclass(slots=True, kw_only=True)
class PassageReader:
    """Reads the passages that arms were shown, and the gold passage, from the run's index as the trial used it."""

    run: RunAnswers
    _documents: dict[tuple[bool, str], Document | None] = field(default_factory=dict)

    def passages(
        self, row: str, arms: Sequence[str], question: Question | None
    ) -> tuple[tuple[LabelPassage, ...], int]:
        """Return the passages of some arms for a row, each once, the highest ranks first, and how many are not shown.

        The gold passage is marked in them, and follows where they do not have it. Not shown are those beyond
        :data:`MOST_PASSAGES`, and those that cannot be read here.
        """
        spans: dict[Span, tuple[int, bool]] = {}
        for arm in arms:
            tuned = any(step.arm == arm and step.retriever == "tuned" for step in self.run.plan.arms)
            for rank, span in enumerate(self.run.spans.get((arm, row), ())):
                spans[span] = min(spans.get(span, (rank, tuned)), (rank, tuned))
        ranked = sorted(spans, key=lambda span: (spans[span][0], span))[:MOST_PASSAGES]
        gold = self._gold(question) if question else ()
        passages = tuple(self._read(ranked, {span: tuned for span, (_, tuned) in spans.items()}, gold))
        missing = [place for place in gold if not any(_has(passage, place) for passage in passages)]
        return (*passages, *self._read_around(missing)), len(spans) - len(passages)

    def _read(
        self, spans: Sequence[Span], tuned: Mapping[Span, bool], gold: Sequence[Span]
    ) -> Iterator[LabelPassage]:
        for doc, start, end in spans:
            document = self._document(tuned[doc, start, end], doc)
            if document is not None and document.raw[start:end].strip():
                yield _passage(document, start, end, gold)

    def _read_around(self, gold: Sequence[Span]) -> Iterator[LabelPassage]:
        """Return the paragraphs, or the lines, of gold passages that no search found."""
        shown = set()
        for doc, start, end in gold:
            document = self._document(False, doc)
            assert document is not None  # the place was found in it
            for between in ("\n\n", "\n"):
                first = document.raw.rfind(between, 0, start)
                last = document.raw.find(between, end)
                place = (
                    0 if first < 0 else first + len(between),
                    len(document.raw.rstrip()) if last < 0 else last,
                )
                if place[1] - place[0] <= GOLD_CHARS:
                    break
            if (doc, *place) not in shown:
                shown.add((doc, *place))
                yield replace(_passage(document, *place, gold), found=False)

    def _gold(self, question: Question) -> tuple[Span, ...]:
        """Return the gold passages of a question: of its row, else the sentence of its document that states the answer."""
        document = self._document(False, question.doc_id) if question.doc_id else None
        if document is None or not question.answerable:
            return ()
        spans = question.spans or _stating(question, document.raw)
        return tuple((document.id, start, end) for start, end in spans if document.raw[start:end].strip())

    def _document(self, tuned: bool, doc: str) -> Document | None:
        key = (tuned, doc)
        if key not in self._documents:
            self._documents[key] = self._read_document(
                self.run.folder.path / (TUNED_INDEX if tuned else INDEX), doc
            )
        return self._documents[key]

    def _read_document(self, index: Path, doc: str) -> Document | None:
        """Return a document of an index in the run's folder; None where it is elsewhere, damaged or without the document."""
        if not index.is_dir() or stored_url(index) is not None:
            return None
        measured = measured_generation(self.run.folder) if index.name == INDEX else 0
        try:
            with TextStore(index) as text:
                return text.document(doc, measured or newest_generation(index))
        except BadInput:
            return None


def _passage(document: Document, start: int, end: int, gold: Sequence[Span]) -> LabelPassage:
    """Return a passage with its sentences."""
    text = document.raw[start:end]
    sentences = [place for first, last in sentence_spans(text) if (place := _trimmed(text, first, last))]
    return LabelPassage(
        doc_id=document.id,
        title=document.title,
        text=text,
        start=start,
        sentences=tuple(sentences),
        gold=tuple(
            number
            for number, (first, last) in enumerate(sentences)
            if any(
                doc == document.id and start + first < stop and begin < start + last
                for doc, begin, stop in gold
            )
        ),
    )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return a sentence without rules of tables around it; None where these, or the number in a list, are all."""
    lines = text[start:end].split("\n")
    while lines and not any(map(str.isalnum, lines[-1])):
        end -= len(lines.pop()) + 1
    while lines and not any(map(str.isalnum, lines[0])):
        start += len(lines.pop(0)) + 1
    return (start, end) if lines and not _LIST_NUMBER.fullmatch("\n".join(lines)) else None


def _has(passage: LabelPassage, gold: Span) -> bool:
    doc, start, end = gold
    return (
        passage.doc_id == doc and passage.start <= start and end <= passage.start + len(passage.text.rstrip())
    )


def _stating(question: Question, text: str) -> tuple[tuple[int, int], ...]:
    """Return the place of the sentence that states a short answer and has most words of question and reference.

    Answers that are a short word alone ("yes") are in too many sentences.
    """
    answers = [normalise_text(answer) for answer in (*question.answers, *question.all_of)]
    stated = [answer for answer in answers if len(answer) > 3 or any(map(str.isdigit, answer))]
    wanted = set(normalise_text(f"{question.question} {question.reference or ''}").split())
    shared_words: dict[tuple[int, int], int] = {}
    for start, end in sentence_spans(text):
        sentence = normalise_text(text[start:end])
        if any(f" {answer} " in f" {sentence} " for answer in stated):
            shared_words[start, end] = len(wanted & set(sentence.split()))
    return (max(shared_words, key=lambda place: shared_words[place]),) if shared_words else ()


def gold_shown(question: Question) -> str:
    """Return the gold answer of a question as it is shown: its reference, else its short answers; "" without any."""
    return question.reference or "; ".join(question.short_answers) or question.fact or ""
