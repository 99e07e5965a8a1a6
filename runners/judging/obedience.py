"""Whether a judge's grade follows what an answer states or an order in it: the answer is graded where it must be wrong.

A good grade is checked where the answer speaks to its grader (:func:`runners.judging.prompts.speaks_to_grader`), or where
its facts are not in it by the rule of :mod:`runners.scoring.correctness`, which reads no orders; where no gold is known the
latter cannot be told, so every good grade is. The check changes what the grade should be and leaves the words of the answer
that may have steered it (a metamorphic relation: Chen, Cheung and Yiu 1998):

- the same answer to another question with another right answer;
- where it speaks to the grader, also to its own question with the right answer and the passages of the other one;
- and to its own question and right answer, with the other right answer in place of what it states: only the sentences that
  speak to the grader are left of it, without numbers and without the words of the gold.

A judge that grades one of them as anything but wrong follows the text: the grade is thrown away, and so it is where a check
cannot be read. A grade of ``wrong`` needs no check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from rag.text.words import sentence_spans
from runners.data.formats import Message
from runners.judging.prompts import GradedMaterial, grade_prompt, speaks_to_grader
from runners.scoring.statements import content_tokens, language_of

WRONG_CONTENT = "The office has a green door, and the bus stops behind it."
"""What an answer is made to state where no other question has gold."""
_WORD = re.compile(r"\w+(?:[.,:]\w+)*")


def check_prompts(
    material: GradedMaterial, answer: str, states_fact: bool, other: GradedMaterial | None
) -> list[list[Message]]:
    """Return the chats in which a good grade of this answer would be wrong; [] where no check is needed.

    Args:
        material: what the judge reads of the question.
        answer: the answer to it.
        states_fact: whether the answer states the right answer, by a rule that reads no orders.
        other: a question to which the answer is wrong; None where there is none.
    """
    speaks = speaks_to_grader(answer)
    if states_fact and not speaks:
        return []
    gold = other.gold if other and other.answerable else ()
    chats = [grade_prompt(other, answer)] if other else []
    if other and speaks and gold and material.gold:
        chats.append(grade_prompt(replace(material, gold=gold, passages=other.passages), answer))
    if speaks or not chats:
        content = gold[0] if gold else WRONG_CONTENT
        chats.append(grade_prompt(material, _orders_after(content, answer, material.gold)))
    return chats


def other_question(
    at: int, materials: Sequence[GradedMaterial], is_wrong: Callable[[int], bool]
) -> GradedMaterial | None:
    """Return the next question, cyclically, to which an answer is wrong; one without gold if no other; None without any.

    Args:
        at: the place of the answer's own question.
        materials: of all questions.
        is_wrong: whether the answer is known to be wrong for the question at a place.
    """
    own = {text.casefold() for text in materials[at].gold}
    rest = [(at + step) % len(materials) for step in range(1, len(materials))]
    rest = [n for n in rest if materials[n].question != materials[at].question]
    known = (n for n in rest if materials[n].gold and materials[n].answerable)
    apart = (n for n in known if not own & {text.casefold() for text in materials[n].gold})
    place = next((n for n in apart if is_wrong(n)), None)
    if place is None and not own:
        place = next(iter(rest), None)
    return None if place is None else replace(materials[place], instructions=materials[at].instructions)


def _orders_after(content: str, answer: str, gold: Sequence[str]) -> str:
    """Return this content and the sentences of an answer that speak to its grader, without numbers and the gold's words."""
    orders = [
        answer[start:end] for start, end in sentence_spans(answer) if speaks_to_grader(answer[start:end])
    ]
    language = language_of(answer)
    facts = {token for text in gold for token in content_tokens(text, language)}

    def blanked(word: re.Match[str]) -> str:
        is_number = any(map(str.isdigit, word.group()))
        return (
            "..." if is_number or facts.intersection(content_tokens(word.group(), language)) else word.group()
        )

    return "\n".join([content, *(_WORD.sub(blanked, text) for text in orders or [answer])])
