"""The split of questions into dev and test."""

from __future__ import annotations

import random
from dataclasses import replace

from runners.data.questions import Question, count_questions, with_wordings
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


def test_wordings_stay_with_their_question_and_limits_do_not_count_them() -> None:
    rows = [replace(q, wordings=(f"{q.question} in short", f"{q.question} pray")) for q in questions()]
    split = split_questions(rows, 1 / 3, seed=0, max_dev=9, max_test=24)
    assert (len(split.dev), count_questions(split.test), len(split.test)) == (9, 24, 72)
    plain = split_questions(questions(), 1 / 3, seed=0, max_dev=9, max_test=24)
    assert [q.id for q in split.dev] == [q.id for q in plain.dev]
    assert [q.id for q in split.test] == [id for q in plain.test for id in (q.id, f"{q.id}~1", f"{q.id}~2")]
    dev = {form.question for form in with_wordings(split.dev)}
    assert not dev & {form.question for form in split.test}
    own = split_questions(rows[:9], 1 / 3, seed=0, test=rows[9:12])
    assert [len(half) for half in (own.dev, own.test)] == [9, 9]


def test_the_digest_depends_on_the_wordings_of_both_halves() -> None:
    split = split_questions(questions(), 1 / 3, seed=0)
    for half in (split.dev, split.test):
        worded = [
            replace(q, wordings=("And in other words?",)) if q.id == half[0].id else q for q in questions()
        ]
        assert split_questions(worded, 1 / 3, seed=0).digest != split.digest
