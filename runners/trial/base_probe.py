"""Ask the base model in several ways: from memory, with the supporting passage, and with what retrieval returns.

:func:`probe_base_model` asks the dev questions in each way and judges the answers without a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rag.files import sha256_text, write_json
from rag.grounding.refusal import RefusalThreshold
from rag.types import Chunk, Hit
from runners.arms.few_shot import (
    NEAREST_TOKENS_CPU,
    TURN_TOKENS,
    ExamplePool,
    NearestExamples,
    NearestSetting,
)
from runners.arms.gold_passages import GoldPassages
from runners.arms.prompts import FewShotExamples, choose_shots
from runners.arms.retriever import Retrieved, Retriever, index_settings
from runners.data.document_sample import (
    DEFAULT_BUDGET,
    DocumentSample,
    EmbeddingBudget,
    block_texts,
    sample_within_budget,
)
from runners.data.examples import Example
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep, IndexStep
from runners.run_folder import INDEX, read_journal
from runners.runs.opened import OpenRun
from runners.scoring.correctness import references_of
from runners.scoring.scores import score_answer, token_f1
from runners.scoring.style_checks import in_style
from runners.tokenization.token_estimate import CHARS_PER_TOKEN
from runners.trial.trial import ANSWERS, run_arm

CLOSED = "closed-book"
OPEN = "open-book"
RETRIEVED = "retrieved"
ALONE = "examples"
SAMPLE_FILE = "portion.json"
FEW_SHOT = "few-shot"
CLASSIFIER = "classifier"
PROBE_WAYS = (CLOSED, OPEN, RETRIEVED, ALONE, FEW_SHOT)
PROBE_SHOTS = 8
"""Examples in the prompt: the number of nearest examples that a trial tries first (runners.arms.few_shot)."""
PROBE_EXAMPLES = 10
"""Training examples that prompting alone is tried on: Manning, Building Reliable AI Systems, ch. 5, stops at 8 of 10."""
RECALL_SHARE = 0.5
"""Share of the gold's content words that a correct answer must contain, besides all numbers and the yes or
no; a paraphrase keeps names and amounts, and seldom more."""
_NEVER = RefusalThreshold(weights={}, bias=1.0, how="probe")
"""A threshold that never refuses: the probe measures whether the passages suffice."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """One answer of the probe with its judgement by rule."""

    way: str
    id: str
    answerable: bool
    right: bool | None
    """Whether it contains the gold (or refuses when there is none); None when there is no gold to compare with."""
    style: bool | None
    """Whether it meets every style check; None without checks."""
    answer: str
    f1: float | None = None
    """Token F1 against the best reference, 0 to 1; None without one, for a refusal, and for an answer that was cut."""


@dataclass(frozen=True, slots=True)
class ClassifiedRows:
    """Labels that a classifier over embeddings gives to training examples in cross-validation.

    Attributes:
        right: rows that got their own label.
        n: rows that were judged.
        left_out: rows that were not: those whose reply is no label of the plan, and those beyond the most that are drawn.
    """

    right: int
    n: int
    left_out: int


@dataclass(frozen=True, slots=True)
class ProbeReplies:
    """All answers of the probe, and counts of what could not be asked."""

    replies: tuple[ProbeReply, ...]
    questions: int
    grounded: frozenset[str]
    """Ids of the questions whose supporting passage is known; only these are asked with passages."""
    ungrounded: int
    """Number of answerable questions without a known supporting passage."""
    brought: int
    """Number of grounded questions for which retrieval returned the supporting passage."""
    cut: int = 0
    """Answers cut by the probe's token limit, which is below the plan's own: their style is not judged."""
    portion: DocumentSample | None = None
    """The part of the documents that was indexed; None for all of them."""
    classified: ClassifiedRows | None = None
    """The classifier's labels; None where replies are no labels, or it was not measured."""

    def of(self, way: str) -> list[ProbeReply]:
        """Return the replies of one way, in the order of the questions."""
        return [reply for reply in self.replies if reply.way == way]


class GivenContext(Retriever):
    """A retriever that returns a question's supporting passage and nothing else."""

    def __init__(self, retriever: Retriever, gold: Mapping[str, Chunk]) -> None:
        """Take a retriever, whose settings format the passages; ``gold`` is the passage by question text."""
        super().__init__(retriever.index, retriever.step, _NEVER, retriever.count_tokens, retriever.controls)
        self._gold = gold

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Return each question's supporting passage."""
        hits = [(Hit(self._gold[question], 1.0, 1.0, 0.0),) for question in questions]
        return [
            Retrieved(
                question_hits,
                self.format_hits(question_hits, question),
                _NEVER.decide(question, question_hits),
            )
            for question, question_hits in zip(questions, hits, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of asking: its name, the questions, what provides passages, and the examples in the prompt."""

    name: str
    questions: Sequence[Question]
    finder: Retriever | None = None
    shots: FewShotExamples = ()


def probe_base_model(
    context: OpenRun,
    count: int = PROBE_EXAMPLES,
    longest: int = 0,
    shots: int = 0,
    classify: bool = False,
    budget: EmbeddingBudget = DEFAULT_BUDGET,
) -> ProbeReplies:
    """Ask the dev questions in every way that the data allow, then some training examples.

    Answers that the run's journal already holds are taken from it. The index is built first when the plan has
    one.

    Args:
        context: the run.
        count: the number of training examples to ask.
        longest: the tokens that an answer may have in the real run, when the context's plan allows fewer.
        shots: examples to show when everything that is asked without passages is asked once more with examples; 0 does
            not ask again.
        classify: whether the replies of the examples are labels that a classifier over embeddings is measured on.
        budget: for embedding the documents.
    """
    plan, dev = context.plan, list(context.split.dev)
    gold: dict[str, Chunk] = {}
    given = retriever = sample = None
    example_set = example_questions(context.examples, count, plan.seed)
    bank = _bank(context, example_set, shots) if shots else ()
    first = 1
    if plan.index is not None and dev:
        total = 4 + bool(example_set) + bool(bank) + classify
        context.emit({"event": "step.start", "step": INDEX, "number": 1, "total": total})
        retriever, sample = _retriever(context, plan.index, budget)
        context.emit({"event": "step.end", "step": INDEX})
        first = 2
        gold = gold_passages(retriever.index.chunks, dev)
        given = GivenContext(retriever, {q.question: gold[q.id] for q in dev if q.id in gold})
    grounded = [q for q in dev if q.id in gold]
    ways = (_Way(CLOSED, dev), _Way(OPEN, grounded, given), _Way(RETRIEVED, grounded, retriever))
    again = _Way(FEW_SHOT, [*dev, *example_set] if bank else [], None, bank)
    asked = [way for way in (*ways, _Way(ALONE, example_set), again) if way.questions]
    last = len(asked) + first - 1 + classify
    replies: list[ProbeReply] = []
    cut = 0
    for number, way in enumerate(asked, first):
        context.emit({"event": "step.start", "step": way.name, "number": number, "total": last})
        way_replies, way_cut = _ask(context, way, plan.max_new_tokens < longest)
        replies += way_replies
        cut += way_cut
        context.emit({"event": "step.end", "step": way.name})
    classified = None
    if classify:
        context.emit({"event": "step.start", "step": CLASSIFIER, "number": last, "total": last})
        classified = _classified(context)
        context.emit({"event": "step.end", "step": CLASSIFIER})
    retrieved_gold = _count_gold_retrieved(retriever, grounded, gold) if retriever is not None else 0
    ungrounded = sum(q.answerable for q in dev) - len(grounded) if retriever is not None else 0
    return ProbeReplies(
        tuple(replies), len(dev), frozenset(gold), ungrounded, retrieved_gold, cut, sample, classified
    )


def _ask(context: OpenRun, way: _Way, limited: bool) -> tuple[list[ProbeReply], int]:
    """Ask the questions of one way; return the judged replies, and how many were cut at the probe's own limit.

    Args:
        context: the run.
        way: the way.
        limited: whether the probe allows fewer tokens than the real run.
    """
    plan, journal = context.plan, context.folder.path / ANSWERS
    arm = EvaluateStep(arm=way.name, retrieval=way.finder is not None)
    generator = context.models.generator(None, arm)
    context.models.report_decoding(generator)
    run_arm(plan, arm, plan.seed, way.questions, generator, way.finder, way.shots, journal, context.emit)
    rows = {row["id"]: row for row in read_journal(journal) if row["arm"] == way.name}
    was_cut = {question.id: limited and rows[question.id]["finish"] == "length" for question in way.questions}
    replies = [
        judge_reply(plan, way.name, question, rows[question.id]["answer"], was_cut[question.id])
        for question in way.questions
    ]
    return replies, sum(was_cut.values())


def _bank(context: OpenRun, asked: Sequence[Question], count: int) -> FewShotExamples:
    """Return the examples to show: where replies are labels or JSON, the nearest to each question; else a fixed bank.

    Examples that are asked themselves are left out. Without an embedder the bank is fixed. An example is counted as its
    characters divided by CHARS_PER_TOKEN, and those that would make a prompt longer than a plan's nearest examples may be
    are left out. () where not even two can be shown.
    """
    lines = {question.line for question in asked}
    usable = [row for row in context.examples if not row.raw and row.line not in lines]
    closed = any(check.kind in ("labels", "json_schema") for check in context.plan.checks)
    if closed and context.models.has_embedder and len(usable) > count:
        pool = ExamplePool(usable, lambda text: round(len(text) / CHARS_PER_TOKEN), context.models.embedder)
        lengths = sorted(map(pool.tokens, range(len(pool.rows))))
        if 2 * lengths[len(lengths) // 2] <= NEAREST_TOKENS_CPU:
            return NearestExamples(pool, NearestSetting(count, True, NEAREST_TOKENS_CPU))
        return ()
    shown: list[Example] = []
    left = float(NEAREST_TOKENS_CPU)
    for row in choose_shots(usable, count, context.plan.seed):
        left -= (len(row.question) + len(row.reply)) / CHARS_PER_TOKEN + 2 * TURN_TOKENS
        if left >= 0:
            shown.append(row)
    return tuple(shown) if len(shown) >= 2 else ()


def _classified(context: OpenRun) -> ClassifiedRows:
    """Return the cross-validated labels of a classifier over the embeddings of the examples."""
    from runners.arms.classifier import labelled_texts
    from runners.classification.linear_head import cross_validated_rows

    rows, left_out = labelled_texts(context.plan, context.examples)
    vectors = context.models.embedder.encode([text for text, _ in rows])
    right, judged = cross_validated_rows(vectors, [label for _, label in rows], context.plan.seed)
    return ClassifiedRows(right, judged, left_out + len(rows) - judged)


def judge_reply(plan: Plan, way: str, question: Question, answer: str, cut: bool = False) -> ProbeReply:
    """Judge one answer by the question's gold and the plan's checks.

    The style of an answer that was cut is not judged. Such an answer still counts as wrong when it does not
    contain the fact by then: leaving out long-winded answers would flatter the model.
    """
    style = None if cut else in_style(answer, plan.checks)
    references = references_of(question) if question.answerable and not cut else ()
    return ProbeReply(
        way,
        question.id,
        question.answerable,
        holds_gold(plan, question, answer),
        None if style is None else bool(style),
        answer,
        max((token_f1(answer, reference) for reference in references), default=None),
    )


def holds_gold(plan: Plan, question: Question, answer: str) -> bool | None:
    """Return whether an answer contains the question's gold; None when the question has none.

    Labels and JSON must equal the reference. Prose must contain half of the fact's content words, all its
    numbers and its yes or no. For a question without an answer, a refusal is right.
    """
    scores = score_answer(plan, question, answer, (), False)
    if not question.answerable:
        return scores["refusal"] == 1
    if any(check.kind in ("labels", "json_schema") for check in plan.checks):
        exact = scores.get("exact_match")
        return None if exact is None else exact == 1 or _equals_json_reference(answer, question)
    parts = {name: scores[name] for name in ("fact_recall", "agreement") if name in scores}
    if not parts:
        return scores["token_f1"] >= RECALL_SHARE if "token_f1" in scores else None
    return parts.get("fact_recall", 1.0) >= RECALL_SHARE and parts.get("agreement", 1.0) == 1


def example_questions(examples: Sequence[Example], count: int, seed: int) -> list[Question]:
    """Sample examples by the seed and return them as questions with their replies as gold.

    Plain texts are left out, since they hold no question.
    """
    usable = [example for example in examples if not example.raw and example.question.strip()]
    drawn = sorted(
        usable, key=lambda example: sha256_text(f"{seed}\0probe\0{example.question}\0{example.reply}")
    )[:count]
    return [
        Question(
            f"example-{example.line}",
            example.question,
            reference=example.reply,
            answerable=not example.refuses,
            system=example.system or None,
            fact=example.meta["fact"] if isinstance(example.meta.get("fact"), str) else None,
            line=example.line,
            history=tuple(message for message in example.messages[:-2] if message["role"] != "system"),
        )
        for example in drawn
    ]


def gold_passages(chunks: Sequence[Chunk], questions: Sequence[Question]) -> dict[str, Chunk]:
    """Return the supporting chunk of each answerable question that has one, by question id.

    It is the chunk of the question's gold span, else the one whose text supports its gold.
    """
    finder = GoldPassages(chunks)
    passages: dict[str, Chunk] = {}
    for question in questions:
        if not question.answerable:
            continue
        chunk = _chunk_of_span(chunks, question) or _chunk_of_text(finder, chunks, question)
        if chunk is not None:
            passages[question.id] = chunk
    return passages


def _chunk_of_span(chunks: Sequence[Chunk], question: Question) -> Chunk | None:
    """Return the chunk that overlaps most with the question's gold spans; None without spans."""
    of_document = [chunk for chunk in chunks if chunk.doc == question.doc_id] if question.spans else []

    def overlap(chunk: Chunk) -> int:
        return sum(max(0, min(chunk.end, end) - max(chunk.start, start)) for start, end in question.spans)

    best = max(of_document, key=overlap, default=None)
    return best if best is not None and overlap(best) else None


def _chunk_of_text(finder: GoldPassages, chunks: Sequence[Chunk], question: Question) -> Chunk | None:
    """Return the chunk that supports the question's reference, fact or answer, else the only chunk of its document."""
    meta = {"doc_id": question.doc_id, "fact": question.fact}
    for reply in filter(None, (question.reference, question.fact, *question.short_answers)):
        messages = ({"role": "user", "content": question.question}, {"role": "assistant", "content": reply})
        if chunk := finder.find(Example(messages, meta, question.line)):
            return chunk
    of_document = [chunk for chunk in chunks if chunk.doc == question.doc_id]
    return of_document[0] if len(of_document) == 1 else None


def _retriever(
    context: OpenRun, step: IndexStep, budget: EmbeddingBudget
) -> tuple[Retriever, DocumentSample | None]:
    """Return a retriever that never refuses, over the plan's documents or a sample of them, and the sample.

    The index is built in the run's folder when there is none.
    """
    from rag.index import Index

    folder = context.folder.path / INDEX
    if not (folder / "CURRENT").is_file():
        assert context.plan.data.documents is not None
        sample = _sample_documents(context, step, budget)
        write_json(context.folder.path / SAMPLE_FILE, None if sample is None else asdict(sample))
        document_ids = None if sample is None else sample.ids
        Index.build(
            folder,
            context.plan.data.documents,
            context.models.embedder,
            index_settings(step),
            context.emit,
            only=document_ids,
        )
    sample = _read_sample(context.folder.path / SAMPLE_FILE)
    models, index = context.models, context.retrieval.index
    count, controls = models.token_counter(models.base), models.control_tokens(models.base)
    return Retriever(index, step, _NEVER, count, controls), sample


def _read_sample(path: Path) -> DocumentSample | None:
    """Return the stored sample of the documents; None when all were indexed."""
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return None if stored is None else DocumentSample(**{**stored, "ids": tuple(stored["ids"])})


def _sample_documents(context: OpenRun, step: IndexStep, budget: EmbeddingBudget) -> DocumentSample | None:
    """Return the sample of the documents to index, with those that the dev questions need; None for all of them."""
    from rag.loading.reader import load_documents

    assert context.plan.data.documents is not None
    documents = load_documents(context.plan.data.documents).documents

    def gold() -> set[str]:
        ids = {document.id for document in documents}
        named = {question.doc_id for question in context.split.dev if question.doc_id}
        return named & ids | {
            chunk.doc for chunk in gold_passages(block_texts(documents), context.split.dev).values()
        }

    sample = sample_within_budget(
        documents, gold, context.models.embedder, index_settings(step), context.plan.seed, budget
    )
    if sample is not None:
        context.emit({"event": "index.sampled", **sample.to_json(), "reason": sample.text})
    return sample


def _count_gold_retrieved(
    retriever: Retriever, questions: Sequence[Question], gold: Mapping[str, Chunk]
) -> int:
    """Return for how many questions a hit overlaps with the supporting passage."""
    results = retriever.find([question.question for question in questions]) if questions else []
    return sum(
        any(
            hit.chunk.doc == passage.doc and hit.chunk.start < passage.end and passage.start < hit.chunk.end
            for hit in result.hits
        )
        for result, passage in zip(results, (gold[question.id] for question in questions), strict=True)
    )


def _equals_json_reference(answer: str, question: Question) -> bool:
    try:
        given = json.loads(answer)
        return any(
            given == json.loads(reference)
            for reference in (*question.references, question.reference or "")
            if reference
        )
    except ValueError:
        return False
