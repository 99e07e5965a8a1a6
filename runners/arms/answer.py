"""From a question to an answer with citations: one path for the trial, `ask`, `chat` and the server.

:func:`answer_all` answers questions in batches, :func:`stream_answer` yields one answer while it is
generated; both end in :func:`finish_answer`. :class:`StreamedAnswer` decides what of a stream may be shown. A
stream cannot be corrected, so only what is final is given out: whole sentences with their citation marks, and
the leading words of the unfinished sentence as long as they are nothing but words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import asdict, dataclass, replace
from typing import Any

from rag.grounding.citations import SentenceCiter, marked_end, remove_marks, strip_marks
from rag.grounding.conflicts import Conflict, find_conflicts
from rag.refusal.relevance import BESIDE, LEAST_SUPPORT, check_citations
from rag.text import sanitize
from rag.text.sanitize import neutralise_links, strip_invisible
from rag.text.words import sentence_spans
from rag.types import Citation, Hit
from runners import notebook
from runners.arms import prompts
from runners.arms.answer_constraint import constraint_keyword
from runners.arms.prompts import FewShotExamples
from runners.arms.retriever import PassageFinder, Retrieved, looked_up
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.types import Completion, Generator
from runners.plan.gate import Check
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.scoring.style_checks import Formulas

_PLAIN = re.compile(r"[^\[\]【】<>(){}`:/\\!*]*")
"""Text in which no link, tag, citation mark or address can begin."""
_OPEN = re.compile(r"(?<!\s)\s*(?:\[[\d\s,;]*|【\s*(?:\d[^】]*)?)$")
"""An end of the text that may become a citation mark."""
BESIDE_NOTE = "what it cites seems not to be what was asked"
"""What is said with an answer whose citations are beside the question."""
NEAREST_SHOWN = 3
"""Number of passages offered with a refusal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one arm."""

    question: Question
    text: str
    """The model's words without citation marks; style is checked on them."""
    marked: str
    """The text that is shown: `[n]` after every sentence that a passage supports, and no links, tags or escape sequences."""
    citations: tuple[Citation, ...]
    refused: bool
    found: Retrieved | None
    """The result of retrieval; None for an arm without it."""
    chat: tuple[Message, ...]
    completion: Completion
    conflicts: tuple[Conflict, ...] = ()
    """Passages that contradict each other, to be shown side by side."""
    arm: str = ""
    """The arm that answered, where the caller does not know it."""
    support: float | None = None
    """How likely what it cites answers the question (:func:`rag.refusal.relevance.check_citations`); None where it cites
    nothing by its nature, as refusals do."""
    withheld: Answer | None = None
    """What would be shown, marked, if answers without support were not refused; None for an answer that is shown."""

    @property
    def hits(self) -> tuple[Hit, ...]:
        """The passages that were shown to the model, best first."""
        return self.found.hits if self.found else ()

    def _repr_html_(self) -> str:
        """Return the answer and the passages it cites as HTML for a notebook; all text is escaped."""
        cited = [f"[{c.n}] {c.location()}: “{c.quote}”" for c in self.citations if c.n]
        unsupported = sum(1 for c in self.citations if not c.n)
        beside = self.beside
        parts = [notebook.html_paragraph(self.marked)]
        parts += [notebook.html_list(dict.fromkeys(cited))] if cited else []
        if unsupported:
            text = f"{unsupported} of its sentences are not supported by any passage."
            parts.append(notebook.html_paragraph(text, "color:#b35900"))
        if beside:
            parts.append(notebook.html_paragraph(BESIDE_NOTE, "color:#b35900"))
        note = self.why_refused or f"arm: {self.arm}" * bool(self.arm)
        return f"<div>{''.join(parts)}{f'<small>{notebook.html_text(note)}</small>' if note else ''}</div>"

    @property
    def why_refused(self) -> str:
        """Why there is no answer; "" where there is one."""
        if self.withheld:
            return "not certain: the passages do not support the model's answer"
        return "the documents have no answer" if self.refused else ""

    @property
    def beside(self) -> bool:
        """Whether what it cites seems not to be what was asked."""
        return any(citation.support == BESIDE for citation in self.citations)

    @property
    def searched(self) -> Mapping[str, int] | None:
        """How many documents and passages were searched, and in which generation; None for an arm without retrieval."""
        return self.found.searched if self.found else None

    @property
    def nearest_hits(self) -> tuple[Hit, ...]:
        """The passages nearest to a question that was refused, best first; () if it was answered, or looked up."""
        return self.hits[:NEAREST_SHOWN] if self.refused and not self.completion.lookups else ()

    @property
    def nearest(self) -> list[dict[str, Any]]:
        """The nearest passages as JSON: rank, position in the document, date, text, cosine with the question, and score."""
        return [
            {
                "n": n,
                "rank": n,
                "doc": hit.chunk.doc,
                "title": hit.chunk.title,
                "page": hit.chunk.page,
                "line_start": hit.chunk.line_start,
                "line_end": hit.chunk.line_end,
                "date": hit.date,
                "text": hit.chunk.text,
                "cosine": round(hit.dense, 4),
                "score": round(hit.score, 4),
                **({"valid_until": hit.valid_until, "expired": hit.expired} if hit.valid_until else {}),
            }
            for n, hit in enumerate(self.nearest_hits, start=1)
        ]

    def reply_json(self, arm: str) -> dict[str, Any]:
        """Return the answer as `ask --json` prints it and the server sends it; ``arm`` is the one that answered."""
        return {
            "schema": 1,
            "answer": self.marked,
            "refused": self.refused,
            "uncertain": self.withheld is not None,
            "beside": self.beside,
            "arm": arm,
            **({"answered_by": self.arm} if self.arm and self.arm != arm else {}),
            "citations": [c.to_json() for c in self.citations],
            "conflicts": [c.to_json() for c in self.conflicts],
            "searched": self.searched,
            "nearest": self.nearest,
            "decision": self.found.decision.to_json() if self.found else None,
            "notes": list(self.found.notes) if self.found else [],
            "usage": {
                "prompt_tokens": self.completion.prompt_tokens,
                "completion_tokens": self.completion.completion_tokens,
                **self._reasoning_json(),
            },
            "seconds": round(self.completion.seconds, 3),
            **self._labels_json(),
            **self._lookups_json(),
        }

    def to_json(self, arm: str, seed: int) -> dict[str, Any]:
        """Return the row of `trial/answers.jsonl`: everything that went into the answer and everything that came out.

        `prompt` is the chat as it was sent, with examples and passages; it is empty when the arm refused
        without asking the model (`finish` is "refused"). `context` names the passages shown, as spans of the
        documents. `answer` is the model's text, `marked` the same with its `citations`. Tokens and seconds
        are those of this answer (`tokens_estimated`: estimated from the number of characters). Passages that
        repeat are stored once in the journal: see :mod:`runners.arms.long_context`. `decision` has the signals of the
        refusal, where passages were searched for.
        """
        return {
            "arm": arm,
            "seed": seed,
            "id": self.question.id,
            "question": self.question.question,
            **self._shown_json(),
            "context": [{"doc": h.chunk.doc, "start": h.chunk.start, "end": h.chunk.end} for h in self.hits],
            "prompt": list(self.chat),
            "prompt_tokens": self.completion.prompt_tokens,
            "completion_tokens": self.completion.completion_tokens,
            "tokens_estimated": self.completion.estimated,
            "seconds": round(self.completion.seconds, 4),
            "finish": self.completion.finish,
            **self._reasoning_json(),
            **self._labels_json(),
            **self._lookups_json(),
            **({"decision": self.found.decision.to_json()} if self.found and self.found.is_searched else {}),
            **({"support": round(self.support, 4)} if self.support is not None else {}),
            **({"withheld": self.withheld._shown_json()} if self.withheld else {}),
        }

    def _shown_json(self) -> dict[str, Any]:
        """Return what is shown of the answer."""
        return {
            "answer": self.text,
            "marked": self.marked,
            "refused": self.refused,
            "citations": [c.to_json() for c in self.citations],
            "conflicts": [c.to_json() for c in self.conflicts],
        }

    def _reasoning_json(self) -> dict[str, Any]:
        """Return the tokens of the reasoning, and whether it was cut; {} without reasoning, as for earlier runs."""
        done = self.completion
        counts = {"reasoning_tokens": done.reasoning_tokens, "reasoning_cut": done.reasoning_cut}
        return {key: value for key, value in counts.items() if value}

    def _labels_json(self) -> dict[str, Any]:
        """Return the probabilities of the most likely labels, and the nearest question; {} for answers of other arms."""
        labels, nearest = [asdict(one) for one in self.completion.labels], self.completion.nearest
        return {**({"labels": labels} if labels else {}), **({"example": asdict(nearest)} if nearest else {})}

    def _lookups_json(self) -> dict[str, Any]:
        """Return the counts of what the model looked up itself; {} for answers of other arms."""
        done = self.completion.lookups
        return {"lookups": done.to_json()} if done else {}


OnAnswers = Callable[[list[Answer]], None] | None


class StreamedAnswer:
    """The pieces of one answer as they are shown while the model generates.

    A sentence is sanitised and cited once, when the next one begins. Earlier text is not processed again,
    except where a link, a tag or an escape sequence might continue: then all sentences since the start of
    that line are sanitised together.
    """

    def __init__(
        self,
        hits: Sequence[Hit] = (),
        question: str = "",
        formulas: Container[str] = (),
        cited: bool = False,
        strip: bool = False,
    ) -> None:
        """Start an empty answer.

        Args:
            hits: the passages that the model was shown.
            question: the question's text; links that occur in it are left as they are.
            formulas: sentences that need no citation.
            cited: whether citations are added; without it only invisible characters are removed.
            strip: whether citation marks that the model wrote itself are removed.
        """
        self.citer = SentenceCiter(hits, formulas)
        """Cites the sentences; it is used again for the whole answer, so that nothing is compared twice."""
        self._cited = cited
        self._strip = strip
        self._sources = [question, *(hit.chunk.text for hit in hits)]
        self._raw = ""
        """The generated text; of a cited answer only what follows the last settled sentence."""
        self._settled = 0
        """Number of characters before ``_raw``, without marks."""
        self._end = 0
        """Offset in ``_raw`` (without marks) where its last whole sentence ends."""
        self._harmless = ""
        """The whole sentences of ``_raw``, sanitised, as the citer has them."""
        self._words = ""
        """The words of the unfinished sentence that are given out."""
        self._taken = 0
        """Number of characters of the answer, without marks, that are given out."""
        self.shown = ""
        """Everything given out so far."""

    def add(self, piece: str) -> str:
        """Take the next generated text; return what may be shown now, often ""."""
        self._raw += piece
        if self._cited:
            return self._add_cited()
        if self._strip:
            open_end = _OPEN.search(self._raw)
            text = strip_invisible(strip_marks(self._raw[: open_end.start()] if open_end else self._raw))
            return self._give(text, len(text))
        # The start of an incomplete terminal escape sequence is removed until the sequence is complete.
        return self._give(strip_invisible(self._raw), len(self._raw))

    def finish(self, whole: str, words: str) -> str:
        """Return what is left to show when the answer has ended.

        Args:
            whole: the answer as it is shown, with marks.
            words: the same text before marks were added.

        When the last sentences changed the marks of text that is already given out, the rest is returned
        without marks, so that no words are missing.
        """
        if whole.startswith(self.shown):
            return self._give(whole, len(words))
        return self._give(self.shown + neutralise_links(words[self._taken :], self._sources), len(words))

    def _add_cited(self) -> str:
        text = remove_marks(self._raw).rstrip()
        skipped = 0 if self._settled else len(text) - len(text.lstrip())
        text = text[skipped:]
        spans = sentence_spans(text)
        end = spans[-2][1] if len(spans) > 1 else 0
        new_text = ""
        if end != self._end:
            harmless = self._make_harmless(text[:end])
            if not harmless.startswith(self._harmless + self._words):
                return ""  # It differs from what was given out: wait until it fits again.
            new_text = self.citer.add(harmless[len(self._harmless) :], text[end:])[len(self._words) :]
            self._end, self._harmless, self._words = end, harmless, ""
        match = _PLAIN.match(text, end)
        plain = text[end : match.end() if match else end]
        words = plain[: _last_space(plain)].rstrip()
        if strip_invisible(words) == words and words.startswith(self._words):
            new_text += words[len(self._words) :]
            self._words = words
        self.shown += new_text
        self._taken = self._settled + len(strip_invisible(text[:end])) + len(self._words)
        if end and _is_settled(text[:end]):
            self._raw = self._raw[marked_end(self._raw, skipped + end) :]
            self._settled, self._end, self._harmless = self._settled + end, 0, ""
        return new_text

    def _make_harmless(self, text: str) -> str:
        """Return the sentences after the settled ones without links, tags and escape sequences, and without marks."""
        # A letter in front, because only text after a line break begins a line.
        before = "x" if self._settled else ""
        harmless = remove_marks(neutralise_links(before + text, self._sources)[len(before) :]).rstrip()
        return harmless if self.citer.text else harmless.lstrip()

    def _give(self, text: str, taken: int) -> str:
        """Return the part of ``text`` that was not shown yet; "" when it does not continue what was shown."""
        if not text.startswith(self.shown) or len(text) == len(self.shown):
            return ""
        piece = text[len(self.shown) :]
        self.shown, self._taken = text, taken
        return piece


def answer_all(
    plan: Plan,
    arm: EvaluateStep,
    questions: Sequence[Question],
    generator: Callable[[], Generator],
    retriever: PassageFinder | None,
    shots: FewShotExamples = (),
    on_answers: OnAnswers = None,
    known: Container[str] = (),
) -> list[Answer]:
    """Answer every question with one arm.

    An arm with retrieval does not ask the model when the calibrated threshold says that the documents do not
    hold the answer: it returns the plan's refusal.

    Args:
        plan: the run's plan.
        arm: the arm that answers.
        questions: the questions.
        generator: returns the arm's model; called where there is something to ask it.
        retriever: provides the passages; None for an arm without.
        shots: the examples to show.
        on_answers: called with each batch of answers as it is finished.
        known: ids of questions that were answered before. They are not answered again, but stay in the list
            of chats so that the others are batched exactly as in the first attempt.

    Returns:
        The new answers, in the order of the questions.
    """
    retrieved: list[Retrieved | None] = [None] * len(questions)
    if arm.retrieval and retriever is not None:
        retrieved = list(retriever.find([q.question for q in questions]))
    done: dict[int, Answer] = {}
    asked_positions = [i for i, result in enumerate(retrieved) if result is None or not result.refuse]
    for position, result in enumerate(retrieved):
        if result is not None and result.refuse and questions[position].id not in known:
            done[position] = make_refusal(plan, questions[position], result)
    if on_answers and done:
        on_answers(list(done.values()))
    chats = [build_chat(plan, questions[i], retrieved[i], shots) for i in asked_positions]

    def finished(batch: list[int], completions: list[Completion]) -> None:
        answers = [
            finish_answer(
                plan, questions[asked_positions[n]], retrieved[asked_positions[n]], chats[n], completion
            )
            for n, completion in zip(batch, completions, strict=True)
        ]
        done.update(zip([asked_positions[n] for n in batch], answers, strict=True))
        if on_answers:
            on_answers(answers)

    known_positions = {n for n, i in enumerate(asked_positions) if questions[i].id in known}
    if len(known_positions) < len(chats):
        held = constraint_keyword(plan)
        generator().generate(chats, plan.max_new_tokens, finished, known=known_positions, **held)
    return [done[i] for i in range(len(questions)) if i in done]


def stream_answer(
    plan: Plan,
    arm: EvaluateStep,
    question: Question,
    generator: Callable[[], Generator],
    retriever: PassageFinder | None,
    shots: FewShotExamples = (),
) -> Running[str, None, Answer]:
    """Yield the pieces of one answer while the model generates it; return the answer that :func:`answer_all` gives.

    The pieces are what is shown, ``marked`` of the answer: cited sentence by sentence, without marks of the
    model's own. The arguments are those of :func:`answer_all`: the model is requested when the passages are found.
    """
    if arm.looks_up or plan.refusal.checks(arm):  # what it cites is known when it has ended
        answer = answer_all(plan, arm, [question], generator, retriever, shots)[0]
        yield answer.marked
        return answer
    retrieved = retriever.find([question.question])[0] if arm.retrieval and retriever is not None else None
    if retrieved is not None and retrieved.refuse:
        refused = make_refusal(plan, question, retrieved)
        yield refused.text
        return refused
    chat = build_chat(plan, question, retrieved, shots)
    streamed = stream_of(plan, question, retrieved)
    stream = generator().stream(chat, plan.max_new_tokens, **constraint_keyword(plan))
    try:
        for piece in stream:
            if shown := streamed.add(piece):
                yield shown
    finally:
        stream.close()
    answer = finish_answer(plan, question, retrieved, chat, stream.completion, streamed.citer)
    if rest := streamed.finish(answer.marked, sanitize.strip_invisible(answer.text)):
        yield rest
    return answer


def stream_of(
    plan: Plan, question: Question, retrieved: Retrieved | None, plain: bool = False
) -> StreamedAnswer:
    """Return the object that an answer's pieces pass through before they are shown; ``plain`` leaves out citations."""
    hits = retrieved.hits if retrieved else ()
    cited = bool(hits) and not plain
    return StreamedAnswer(hits, question.question, Formulas(plan), cited, strip=not _writes_json(plan))


def make_refusal(plan: Plan, question: Question, retrieved: Retrieved) -> Answer:
    """Return the plan's refusal as an answer, given without asking the model."""
    text = plan.prompts.refusals[0]
    return Answer(question, text, text, (), True, retrieved, (), Completion(text, 0, 0, 0.0, "refused"))


def build_chat(
    plan: Plan, question: Question, retrieved: Retrieved | None, shots: FewShotExamples
) -> list[Message]:
    """Return the chat that puts a question to the model, with the passages and examples it is shown."""
    passages = None if retrieved is None else retrieved.passages
    shown = shots(question) if callable(shots) else shots
    return prompts.build_messages(
        plan.prompts, question.question, passages, shown, system=question.system, history=question.history
    )


def finish_answer(
    plan: Plan,
    question: Question,
    retrieved: Retrieved | None,
    chat: Sequence[Message],
    completion: Completion,
    citer: SentenceCiter | None = None,
) -> Answer:
    """Turn a completion into an answer: the model's own marks removed, citations added, links and tags made harmless.

    Args:
        plan: the run's plan.
        question: the question.
        retrieved: the result of retrieval; None for an arm without it, and for one that looked things up itself.
        chat: the chat that was sent.
        completion: the model's reply.
        citer: the citer that processed the answer while it was generated, with the same passages; what it
            compared is not compared again.
    """
    # A list of numbers in JSON looks like citation marks.
    text = completion.text if _writes_json(plan) else strip_marks(completion.text)
    refused = plan.refuses(text)
    if completion.lookups:  # every statement is checked, also where nothing was read
        retrieved, citer = looked_up(completion.lookups), None
    elif retrieved is None or not retrieved.hits:
        return Answer(
            question, text, sanitize.strip_invisible(text), (), refused, retrieved, tuple(chat), completion
        )
    shown = neutralise_links(text, [question.question, *(hit.chunk.text for hit in retrieved.hits)])
    citer = citer or SentenceCiter(retrieved.hits, Formulas(plan))
    marked, citations = (shown, ()) if refused else citer.whole(shown)
    citations, support = check_citations(question.question, citations, retrieved.reader)
    conflicts = () if refused else find_conflicts(question.question, retrieved.hits)
    answer = Answer(question, text, marked, citations, refused, retrieved, tuple(chat), completion, conflicts)
    if refused:
        return answer
    answer = replace(answer, support=support)
    least = LEAST_SUPPORT if plan.refusal.least_support is None else plan.refusal.least_support
    return _withheld(plan, answer) if plan.refusal.check == "refuse" and support < least else answer


def with_check(plan: Plan, check: Check | None) -> Plan:
    """Return the plan with this for answers without support; None leaves it as it is."""
    return (
        plan
        if check is None
        else plan.model_copy(update={"refusal": plan.refusal.model_copy(update={"check": check})})
    )


def _withheld(plan: Plan, answer: Answer) -> Answer:
    """Return the plan's refusal in place of an answer, with the nearest passage as the place to look."""
    text = plan.prompts.refusals[0]
    nearest = answer.hits[0].chunk if answer.hits else None
    place = sanitize.single_line(f"{nearest.title} ({nearest.location(short=True)})") if nearest else ""
    shown = f"{text}\n→ {neutralise_links(place)}" if place else text
    return replace(answer, text=text, marked=shown, citations=(), conflicts=(), refused=True, withheld=answer)


def _writes_json(plan: Plan) -> bool:
    """Return whether the plan's checks ask for JSON."""
    return any(check.kind == "json_schema" for check in plan.checks)


def _is_settled(text: str) -> bool:
    """Return whether nothing that is sanitised can begin in the text and continue after it.

    Links end with their line, tags with ``>``, marks with ``】``; text with escape sequences is never settled.
    """
    if "[" in text[text.rfind("\n") + 1 :] or "【" in text or strip_invisible(text) != text:
        return False
    depth = 0
    for bracket in re.findall("[<>]", text):
        depth = depth + 1 if bracket == "<" else max(0, depth - 1)
    return depth == 0


def _last_space(text: str) -> int:
    """Return the offset of a text's last white space; 0 when there is none."""
    return max(0, *(text.rfind(space) for space in " \n\t"))
