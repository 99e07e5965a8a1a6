"""The work behind ``tunewise index search``: hits for people, for programs, and for a file of questions."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from advisor.output import emit_result, note
from advisor.workflows.index_build import load_embedder, load_reranker
from rag.backends.base import shown_url
from rag.evaluation import metrics
from rag.evaluation.gold_documents import match_documents, require_match
from rag.grounding.context import select_passages
from rag.grounding.refusal import SIGNAL_DEPTH
from rag.index import Index, newest_generation
from rag.loading.base import printable
from rag.refusal.gate import GateSettings, fit_gate, read_hits
from rag.text.sanitize import single_line
from rag.text.words import count_noun
from rag.types import Chunk, Hit, Results
from runners.data.questions import load_questions, with_document_ids, with_wordings
from runners.models.answer_reader import AnswerReader, load_answer_reader, why_not_english
from runners.trial.refusal_gate import dev_questions

if TYPE_CHECKING:
    from rag.embedding.reranker import Scorer
    from rag.grounding.refusal import RefusalDecision, RefusalThreshold
    from rag.search.query import Query
    from runners.data.questions import Question

LINES_SHOWN = 4
"""Lines of a passage that are shown on a terminal."""


@dataclass(frozen=True, slots=True)
class SearchSource:
    """The index and the models that search it, by the names that the user gave."""

    location: Path | str
    """Folder, or URL of an index in a database."""
    embedder: str
    reranker: str = ""

    def open(self) -> Any:
        """Load the models and open the index."""
        newest_generation(self.location)  # what is wrong with the index is said before models are loaded
        reranker = load_reranker(self.reranker) if self.reranker else None
        return Index.open(self.location, load_embedder(self.embedder), reranker)


def search_index(source: SearchSource, question: str, query: Query, as_json: bool) -> None:
    """Search for one question and print its hits to stdout; notes on what was left out go to stderr."""
    results = source.open().find(question, query)
    if as_json:
        emit_result(results.to_json())
        return
    width = min(100, shutil.get_terminal_size().columns - 1)
    for rank, hit in enumerate(results.hits, 1):
        print("\n".join(hit_lines(rank, hit, width)))
    if not results.hits:
        print("nothing was found")
    _print_notes(results.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """The refusal gate that a file of questions is searched with, as the user asked for it."""

    dev: Path
    """The dev questions that it is fitted on."""
    gate: str = "fitted"
    most_wrong: float = 0.05


def search_file(
    source: SearchSource, path: Path, query: Query, as_json: bool, request: GateRequest | None = None
) -> None:
    """Search for every question of a file, each wording like the question; print each with the places of its hits.

    As JSON that is a line for each question.

    With a gate each line says whether the question is refused, and hits are in the order in which they would be shown to a
    model. With gold, scores go to stderr.
    """
    index = source.open()
    rows = with_wordings(_matched_questions(index, source, path))
    gate = _fitted_gate(index, source, request, rows) if request else None
    wanted = replace(query, k=max(query.k, SIGNAL_DEPTH)) if gate else query
    all_results = index.find_many([row.question for row in rows], wanted)
    refused = []
    for number, (row, results) in enumerate(zip(rows, all_results, strict=True)):
        body: dict[str, Any] = {"id": row.id, "question": row.question}
        if row.wording_of:
            body["wording_of"] = row.wording_of
        if gate:
            hits, decision = gate.decide(index, row.question, results.hits)
            all_results[number] = results = replace(results, hits=tuple(hits[: query.k]))
            refused.append(decision.refuse)
            body |= {"refused": decision.refuse, "gate": decision.to_json()}
        if as_json:
            emit_result(body | results.to_json())
        else:
            print("\n".join(_places(row, results, bool(body.get("refused")))))
    _print_notes(dict.fromkeys(text for results in all_results for text in results.notes))
    for line in scores_by_wording(rows, all_results, refused, query.k, index.raw):
        print(line, file=sys.stderr)


def _matched_questions(index: Any, source: SearchSource, path: Path) -> tuple[Question, ...]:
    """Read questions whose gold documents are those of the index."""
    rows = load_questions(path)
    match = match_documents([row.doc_id for row in rows if row.doc_id], index.backend.document_ids())
    require_match(match, path, shown_url(str(source.location)))
    _print_notes(match.lines(path))
    return with_document_ids(rows, match.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FittedGate:
    """A gate with the model that it reads by."""

    threshold: RefusalThreshold
    reader: Scorer | None

    def decide(self, index: Any, question: str, hits: Sequence[Hit]) -> tuple[Sequence[Hit], RefusalDecision]:
        """Return the hits as they would be shown, and the decision."""
        return read_hits(index, self.threshold, self.reader, question, hits)


def _fitted_gate(
    index: Any, source: SearchSource, request: GateRequest, asked: Sequence[Question]
) -> _FittedGate:
    """Fit the gate on the dev questions; a note says how many of those are asked too."""
    dev = dev_questions(_matched_questions(index, source, request.dev))
    known = {question.question for question in dev}
    if both := sum(row.question in known for row in asked):
        note(
            f"note: {both} of the questions are among the {len(known)} that the gate is fitted on, and prove nothing of it"
        )
    reason = why_not_english([question.question for question in dev])
    embedder = getattr(index.encoder, "folder", None)
    reader = AnswerReader(why_not=reason) if reason else load_answer_reader(embedder)
    settings = GateSettings(
        gate=request.gate,  # type: ignore[arg-type]
        most_wrong=request.most_wrong,
        reader=reader.model,
        why_not_read=reader.why_not,
    )
    threshold = fit_gate(index, dev, settings)
    note(f"gate {threshold.gate}, by {threshold.how}: {threshold.note}")
    return _FittedGate(threshold=threshold, reader=reader.model)


def scores_by_wording(
    rows: Sequence[Question],
    all_results: Sequence[Results],
    refused: Sequence[bool],
    k: int,
    raw: Callable[[str], str | None],
) -> list[str]:
    """Return lines with scores, apart for questions and for their other wordings where there are any.

    Args:
        rows: what was asked.
        all_results: the results, in the same order.
        refused: whether each was refused; () without a gate.
        k: number of passages that were asked for.
        raw: returns the text of a document.
    """
    lines = []
    for title, other in (("questions", False), ("other wordings", True)):
        chosen = [n for n, row in enumerate(rows) if bool(row.wording_of) == other]
        if not chosen:
            continue
        part = retrieval_scores([rows[n] for n in chosen], [all_results[n] for n in chosen], k, raw)
        for answerable, text in ((True, "wrongly"), (False, "rightly")) if refused else ():
            of = [n for n in chosen if rows[n].answerable == answerable]
            part.append(f"refused {text}: {sum(refused[n] for n in of)} of {len(of)}")
        lines += [f"{title}: {line}" for line in part] if any(row.wording_of for row in rows) else part
    return lines


def hit_lines(rank: int, hit: Hit, width: int) -> list[str]:
    """Return a hit as lines for a terminal: rank, location, cosine and date, then heading and text.

    The fused score is not shown: it is scaled within the list, so that the first hit's is near 1 for any question.
    """
    details = [f"cosine {hit.dense:.2f}" + (f", reranker {hit.rerank:.2f}" if hit.rerank is not None else "")]
    details += [hit.date] if hit.date else []
    if hit.valid_until:
        details.append(f"EXPIRED {hit.valid_until}" if hit.expired else f"valid until {hit.valid_until}")
    lines = [f"{rank}. {_location(hit.chunk)}  ({'; '.join(map(single_line, details))})"]
    heading = single_line(" > ".join(part for part in (hit.chunk.title, hit.chunk.heading) if part))
    text = single_line(hit.chunk.text)
    lines += textwrap.wrap(heading, width, initial_indent="   ", max_lines=1, placeholder=" …")
    lines += textwrap.wrap(
        text, width, initial_indent="   ", subsequent_indent="   ", max_lines=LINES_SHOWN, placeholder=" …"
    )
    return lines + [f"   the same in {_location(chunk)}" for chunk in hit.same]


def retrieval_scores(
    rows: Sequence[Question], all_results: Sequence[Results], k: int, raw: Callable[[str], str | None]
) -> list[str]:
    """Return lines with scores against gold documents and gold spans; [] without gold.

    Args:
        rows: the questions.
        all_results: their results, in the same order.
        k: number of passages that were asked for.
        raw: returns the text of a document.
    """
    gold = [
        (row, row.doc_id, results.hits) for row, results in zip(rows, all_results, strict=True) if row.doc_id
    ]
    if not gold:
        return []
    rankings = [([hit.chunk.doc for hit in hits], [doc]) for _, doc, hits in gold]
    shares = [
        f"hit@{cutoff} {fmean(metrics.hit_at_k(docs, gold_docs, cutoff) for docs, gold_docs in rankings):.3f}"
        for cutoff in sorted({1, min(5, k), k})
    ]
    shares.append(
        f"recall@{k} {fmean(metrics.recall_at_k(docs, gold_docs, k) for docs, gold_docs in rankings):.3f}"
    )
    shares.append(f"MRR {fmean(metrics.mrr(docs, gold_docs) for docs, gold_docs in rankings):.3f}")
    lines = [f"{len(gold)} of {count_noun(len(rows), 'question')} with a gold document: {', '.join(shares)}"]
    spans = [
        metrics.measure_evidence(select_passages(hits, sys.maxsize, len), doc, raw(doc) or "", row.spans)
        for row, doc, hits in gold
        if row.spans
    ]
    if spans:
        lines.append(
            f"{len(spans)} with gold spans: span recall {fmean(evidence.recall for evidence in spans):.3f}, "
            f"all of the evidence in {fmean(evidence.full for evidence in spans):.3f}"
        )
    return lines


def _places(row: Question, results: Results, refused: bool) -> list[str]:
    """Return a question and the place of each of its hits, as lines for a person."""
    lines = [f"{single_line(row.id)}: {single_line(row.question)}{'  (refused)' if refused else ''}"]
    lines += [
        f"  {rank}. {_location(hit.chunk)}  (cosine {hit.dense:.2f})"
        for rank, hit in enumerate(results.hits, 1)
    ]
    return lines if results.hits else [*lines, "  nothing was found"]


def _location(chunk: Chunk) -> str:
    position = f"page {chunk.page}" if chunk.page else f"line {chunk.line_start}"
    return f"{printable(chunk.doc)}, {position}"


def _print_notes(notes: Iterable[str]) -> None:
    for text in notes:
        note(f"note: {text}")
