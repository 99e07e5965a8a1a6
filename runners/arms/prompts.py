"""The chat that is sent to a model: the plan's instructions, the examples shown, the passages given and the question.

:func:`build_messages` builds it for a question, :func:`training_row` for a training row of a tuned arm, so
that the arm is trained on the prompts that it will be asked with. :func:`choose_shots` draws the fixed
few-shot examples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from rag.files import sha256_text
from runners.data.examples import Example
from runners.data.formats import Message, system_turn
from runners.data.questions import Question
from runners.data.reasoning import answer_of
from runners.plan.data import Prompts
from runners.plan.schema import Plan

FewShotExamples = Sequence[Example] | Callable[[Question], Sequence[Example]]
"""The examples that an arm shows: the same before every question, or chosen for each."""
MOST_ROOM = 256
"""Tokens up to which the limit of an untrained arm's answers grows; a plan's higher limit is kept."""
_PLACEHOLDERS = re.compile(r"\{(passages|question)\}")


def build_messages(
    prompts: Prompts,
    question: str,
    passages: str | None = None,
    shots: Sequence[Example] = (),
    system: str | None = None,
    history: Sequence[Message] = (),
) -> list[Message]:
    """Return the chat of one question: system, shown examples, earlier turns, then the question with its passages.

    Args:
        prompts: the plan's prompts.
        question: the text of the question.
        passages: the numbered passages; None for an arm without retrieval, "" when the search returned none.
        shots: the examples to show, each as a user turn and an assistant turn.
        system: the question's own instructions, which replace the plan's.
        history: the turns before the question.
    """
    chat: list[Message] = []
    instructions = system or prompts.system
    if instructions:
        chat.append({"role": "system", "content": instructions})
    for shot in shots:
        chat += [{"role": "user", "content": shot.question}, {"role": "assistant", "content": shot.reply}]
    chat += [
        {**turn, "content": answer_of(turn["content"])} if turn["role"] == "assistant" else turn
        for turn in history
    ]
    chat.append({"role": "user", "content": user_turn(prompts, question, passages)})
    return chat


def most_room(plan: Plan, context: int | None) -> int:
    """Return the most tokens of an answer of an untrained arm, at most a quarter of what its model reads, if known."""
    return max(plan.max_new_tokens, min(MOST_ROOM, context // 4 if context else MOST_ROOM))


def user_turn(prompts: Prompts, question: str, passages: str | None) -> str:
    """Return the question alone, or inside the plan's template for passages."""
    if passages is None:
        return question
    # In one pass: a document may hold the word {question} itself.
    values = {"passages": passages or "(none found)", "question": question}
    return _PLACEHOLDERS.sub(lambda match: values[match[1]], prompts.context)


def training_row(
    prompts: Prompts, example: Example, passages: str | None = None, reply: str | None = None
) -> Example:
    """Return an example as the tuned arm will be asked: with the same instructions and the same template for passages.

    Args:
        prompts: the plan's prompts.
        example: the training example.
        passages: the passages to show; with None and no other reply all turns stay as they are.
        reply: the reply to learn instead of the example's own.

    A plain text (``example.raw``) is trained on as it is and gets no instructions.
    """
    if example.raw:
        return example
    if passages is None and reply is None:
        added = () if example.system else tuple(system_turn(prompts.system))
        return replace(example, messages=(*added, *example.messages))
    chat = build_messages(
        prompts, example.question, passages, system=example.system or None, history=_earlier_turns(example)
    )
    if reply is None or reply == example.reply:
        return replace(
            example, messages=(*chat, example.messages[-1])
        )  # with the reasoning that the row holds
    return replace(example, messages=(*chat, {"role": "assistant", "content": reply}))


def choose_shots(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Return a fixed bank of examples, drawn by the seed from different documents, of about the median reply length.

    A document appears twice only when there are fewer documents than examples wanted. When the bank has three
    or more examples, the last one is a refusal, if there is any, so that the prompt shows one.
    """
    pool = sorted(examples, key=lambda example: sha256_text(f"{seed}\0{example.question}\0{example.reply}"))
    lengths = sorted(len(example.reply) for example in pool)
    median = lengths[len(lengths) // 2] if lengths else 0
    candidates = [example for example in pool if not example.refuses and len(example.reply) <= 1.5 * median]
    one_per_document: list[Example] = []
    repeats: list[Example] = []
    documents: set[object] = set()
    for example in candidates:
        document = example.meta.get("doc_id")
        (repeats if document is not None and document in documents else one_per_document).append(example)
        documents.add(document)
    chosen = [*one_per_document, *repeats][:count]
    refusals = [example for example in pool if example.refuses]
    if refusals and len(chosen) >= 3:
        chosen[-1] = refusals[0]
    return tuple(chosen)


def _earlier_turns(example: Example) -> list[Message]:
    turns = [m for m in example.messages if m["role"] != "system"]
    last_question = max((i for i, m in enumerate(turns) if m["role"] == "user"), default=0)
    return list(turns[:last_question])
