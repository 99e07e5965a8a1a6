"""From a request's messages to what an arm, or a model as it is, is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.server.limits import Limits
from advisor.server.refusals import Refusal
from advisor.server.wants import Turn
from runners.catalogue import Choice
from runners.data import Question
from runners.followup import stand_alone
from runners.shapes import Message

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read(turns: Sequence[Turn], limits: Limits) -> list[Message]:
    """Return the messages as plain turns; Refusal for what is no text, by its place."""
    if len(turns) > limits.messages:
        raise Refusal(
            413, f"{len(turns)} messages; at most {limits.messages} are read", param="messages",
            code="too_many_messages",
        )  # fmt: skip
    found: list[Message] = []
    for number, turn in enumerate(turns):
        place = f"messages[{number}]"
        role = ROLES.get(turn.role)
        if role is None:
            raise Refusal(400, f"{place}: the role {turn.role!r} is not supported", param=f"{place}.role")
        for name in ("tool_calls", "function_call"):
            if (turn.model_extra or {}).get(name):
                raise Refusal(400, f"{place}: {name} are not supported", param=f"{place}.{name}")
        found.append({"role": role, "content": _text(turn, place)})
    return within(found, limits)


def within(messages: list[Message], limits: Limits) -> list[Message]:
    """Return the messages; Refusal when they are longer together than is read."""
    size = sum(len(message["content"]) for message in messages)
    if size > limits.characters:
        raise Refusal(
            413, f"{size:,} characters; at most {limits.characters:,} are read", code="message_too_long"
        )
    return messages


def asked(
    messages: Sequence[Message], choice: Choice
) -> tuple[Question | tuple[Message, ...], dict[str, Any]]:
    """Return what the choice is asked, and what its caller should know of that.

    A model as it is gets the chat as it came. An arm gets the last user's turn as its question; a system message
    stands in for the plan's instructions. With retrieval the passages carry the context: earlier turns are not
    shown, but a follow-up is made to stand alone, as in `tunewise chat`.
    """
    if choice.raw:
        return tuple(messages), {}
    told: dict[str, Any] = {}
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system").strip()
    turns = [m for m in messages if m["role"] != "system"]
    if turns and turns[-1]["role"] == "user" and not turns[-1]["content"].strip():
        raise Refusal(400, "the last message, which is the question, is empty", param="messages")
    if not turns or turns[-1]["role"] != "user":
        raise Refusal(
            400, f"{choice.id} answers a question: the last message must be the user's", param="messages"
        )
    if system:
        told["instructions"] = "the request's system message stood in for the plan's"
    question, history = turns[-1]["content"], tuple(turns[:-1])
    if choice.step.retrieval and history:
        previous = ""
        for turn in turns:
            if turn["role"] == "user":
                previous = stand_alone(turn["content"], previous)
        told |= {"asked_as": previous, "turns_not_shown": len(history)}
        question, history = previous, ()
    return Question("served", question, system=system or None, history=history), told


def _text(turn: Turn, place: str) -> str:
    if turn.content is None:
        raise Refusal(400, f"{place} has no content", param=f"{place}.content")
    if isinstance(turn.content, str):
        return turn.content
    for number, part in enumerate(turn.content):
        if part.type != "text" or part.text is None:
            where = f"{place}.content[{number}]"
            raise Refusal(400, f"{where}: only text is read, not {part.type!r}", param=where)
    return "".join(part.text or "" for part in turn.content)
