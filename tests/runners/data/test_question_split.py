"""The split of questions into dev and test."""

from __future__ import annotations

import random

from runners.data.questions import Question
from runners.data.sampling import split_questions


def questions(count: int = 60) -> list[Question]:
    known = [Question(f"q{n}", f"What is fact {n}?", ("x",), doc_id=f"doc{n % 20}") for n in range(count)]
    return known + [Question(f"u{n}", f"What is unknown {n}?", answerable=False) for n in range(12)]


def test_no_document_is_in_dev_and_test() -> None:
    split = split_questions(questions(), 1 / 3, seed=0)
    dev = {q.doc_id for q in split.dev if q.doc_id}
    test = {q.doc_id for q in split.test if q.doc_id}
    assert dev
    assert test
    assert not dev & test
    assert len(split.dev) + len(split.test) == 72


def test_both_halves_have_unanswerable_questions() -> None:
    split = split_questions(questions(), 1 / 3, seed=0)
    assert sum(not q.answerable for q in split.dev) == 4
    assert sum(not q.answerable for q in split.test) == 8


def test_split_is_independent_of_file_order() -> None:
    rows = questions()
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    assert split_questions(rows, 0.3, 7).digest == split_questions(shuffled, 0.3, 7).digest


def test_split_depends_on_seed() -> None:
    assert split_questions(questions(), 0.3, 1).digest != split_questions(questions(), 0.3, 2).digest


def test_limits_keep_the_share_of_unanswerable_questions() -> None:
    split = split_questions(questions(), 1 / 3, seed=0, max_dev=9, max_test=24)
    assert len(split.dev) == 9
    assert len(split.test) == 24
    assert sum(not q.answerable for q in split.test) == 4


def test_own_test_questions_make_all_others_dev() -> None:
    own = [Question("t1", "Mine?", ("yes",))]
    split = split_questions(questions(), 1 / 3, seed=0, test=own)
    assert split.test == tuple(own)
    assert len(split.dev) == 72
