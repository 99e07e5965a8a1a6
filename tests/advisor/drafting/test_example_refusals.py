"""Which replies of examples become the refusals of a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advisor.drafting.draft import draft_with_notes
from advisor.drafting.example_refusals import MAX_REFUSALS, PLAIN_REFUSALS, refusals_of_examples
from advisor.questionnaire.gather import complete_situation, flag_answers
from advisor.recommendation.recommend import recommend_for_profile
from runners.data.examples import Example
from runners.data.refusals import is_refusal
from runners.resources.machine import Machine

DEFAULT = ("I could not find that in our documents.",)


def row(number: int, reply: str, **meta: Any) -> Example:
    question = {"role": "user", "content": f"What about thing {number}?"}
    return Example((question, {"role": "assistant", "content": reply}), meta, number)


ORDINARY = [row(n, f"Thing {n} costs {n} euros and is open from {n % 9} to 5.") for n in range(40)]


def test_ordinary_replies_are_never_taken() -> None:
    """The sentence that earlier versions took over, once and often."""
    free = "We are open from 9 to 5 and have free parking."
    for rows in ([*ORDINARY, row(50, free)], [*ORDINARY, *(row(n, free) for n in range(50, 60))]):
        refusals = refusals_of_examples(rows)
        assert (refusals.texts, refusals.rows, refusals.note) == (DEFAULT, (), "")


def test_words_alone_do_not_make_a_refusal() -> None:
    rows = [*ORDINARY, row(50, "I do not know whether it is free.")]
    refusals = refusals_of_examples(rows)
    assert refusals.texts == DEFAULT
    assert "1 of 41 replies read like refusals but are not taken as yours (line 50)" in refusals.note
    assert "prompts.refusals" in refusals.note


def test_marked_replies_are_taken() -> None:
    rows = [*ORDINARY, *(row(50 + n, f"Ask box {n}.", refusal=True) for n in range(MAX_REFUSALS + 2))]
    refusals = refusals_of_examples(rows)
    assert refusals.texts == tuple(f"Ask box {n}." for n in range(MAX_REFUSALS))
    assert "10 of 50 replies are marked as refusals; 8 wordings taken" in refusals.note


def test_repeated_wording_is_taken_when_no_row_names_its_gold() -> None:
    silent = "Our binder does not say. Shall I ask?"
    repeated = [row(50 + n, silent) for n in range(3)]
    assert refusals_of_examples([*ORDINARY, *repeated]).texts == (silent,)
    assert refusals_of_examples([*ORDINARY, *repeated[:2]]).texts == DEFAULT
    same_question = [row(50, silent) for _ in range(5)]
    assert refusals_of_examples([*ORDINARY, *same_question]).texts == DEFAULT
    with_gold = [row(50 + n, silent, fact="It says nothing.") for n in range(3)]
    assert refusals_of_examples([*ORDINARY, *with_gold]).texts == DEFAULT


def test_plan_tells_what_was_seen_and_taken(tmp_path: Path, laptop: Machine) -> None:
    rows = [
        *ORDINARY,
        row(50, "We are open from 9 to 5 and have free parking."),
        row(51, "I do not know that."),
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": list(each.messages)}) + "\n" for each in rows))
    situation = complete_situation(flag_answers((), examples=path), laptop)
    drafted = draft_with_notes(recommend_for_profile(situation.profile), situation, tmp_path)
    assert drafted.plan.prompts.refusals == DEFAULT
    assert [note for note in drafted.notes if "1 of 42 replies read like refusals" in note]


def test_default_refusal_is_in_the_language_of_the_examples() -> None:
    """A Spanish desk refuses in Spanish; a language without a sentence of its own, and an unknown one, in English."""
    assert refusals_of_examples(ORDINARY, "es").texts == ("No lo he encontrado en nuestros documentos.",)
    assert refusals_of_examples(ORDINARY, "fi").texts == refusals_of_examples(ORDINARY).texts == DEFAULT
    assert all(is_refusal(text, (text,)) for text in PLAIN_REFUSALS.values())
