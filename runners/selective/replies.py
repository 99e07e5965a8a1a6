"""The nearest-reply arm: the reply of the nearest question, word for word, where it is near enough; else a refusal.

The questions are those of the training examples and of documents that are questions with answers
(:mod:`runners.selective.faq`). :class:`NearestReplies` has the interface of a generator, so that its answers are asked for,
journaled and scored like those of every other arm; it reads only the last user turn. :func:`fit_replies` makes its index
and fits the cut, :func:`load_replies` reads them. With labels as replies it is nearest-neighbour classification.

The cut (:func:`runners.selective.cuts.fit_reply_cut`) is fitted on the dev questions; where these are too few, on the
training questions, each of which is given the reply of the nearest other one.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rag.errors import BadInput
from rag.files import check_manifest, publish_folder, write_json, write_manifest
from rag.text.words import count_noun
from runners.data.examples import Example, normalise_text
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion, CompletionStream, NearestQuestion
from runners.plan.schema import Plan
from runners.scoring.scores import fault_by_plan
from runners.selective.cuts import ReplyCut, enough_for_cut, fit_reply_cut, most_wrong_of
from runners.selective.faq import faq_pairs

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder

REPLIES_FOLDER = "replies"
KIND = "nearest-replies"
VECTORS = "vectors.safetensors"
FACTS = "replies.json"
MAX_LEFT_OUT_ROWS = 2_000
"""Most training questions on which the cut is fitted, drawn by the seed: more hardly change it."""
ROWS_AT_ONCE = 256
"""Questions that are compared with all rows in one matrix: 100 MB of it with 100,000 rows."""
CutSource = Literal["dev", "examples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyRows:
    """Questions with the reply of each, no question twice, and what was left out."""

    questions: tuple[str, ...]
    replies: tuple[str, ...]
    of_documents: int = 0
    """Those that come from the documents."""
    without_reply: int = 0
    without_question: int = 0
    of: int = 0
    """All rows."""
    contradicting: int = 0
    """Questions that several rows ask and reply to differently: the most frequent reply is kept, of equal ones the first."""

    @property
    def left_out(self) -> int:
        """Rows that cannot be given as a reply."""
        return self.without_reply + self.without_question

    def notes(self) -> list[str]:
        """Return what is to be said of the rows."""
        notes = []
        if self.of_documents:
            notes.append(f"{count_noun(self.of_documents, 'question')} with answers from the documents")
        if self.without_question:
            notes.append(f"{count_noun(self.without_question, 'row')} without a question: left out")
        if self.without_reply:
            notes.append(f"{count_noun(self.without_reply, 'row')} without a reply: left out")
        if self.contradicting:
            notes.append(
                f"{count_noun(self.contradicting, 'question')} with different replies: the most frequent one is given"
            )
        return notes


def reply_rows(examples: Sequence[Example], documents: Path | None) -> ReplyRows:
    """Return the questions and replies of examples, then those of documents that are questions with answers."""
    pairs = [("" if e.raw else e.question.strip(), e.reply) for e in examples]
    own = len(pairs)
    pairs += faq_pairs(documents) if documents is not None else []
    usable = [(n, question, reply) for n, (question, reply) in enumerate(pairs) if question and reply.strip()]
    replies_of: dict[str, Counter[str]] = {}
    first_of: dict[str, tuple[int, str]] = {}
    for n, question, reply in usable:
        key = normalise_text(question)
        replies_of.setdefault(key, Counter())[reply] += 1
        first_of.setdefault(key, (n, question))
    chosen = {key: counts.most_common(1)[0][0] for key, counts in replies_of.items()}
    return ReplyRows(
        questions=tuple(question for _, question in first_of.values()),
        replies=tuple(chosen[key] for key in first_of),
        of_documents=sum(n >= own for n, _ in first_of.values()),
        of=len(pairs),
        without_question=sum(not question for question, _ in pairs),
        without_reply=sum(bool(question) and not reply.strip() for question, reply in pairs),
        contradicting=sum(len({reply.strip() for reply in counts}) > 1 for counts in replies_of.values()),
    )


class NearestReplies:
    """A generator that answers each chat with the reply of the question nearest to its last turn, or a refusal."""

    def __init__(
        self, rows: ReplyRows, vectors: np.ndarray, cut: float | None, encoder: Encoder, refusal: str
    ) -> None:
        """Take the index; ``vectors`` are its questions', float32 [questions, dimensions], ``cut`` None for never."""
        self._rows, self._vectors, self.cut, self._encoder = rows, vectors, cut, encoder
        self._refusal = refusal

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer every chat in one batch; return, and pass to ``on_batch``, the completions of those not in ``known``.

        A reply is whole and no generated token: it is neither cut to ``max_new_tokens`` nor held to a ``constraint``.
        """
        if not chats:
            return []
        started = time.perf_counter()
        texts = [chat[-1]["content"] for chat in chats]
        nearest, similarities = np.zeros(len(texts), int), np.zeros(len(texts))
        worded = [n for n, text in enumerate(texts) if text.strip()]
        if worded:
            vectors = self._encoder.encode([texts[n] for n in worded])
            nearest[worded], similarities[worded] = nearest_rows(self._vectors, vectors)
        seconds = (time.perf_counter() - started) / len(chats)
        positions = [position for position in range(len(chats)) if position not in known]
        completions = []
        for position in positions:
            similarity = float(similarities[position])
            given = self.cut is not None and bool(texts[position].strip()) and similarity >= self.cut
            row = int(nearest[position])
            completions.append(
                Completion(
                    self._rows.replies[row] if given else self._refusal,
                    self.count_tokens(texts[position]),
                    0,
                    seconds,
                    "stop",
                    nearest=NearestQuestion(self._rows.questions[row], round(similarity, 4), given),
                )
            )
        if on_batch:
            on_batch(positions, completions)
        return completions

    def stream(
        self, chat: Sequence[Message], max_new_tokens: int, *, constraint: OutputConstraint | None = None
    ) -> CompletionStream:
        """Return the reply as the only piece of a stream."""
        return CompletionStream.of_whole(lambda: self.generate([chat], max_new_tokens)[0])

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of a text for the embedder."""
        return self._encoder.count_tokens(text)


def nearest_rows(
    vectors: np.ndarray, asked: np.ndarray, without: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest row of each asked vector and their cosine; of equally near rows the first.

    Args:
        vectors: float32 [rows, dimensions].
        asked: float32 [asked, dimensions].
        without: of each asked vector the row that does not count, -1 for none; None where all count.
    """
    nearest, similarities = np.zeros(len(asked), int), np.zeros(len(asked))
    for start in range(0, len(asked), ROWS_AT_ONCE):
        part = np.asarray(asked[start : start + ROWS_AT_ONCE]) @ vectors.T
        places = np.arange(len(part))
        if without is not None:
            own = np.asarray(without[start : start + ROWS_AT_ONCE])
            part[places[own >= 0], own[own >= 0]] = -np.inf
        best = part.argmax(axis=1)
        nearest[start : start + len(part)], similarities[start : start + len(part)] = best, part[places, best]
    return nearest, similarities


def check_replies_plan(plan: Plan, examples: Sequence[Example]) -> None:
    """Raise BadInput for a plan with an arm of nearest replies and nothing to give, before anything runs."""
    for arm in plan.arms:
        if arm.nearest_reply and not (rows := reply_rows(examples, plan.data.documents)).questions:
            raise BadInput(
                f"the arm {arm.arm} has no reply to give: none of {count_noun(rows.left_out, 'row')} has a question and one",
                f"give examples with both, or take {arm.arm} out of the plan",
            )


def fit_replies(
    plan: Plan,
    arm: str,
    examples: Sequence[Example],
    dev: Sequence[Question],
    encoder: Encoder,
    run: Path,
    made_from: str,
) -> dict[str, Any]:
    """Make an arm's index and its cut and store them in the run, unless they are there; return facts for the event.

    Args:
        plan: the run's plan.
        arm: the arm's name.
        examples: the training examples.
        dev: the dev questions.
        encoder: the embedder.
        run: the run folder.
        made_from: digest of the inputs.

    Raises:
        BadInput: there is nothing to give.
    """
    folder = run / REPLIES_FOLDER / arm
    stored = _read_facts(folder)
    if stored.get("made_from") == made_from:
        check_manifest(folder, KIND)
        return dict(stored["facts"])
    check_replies_plan(plan, examples)
    rows = reply_rows(examples, plan.data.documents)
    vectors = np.asarray(encoder.encode(list(rows.questions)), np.float32)
    cut, source = _fit_cut(plan, rows, vectors, dev, encoder)
    facts = {
        "rows": len(rows.questions),
        "left_out": rows.left_out,
        "of": rows.of,
        "on": source,
        **asdict(cut),
        "notes": [*rows.notes(), cut_text(cut, source)],
    }
    _store(folder, rows, vectors, cut, encoder.fingerprint, {"made_from": made_from, "facts": facts})
    return facts


def load_replies(run: Path, arm: str, embedder: Callable[[], Encoder], refusal: str) -> NearestReplies:
    """Return the nearest replies that a run holds for an arm; BadInput when they are missing or damaged.

    Args:
        run: the run folder.
        arm: the arm's name.
        embedder: returns the plan's embedder.
        refusal: what is answered where no reply is near enough.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from rag.embedding.protocol import Configurable

    folder = run / REPLIES_FOLDER / arm
    if not folder.exists():
        raise BadInput(
            f"the run has no replies for the arm {arm}", f"finish it with: tunewise run {run} --resume"
        )
    check_manifest(folder, KIND)
    try:
        body = json.loads((folder / FACTS).read_text("utf-8"))
        rows = ReplyRows(questions=tuple(body["questions"]), replies=tuple(body["replies"]))
        vectors = load_file(str(folder / VECTORS))["vectors"]
        cut, made_with = body["cut"], body["embedder"]
        if not len(vectors) == len(rows.questions) == len(rows.replies) > 0:
            raise ValueError(f"vectors: {len(vectors)}, questions: {len(rows.questions)}")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(
            f"{folder} is damaged: {error!r}", "make it again: tunewise run RUN --resume"
        ) from None
    encoder = embedder()
    if isinstance(encoder, Configurable):
        encoder = encoder.matching(made_with, "") or encoder
    if made_with != encoder.fingerprint:
        raise BadInput(
            f"{folder} was made with another embedder", "make it again: tunewise run RUN --overwrite"
        )
    return NearestReplies(rows, vectors, cut, encoder, refusal)


def cut_text(cut: ReplyCut, source: CutSource) -> str:
    """Return what a cut was fitted on and what it does there, in words."""
    where = "dev questions" if source == "dev" else "training questions, each against the others"
    asked = f"at most {cut.most_wrong:.0%} of the replies may be wrong"
    if cut.cut is None:
        needed = enough_for_cut(cut.most_wrong)
        why = (
            f"{cut.questions} {where} are fewer than the {needed} that this needs"
            if cut.questions < needed
            else f"on {cut.questions} {where} no similarity has that"
        )
        return f"no reply is given: {asked}, and {why}"
    return (
        f"a reply is given from a similarity of {cut.cut:.2f} on: {asked}; fitted on {cut.questions} {where}, "
        f"{cut.given} are given one and {cut.wrong} of these are wrong"
    )


def _fit_cut(
    plan: Plan, rows: ReplyRows, vectors: np.ndarray, dev: Sequence[Question], encoder: Encoder
) -> tuple[ReplyCut, CutSource]:
    """Return the cut, and on what it was fitted: the dev questions, or where they are too few the training questions."""
    most_wrong = most_wrong_of(plan)
    needed = enough_for_cut(most_wrong)
    judged = _judged_dev(plan, rows, vectors, dev, encoder) if len(dev) >= needed else []
    if len(judged) >= needed:
        return _cut_of(judged, most_wrong), "dev"
    judged = _judged_rows(plan, rows, vectors)
    if len(judged) >= needed:
        return _cut_of(judged, most_wrong), "examples"
    return ReplyCut(cut=None, most_wrong=most_wrong, questions=len(judged), given=0, wrong=0), "examples"


def _cut_of(judged: Sequence[tuple[float, bool]], most_wrong: float) -> ReplyCut:
    return fit_reply_cut([one for one, _ in judged], [right for _, right in judged], most_wrong)


def _judged_dev(
    plan: Plan, rows: ReplyRows, vectors: np.ndarray, dev: Sequence[Question], encoder: Encoder
) -> list[tuple[float, bool]]:
    """Return the similarity of each dev question's nearest reply and whether that is right.

    A dev question that is also a training question does not count that one. Replies that refuse are left out, and questions
    without gold.
    """
    place_of = {normalise_text(question): n for n, question in enumerate(rows.questions)}
    own = [place_of.get(normalise_text(question.question), -1) for question in dev]
    asked = encoder.encode([question.question for question in dev])
    judged = []
    for question, row, similarity in zip(dev, *nearest_rows(vectors, asked, own), strict=True):
        reply = rows.replies[row]
        fault = None if plan.refuses(reply) else fault_by_plan(plan, question, reply)
        if fault is not None and np.isfinite(similarity):
            judged.append((float(similarity), not fault))
    return judged


def _judged_rows(plan: Plan, rows: ReplyRows, vectors: np.ndarray) -> list[tuple[float, bool]]:
    """Return the similarity of each training question's nearest other one, and whether that one's reply is right for it."""
    count = len(rows.questions)
    if count < 2:
        return []
    drawn = sorted(random.Random(plan.seed).sample(range(count), min(count, MAX_LEFT_OUT_ROWS)))
    nearest, similarities = nearest_rows(vectors, vectors[drawn], drawn)
    judged = []
    for row, other, similarity in zip(drawn, nearest, similarities, strict=True):
        reply, reference = rows.replies[other], rows.replies[row]
        if plan.refuses(reply):
            continue
        answerable = not plan.refuses(reference)
        question = Question(str(row), rows.questions[row], reference=reference, answerable=answerable)
        right = reply.strip() == reference.strip() or fault_by_plan(plan, question, reply) == ""
        judged.append((float(similarity), right))
    return judged


def _store(
    folder: Path,
    rows: ReplyRows,
    vectors: np.ndarray,
    cut: ReplyCut,
    embedder: str,
    facts: dict[str, Any],
) -> None:
    from safetensors.numpy import save_file

    new = folder.with_name(f".{folder.name}.new")
    for old in (new, folder):
        if old.exists():
            shutil.rmtree(old)
    new.mkdir(parents=True)
    save_file({"vectors": np.ascontiguousarray(vectors)}, str(new / VECTORS))
    body = {"questions": rows.questions, "replies": rows.replies, "cut": cut.cut, "embedder": embedder}
    write_json(new / FACTS, {"schema": 1, **body, **facts})
    write_manifest(new, KIND)
    publish_folder(new, folder)


def _read_facts(folder: Path) -> dict[str, Any]:
    """Return what is stored of an arm; {} where it cannot be read."""
    try:
        body = json.loads((folder / FACTS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) and "facts" in body else {}
