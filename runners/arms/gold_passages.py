"""The gold passages of a training example: those of the document that the row names, else those that support its reply.

Rows name their source in different ways. :func:`named_documents`, :func:`gold_spans` and :func:`quoted_texts` read the usual
keys of a row's meta; :class:`GoldPassages` turns them into passages of an index. :func:`find_gold_passage` decides for a
held-out question whether the passages hold its right answer at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.grounding.answer_search import AnswerFinder, FoundAnswer, states_something
from rag.grounding.gold import GoldFinder
from rag.sentences.claims import normalise_quotation
from rag.types import Chunk, Hit
from runners.data.examples import Example
from runners.data.questions import Question
from runners.scoring.correctness import gold_texts

DOCUMENT_ID_KEYS = ("doc_id", "doc_ids", "document_id", "document_ids")
"""Keys whose values are document ids; one that the index lacks is reported."""
DOCUMENT_KEYS = ("document", "documents", "doc", "docs", "source", "sources", "passage_id", "context_id")
"""Keys that may hold a document id among other things; a value that is no id is not one."""
SPAN_KEYS = ("spans", "span", "evidence", "gold_spans")
"""Keys of character offsets into the document, as objects with start and end, or as pairs."""
TEXT_KEYS = ("passage", "passages", "context", "contexts", "evidence", "quote", "quotes", "spans")
"""Keys of texts that stand in the document."""
MIN_QUOTE_WORDS = 3
"""Fewer words stand in many passages."""
DOCUMENT_PASSAGES = 2
"""Passages taken of a named document in which none supports the reply by its words."""
TURNS_BEFORE = 2
"""Turns before a question that are read with it, for what it is about."""
_IDS = ("doc_id", "document_id", "id", "doc")
_TEXTS = ("quote", "text", "passage", "content")


@dataclass(frozen=True, slots=True)
class RowGold:
    """The gold passages of one row."""

    passages: tuple[Chunk, ...] = ()
    """Best first; empty when the row has none."""
    by: str = ""
    """How they were found: fact, spans, quote, support, document (named by the row, its words not compared); "" for none."""
    documents: frozenset[str] = frozenset()
    """The documents of the index that the row names."""
    unknown: tuple[str, ...] = ()
    """Document ids of the row that the index does not have."""


class GoldPassages:
    """Finds the gold passages of examples, within their own documents when the rows name them."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Take all chunks; the finder of a document is built when a row first names it."""
        self._chunks = chunks
        self._of_document: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            self._of_document.setdefault(chunk.doc, []).append(chunk)
        self._finders: dict[tuple[str, ...], GoldFinder] = {}
        self._texts: dict[tuple[str, int], str] = {}

    def find(self, example: Example) -> Chunk | None:
        """Return the best passage that supports the example, or None; that a row names its document is not enough."""
        gold = self.gold_of(example)
        return gold.passages[0] if gold.by not in ("", "document") else None

    def gold_of(self, example: Example, hits: Sequence[Hit] = ()) -> RowGold:
        """Return an example's gold passages.

        A row's own ``fact`` is trusted, then its spans, then its quotations; else passages that support the reply are
        looked for, in the row's documents where it names any of the index, otherwise in all. Where none supports it, they
        are the best passages of the named documents.

        Args:
            example: the row.
            hits: what retrieval returns for its question, best first; it orders the passages of a named document.
        """
        names = tuple(dict.fromkeys(named_documents(example.meta)))
        documents = tuple(name for name in names if name in self._of_document)
        unknown = tuple(
            name
            for name in dict.fromkeys(_ids(example.meta, DOCUMENT_ID_KEYS))
            if name not in self._of_document
        )
        passages, by = self._trusted(example, documents)
        if not passages:
            passages = self._finder(documents).find_all(example.reply, example.question)
            by = "support" if passages else ""
        if not passages and documents:
            passages, by = self._best_of(documents, example, hits), "document"
        return RowGold(passages, by, frozenset(documents), unknown)

    def _trusted(self, example: Example, documents: Sequence[str]) -> tuple[tuple[Chunk, ...], str]:
        """Return the passages of the row's own fact, spans or quotations, and which of them; ((), "") for none."""
        within = [chunk for name in documents for chunk in self._of_document[name]]
        fact = example.meta.get("fact")
        if isinstance(fact, str):
            text = " ".join(fact.split())
            stated = [chunk for chunk in within if text in " ".join(chunk.text.split())]
            if stated or len(within) == 1:
                return ((stated or within)[0],), "fact"
        if chunks := self._overlapping(gold_spans(example.meta, documents)):
            return chunks, "spans"
        for quote in quoted_texts(example.meta):
            if chunks := self._with_text(quote, within):
                return GoldFinder(chunks).find_all(example.reply, example.question) or chunks[:1], "quote"
        return (), ""

    def _overlapping(self, spans: Sequence[tuple[str, int, int]]) -> tuple[Chunk, ...]:
        """Return the chunks that overlap spans (document, start, end), those with most characters of them first."""
        shared = [
            (max(chunk.start, start), min(chunk.end, end), chunk)
            for document, start, end in spans
            for chunk in self._of_document.get(document, ())
            if max(chunk.start, start) < min(chunk.end, end)
        ]
        chosen: list[tuple[int, int, Chunk]] = []
        for start, end, chunk in sorted(shared, key=lambda part: (part[0] - part[1], part[0])):
            # neighbouring chunks repeat each other's ends: what is in a chosen one already needs no second
            if not any(c.doc == chunk.doc and s <= start and end <= e for s, e, c in chosen):
                chosen.append((start, end, chunk))
        return tuple(dict.fromkeys(chunk for _, _, chunk in chosen))

    def _with_text(self, text: str, within: Sequence[Chunk]) -> tuple[Chunk, ...]:
        """Return the chunks that contain a text, else those that it contains, among these or else among all."""
        wanted = normalise_quotation(text)
        chunks = [(chunk, self._normalised(chunk)) for chunk in within or self._chunks]
        around = tuple(chunk for chunk, own in chunks if wanted in own)
        return around or tuple(chunk for chunk, own in chunks if own and own in wanted)

    def _normalised(self, chunk: Chunk) -> str:
        """Return a chunk's text as quotations are compared, stored because each row compares all."""
        key = chunk.doc, chunk.ordinal
        if key not in self._texts:
            self._texts[key] = normalise_quotation(chunk.text)
        return self._texts[key]

    def _finder(self, documents: tuple[str, ...]) -> GoldFinder:
        """Return the finder over these documents, over all for none."""
        if documents not in self._finders:
            chunks = [chunk for name in documents for chunk in self._of_document[name]]
            self._finders[documents] = GoldFinder(chunks or self._chunks)
        return self._finders[documents]

    def _best_of(
        self, documents: tuple[str, ...], example: Example, hits: Sequence[Hit]
    ) -> tuple[Chunk, ...]:
        """Return the best passages of named documents: by the search, then by shared words, then the first ones."""
        by_search = [hit.chunk for hit in hits if hit.chunk.doc in documents]
        by_words = self._finder(documents).most_related(example.reply, example.question, DOCUMENT_PASSAGES)
        rest = [chunk for name in documents for chunk in self._of_document[name]]
        return tuple(dict.fromkeys([*by_search, *by_words, *rest]))[:DOCUMENT_PASSAGES]


def find_gold_passage(finder: AnswerFinder, question: Question) -> FoundAnswer:
    """Return the passage that holds a question's right answer, as far as words can tell.

    The question, each of its wordings and its reference are tried. A gold span without a text of its own is trusted.

    Args:
        finder: of the passages of an index, or of documents.
        question: the question with its gold; one that has none, or no answer, is not decided.
    """
    if not question.answerable:
        return FoundAnswer(decided=False)
    named = (question.doc_id,) if question.doc_id else ()
    answers = answers_to_find(question)
    if not answers:
        chunk = finder.overlapping(question.doc_id or "", question.spans)
        return FoundAnswer(chunk, decided=chunk is not None)
    if question.fact or question.answers or not question.all_of:
        return finder.find(asked_texts(question), answers, named)
    parts = [finder.find(asked_texts(question), (part,), named) for part in question.all_of]
    # each part may stand in a sentence of its own; one that no passage holds decides
    return next((part for part in parts if part.passage is None), parts[0])


def answers_to_find(question: Question) -> tuple[str, ...]:
    """Return the gold texts to look for in documents; the references where a short answer is a bare yes or no."""
    texts = gold_texts(question, "")
    return tuple(filter(states_something, texts)) or tuple(filter(states_something, question.references))


def asked_texts(question: Question) -> tuple[str, ...]:
    """Return texts that say what a question asks: itself, its wordings, with the turns before it, with its reference."""
    before = " ".join(turn["content"] for turn in question.history[-TURNS_BEFORE:])
    texts = [question.question, *question.wordings]
    texts += [f"{before} {question.question}"] if before else []
    # a full reply says again what is asked, often in the documents' words
    short = question.short_answers and question.reference and question.reference not in question.short_answers
    return (*texts, f"{question.question} {question.reference}") if short else tuple(texts)


def named_documents(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of a row's meta that may be document ids, those of the clearest keys first."""
    yield from _ids(meta, (*DOCUMENT_ID_KEYS, *DOCUMENT_KEYS))
    for key in SPAN_KEYS:
        for item in _items(meta.get(key)):
            if isinstance(item, Mapping):
                yield from _ids(item, DOCUMENT_ID_KEYS)


def gold_spans(meta: Mapping[str, Any], documents: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the gold spans of a row as (document, start, end), offsets into the document's text, end exclusive.

    A span that names no document belongs to the row's first one. What is no pair of offsets is left out.
    """
    spans = []
    rows: list[Any] = []
    for key in SPAN_KEYS:
        value = meta.get(key)
        rows += [value] if _is_pair(value) else _items(value)
    if "start" in meta and "end" in meta:
        rows.append(meta)
    for row in rows:
        own = next(_ids(row, DOCUMENT_ID_KEYS), None) if isinstance(row, Mapping) else None
        document = own if own is not None else next(iter(documents), None)
        pair = (row.get("start"), row.get("end")) if isinstance(row, Mapping) else row
        if document is None or not isinstance(pair, tuple | list) or len(pair) != 2:
            continue
        start, end = pair
        if isinstance(start, int) and isinstance(end, int) and 0 <= start < end:
            spans.append((document, start, end))
    return spans


def quoted_texts(meta: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a row's meta that stand in its source: passages, contexts, quotations."""
    for key in TEXT_KEYS:
        for item in _items(meta.get(key)):
            texts = [item.get(name) for name in _TEXTS] if isinstance(item, Mapping) else [item]
            yield from (t for t in texts if isinstance(t, str) and len(t.split()) >= MIN_QUOTE_WORDS)


def _ids(meta: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    """Yield the ids under these keys: texts and numbers, alone, in lists, or in objects with an id."""
    for key in keys:
        for item in _items(meta.get(key)):
            value = (
                next((item[name] for name in _IDS if name in item), None)
                if isinstance(item, Mapping)
                else item
            )
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
                yield str(value)


def _items(value: Any) -> Sequence[Any]:
    """Return a value as a list: a list as it is, [] for None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_pair(value: Any) -> bool:
    """Return whether a value is one span: a pair of offsets."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(n) is int for n in value)
