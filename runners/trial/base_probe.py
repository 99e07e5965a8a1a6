"""The base model asked in several ways: from memory, with the supporting passage, with what retrieval finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rag.files import sha256_text, write_json
from rag.grounding.refusal import RefusalThreshold
from rag.types import Chunk, Hit
from runners.arms.raft import GoldPassages
from runners.arms.retriever import Retrieved, Retriever, control_tokens, index_settings, token_counter
from runners.data.document_sample import DocumentSample, block_texts, sample_within_budget
from runners.data.examples import Example
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep, IndexStep
from runners.run_folder import INDEX, read_journal
from runners.runs.session import RunContext
from runners.scoring.scores import score_answer
from runners.scoring.style_checks import in_style
from runners.trial.trial import ANSWERS, run_arm

CLOSED, OPEN, RETRIEVED, ALONE = "closed-book", "open-book", "retrieved", "examples"
SAMPLE_FILE = "portion.json"
PROBE_WAYS = (CLOSED, OPEN, RETRIEVED, ALONE)
PROBE_EXAMPLES = 10
"""Real examples that prompting alone is tried on: Manning, Building Reliable AI Systems, ch. 5, stops at 8 of 10."""
RECALL_SHARE = 0.5
"""Share of the gold's own words that a right answer holds, beside all of its numbers and its yes or no: a
paraphrase keeps names and amounts, and seldom more."""
_NEVER = RefusalThreshold({}, 1.0, "probe")
"""Refuses nothing: what is measured is whether the passages that are found suffice."""


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """One answer, judged without a model."""

    way: str
    id: str
    answerable: bool
    right: bool | None
    """Holds the gold (or refuses where there is none); None where there is nothing to judge by."""
    style: bool | None
    """Meets every check of the house style; None without checks."""
    answer: str


@dataclass(frozen=True, slots=True)
class ProbeReplies:
    """Everything that was asked, and what was not and why."""

    replies: tuple[ProbeReply, ...]
    questions: int
    grounded: frozenset[str]
    """Questions whose supporting passage is known: only these are asked with passages."""
    ungrounded: int
    """Answerable questions that no passage was found for."""
    brought: int
    """Grounded questions to which retrieval brought the supporting passage."""
    cut: int = 0
    """Answers that the probe's limit cut below the plan's own: their style is not judged."""
    portion: DocumentSample | None = None
    """The part of the documents that was indexed; None for all of them."""

    def of(self, way: str) -> list[ProbeReply]:
        """The replies of one way, in the order of the questions."""
        return [reply for reply in self.replies if reply.way == way]


class GivenContext(Retriever):
    """A retriever that hands over the supporting passage, and nothing else."""

    def __init__(self, retriever: Retriever, gold: Mapping[str, Chunk]) -> None:
        """Take an ordinary retriever's way of showing passages; ``gold`` is by the question's words."""
        super().__init__(retriever.index, retriever.step, _NEVER, retriever.count_tokens, retriever.controls)
        self._gold = gold

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Return each question's supporting passage."""
        hits = [(Hit(self._gold[question], 1.0, 1.0, 0.0),) for question in questions]
        return [
            Retrieved(found, self.format_hits(found, question), _NEVER.decide(question, found))
            for question, found in zip(questions, hits, strict=True)
        ]


def probe_base_model(context: RunContext, count: int = PROBE_EXAMPLES, longest: int = 0) -> ProbeReplies:
    """Ask the dev questions every way that the data allow, then so many examples; nothing is asked twice.

    What the run's journal holds already is taken from there. The index is built first where the plan has one.
    ``longest`` is the tokens that an answer may have in earnest, when that is more than the context's plan allows.
    """
    plan, dev = context.plan, list(context.split.dev)
    gold: dict[str, Chunk] = {}
    plain = retriever = part = None
    shown = example_questions(context.examples, count, plan.seed)
    first = 1
    if plan.index is not None and dev:
        context.emit({"event": "step.start", "step": INDEX, "number": 1, "total": 4 + bool(shown)})
        retriever, part = _retriever(context, plan.index)
        context.emit({"event": "step.end", "step": INDEX})
        first = 2
        gold = gold_passages(retriever.index.chunks, dev)
        plain = GivenContext(retriever, {q.question: gold[q.id] for q in dev if q.id in gold})
    grounded = [q for q in dev if q.id in gold]
    orders = [
        (CLOSED, dev, None),
        (OPEN, grounded, plain),
        (RETRIEVED, grounded, retriever),
        (ALONE, shown, None),
    ]
    asked = [order for order in orders if order[1]]
    journal = context.run.path / ANSWERS
    replies: list[ProbeReply] = []
    cut = 0
    for number, (way, questions, found) in enumerate(asked, first):
        context.emit({"event": "step.start", "step": way, "number": number, "total": len(asked) + first - 1})
        arm = EvaluateStep(arm=way, retrieval=found is not None)
        run_arm(plan, arm, plan.seed, questions, context.generator(None, arm), found, (), journal, context.emit)
        said = {row["id"]: row for row in read_journal(journal) if row["arm"] == way}
        short = plan.max_new_tokens < longest
        for question in questions:
            row = said[question.id]
            stopped = short and row["finish"] == "length"
            cut += stopped
            replies.append(judge_reply(plan, way, question, row["answer"], stopped))
        context.emit({"event": "step.end", "step": way})
    brought = _brought(retriever, grounded, gold) if retriever is not None else 0
    ungrounded = sum(q.answerable for q in dev) - len(grounded) if retriever is not None else 0
    return ProbeReplies(tuple(replies), len(dev), frozenset(gold), ungrounded, brought, cut, part)


def judge_reply(plan: Plan, way: str, question: Question, answer: str, cut: bool = False) -> ProbeReply:
    """Judge one answer by the question's gold and the plan's checks.

    One that was cut has no style to judge. It is still wrong where it has not come to the fact by then: leaving
    long-winded answers out would flatter the model.
    """
    style = None if cut else in_style(answer, plan.checks)
    return ProbeReply(
        way,
        question.id,
        question.answerable,
        holds_gold(plan, question, answer),
        None if style is None else bool(style),
        answer,
    )


def holds_gold(plan: Plan, question: Question, answer: str) -> bool | None:
    """Whether an answer holds the question's gold; None when the question has none.

    Labels and JSON must be the reference. Prose must hold half of the fact's own words, all of its numbers and its
    yes or no. Where there is no answer, refusing is right.
    """
    scores = score_answer(plan, question, answer, (), False)
    if not question.answerable:
        return scores["refusal"] == 1
    if any(check.kind in ("labels", "json_schema") for check in plan.checks):
        exact = scores.get("exact_match")
        return None if exact is None else exact == 1 or _same_json(answer, question)
    found = {name: scores[name] for name in ("fact_recall", "agreement") if name in scores}
    if not found:
        return scores["token_f1"] >= RECALL_SHARE if "token_f1" in scores else None
    return found.get("fact_recall", 1.0) >= RECALL_SHARE and found.get("agreement", 1.0) == 1


def example_questions(examples: Sequence[Example], count: int, seed: int) -> list[Question]:
    """Draw examples by the seed and put them as questions, with their replies as gold; plain texts have no question."""
    usable = [e for e in examples if not e.raw and e.question.strip()]
    drawn = sorted(usable, key=lambda e: sha256_text(f"{seed}\0probe\0{e.question}\0{e.reply}"))[:count]
    return [
        Question(
            f"example-{e.line}",
            e.question,
            reference=e.reply,
            answerable=not e.refuses,
            system=e.system or None,
            fact=e.meta["fact"] if isinstance(e.meta.get("fact"), str) else None,
            line=e.line,
            history=tuple(m for m in e.messages[:-2] if m["role"] != "system"),
        )
        for e in drawn
    ]


def gold_passages(chunks: Sequence[Chunk], questions: Sequence[Question]) -> dict[str, Chunk]:
    """Return the supporting chunk of every answerable question that has one: by its span, else as for training rows."""
    finder = GoldPassages(chunks)
    found: dict[str, Chunk] = {}
    for question in questions:
        if not question.answerable:
            continue
        chunk = _spanned(chunks, question) or _supporting(finder, chunks, question)
        if chunk is not None:
            found[question.id] = chunk
    return found


def _spanned(chunks: Sequence[Chunk], question: Question) -> Chunk | None:
    """The chunk that holds most of the question's gold spans."""
    near = [c for c in chunks if c.doc == question.doc_id] if question.spans else []

    def held(chunk: Chunk) -> int:
        return sum(max(0, min(chunk.end, end) - max(chunk.start, start)) for start, end in question.spans)

    best = max(near, key=held, default=None)
    return best if best is not None and held(best) else None


def _supporting(finder: GoldPassages, chunks: Sequence[Chunk], question: Question) -> Chunk | None:
    """The chunk that supports the question's reference, fact or answer; the only one of a document that is named."""
    meta = {"doc_id": question.doc_id, "fact": question.fact}
    for reply in filter(None, (question.reference, question.fact, *question.answers)):
        turns = ({"role": "user", "content": question.question}, {"role": "assistant", "content": reply})
        if chunk := finder.find(Example(turns, meta, question.line)):
            return chunk
    near = [c for c in chunks if c.doc == question.doc_id]
    return near[0] if len(near) == 1 else None


def _retriever(context: RunContext, step: IndexStep) -> tuple[Retriever, DocumentSample | None]:
    """The index of the plan's documents, or of a part, built in the run's folder unless it is there, refusing nothing."""
    from rag.index import Index
    from runners.models.resolve import Model

    folder = context.run.path / INDEX
    if not (folder / "CURRENT").is_file():
        assert context.plan.data.documents is not None
        part = _portion(context, step)
        write_json(context.run.path / SAMPLE_FILE, None if part is None else asdict(part))
        only = None if part is None else part.ids
        Index.build(
            folder, context.plan.data.documents, context.embedder, index_settings(step), context.emit, only=only
        )
    part = _kept(context.run.path / SAMPLE_FILE)
    base = context.base.folder if isinstance(context.base, Model) else None
    return Retriever(context.index, step, _NEVER, token_counter(base), control_tokens(base)), part


def _kept(path: Path) -> DocumentSample | None:
    found = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return None if found is None else DocumentSample(**{**found, "ids": tuple(found["ids"])})


def _portion(context: RunContext, step: IndexStep) -> DocumentSample | None:
    """The part of the documents to index: with those that the dev questions name or whose text supports their gold."""
    from rag.loading.reader import load_documents

    assert context.plan.data.documents is not None
    documents = load_documents(context.plan.data.documents).documents

    def gold() -> set[str]:
        there = {document.id for document in documents}
        named = {question.doc_id for question in context.split.dev if question.doc_id}
        return named & there | {
            c.doc for c in gold_passages(block_texts(documents), context.split.dev).values()
        }

    found = sample_within_budget(documents, gold, context.embedder, index_settings(step), context.plan.seed)
    if found is not None:
        context.emit({"event": "index.sampled", **found.to_json(), "reason": found.text})
    return found


def _brought(retriever: Retriever, questions: Sequence[Question], gold: Mapping[str, Chunk]) -> int:
    found = retriever.find([q.question for q in questions]) if questions else []
    return sum(
        any(h.chunk.doc == g.doc and h.chunk.start < g.end and g.start < h.chunk.end for h in brought.hits)
        for brought, g in zip(found, (gold[q.id] for q in questions), strict=True)
    )


def _same_json(answer: str, question: Question) -> bool:
    try:
        said = json.loads(answer)
        return any(said == json.loads(ref) for ref in (*question.references, question.reference or "") if ref)
    except ValueError:
        return False
