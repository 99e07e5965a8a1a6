"""The tools that a model looks things up with: ``list_documents``, ``grep``, ``read`` and, with an index, ``search``.

They read the documents that they were given and nothing else: there is no path that could lead to a file, a document is
named by its id or it does not exist. What they return of documents stands between delimiters that no document can contain
(:func:`rag.grounding.context.make_delimiter`), below a line that says that it is data; what is not so fenced are sentences
of this module, which hold no word of a document or of a call. A pattern is searched by RE2, in time linear in the text.
With ``answer`` a model says that it looks nothing more up: it is not carried out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.grounding.context import DATA_NOTICE, make_delimiter
from rag.text.sanitize import neutralise_control_tokens, single_line, strip_invisible
from rag.text.words import count_noun
from rag.types import Hit
from runners.arms.retriever import Retrieved, Retriever
from runners.lookup.documents import DocumentLine, DocumentSet, ShownLines

RESULT_CHARS = 8_000
"""Most characters of documents in one result: about 2,000 tokens."""
READ_LINES = 200
"""Most lines that one call of ``read`` returns."""
GREP_LINES = 40
LISTED_DOCUMENTS = 100
GREP_SECONDS = 5.0
"""Longest search for a pattern; the result says how many documents were searched by then."""
SAME_WORDS = 8
"""Words in a row of the instructions that make a call be refused: no argument needs them."""
Problem = Literal[
    "", "malformed", "too many", "unknown tool", "no such document", "bad pattern", "instructions", "failed"
]
PassageSearch = Callable[[], Retriever]
"""Opens the search of the index; called at each search."""


class _Arguments(BaseModel):
    """Arguments of a tool; numbers in quotes are read as numbers, and what no tool knows is left out."""

    model_config = ConfigDict(extra="ignore")


class ListArguments(_Arguments):
    """List the documents by name, with their titles and numbers of lines."""

    contains: str = Field("", max_length=200, description="Only documents whose name or title contains this.")
    first: int = Field(1, ge=1, description="Number of the first document to list.")


class GrepArguments(_Arguments):
    """Find the lines that match a regular expression (RE2: no lookaround, no backreferences); case is ignored."""

    pattern: str = Field(min_length=1, max_length=400, description="The regular expression.")
    document: str = Field("", description="Name of the only document to search; all without it.")


class ReadArguments(_Arguments):
    """Read lines of a document."""

    document: str = Field(description="Name of the document.")
    first_line: int = Field(1, ge=1, description="First line.")
    last_line: int = Field(0, ge=0, description="Last line; 0 reads on as far as one result can hold.")


class SearchArguments(_Arguments):
    """Search by meaning: the passages of all documents that are nearest to a question."""

    query: str = Field(min_length=1, description="A question or a statement.")


class AnswerArguments(_Arguments):
    """Answer now: the documents that were found have the answer, or no other search will find it."""


ANSWER = "answer"
TOOLS: dict[str, type[_Arguments]] = {
    "list_documents": ListArguments,
    "grep": GrepArguments,
    "read": ReadArguments,
    "search": SearchArguments,
    ANSWER: AnswerArguments,
}
"""By name; ``search`` is offered where there is an index."""


def tool_definitions(search: bool) -> list[dict[str, Any]]:
    """Return the tools as a request's ``tools`` has them."""
    definitions = []
    for name, model in TOOLS.items():
        schema = model.model_json_schema()
        described = {
            key: {part: value for part, value in about.items() if part in ("type", "description")}
            for key, about in schema["properties"].items()
        }
        parameters = {"type": "object", "properties": described, "required": schema.get("required", [])}
        function = {"name": name, "description": model.__doc__, "parameters": parameters}
        if search or name != "search":
            definitions.append({"type": "function", "function": function})
    return definitions


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call returns to the model."""

    text: str
    problem: Problem = ""
    """What was wrong with the call; "" for one that was carried out."""
    repeat: bool = False
    """Whether the same call was made before."""


@dataclass
class DocumentTools:
    """The tools of one answer, with what it was shown so far."""

    documents: DocumentSet
    question: str = ""
    """No delimiter may occur in it."""
    instructions: str = ""
    """What the model was told; arguments that repeat it are refused."""
    search: PassageSearch | None = None
    first: Retrieved | None = None
    """What the search for the question itself found."""
    excerpts: list[str] = field(default_factory=list)
    """The results with text of documents, in order."""
    _hits: list[Hit] = field(default_factory=list)
    _calls: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Start with nothing shown."""
        self._shown = ShownLines(self.documents)

    @property
    def hits(self) -> tuple[Hit, ...]:
        """What the model was shown, as passages: those of searches, then lines."""
        return (*self._hits, *self._shown.hits())

    def call(self, name: str, arguments: str) -> ToolResult:
        """Carry out a call; one that was made before is answered with a note alone.

        Args:
            name: the tool's name.
            arguments: its arguments, a JSON object.
        """
        parsed = self._parsed(name, arguments)
        if isinstance(parsed, ToolResult):
            return parsed
        key = f"{name} {parsed.model_dump_json()}"
        if key in self._calls:
            return ToolResult("This call was made before: its result is above.", repeat=True)
        self._calls.add(key)
        return self._carried_out(parsed)

    def _parsed(self, name: str, arguments: str) -> _Arguments | ToolResult:
        """Return the arguments of a call, or what is wrong with it."""
        model = TOOLS.get(name)
        if model is None or (name == "search" and self.search is None):
            offered = ", ".join(tool for tool in TOOLS if tool != "search" or self.search)
            return ToolResult(f"There is no tool of this name. The tools are: {offered}.", "unknown tool")
        if shares_words(arguments, self.instructions, SAME_WORDS, self.question):
            return _not_carried_out("its arguments repeat the instructions.", "instructions")
        try:
            values = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return _not_carried_out("its arguments are not valid JSON.")
        if not isinstance(values, dict):
            return _not_carried_out("its arguments are no JSON object.")
        try:
            return model.model_validate(values)
        except (ValidationError, UnicodeError) as error:
            return _not_carried_out(_wrong_argument(error, model))

    def _carried_out(self, arguments: _Arguments) -> ToolResult:
        try:
            if isinstance(arguments, ListArguments):
                return self._list(arguments)
            if isinstance(arguments, GrepArguments):
                return self._grep(arguments)
            if isinstance(arguments, ReadArguments):
                return self._read(arguments)
            assert isinstance(arguments, SearchArguments)
            return self._search(arguments)
        except Exception as error:  # an index that cannot be opened, say: the model can go on with the others
            return ToolResult(f"The tool failed ({type(error).__name__}). Try another one.", "failed")

    def _list(self, arguments: ListArguments) -> ToolResult:
        wanted = arguments.contains.casefold()
        listed = [
            (name, lines)
            for name, lines in self.documents.by_name.items()
            if wanted in name.casefold() or wanted in lines.document.title.casefold()
        ]
        first = arguments.first - 1
        rows = _within(
            [
                f"{single_line(name)}: {single_line(lines.document.title)} ({count_noun(lines.total, 'line')})"
                for name, lines in listed[first : first + LISTED_DOCUMENTS]
            ]
        )
        if not rows:
            return ToolResult(f"The list ends before: it has {count_noun(len(listed), 'document')}.")
        return self._fenced(f"documents {first + 1} to {first + len(rows)} of {len(listed):,}", rows)

    def _grep(self, arguments: GrepArguments) -> ToolResult:
        """Search line by line: a document that no pattern should delay costs time linear in its length."""
        import pyarrow
        from pyarrow import compute

        documents = self.documents.by_name
        if name := arguments.document:
            if name not in documents:
                return _no_such_document()
            documents = {name: documents[name]}
        matching: list[tuple[str, int]] = []
        searched = 0
        until = time.monotonic() + GREP_SECONDS
        for name, lines in documents.items():
            if searched and time.monotonic() > until:
                break
            try:
                mask = compute.match_substring_regex(lines.column, arguments.pattern, ignore_case=True)
            except (pyarrow.ArrowInvalid, UnicodeError):
                text = "The pattern is no regular expression of RE2 (no lookaround, no backreferences), or too long."
                return ToolResult(text, "bad pattern")
            searched += 1
            matching += [(name, position) for position in compute.indices_nonzero(mask).to_pylist()]
        part = (
            ""
            if searched == len(documents)
            else f"; searched: {searched:,} of {count_noun(len(documents), 'document')}"
        )
        if not matching:
            return ToolResult(f"No line matches{part}.")
        rows = _within(
            [
                f"{single_line(name)}:{_numbered(documents[name].lines[n])}"
                for name, n in matching[:GREP_LINES]
            ]
        )
        for name, position in matching[: len(rows)]:
            self._shown.add(name, [position])
        return self._fenced(f"{len(rows)} of {count_noun(len(matching), 'matching line')}{part}", rows)

    def _read(self, arguments: ReadArguments) -> ToolResult:
        lines = self.documents.by_name.get(arguments.document)
        if lines is None:
            return _no_such_document()
        last = arguments.last_line or lines.total
        wanted = lines.between(arguments.first_line, min(last, arguments.first_line + READ_LINES - 1))
        if not wanted:
            return ToolResult(f"There is nothing in these lines: the document has {lines.total:,}.")
        rows = _within([_numbered(lines.lines[position]) for position in wanted])
        shown = wanted[: len(rows)]
        self._shown.add(arguments.document, shown)
        first, last = (lines.lines[n].number for n in (shown[0], shown[-1]))
        title = single_line(lines.document.title)
        place = f"lines {first:,} to {last:,} of {lines.total:,}"
        return self._fenced(f"{single_line(arguments.document)} ({title}), {place}", rows)

    def _search(self, arguments: SearchArguments) -> ToolResult:
        """Show passages as an arm with a search does; for the question those of that arm, else ones not shown before."""
        assert self.search is not None
        retriever = self.search()
        if self.first is None and arguments.query == self.question:
            self.first = retriever.find([self.question])[0]
            hits = list(self.first.hits)
        else:
            known = {(hit.chunk.doc, hit.chunk.start) for hit in self._hits}
            k = retriever.step.k
            nearest = retriever.candidates([arguments.query], k + len(known))[0]
            hits = [hit for hit in nearest if (hit.chunk.doc, hit.chunk.start) not in known][:k]
        current = [hit for hit in hits if self._is_current(hit)]
        older = len(hits) - len(current)
        earlier = f"\n({count_noun(older, 'passage')} of an earlier state of the documents not shown)"
        note = earlier if older else ""
        if not current:
            return ToolResult(f"No other passages.{note}")
        self._hits += current
        return self._excerpt(retriever.format_hits(current, self.question), note)

    def _is_current(self, hit: Hit) -> bool:
        """Return whether the documents still say what an index has of them."""
        chunk = hit.chunk
        lines = self.documents.by_name.get(chunk.doc)
        if lines is None:
            return False
        known = _plain_words(chunk.text)
        shown = lines.overlapping(chunk.start, chunk.end)
        words = {word for n in shown for word in _plain_words(lines.lines[n].text)}
        # the header of a table is repeated in every passage of it
        return sum(word in words for word in known) >= 0.8 * len(known)

    def _fenced(self, heading: str, rows: Sequence[str]) -> ToolResult:
        """Return rows between delimiters that occur in none of them, nor in the question."""
        text = neutralise_control_tokens(strip_invisible("\n".join((heading, *rows))))
        delimiter = make_delimiter(self.question, text)
        return self._excerpt(f"{DATA_NOTICE}\n{delimiter}\n{text}\n{delimiter}")

    def _excerpt(self, text: str, note: str = "") -> ToolResult:
        self.excerpts.append(text)
        return ToolResult(text + note)


def shares_words(text: str, secret: str, count: int, allowed: str = "") -> bool:
    """Return whether a text has ``count`` words in a row of another one, or all of its words where it has fewer, but 8.

    Words in a row that ``allowed`` has as well do not count.
    """
    words, others, free = (_plain_words(each) for each in (text, secret, allowed))
    count = min(count, max(SAME_WORDS, len(others)))
    runs = {tuple(others[n : n + count]) for n in range(len(others) - count + 1)}
    runs -= {tuple(free[n : n + count]) for n in range(len(free) - count + 1)}
    return any(tuple(words[n : n + count]) in runs for n in range(len(words) - count + 1))


def _plain_words(text: str) -> list[str]:
    return "".join(char if char.isalnum() else " " for char in text.casefold()).split()


def _no_such_document() -> ToolResult:
    return ToolResult("No such document: list_documents shows the names.", "no such document")


def _not_carried_out(why: str, problem: Problem = "malformed") -> ToolResult:
    return ToolResult(f"The call was not carried out: {why}", problem)


def _wrong_argument(error: Exception, model: type[_Arguments]) -> str:
    """Return which argument is wrong, in the words of the tool's own definition."""
    wrong = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ()
    name = str(wrong[0]) if wrong and wrong[0] in model.model_fields else "an argument"
    about = model.model_fields[name].description if name in model.model_fields else ""
    return f"{name} is missing or of the wrong kind. {about}".strip()


def _numbered(line: DocumentLine) -> str:
    return f"{line.number}: {line.text.strip()}"


def _within(rows: Sequence[str]) -> list[str]:
    """Return as many rows from the first on as one result can hold, at least one."""
    kept_rows: list[str] = []
    left = RESULT_CHARS
    for row in rows:
        left -= len(row) + 1
        if left < 0 and kept_rows:
            break
        kept_rows.append(row)
    return kept_rows
