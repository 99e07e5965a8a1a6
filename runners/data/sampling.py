"""One honest split: questions are divided once, by source document and seed, into dev and test.

Dev serves the probe, refusal calibration, the choice of few-shot examples and early stopping; test serves the
verdict and nothing else.

Validation rows set apart by group: what nearly repeats, or comes from one document, stays on one side.

Rows that share their source or their words with training rows are known already, so a loss on them says nothing of
what the model does with new ones, and would never rise to stop a run that learns by heart.

Replay: a share of general rows mixed into training, so that the model keeps what it could do before.

A few percent of rows like those the model was made with already keep most of what tuning would make it forget
(Scialom et al., "Fine-tuned Language Models are Continual Learners", 2022: 1 %). They are the user's own file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor

from rag.errors import BadInput
from rag.files import canonical_json, sha256_text
from runners.data import duplicates
from runners.data.examples import Example, normalise_text
from runners.data.questions import Question


@dataclass(frozen=True, slots=True)
class QuestionSplit:
    """The two halves and the digest that names them in the run's manifest."""

    dev: tuple[Question, ...]
    test: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the ids and texts of both halves, in order."""
        halves = [[(q.id, q.question) for q in half] for half in (self.dev, self.test)]
        return sha256_text(canonical_json(halves))


def split_questions(
    questions: Sequence[Question],
    dev_share: float,
    seed: int,
    test: Sequence[Question] = (),
    max_dev: int | None = None,
    max_test: int | None = None,
) -> QuestionSplit:
    """Divide questions so that no source document stands on both sides.

    Answerable and unanswerable questions are divided apart, so that both halves hold about the same share of
    each. The order of the rows in the file does not matter. With `test` given, every question is dev.
    """
    if test:
        return QuestionSplit(_draw(questions, max_dev, seed), _draw(test, max_test, seed))
    dev: list[Question] = []
    rest: list[Question] = []
    for answerable in (True, False):
        part = [q for q in questions if q.answerable is answerable]
        wanted = round(len(part) * dev_share)
        taken = 0
        for group in _groups(part, seed):
            into_dev = taken + len(group) / 2 <= wanted
            (dev if into_dev else rest).extend(group)
            taken += len(group) if into_dev else 0
    return QuestionSplit(_draw(dev, max_dev, seed), _draw(rest, max_test, seed))


def _groups(questions: Sequence[Question], seed: int) -> list[list[Question]]:
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.doc_id or f"\0{question.id}", []).append(question)
    return [groups[key] for key in sorted(groups, key=lambda key: sha256_text(f"{seed}\0{key}"))]


def _draw(questions: Sequence[Question], most: int | None, seed: int) -> tuple[Question, ...]:
    """Draw at most `most` questions, keeping the share of unanswerable ones; in the order of their ids' hashes."""
    shuffled = sorted(questions, key=lambda q: sha256_text(f"{seed}\0{q.id}\0{q.question}"))
    if most is None or most >= len(shuffled):
        return tuple(shuffled)
    unanswerable = [q for q in shuffled if not q.answerable]
    keep = round(most * len(unanswerable) / len(shuffled))
    chosen = {id(q) for q in unanswerable[:keep]}
    chosen |= {id(q) for q in [q for q in shuffled if q.answerable][: most - keep]}
    return tuple(q for q in shuffled if id(q) in chosen)


ExampleRows = tuple[Example, ...]


def hold_out(rows: Sequence[Example], share: float, seed: int) -> tuple[ExampleRows, ExampleRows]:
    """Divide rows into training and validation, of which ``share`` goes to validation, both in order.

    Whole groups (:func:`groups`) are drawn by the seed; the order of the rows does not matter. At least one
    group is held out when ``share`` is above 0. Raises BadInput when all rows hang together.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of rows for validation must be from 0 to below 1, found {share}")
    if share == 0 or not rows:
        return tuple(rows), ()
    texts = [_said(row) for row in rows]
    found = related_row_groups(rows)
    if len(found) == 1:
        raise BadInput(
            f"none of the {len(rows)} rows can be held out: they all hang together, by source document or near repeat",
            "give validation rows of your own, or train without",
        )
    keys = {place: sha256_text(f"{seed}\0{texts[place]}") for place in range(len(rows))}
    drawn = sorted(found, key=lambda group: min(keys[place] for place in group))
    wanted, taken = share * len(rows), set[int]()
    for group in drawn:
        # The group that crosses the line is taken when more of it stands before the line than after.
        if len(taken) + len(group) / 2 <= wanted:
            taken.update(group)
    if not taken:
        taken.update(sorted(drawn, key=len)[0])
    train = tuple(row for place, row in enumerate(rows) if place not in taken)
    return train, tuple(row for place, row in enumerate(rows) if place in taken)


def related_row_groups(rows: Sequence[Example]) -> list[list[int]]:
    """Return the places of rows that belong together, directly or through others.

    Rows belong together when they name the same ``meta.doc_id``, ask the same question (unless over half of
    all rows do: then it is the task, not the question), or nearly repeat each other (:mod:`runners.data.duplicates`).
    """
    texts = [_said(row) for row in rows]
    first = dict[str, int]()
    same = [first.setdefault(text, place) for place, text in enumerate(texts)]
    once = sorted(set(same))
    links = [*enumerate(same)]
    for own, others in enumerate(
        duplicates.near_duplicate_matches([texts[p] for p in once], [texts[p] for p in once])
    ):
        links += [(once[own], once[other]) for other in others]
    links += _sharing(str(row.meta.get("doc_id") or "") for row in rows)
    asked = [normalise_text(row.question) for row in rows]
    usual = {question for question, n in Counter(asked).items() if n > len(rows) / 2}
    links += _sharing("" if question in usual else question for question in asked)
    return _joined(len(rows), links)


def _sharing(keys: Iterable[str]) -> list[tuple[int, int]]:
    """Link each place to the first with the same key; "" is no key."""
    first = dict[str, int]()
    return [(place, first.setdefault(key, place)) for place, key in enumerate(keys) if key]


def _joined(size: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected places, each group and its members in order."""
    head = list(range(size))

    def top(place: int) -> int:
        while head[place] != place:
            head[place] = place = head[head[place]]
        return place

    for a, b in links:
        low, high = sorted((top(a), top(b)))
        head[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(size):
        members[top(place)].append(place)
    return list(members.values())


def _said(row: Example) -> str:
    return normalise_text("\n".join(m["content"] for m in row.messages if m["role"] != "system"))


def mix_replay_rows(
    rows: Sequence[Example], replay_rows: Sequence[Example], share: float, seed: int
) -> tuple[Example, ...]:
    """Return ``rows`` followed by so many replay rows that they make up ``share`` of all.

    They are drawn by the seed, whatever their order, and carry ``meta.replay`` (:func:`count`). Raises BadInput
    when there are too few of them: none is repeated.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of replay rows must be from 0 to below 1, found {share}")
    wanted = round(len(rows) * share / (1 - share))
    if wanted > len(replay_rows):
        most = floor(100 * len(replay_rows) / (len(rows) + len(replay_rows))) / 100
        raise BadInput(
            f"{wanted} replay rows are wanted to make up {share:.0%} beside {len(rows)} rows, "
            f"there are {len(replay_rows)}",
            f"lower the share to {most:g}, or give more replay rows",
        )
    drawn = sorted(replay_rows, key=lambda row: sha256_text(f"{seed}\0{row.place}\0{row.messages}"))[:wanted]
    return (*rows, *(replace(row, meta={**row.meta, "replay": True}) for row in drawn))


def count_replay_rows(rows: Sequence[Example]) -> int:
    """Count the replay rows among rows."""
    return sum(row.meta.get("replay") is True for row in rows)
