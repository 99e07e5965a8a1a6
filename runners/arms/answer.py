"""Answering: one path from a question to an answer with citations, for the trial, `ask` and `chat` alike.

An answer as it may be shown while it is generated: cited sentence by sentence, and never taken back.

A stream cannot be corrected, so only what is certain is given out: whole sentences with their marks, and of the
sentence that is still open the leading words, as long as they are nothing but words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import dataclass
from typing import Any

from rag.grounding.citations import SentenceCiter, marked_end, remove_marks, strip_marks
from rag.grounding.conflicts import Conflict, find_conflicts
from rag.text import sanitize
from rag.text.sanitize import neutralise_links, strip_invisible
from rag.text.words import sentence_spans
from rag.types import Citation, Hit
from runners import notebook
from runners.arms import prompts
from runners.arms.prompts import FewShotExamples
from runners.arms.retriever import PassageFinder, Retrieved
from runners.data.formats import Message
from runners.data.questions import Question
from runners.data.refusals import is_refusal
from runners.inference.types import Completion, Generator
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep

_PLAIN = re.compile(r"[^\[\]【】<>(){}`:/\\!*]*")
"""Text in which no link, tag, mark or address can begin."""
_OPEN = re.compile(r"(?<!\s)\s*(?:\[[\d\s,;]*|【\s*(?:\d[^】]*)?)$")
"""An end that may become a mark."""


class StreamedAnswer:
    """The pieces of one answer, as they are shown.

    A sentence is made harmless and cited once, when the next one begins. What came before is not read again, except
    where a link, a tag or an escape sequence might go on: then the sentences since its line began are made harmless
    together.
    """

    def __init__(
        self,
        hits: Sequence[Hit] = (),
        question: str = "",
        formulas: Collection[str] = (),
        cited: bool = False,
        strip: bool = False,
    ) -> None:
        """Take the passages that the model was shown, and the sentences that need no citation.

        Without ``cited`` the words are only made visible; with ``strip`` marks that the model made up are left out.
        """
        self.citer = SentenceCiter(hits, formulas)
        """What cites the sentences; it saves work when the whole answer is cited."""
        self._cited, self._strip = cited, strip
        self._sources = [question, *(hit.chunk.text for hit in hits)]
        self._raw = ""
        """What the model generated, of a cited answer since the last sentence that is settled."""
        self._settled = 0
        """Characters before ``_raw``, marks left out."""
        self._end = 0
        """Where the last whole sentence of ``_raw`` ends, marks left out."""
        self._harmless = ""
        """The whole sentences of ``_raw`` as the citer has them."""
        self._words = ""
        """What of the open sentence is given out."""
        self._taken = 0
        """Characters of the answer without marks that are given out."""
        self.shown = ""
        """Everything given out so far."""

    def add(self, piece: str) -> str:
        """Take what the model generated; return what may be shown by now, often nothing."""
        self._raw += piece
        if self._cited:
            return self._add_cited()
        if self._strip:
            open_end = _OPEN.search(self._raw)
            text = strip_invisible(strip_marks(self._raw[: open_end.start()] if open_end else self._raw))
            return self._give(text, len(text))
        # What begins a terminal's command is taken away as long as it is not whole.
        return self._give(strip_invisible(self._raw), len(self._raw))

    def finish(self, whole: str, words: str) -> str:
        """Return what is left to show of an answer that has ended.

        `whole` is the answer as it is shown, `words` the same before anything was marked. Where what came last
        changed the marks of what is given out already, the rest comes as words alone: nothing is missing.
        """
        if whole.startswith(self.shown):
            return self._give(whole, len(words))
        return self._give(self.shown + neutralise_links(words[self._taken :], self._sources), len(words))

    def _add_cited(self) -> str:
        text = remove_marks(self._raw).rstrip()
        lead = 0 if self._settled else len(text) - len(text.lstrip())
        text = text[lead:]
        spans = sentence_spans(text)
        end = spans[-2][1] if len(spans) > 1 else 0
        fresh = ""
        if end != self._end:
            harmless = self._make_harmless(text[:end])
            if not harmless.startswith(self._harmless + self._words):
                return ""  # Otherwise than it was given out: nothing more is, until it fits again.
            fresh = self.citer.add(harmless[len(self._harmless) :])[len(self._words) :]
            self._end, self._harmless, self._words = end, harmless, ""
        match = _PLAIN.match(text, end)
        plain = text[end : match.end() if match else end]
        words = plain[: _last_space(plain)].rstrip()
        if strip_invisible(words) == words and words.startswith(self._words):
            fresh += words[len(self._words) :]
            self._words = words
        self.shown += fresh
        self._taken = self._settled + len(strip_invisible(text[:end])) + len(self._words)
        if end and _is_settled(text[:end]):
            self._raw = self._raw[marked_end(self._raw, lead + end) :]
            self._settled, self._end, self._harmless = self._settled + end, 0, ""
        return fresh

    def _make_harmless(self, text: str) -> str:
        """Return the whole sentences since the settled ones without what ``inert`` takes out, and without marks."""
        # A letter in front: only what follows a line's end begins a line.
        before = "x" if self._settled else ""
        harmless = remove_marks(neutralise_links(before + text, self._sources)[len(before) :]).rstrip()
        return harmless if self.citer.text else harmless.lstrip()

    def _give(self, now: str, taken: int) -> str:
        if not now.startswith(self.shown) or len(now) == len(self.shown):
            return ""
        piece = now[len(self.shown) :]
        self.shown, self._taken = now, taken
        return piece


def _is_settled(text: str) -> bool:
    """Return whether nothing that ``inert`` takes out can begin in the text and go on behind it.

    Links end with their line, tags with ``>``, marks with ``】``; escape sequences are not looked into.
    """
    if "[" in text[text.rfind("\n") + 1 :] or "【" in text or strip_invisible(text) != text:
        return False
    depth = 0
    for bracket in re.findall("[<>]", text):
        depth = depth + 1 if bracket == "<" else max(0, depth - 1)
    return depth == 0


def _last_space(text: str) -> int:
    """Return the offset of a text's last white space, 0 without any."""
    return max(0, *(text.rfind(space) for space in " \n\t"))


NEAREST = 3
"""Passages offered with a refusal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one arm."""

    question: Question
    text: str
    """The model's words without citation marks: what style is judged on."""
    marked: str
    """What is shown: `[n]` after every sentence that a passage supports, nothing that is fetched, clicked or obeyed."""
    citations: tuple[Citation, ...]
    refused: bool
    retrieved: Retrieved | None
    """What retrieval brought, None for an arm without."""
    chat: tuple[Message, ...]
    completion: Completion
    conflicts: tuple[Conflict, ...] = ()
    """Passages that contradict each other, to be shown side by side."""
    arm: str = ""
    """Who answered, where that is not plain from the place."""

    @property
    def hits(self) -> tuple[Hit, ...]:
        """The passages that were shown to the model, best first."""
        return self.retrieved.hits if self.retrieved else ()

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer and the passages it cites; nothing in it can be fetched, clicked or run."""
        cited = [f"[{c.n}] {c.doc}, {_place(c)}: “{c.quote}”" for c in self.citations if c.n]
        doubts = sum(1 for c in self.citations if not c.n)
        parts = [notebook.html_paragraph(self.marked)]
        parts += [notebook.html_list(dict.fromkeys(cited))] if cited else []
        if doubts:
            text = f"{doubts} of its sentences are borne out by no passage."
            parts.append(notebook.html_paragraph(text, "color:#b35900"))
        note = "the documents do not hold an answer" if self.refused else f"arm: {self.arm}" * bool(self.arm)
        return f"<div>{''.join(parts)}{f'<small>{notebook.html_text(note)}</small>' if note else ''}</div>"

    @property
    def searched(self) -> Mapping[str, int] | None:
        """How many documents and passages were searched, in which generation; None for an arm without retrieval."""
        return self.retrieved.searched if self.retrieved else None

    @property
    def nearest_hits(self) -> tuple[Hit, ...]:
        """The passages nearest to a question that was refused, best first; none for one that was answered."""
        return self.hits[:NEAREST] if self.refused else ()

    @property
    def nearest(self) -> list[dict[str, Any]]:
        """The same passages as JSON: where each is, its date, text and score."""
        return [
            {
                "n": n,
                "doc": hit.chunk.doc,
                "title": hit.chunk.title,
                "page": hit.chunk.page,
                "line_start": hit.chunk.line_start,
                "line_end": hit.chunk.line_end,
                "date": hit.date,
                "text": hit.chunk.text,
                "score": round(hit.score, 4),
            }
            for n, hit in enumerate(self.nearest_hits, start=1)
        ]

    def reply_json(self, arm: str) -> dict[str, Any]:
        """Return the answer as `ask --json` prints it and the server sends it; `arm` is the one that answered."""
        return {
            "schema": 1,
            "answer": self.marked,
            "refused": self.refused,
            "arm": arm,
            "citations": [c.to_json() for c in self.citations],
            "conflicts": [c.to_json() for c in self.conflicts],
            "searched": self.searched,
            "nearest": self.nearest,
            "decision": self.retrieved.decision.to_json() if self.retrieved else None,
            "notes": list(self.retrieved.notes) if self.retrieved else [],
            "usage": {
                "prompt_tokens": self.completion.prompt_tokens,
                "completion_tokens": self.completion.completion_tokens,
            },
            "seconds": round(self.completion.seconds, 3),
        }

    def to_json(self, arm: str, seed: int) -> dict[str, Any]:
        """The row of `trial/answers.jsonl`: all that went into an answer and all that came of it.

        `prompt` is the chat as it was sent, examples shown and passages included; it is empty where the arm refused
        without asking (`finish` is refused). `context` names the passages shown, as spans of the documents;
        `answer` is what was said, `marked` the same with its `citations`; tokens and seconds are of this answer
        (`tokens_estimated`: by a rule of thumb). The journal keeps passages that repeat once: see
        :mod:`runners.arms.long_context`.
        """
        return {
            "arm": arm,
            "seed": seed,
            "id": self.question.id,
            "question": self.question.question,
            "answer": self.text,
            "marked": self.marked,
            "refused": self.refused,
            "citations": [c.to_json() for c in self.citations],
            "conflicts": [c.to_json() for c in self.conflicts],
            "context": [{"doc": h.chunk.doc, "start": h.chunk.start, "end": h.chunk.end} for h in self.hits],
            "prompt": list(self.chat),
            "prompt_tokens": self.completion.prompt_tokens,
            "completion_tokens": self.completion.completion_tokens,
            "tokens_estimated": self.completion.estimated,
            "seconds": round(self.completion.seconds, 4),
            "finish": self.completion.finish,
        }


def _place(citation: Citation) -> str:
    """Return where a cited passage is in its document: the page, or else the lines."""
    if citation.page:
        return f"page {citation.page}"
    first, last = citation.line_start, citation.line_end
    return f"line {first}" if first >= last else f"lines {first}–{last}"


OnAnswers = Callable[[list[Answer]], None] | None


def answer_all(
    plan: Plan,
    arm: EvaluateStep,
    questions: Sequence[Question],
    generator: Generator,
    retriever: PassageFinder | None,
    shots: FewShotExamples = (),
    on_answers: OnAnswers = None,
    known: Container[str] = (),
) -> list[Answer]:
    """Answer every question with one arm; `on_answers` hears each batch as it is finished.

    Questions whose id is `known` were answered before: they are not answered again, and stand beside the others only
    so that these are asked just as they would have been.
    An arm with retrieval does not ask the model where the calibrated threshold says that the documents do not hold
    the answer: it refuses in the house's own words.
    """
    found: list[Retrieved | None] = [None] * len(questions)
    if arm.retrieval and retriever is not None:
        found = list(retriever.find([q.question for q in questions]))
    done: dict[int, Answer] = {}
    asked = [i for i, f in enumerate(found) if f is None or not f.refuse]
    for position, f in enumerate(found):
        if f is not None and f.refuse and questions[position].id not in known:
            done[position] = make_refusal(plan, questions[position], f)
    if on_answers and done:
        on_answers(list(done.values()))
    chats = [build_chat(plan, questions[i], found[i], shots) for i in asked]

    def finished(batch: list[int], completions: list[Completion]) -> None:
        answers = [
            finish_answer(plan, questions[asked[n]], found[asked[n]], chats[n], completion)
            for n, completion in zip(batch, completions, strict=True)
        ]
        done.update(zip([asked[n] for n in batch], answers, strict=True))
        if on_answers:
            on_answers(answers)

    before = {n for n, i in enumerate(asked) if questions[i].id in known}
    generator.generate(chats, plan.max_new_tokens, finished, known=before)
    return [done[i] for i in range(len(questions)) if i in done]


def stream_answer(
    plan: Plan,
    arm: EvaluateStep,
    question: Question,
    generator: Generator,
    retriever: PassageFinder | None,
    shots: FewShotExamples = (),
) -> Running[str, None, Answer]:
    """Yield the pieces of one answer while the model generates it; return the answer that :func:`answer_all` gives.

    The pieces are what is shown, ``marked`` of the answer: cited sentence by sentence, without marks of the model's own.
    """
    found = retriever.find([question.question])[0] if arm.retrieval and retriever is not None else None
    if found is not None and found.refuse:
        refused = make_refusal(plan, question, found)
        yield refused.text
        return refused
    chat = build_chat(plan, question, found, shots)
    streamed = stream_of(plan, question, found)
    stream = generator.stream(chat, plan.max_new_tokens)
    try:
        for piece in stream:
            if shown := streamed.add(piece):
                yield shown
    finally:
        stream.close()
    answer = finish_answer(plan, question, found, chat, stream.completion, streamed.citer)
    if rest := streamed.finish(answer.marked, sanitize.strip_invisible(answer.text)):
        yield rest
    return answer


def stream_of(plan: Plan, question: Question, found: Retrieved | None, plain: bool = False) -> StreamedAnswer:
    """Return what an answer's pieces go through before they are shown; ``plain``: without citations."""
    hits = found.hits if found else ()
    cited = bool(hits) and not plain
    return StreamedAnswer(hits, question.question, plan.prompts.formulas, cited, strip=True)


def make_refusal(plan: Plan, question: Question, found: Retrieved) -> Answer:
    """The house's refusal, given without asking the model."""
    text = plan.prompts.refusals[0]
    return Answer(question, text, text, (), True, found, (), Completion(text, 0, 0, 0.0, "refused"))


def build_chat(
    plan: Plan, question: Question, found: Retrieved | None, shots: FewShotExamples
) -> list[Message]:
    """Return the chat that puts a question to the model, with the passages and examples it is shown."""
    passages = None if found is None else found.passages
    shown = shots(question) if callable(shots) else shots
    return prompts.build_messages(
        plan.prompts, question.question, passages, shown, system=question.system, history=question.history
    )


def finish_answer(
    plan: Plan,
    question: Question,
    found: Retrieved | None,
    chat: Sequence[Message],
    completion: Completion,
    citer: SentenceCiter | None = None,
) -> Answer:
    """Return what a completion comes to: marks of its own taken out, citations put in, nothing that could be run.

    ``citer`` is the one that cited the answer while it was generated, with the same passages: what it compared is not
    compared again.
    """
    text = strip_marks(completion.text)
    refused = is_refusal(text, plan.prompts.refusals, plan.prompts.formulas)
    if found is None or not found.hits:
        return Answer(
            question, text, sanitize.strip_invisible(text), (), refused, found, tuple(chat), completion
        )
    shown = neutralise_links(text, [question.question, *(hit.chunk.text for hit in found.hits)])
    citer = citer or SentenceCiter(found.hits, plan.prompts.formulas)
    marked, citations = (shown, ()) if refused else citer.whole(shown)
    apart = () if refused else find_conflicts(question.question, found.hits)
    return Answer(question, text, marked, citations, refused, found, tuple(chat), completion, apart)
