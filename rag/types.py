"""The plain types of rag's public functions: Document, Block, Chunk, Hit, Results, Citation.

All offsets are character offsets into ``Document.raw``, the decoded source text with its newlines untouched;
lines are counted from 1 and pages from 1. ``end`` is exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rag.text import sanitize

OnEvent = Callable[[dict[str, Any]], None]
"""Receives the events of long operations: ``{"event": "embed.batch", "done": 64, "total": 300}``."""
PAGED = ("pdf", "pptx", "xlsx")
"""Media whose documents have numbered parts: pages, slides or sheets."""


def location(doc: str, page: int | None, line_start: int, line_end: int, short: bool = False) -> str:
    """Return a document with its page or its lines: "guide.pdf, page 3" or "fares.md, lines 12–14".

    Args:
        doc: id of the document.
        page: the page, or None for a document without pages.
        line_start: first line; not used where there is a page.
        line_end: last line.
        short: the form that prompts use: "guide.pdf p. 3" or "fares.md:12-14".
    """
    document = sanitize.single_line(doc)
    if page:
        return f"{document} p. {page}" if short else f"{document}, page {page}"
    several = line_end > line_start
    if short:
        return f"{document}:{line_start}-{line_end}" if several else f"{document}:{line_start}"
    return f"{document}, lines {line_start}–{line_end}" if several else f"{document}, line {line_start}"


@dataclass(frozen=True, slots=True)
class Block:
    """One structural piece of a document: a heading, paragraph, list, table, code block or row."""

    kind: str
    """heading, paragraph, list, table, code or row."""
    text: str
    """The text that is shown and embedded; it equals ``raw[start:end]`` unless the format needed cleaning
    (html, csv) or held hidden text."""
    start: int
    end: int
    heading: str = ""
    """The path of headings above, joined with " > "; for a heading, itself included."""
    offsets: Sequence[int] = ()
    """Offset in ``raw`` of every character of ``text``; empty when ``text`` is the raw slice, or a row."""


@dataclass(frozen=True, slots=True)
class Document:
    """One source: its decoded text, its structure and where it came from."""

    id: str
    """POSIX path relative to the documents folder, or the ``id`` of a row."""
    title: str
    raw: str
    blocks: tuple[Block, ...]
    sha256: str
    """Hash of everything that decides the chunks: title, text and metadata."""
    media: str
    """The loader's name: a ``media`` of ``rag.loading.registry.LOADERS``, or that of a plug-in."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values: a row's extra keys, front matter and file properties (``date``, ``valid_until`` as
    ISO 8601, ``tags`` as a list), ``encoding`` when it is not UTF-8, ``hidden_text`` (characters that were
    left out because a reader would not see them), ``page_starts`` (offset of each page, slide or sheet)."""
    source: str = ""
    """The file it came from, as its path below the documents folder; many rows share one."""
    source_sha256: str = ""
    """Hash of that file's bytes, taken before they were parsed."""

    @property
    def page_starts(self) -> list[int]:
        """The offset at which each page, slide or sheet begins; empty for media without pages."""
        return list(self.metadata.get("page_starts", ())) if self.media in PAGED else []


@dataclass(frozen=True, slots=True)
class Chunk:
    """One searchable passage with its exact position in the source."""

    id: int
    """Unique in the index and not given to another chunk later."""
    doc: str
    title: str
    ordinal: int
    """Position among the document's chunks, from 0."""
    text: str
    start: int
    end: int
    heading: str = ""
    line_start: int = 1
    line_end: int = 1
    page: int | None = None

    def location(self, short: bool = False) -> str:
        """Return the chunk's document with its page or lines, as :func:`location` formats them."""
        return location(self.doc, self.page, self.line_start, self.line_end, short)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search returned for a question, with its scores."""

    chunk: Chunk
    score: float
    """The fused score that orders the hits. It is scaled within the candidates of one search: the first one's is near 1
    whatever was asked, so that only :attr:`dense` says how near a passage is.
    """
    dense: float
    """Cosine of question and chunk, -1 to 1."""
    lexical: float
    """Raw BM25 score, 0 and up."""
    rerank: float | None = None
    """The reranker's score, of any range, which then decided the order; None where no reranker was used."""
    answers: float | None = None
    """Log odds that the passage answers the question, by the answerability model; None where it was not read."""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The metadata of the chunk's document: see ``Document.metadata``."""
    expired: bool = False
    """Whether the document's ``valid_until`` is before the day that the search was made for."""
    same: tuple[Chunk, ...] = ()
    """Lower ranked chunks that say the same, so that they are not hits of their own."""

    @property
    def date(self) -> str:
        """When the document was published, or else updated: ISO 8601 where it could be read, "" if unknown."""
        return str(self.metadata.get("date") or self.metadata.get("updated") or "")

    @property
    def valid_until(self) -> str:
        """The last day on which the document is valid, ISO 8601 where it could be read; "" if it names none."""
        return str(self.metadata.get("valid_until") or "")

    def to_json(self) -> dict[str, Any]:
        """Return the hit as one of the `hits` that `index search --json` prints; keys without a value are left out."""
        chunk = self.chunk
        body: dict[str, Any] = {
            "doc": chunk.doc,
            "title": chunk.title,
            "heading": chunk.heading,
            "score": round(self.score, 6),
            "cosine": round(self.dense, 6),
            "text": chunk.text,
            "page": chunk.page,
            "line_start": chunk.line_start,
            "line_end": chunk.line_end,
            "char_start": chunk.start,
            "char_end": chunk.end,
            "dense": round(self.dense, 6),
            "lexical": round(self.lexical, 6),
        }
        if self.rerank is not None:
            body["rerank"] = round(self.rerank, 6)
        if self.answers is not None:
            body["answers"] = round(self.answers, 4)
        if self.metadata:
            body["metadata"] = {name: value for name, value in self.metadata.items() if name != "page_starts"}
        if self.valid_until:
            body["expired"] = self.expired
        if self.same:
            body["same"] = [
                {
                    "doc": other.doc,
                    "line_start": other.line_start,
                    "char_start": other.start,
                    "char_end": other.end,
                }
                for other in self.same
            ]
        return body


@dataclass(frozen=True, slots=True)
class Results:
    """The result of a search for one question."""

    hits: tuple[Hit, ...]
    """Best first."""
    notes: tuple[str, ...] = ()
    """Notes for the user, a sentence each: documents left out, a filter that matches nothing, ..."""
    timings_ms: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Milliseconds by stage: embed, filter, dense, lexical, fuse, rerank, arrange, and total."""

    def to_json(self) -> dict[str, Any]:
        """Return the results as `index search --json` prints them; `notes` only where there are any.

        Each hit has its `rank`, from 1, and the `cosine` of question and passage; its `score` orders the hits of this
        search and says nothing of how near they are.
        """
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {
            "schema": 1,
            "hits": [{"rank": rank, **hit.to_json()} for rank, hit in enumerate(self.hits, start=1)],
            **notes,
            "timings_ms": dict(self.timings_ms),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """One ``[n]`` of an answer: the passage that supports a sentence, with its position."""

    n: int = 0
    doc: str = ""
    title: str = ""
    page: int | None = None
    line_start: int = 0
    line_end: int = 0
    char_start: int = 0
    char_end: int = 0
    quote: str = ""
    """An exact substring of the cited chunk."""
    supported: bool = True
    """Whether the passage supports all of the sentence."""
    date: str = ""
    """Of the cited document, as in ``Hit``."""
    valid_until: str = ""
    expired: bool = False
    support: str = "supported"
    """supported, partly, unsupported (``n`` is 0 and nothing is quoted), or beside: the passage says so, but it seems not
    to be what was asked."""
    limited: bool = False
    """Whether a sentence that is partly supported lacks a restriction of the passage: "with a pass", "only if", "except"."""
    answer_start: int = 0
    """Offset at which the sentence begins in the answer as it is shown, citation marks included."""
    answer_end: int = 0
    """Offset at which it ends, before its marks."""

    def location(self, short: bool = False) -> str:
        """Return the cited document with its page or lines, as :func:`location` formats them."""
        return location(self.doc, self.page, self.line_start, self.line_end, short)

    def to_json(self) -> dict[str, Any]:
        """Return the citation as the JSON object that ``ask --json`` prints."""
        return asdict(self)
