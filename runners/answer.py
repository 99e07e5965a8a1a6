"""Answering: one path from a question to an answer with citations, for the trial, `ask` and `chat` alike."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import dataclass
from typing import Any

from rag import clean
from rag.cite import Citer, strip_marks
from rag.conflict import Conflict, conflicts
from rag.links import inert
from rag.types import Citation, Hit
from runners import notebook, prompting
from runners.completion import Completion, Generator
from runners.data import Question
from runners.plan import EvaluateStep, Plan
from runners.prompting import Shots
from runners.refusing import is_refusal
from runners.retrieval import Finder, Found
from runners.shapes import Message
from runners.unfolding import StreamedAnswer

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
    found: Found | None
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
        return self.found.hits if self.found else ()

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer and the passages it cites; nothing in it can be fetched, clicked or run."""
        cited = [f"[{c.n}] {c.doc}, {_place(c)}: “{c.quote}”" for c in self.citations if c.n]
        doubts = sum(1 for c in self.citations if not c.n)
        parts = [notebook.paragraph(self.marked)]
        parts += [notebook.bullets(dict.fromkeys(cited))] if cited else []
        if doubts:
            text = f"{doubts} of its sentences are borne out by no passage."
            parts.append(notebook.paragraph(text, "color:#b35900"))
        note = "the documents do not hold an answer" if self.refused else f"arm: {self.arm}" * bool(self.arm)
        return f"<div>{''.join(parts)}{f'<small>{notebook.text(note)}</small>' if note else ''}</div>"

    @property
    def searched(self) -> Mapping[str, int] | None:
        """How many documents and passages were searched, in which generation; None for an arm without retrieval."""
        return self.found.searched if self.found else None

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
            "decision": self.found.decision.to_json() if self.found else None,
            "notes": list(self.found.notes) if self.found else [],
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
        :mod:`runners.whole`.
        """
        return {
            "arm": arm, "seed": seed, "id": self.question.id, "question": self.question.question,
            "answer": self.text, "marked": self.marked, "refused": self.refused,
            "citations": [c.to_json() for c in self.citations],
            "conflicts": [c.to_json() for c in self.conflicts],
            "context": [{"doc": h.chunk.doc, "start": h.chunk.start, "end": h.chunk.end} for h in self.hits],
            "prompt": list(self.chat),
            "prompt_tokens": self.completion.prompt_tokens,
            "completion_tokens": self.completion.completion_tokens,
            "tokens_estimated": self.completion.estimated,
            "seconds": round(self.completion.seconds, 4), "finish": self.completion.finish,
        }  # fmt: skip


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
    retriever: Finder | None,
    shots: Shots = (),
    on_answers: OnAnswers = None,
    known: Container[str] = (),
) -> list[Answer]:
    """Answer every question with one arm; `on_answers` hears each batch as it is finished.

    Questions whose id is `known` were answered before: they are not answered again, and stand beside the others only
    so that these are asked just as they would have been.
    An arm with retrieval does not ask the model where the calibrated threshold says that the documents do not hold
    the answer: it refuses in the house's own words.
    """
    found: list[Found | None] = [None] * len(questions)
    if arm.retrieval and retriever is not None:
        found = list(retriever.find([q.question for q in questions]))
    done: dict[int, Answer] = {}
    asked = [i for i, f in enumerate(found) if f is None or not f.refuse]
    for position, f in enumerate(found):
        if f is not None and f.refuse and questions[position].id not in known:
            done[position] = refusal(plan, questions[position], f)
    if on_answers and done:
        on_answers(list(done.values()))
    chats = [put(plan, questions[i], found[i], shots) for i in asked]

    def finished(batch: list[int], completions: list[Completion]) -> None:
        answers = [
            conclude(plan, questions[asked[n]], found[asked[n]], chats[n], completion)
            for n, completion in zip(batch, completions, strict=True)
        ]
        done.update(zip([asked[n] for n in batch], answers, strict=True))
        if on_answers:
            on_answers(answers)

    before = {n for n, i in enumerate(asked) if questions[i].id in known}
    generator.generate(chats, plan.max_new_tokens, finished, known=before)
    return [done[i] for i in range(len(questions)) if i in done]


def answer_in_pieces(
    plan: Plan,
    arm: EvaluateStep,
    question: Question,
    generator: Generator,
    retriever: Finder | None,
    shots: Shots = (),
) -> Running[str, None, Answer]:
    """Yield the pieces of one answer while the model generates it; return the answer that :func:`answer_all` gives.

    The pieces are what is shown, ``marked`` of the answer: cited sentence by sentence, without marks of the model's own.
    """
    found = retriever.find([question.question])[0] if arm.retrieval and retriever is not None else None
    if found is not None and found.refuse:
        refused = refusal(plan, question, found)
        yield refused.text
        return refused
    chat = put(plan, question, found, shots)
    streamed = stream_of(plan, question, found)
    stream = generator.stream(chat, plan.max_new_tokens)
    try:
        for piece in stream:
            if shown := streamed.add(piece):
                yield shown
    finally:
        stream.close()
    answer = conclude(plan, question, found, chat, stream.completion, streamed.citer)
    if rest := streamed.finish(answer.marked, clean.visible(answer.text)):
        yield rest
    return answer


def stream_of(plan: Plan, question: Question, found: Found | None, plain: bool = False) -> StreamedAnswer:
    """Return what an answer's pieces go through before they are shown; ``plain``: without citations."""
    hits = found.hits if found else ()
    cited = bool(hits) and not plain
    return StreamedAnswer(hits, question.question, plan.prompts.formulas, cited, strip=True)


def refusal(plan: Plan, question: Question, found: Found) -> Answer:
    """The house's refusal, given without asking the model."""
    text = plan.prompts.refusals[0]
    return Answer(question, text, text, (), True, found, (), Completion(text, 0, 0, 0.0, "refused"))


def put(plan: Plan, question: Question, found: Found | None, shots: Shots) -> list[Message]:
    """Return the chat that puts a question to the model, with the passages and examples it is shown."""
    passages = None if found is None else found.passages
    shown = shots(question) if callable(shots) else shots
    return prompting.ask(
        plan.prompts, question.question, passages, shown, system=question.system, history=question.history
    )


def conclude(
    plan: Plan,
    question: Question,
    found: Found | None,
    chat: Sequence[Message],
    completion: Completion,
    citer: Citer | None = None,
) -> Answer:
    """Return what a completion comes to: marks of its own taken out, citations put in, nothing that could be run.

    ``citer`` is the one that cited the answer while it was generated, with the same passages: what it compared is not
    compared again.
    """
    text = strip_marks(completion.text)
    refused = is_refusal(text, plan.prompts.refusals, plan.prompts.formulas)
    if found is None or not found.hits:
        return Answer(question, text, clean.visible(text), (), refused, found, tuple(chat), completion)
    shown = inert(text, [question.question, *(hit.chunk.text for hit in found.hits)])
    citer = citer or Citer(found.hits, plan.prompts.formulas)
    marked, citations = (shown, ()) if refused else citer.whole(shown)
    apart = () if refused else conflicts(question.question, found.hits)
    return Answer(question, text, marked, citations, refused, found, tuple(chat), completion, apart)
