"""The prompt of a model: the same template for every arm, in training and in answering."""

from __future__ import annotations

from runners.arms.prompts import build_messages, choose_shots, training_row, user_turn
from runners.data.examples import Example
from runners.plan.data import Prompts

PROMPTS = Prompts(system="Be brief.", context="Passages:\n{passages}\nQuestion: {question}")


def example(number: int, doc: str | None = None, refusal: bool = False) -> Example:
    meta = {"doc_id": doc, "refusal": refusal}
    turns = [("user", f"Question {number}?"), ("assistant", f"Answer number {number}.")]
    return Example(tuple({"role": r, "content": c} for r, c in turns), meta, number)


def test_chat_has_instructions_shots_history_then_question() -> None:
    history = ({"role": "user", "content": "Before?"}, {"role": "assistant", "content": "Yes."})
    chat = build_messages(PROMPTS, "Now?", None, (example(1),), history=history)
    contents = [m["content"] for m in chat]
    assert contents == ["Be brief.", "Question 1?", "Answer number 1.", "Before?", "Yes.", "Now?"]
    assert [m["role"] for m in chat] == ["system", *["user", "assistant"] * 2, "user"]


def test_instructions_of_question_replace_those_of_plan() -> None:
    assert build_messages(PROMPTS, "Now?", system="Mine.")[0]["content"] == "Mine."
    assert [m["role"] for m in build_messages(Prompts(), "Now?")] == ["user"]


def test_passages_are_framed_and_absence_is_stated() -> None:
    assert user_turn(PROMPTS, "Now?", None) == "Now?"
    assert user_turn(PROMPTS, "Now?", "[1] A") == "Passages:\n[1] A\nQuestion: Now?"
    assert "(none found)" in user_turn(PROMPTS, "Now?", "")


def test_placeholder_in_document_is_not_substituted() -> None:
    shown = user_turn(PROMPTS, "Is {passages} a word?", "Write {question} here.")
    assert shown == "Passages:\nWrite {question} here.\nQuestion: Is {passages} a word?"


def test_training_row_equals_prompt_of_tuned_arm() -> None:
    row = example(3)
    tuned_row = training_row(PROMPTS, row, "[1] A", "Not there.")
    assert list(tuned_row.messages[:-1]) == build_messages(PROMPTS, row.question, "[1] A")
    assert tuned_row.reply == "Not there."
    assert training_row(PROMPTS, row).reply == row.reply
    assert (tuned_row.meta, tuned_row.line) == (row.meta, row.line)


def test_training_row_keeps_earlier_turns_and_instructions() -> None:
    turns = [("system", "Mine."), ("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")]
    row = Example(tuple({"role": r, "content": c} for r, c in turns), {}, 1)
    assert training_row(PROMPTS, row).messages == row.messages


def test_shots_are_from_different_documents_with_one_refusal() -> None:
    pool = [example(n, f"doc{n // 4}") for n in range(40)] + [example(90, None, refusal=True)]
    shots = choose_shots(pool, 4, seed=1)
    assert len(shots) == 4
    assert len({s.meta["doc_id"] for s in shots}) == 4
    assert [bool(s.meta["refusal"]) for s in shots] == [False, False, False, True]
    assert not any(s.meta["refusal"] for s in choose_shots(pool, 2, seed=1))


def test_shots_depend_on_seed_not_on_row_order() -> None:
    pool = [example(n, f"doc{n}") for n in range(40)]
    assert choose_shots(pool, 3, 0) == choose_shots(pool[::-1], 3, 0)
    assert choose_shots(pool, 3, 0) != choose_shots(pool, 3, 1)


def test_shots_repeat_documents_when_there_are_few() -> None:
    assert len(choose_shots([example(n, "one") for n in range(9)], 3, 0)) == 3
    assert choose_shots([], 3, 0) == ()
    assert choose_shots([example(1)], 0, 0) == ()


def test_long_reply_is_not_used_as_shot() -> None:
    long = Example(
        ({"role": "user", "content": "?"}, {"role": "assistant", "content": "word " * 200}), {}, 99
    )
    assert long not in choose_shots([*(example(n) for n in range(5)), long], 6, 0)


def test_reasoning_of_rows_is_learnt_but_never_shown() -> None:
    reply = "<think>Nine, I think.</think>At nine."
    row = Example(({"role": "user", "content": "When?"}, {"role": "assistant", "content": reply}))
    retrieved = training_row(Prompts(), row, "[1] It opens at nine.", row.reply)
    assert retrieved.messages[-1]["content"] == reply
    assert training_row(Prompts(), row, "", "I could not find that.").reply == "I could not find that."
    chat = build_messages(Prompts(), "And later?", shots=[row], history=row.messages)
    assert [turn["content"] for turn in chat] == ["When?", "At nine.", "When?", "At nine.", "And later?"]
