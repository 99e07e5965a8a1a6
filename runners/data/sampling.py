"""Splits and samples of questions and examples: dev and test, validation rows, replay rows. All are drawn by a seed.

:func:`split_questions` divides questions once, by source document, into dev and test. Dev is for the probe, the calibration
of refusals, the choice of few-shot examples and early stopping; test is for the verdict and nothing else.

:func:`hold_out` draws validation rows in groups: near repeats and rows of one document stay on one side. A loss on rows
that share their source or their words with training rows says nothing about new rows, and would never rise to stop a run
that overfits.

:func:`mix_replay_rows` adds a share of general rows to the training rows against forgetting: a few percent of rows like
those of earlier training keep most of what the model could do before (Scialom et al., "Fine-tuned Language Models are
Continual Learners", 2022: 1 %). They come from a file of the user's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor

from rag.errors import BadInput
from rag.files import canonical_json, sha256_text
from rag.text.words import count_noun
from runners.data import duplicates
from runners.data.examples import Example, normalise_text
from runners.data.questions import Question, with_wordings

ExampleRows = tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class QuestionSplit:
    """The dev and test questions, with the digest that identifies them in the run's manifest.

    A question and its wordings are in one half. Dev questions have them as their rows do; test questions are what a trial
    asks, each followed by its wordings (:func:`runners.data.questions.with_wordings`).
    """

    dev: tuple[Question, ...]
    test: tuple[Question, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the ids and texts of both halves, in order."""
        halves = [[(q.id, q.question) for q in with_wordings(half)] for half in (self.dev, self.test)]
        return sha256_text(canonical_json(halves))


def split_questions(
    questions: Sequence[Question],
    dev_share: float,
    seed: int,
    test: Sequence[Question] = (),
    max_dev: int | None = None,
    max_test: int | None = None,
) -> QuestionSplit:
    """Divide questions so that no source document is on both sides.

    Answerable and unanswerable questions are divided separately, so that both halves have about the same share of
    each. The order of the rows in the file does not matter.

    Args:
        questions: the questions to divide; all of them are dev when ``test`` is given.
        dev_share: share of the questions that is dev.
        seed: seed of the order in which documents are drawn.
        test: test questions from a file of their own.
        max_dev: most dev questions, drawn at random; None is no limit. Wordings do not count.
        max_test: most test questions, drawn at random; None is no limit. Wordings do not count.
    """
    if test:
        return QuestionSplit(_draw(questions, max_dev, seed), with_wordings(_draw(test, max_test, seed)))
    dev: list[Question] = []
    rest: list[Question] = []
    for answerable in (True, False):
        part = [q for q in questions if q.drawn_by[1] is answerable]
        target = round(len(part) * dev_share)
        drawn = 0
        for group in _groups_by_document(part, seed):
            # A group goes to dev when at least half of it is within the target.
            into_dev = drawn + len(group) / 2 <= target
            (dev if into_dev else rest).extend(group)
            drawn += len(group) if into_dev else 0
    return QuestionSplit(_draw(dev, max_dev, seed), with_wordings(_draw(rest, max_test, seed)))


def _groups_by_document(questions: Sequence[Question], seed: int) -> list[list[Question]]:
    """Group questions by document, in an order drawn by the seed; one without a document is a group of its own."""
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.drawn_by[0] or f"\0{question.id}", []).append(question)
    return [groups[key] for key in sorted(groups, key=lambda key: sha256_text(f"{seed}\0{key}"))]


def _draw(questions: Sequence[Question], most: int | None, seed: int) -> tuple[Question, ...]:
    """Draw at most ``most`` questions, keeping the share of unanswerable ones, in the order of their hashes."""
    shuffled = sorted(questions, key=lambda q: sha256_text(f"{seed}\0{q.id}\0{q.question}"))
    if most is None or most >= len(shuffled):
        return tuple(shuffled)
    unanswerable = [q for q in shuffled if not q.drawn_by[1]]
    unanswerable_count = round(most * len(unanswerable) / len(shuffled))
    chosen = {id(q) for q in unanswerable[:unanswerable_count]}
    chosen |= {id(q) for q in [q for q in shuffled if q.drawn_by[1]][: most - unanswerable_count]}
    return tuple(q for q in shuffled if id(q) in chosen)


def hold_out(rows: Sequence[Example], share: float, seed: int) -> tuple[ExampleRows, ExampleRows]:
    """Divide rows into training and validation rows, both in their original order.

    Whole groups (:func:`related_row_groups`) are drawn by the seed; the order of the rows does not matter.

    Args:
        rows: the rows to divide.
        share: share of the rows for validation, from 0 to below 1; above 0, at least one group is held out.
        seed: seed of the draw.

    Raises:
        BadInput: ``share`` is out of bounds, or all rows are one group.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of rows for validation must be from 0 to below 1, found {share}")
    if share == 0 or not rows:
        return tuple(rows), ()
    texts = [_normalised_chat(row) for row in rows]
    groups = related_row_groups(rows)
    if len(groups) == 1:
        raise BadInput(
            f"none of the {len(rows)} rows can be held out: all are linked to each other by source document or near repeat",
            "give validation rows of your own, or train without",
        )
    keys = {index: sha256_text(f"{seed}\0{texts[index]}") for index in range(len(rows))}
    shuffled = sorted(groups, key=lambda group: min(keys[index] for index in group))
    target = share * len(rows)
    validation = set[int]()
    for group in shuffled:
        # A group is held out when at least half of it is within the target, and rows to train on are left.
        held = len(validation) + len(group)
        if held - len(group) / 2 <= target and held < len(rows):
            validation.update(group)
    if not validation:
        validation.update(sorted(shuffled, key=len)[0])
    train = tuple(row for index, row in enumerate(rows) if index not in validation)
    return train, tuple(row for index, row in enumerate(rows) if index in validation)


def related_row_groups(rows: Sequence[Example]) -> list[list[int]]:
    """Return the indices of related rows, in groups: rows are in one group when they are linked directly or by others.

    Rows are linked when they name the same ``meta.doc_id``, ask the same question (unless over half of all rows do: then
    it is the task, not the question), or nearly repeat each other (:mod:`runners.data.duplicates`).
    """
    texts = [_normalised_chat(row) for row in rows]
    first_of_text = dict[str, int]()
    same_text = [first_of_text.setdefault(text, index) for index, text in enumerate(texts)]
    links = [*enumerate(same_text)]
    # Normalised texts are one segment: rows that share a passage are linked, whatever they ask about it, since validation
    # rows must not share their source with training rows. Equal texts are linked already: only one of them is compared.
    unique = sorted(set(same_text))
    unique_texts = [texts[index] for index in unique]
    for own, others in enumerate(duplicates.near_duplicate_matches(unique_texts, unique_texts)):
        links += [(unique[own], unique[other]) for other in others]
    links += _links_by_key(str(row.meta.get("doc_id") or "") for row in rows)
    questions = [normalise_text(row.question) for row in rows]
    common = {question for question, n in Counter(questions).items() if n > len(rows) / 2}
    links += _links_by_key("" if question in common else question for question in questions)
    return _connected_components(len(rows), links)


def _links_by_key(keys: Iterable[str]) -> list[tuple[int, int]]:
    """Link the index of each key to the first index of the same key; "" is no key."""
    first = dict[str, int]()
    return [(index, first.setdefault(key, index)) for index, key in enumerate(keys) if key]


def _connected_components(size: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of the graph of ``size`` nodes, by union-find; groups and members ascend."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            # Path halving: each node visited is attached to its grandparent, which keeps the paths short.
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for node in range(size):
        members[root(node)].append(node)
    return list(members.values())


def _normalised_chat(row: Example) -> str:
    """Return all turns but the system's as one normalised text."""
    return normalise_text("\n".join(m["content"] for m in row.messages if m["role"] != "system"))


def mix_replay_rows(
    rows: Sequence[Example], replay_rows: Sequence[Example], share: float, seed: int
) -> tuple[Example, ...]:
    """Return ``rows`` followed by replay rows, as many as make up ``share`` of the result.

    They are drawn by the seed, whatever their order, and marked by ``meta.replay`` (:func:`count_replay_rows`).

    Args:
        rows: the training rows.
        replay_rows: the general rows to draw from.
        share: share of replay rows among all, from 0 to below 1.
        seed: seed of the draw.

    Raises:
        BadInput: ``share`` is out of bounds, or there are too few replay rows; none is repeated.
    """
    if not 0 <= share < 1:
        raise BadInput(f"the share of replay rows must be from 0 to below 1, found {share}")
    # n replay rows among rows + n are a share of n / (rows + n) = share, solved for n.
    count = round(len(rows) * share / (1 - share))
    if count > len(replay_rows):
        most = floor(100 * len(replay_rows) / (len(rows) + len(replay_rows))) / 100
        raise BadInput(
            f"{count} replay rows are needed to make up {share:.0%} beside {count_noun(len(rows), 'row')}, "
            f"there are {len(replay_rows)}",
            f"lower the share to {most:g}, or give more replay rows",
        )
    drawn = sorted(replay_rows, key=lambda row: sha256_text(f"{seed}\0{row.place}\0{row.messages}"))[:count]
    return (*rows, *(replace(row, meta={**row.meta, "replay": True}) for row in drawn))


def count_replay_rows(rows: Sequence[Example]) -> int:
    """Count the replay rows (``meta.replay``) among ``rows``."""
    return sum(row.meta.get("replay") is True for row in rows)
