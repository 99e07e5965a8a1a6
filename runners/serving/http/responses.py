"""The bodies of answers, in OpenAI's shape; what is ours stands in `x_tunewise`, which strict clients ignore."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from runners.serving.request import RequestResult
from runners.serving.served_models import ServedModel


@dataclass(frozen=True, slots=True)
class ResponseIdentity:
    """How one answer, whole or in chunks, is named: the same id, time and model in each of its bodies."""

    choice: ServedModel
    chat: bool
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def fresh(cls, choice: ServedModel, chat: bool) -> ResponseIdentity:
        """A shape with an id of its own."""
        return cls(choice, chat, f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}")

    def whole(self, replies: list[RequestResult], extra: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of an answer that is not streamed; one choice for each reply."""
        choices: list[dict[str, Any]] = []
        for index, reply in enumerate(replies):
            said: dict[str, Any] = {"text": reply.text}
            if self.chat:
                # Where JSON was asked for, clients must be able to tell the house's refusal from an answer.
                declined = reply.text if "response_format" in extra[index] and _declined(reply) else None
                said = {"message": {"role": "assistant", "content": reply.text, "refusal": declined}}
            choices.append({"index": index, **said, "logprobs": None, "finish_reason": finish_reason(reply)})
        ours = extra[0] if len(extra) == 1 else {"schema": 1, "choices": extra}
        return {**self._head(""), "choices": choices, "usage": usage_body(*replies), "x_tunewise": ours}

    def opening(self) -> dict[str, Any]:
        """The first chunk: who speaks."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}} if self.chat else {"text": ""})

    def piece(self, text: str) -> dict[str, Any]:
        """A chunk with a piece of the answer."""
        return self._chunk({"delta": {"content": text}} if self.chat else {"text": text})

    def said(self, reply: RequestResult) -> dict[str, Any]:
        """A chunk with the whole answer, or with the house's refusal in its own place."""
        return self._chunk({"delta": {"refusal" if _declined(reply) else "content": reply.text}})

    def closing(self, reply: RequestResult, extra: dict[str, Any]) -> dict[str, Any]:
        """The chunk that says why the answer ended, with its citations."""
        return {
            **self._chunk({"delta": {}} if self.chat else {"text": ""}, finish_reason(reply)),
            "x_tunewise": extra,
        }

    def counted(self, reply: RequestResult) -> dict[str, Any]:
        """The chunk with the usage, which has no choices."""
        return {**self._head(".chunk"), "choices": [], "usage": usage_body(reply)}

    def _chunk(self, said: dict[str, Any], ended: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": ended}
        return {**self._head(".chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"chat.completion{kind}" if self.chat else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.choice.id}


def _declined(reply: RequestResult) -> bool:
    return reply.answer is not None and reply.answer.refused


def finish_reason(reply: RequestResult) -> str:
    """OpenAI's word for why an answer ended; a refusal is an answer like any other."""
    return "length" if reply.completion.finish == "length" else "stop"


def usage_body(*replies: RequestResult) -> dict[str, int]:
    """Tokens of the prompts and the answers."""
    asked = sum(reply.completion.prompt_tokens for reply in replies)
    said = sum(reply.completion.completion_tokens for reply in replies)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def x_tunewise_body(reply: RequestResult, choice: ServedModel, told: dict[str, Any]) -> dict[str, Any]:
    """What `ask --json` says of an answer, but for its text and tokens, which stand in their own places.

    `answer` is there where its text, which the citations' places refer to, is not what the client got.
    """
    found: dict[str, Any] = {"schema": 1, "arm": None if choice.raw else choice.id}
    if reply.answer is not None:
        found = reply.answer.reply_json(choice.id)
        del found["usage"]
        if found["answer"] == reply.text == reply.streamed:
            del found["answer"]
    found |= {"seconds": round(reply.completion.seconds, 3), **told}
    if reply.cut:
        found["cut"] = "the time limit ended the answer"
    if reply.completion.estimated:
        found["tokens_estimated"] = True
    return found
