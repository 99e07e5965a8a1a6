"""What the model is asked: the plan's instructions, examples shown, passages given, and the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from rag.files import sha256_text
from runners.data.examples import Example
from runners.data.formats import Message, system_turn
from runners.data.questions import Question
from runners.plan.schema import Prompts

FewShotExamples = Sequence[Example] | Callable[[Question], Sequence[Example]]
"""The examples that an arm shows: the same before every question, or chosen for each."""
_PLACES = re.compile(r"\{(passages|question)\}")


def build_messages(
    prompts: Prompts,
    question: str,
    passages: str | None = None,
    shots: Sequence[Example] = (),
    system: str | None = None,
    history: Sequence[Message] = (),
) -> list[Message]:
    """The chat of one question: system, shown examples, earlier turns, then the question with its passages.

    A question's own system turn stands in for the plan's. `passages` is None for an arm without retrieval; an
    empty string is an honest "no passages found".
    """
    chat: list[Message] = []
    instructions = system or prompts.system
    if instructions:
        chat.append({"role": "system", "content": instructions})
    for shot in shots:
        chat += [{"role": "user", "content": shot.question}, {"role": "assistant", "content": shot.reply}]
    chat += history
    chat.append({"role": "user", "content": user_turn(prompts, question, passages)})
    return chat


def user_turn(prompts: Prompts, question: str, passages: str | None) -> str:
    """The question alone, or inside the plan's frame for passages."""
    if passages is None:
        return question
    # In one pass: a document may hold the word {question} itself.
    words = {"passages": passages or "(none found)", "question": question}
    return _PLACES.sub(lambda place: words[place[1]], prompts.context)


def training_row(
    prompts: Prompts, example: Example, passages: str | None = None, reply: str | None = None
) -> Example:
    """An example as the tuned arm will be asked: on top of the same instructions, with the same frame.

    Without passages and another reply all turns stay as they are; a text that is learnt as it is gets no
    instructions.
    """
    if example.raw:
        return example
    if passages is None and reply is None:
        added = () if example.system else tuple(system_turn(prompts.system))
        return replace(example, messages=(*added, *example.messages))
    chat = build_messages(
        prompts, example.question, passages, system=example.system or None, history=_earlier_turns(example)
    )
    answer: Message = {"role": "assistant", "content": example.reply if reply is None else reply}
    return replace(example, messages=(*chat, answer))


def choose_shots(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """A fixed bank of examples, drawn by the seed from different documents, of about the median length.

    Documents repeat only where there are fewer of them than examples wanted. A refusal is shown when the bank
    has three or more, so that the arm has seen one.
    """
    pool = sorted(examples, key=lambda e: sha256_text(f"{seed}\0{e.question}\0{e.reply}"))
    lengths = sorted(len(e.reply) for e in pool)
    median = lengths[len(lengths) // 2] if lengths else 0
    usual = [e for e in pool if not e.refuses and len(e.reply) <= 1.5 * median]
    firsts: list[Example] = []
    again: list[Example] = []
    documents: set[object] = set()
    for example in usual:
        document = example.meta.get("doc_id")
        (again if document is not None and document in documents else firsts).append(example)
        documents.add(document)
    chosen = [*firsts, *again][:count]
    refusals = [e for e in pool if e.refuses]
    if refusals and len(chosen) >= 3:
        chosen[-1] = refusals[0]
    return tuple(chosen)


def _earlier_turns(example: Example) -> list[Message]:
    turns = [m for m in example.messages if m["role"] != "system"]
    last_question = max((i for i, m in enumerate(turns) if m["role"] == "user"), default=0)
    return list(turns[:last_question])
